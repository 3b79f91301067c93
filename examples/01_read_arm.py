# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Read an arm: connect to its six servos and print the joint angles.

Here the servos are emulated, byte for byte, behind a pseudo-terminal. With a real arm, load your
own rig file, leave the emulator out and pass `rig.follower` to `connect_arm`. Nothing moves.

Output:
    6 motors answer on /.../follower
    shoulder_pan     0.0 deg
    shoulder_lift  -30.0 deg
    elbow_flex      45.0 deg
    wrist_flex      20.0 deg
    wrist_roll       0.0 deg
    gripper         10.0 deg
    one read of all motors took ... ms
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from koch_driver import connect_arm
from koch_driver.emulator import build_chain
from koch_rig import JointUnits, load_calibration, load_rig

ROOT = Path(__file__).resolve().parents[1]
POSE_DEG = [0, -30, 45, 20, 0, 10]


def main() -> None:
    """Read one pose."""
    rig = load_rig(ROOT / "config" / "rig.emulated.yaml")
    arm = rig.follower
    calibration = load_calibration(arm.calibration_path)
    units = JointUnits(arm, calibration)  # servo ticks <-> rad
    with tempfile.TemporaryDirectory() as folder:
        port = str(Path(folder) / "follower")
        with (
            build_chain(rig, "follower", port=port, initial_rad=np.radians(POSE_DEG)),
            connect_arm(replace(arm, port=port), calibration) as bus,
        ):
            print(f"{len(bus.ids)} motors answer on {port}")
            # A real arm answers in 3 ms; an emulator on a busy computer may need longer.
            state = bus.sync_read_state(budget_s=0.5)
    angles = units.ticks_to_rad(state.position_ticks)
    for name, angle in zip(arm.model.joints, angles, strict=True):
        print(f"{name:14} {np.degrees(angle) + 0.0:5.1f} deg")
    print(f"one read of all motors took {state.duration_s * 1e3:.1f} ms")


if __name__ == "__main__":
    main()
