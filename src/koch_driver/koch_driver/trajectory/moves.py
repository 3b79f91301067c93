# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Motions that the driver begins by itself: home and rest."""

from __future__ import annotations

from collections.abc import Sequence

from koch_driver.guard import DEFAULT_SOURCES, CommandSource
from koch_driver.trajectory.runner import Execution, Tolerances, TrajectoryRunner
from koch_driver.trajectory.trajectory import Trajectory, TrajectoryPoint

EXIT_SOURCE = "exit"
# While the driver ends no one may interfere with the motion to the rest pose.
DRIVER_SOURCES = (*DEFAULT_SOURCES, CommandSource(EXIT_SOURCE, 1000))
_SHORTEST_S = 0.3
_REACHED_RAD = 0.15
_LAG_S = 1.0


def move_to(
    runner: TrajectoryRunner,
    start: Sequence[float],
    target: Sequence[float],
    speed: float,
    now_s: float,
) -> Execution:
    """Begin one smooth motion of all joints, at rest at both ends.

    Args:
        runner: Executes it; the gripper, its last joint, may be held up by an object.
        start: Angles in [rad] now.
        target: Angles in [rad] at the end.
        speed: Mean speed of the joint with the longest way in [rad/s].
        now_s: ROS time.
    """
    way = max(abs(b - a) for a, b in zip(start, target, strict=True))
    joints = runner.joints
    rest = (0.0,) * len(joints)
    end = TrajectoryPoint(max(_SHORTEST_S, way / speed), tuple(target), rest, rest)
    return runner.start(
        Trajectory(joints, (end,)),
        Tolerances(goal=dict.fromkeys(joints[:-1], _REACHED_RAD), goal_time_s=_LAG_S),
        stamp_s=0.0,
        now_s=now_s,
        pose=dict(zip(joints, start, strict=True)),
    )
