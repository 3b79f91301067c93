# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Inverse kinematics: joint angles that bring the finger tips to a point, pointing down.

Output:
    above the table  converged: 0 mm and 0 deg off
        0 -23 -15 -82 66 0 deg
    higher up        not converged: 0 mm and 39 deg off
        0 -26 -81 -105 86 0 deg
    out of reach     not converged: 292 mm and 89 deg off
        0 -80 -81 -2 88 0 deg
"""

import numpy as np

from koch_rig import KOCH_V1_1, Kinematics, Orientation


def straight_down(x: float, y: float, z: float) -> np.ndarray:
    """The pose T_base_tcp, (4, 4): TCP at a point [m], its z axis (out of the fingers) down."""
    pose = np.eye(4)
    pose[:3, :3] = np.diag([1.0, -1.0, -1.0])
    pose[:3, 3] = x, y, z
    return pose


def main() -> None:
    """Solve for a pose in reach, one whose direction is not, and one beyond."""
    arm = Kinematics()
    # [rad]; the answer is near it where it can be, and keeps its gripper angle.
    seed = np.zeros(len(KOCH_V1_1.joints))
    for name, target in {
        "above the table": straight_down(0.15, 0.0, 0.03),
        "higher up": straight_down(0.18, 0.0, 0.15),
        "out of reach": straight_down(0.60, 0.0, 0.08),
    }.items():
        # Five joints cannot reach every pose. APPROACH asks for the direction of the fingers
        # only. The position comes first, the direction as nearly as the limits allow.
        result = arm.inverse(target, seed, orientation=Orientation.APPROACH)
        verdict = "converged" if result.converged else "not converged"
        print(
            f"{name:16} {verdict}: {result.position_error_m * 1e3:.0f} mm and "
            f"{np.degrees(result.rotation_error_rad):.0f} deg off"
        )
        angles = np.round(np.degrees(result.q)) + 0.0  # no "-0"
        print("    " + " ".join(f"{angle:.0f}" for angle in angles) + " deg")
        off_m = np.linalg.norm(arm.tcp(result.q)[:3, 3] - target[:3, 3])
        assert abs(off_m - result.position_error_m) < 1e-9  # forward kinematics agrees


if __name__ == "__main__":
    main()
