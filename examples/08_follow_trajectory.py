# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Follow a trajectory: waypoints with times, sampled and sent through the guard.

The arm is the simulated one, in lockstep. On the running rig you would send the same waypoints to
the action `follow_joint_trajectory`, as koch_example_py does.

Output:
    2.0 s, 3 waypoints
    t = 0.5 s  wanted shoulder_pan  ... deg, measured  ... deg
    t = 1.0 s  wanted shoulder_pan  30.0 deg, measured  ... deg
    t = 1.5 s  wanted shoulder_pan  ... deg, measured  ... deg
    t = 2.0 s  wanted shoulder_pan   0.0 deg, measured  ... deg
    at rest: ... deg from the goal, since servos give way to the arm's weight
"""

from pathlib import Path

import numpy as np

from koch_driver import TrajectoryPoint, check_trajectory
from koch_sim import Lockstep, LockstepSettings

ROOT = Path(__file__).resolve().parents[1]
PERIOD_S = 0.01


def main() -> None:
    """Turn the shoulder to one side and back."""
    arm = Lockstep.of(LockstepSettings(ROOT / "config" / "rig.sim.yaml"))
    here = tuple(arm.joints().tolist())  # rad, as the servos measure
    aside = (np.radians(30.0), *here[1:])
    joints = arm.rig.follower.model.joints
    still = (0.0,) * len(joints)  # rad/s
    points = [
        TrajectoryPoint(0.0, here, still),
        TrajectoryPoint(1.0, aside, still),
        TrajectoryPoint(2.0, here, still),
    ]
    trajectory = check_trajectory(joints, points, own_joints=joints)
    print(f"{trajectory.duration_s} s, {len(points)} waypoints")
    for step in range(1, round(trajectory.duration_s / PERIOD_S) + 1):
        wanted = trajectory.sample(step * PERIOD_S, points[0]).positions
        # The guard checks age, limits, speed and workspace of every command.
        arm.command("trajectory", wanted, arm.time_ns)
        arm.run(PERIOD_S)
        if step % 50 == 0:
            print(
                f"t = {step * PERIOD_S:.1f} s  wanted shoulder_pan {np.degrees(wanted[0]):5.1f} "
                f"deg, measured {np.degrees(arm.joints()[0]):5.1f} deg"
            )
    arm.run(0.5)
    off = np.degrees(np.abs(arm.joints() - here).max())
    print(f"at rest: {off:.1f} deg from the goal, since servos give way to the arm's weight")
    arm.close()


if __name__ == "__main__":
    main()
