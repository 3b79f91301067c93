# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Joint trajectories as ros2_controllers' joint_trajectory_controller (JTC) reads them. No ROS."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from math import isfinite

from koch_core.errors import KochError
from koch_core.wording import fixed, listed


class ResultCode(IntEnum):
    """Result codes of control_msgs/action/FollowJointTrajectory."""

    SUCCESSFUL = 0
    INVALID_GOAL = -1
    INVALID_JOINTS = -2
    OLD_HEADER_TIMESTAMP = -3
    PATH_TOLERANCE_VIOLATED = -4
    GOAL_TOLERANCE_VIOLATED = -5


class TrajectoryError(KochError):
    """A trajectory cannot be executed.

    Attributes:
        code: The action's result code.
    """

    def __init__(self, code: ResultCode, message: str) -> None:
        self.code = code
        super().__init__(message)


@dataclass(frozen=True)
class TrajectoryPoint:
    """A point of a trajectory; vectors in the order of the trajectory's joints.

    Attributes:
        time_s: Time from the start of the trajectory.
        positions: Joint angles in [rad].
        velocities: In [rad/s], empty when not given.
        accelerations: In [rad/s^2], empty when not given.
    """

    time_s: float
    positions: tuple[float, ...]
    velocities: tuple[float, ...] = ()
    accelerations: tuple[float, ...] = ()


@dataclass(frozen=True)
class Trajectory:
    """A checked trajectory of some joints.

    Attributes:
        joints: Names of the joints it moves.
        points: At least one, times strictly increasing, the last one at rest.
    """

    joints: tuple[str, ...]
    points: tuple[TrajectoryPoint, ...]

    @property
    def duration_s(self) -> float:
        """Time of the last point."""
        return self.points[-1].time_s

    def sample(self, time_s: float, start: TrajectoryPoint) -> TrajectoryPoint:
        """State at a time, interpolated as JTC does.

        A segment is a straight line when one of its ends has positions only, a cubic when both
        have velocities, a quintic when both have accelerations too. After the last point: there,
        at rest.

        Args:
            time_s: Time from the start of the trajectory.
            start: Where the joints were when execution began; the segment to the first point
                starts there. Its `time_s` must be before the first point's to have an effect.
        """
        if time_s >= self.duration_s:
            last = self.points[-1]
            rest = (0.0,) * len(last.positions)
            return TrajectoryPoint(time_s, last.positions, rest, rest)
        index = bisect_right(self.points, time_s, key=_time_of)
        end = self.points[index]
        begin = self.points[index - 1] if index > 0 else start
        if begin.time_s >= end.time_s or time_s <= begin.time_s:
            return TrajectoryPoint(time_s, begin.positions, begin.velocities, begin.accelerations)
        return interpolate(begin, end, time_s)


def _time_of(point: TrajectoryPoint) -> float:
    return point.time_s


def interpolate(begin: TrajectoryPoint, end: TrajectoryPoint, time_s: float) -> TrajectoryPoint:
    """State on the segment between two points, `begin.time_s` < `end.time_s`.

    Source: ros2_controllers, joint_trajectory_controller/src/trajectory.cpp,
    Trajectory::interpolate_between_points.
    """
    span = end.time_s - begin.time_s
    t = time_s - begin.time_s
    count = len(end.positions)
    curved = bool(begin.velocities and end.velocities)
    quintic = curved and bool(begin.accelerations and end.accelerations)
    rows = []
    for i in range(count):
        p0, p1 = begin.positions[i], end.positions[i]
        if quintic:
            ends = (begin.velocities[i], end.velocities[i])
            rows.append(
                _quintic(p0, p1, ends, (begin.accelerations[i], end.accelerations[i]), span, t)
            )
        elif curved:
            rows.append(_cubic(p0, p1, begin.velocities[i], end.velocities[i], span, t))
        else:
            slope = (p1 - p0) / span
            rows.append((p0 + slope * t, slope, 0.0))
    positions, velocities, accelerations = zip(*rows, strict=True)
    return TrajectoryPoint(time_s, positions, velocities, accelerations)


def _cubic(
    p0: float, p1: float, v0: float, v1: float, span: float, t: float
) -> tuple[float, float, float]:
    """Position, velocity and acceleration on the cubic with given ends."""
    c2 = (3.0 * (p1 - p0) / span - 2.0 * v0 - v1) / span
    c3 = (-2.0 * (p1 - p0) / span + v0 + v1) / (span * span)
    return (
        p0 + t * (v0 + t * (c2 + t * c3)),
        v0 + t * (2.0 * c2 + 3.0 * t * c3),
        2.0 * c2 + 6.0 * t * c3,
    )


def _quintic(
    p0: float,
    p1: float,
    v: tuple[float, float],
    a: tuple[float, float],
    span: float,
    t: float,
) -> tuple[float, float, float]:
    """Position, velocity and acceleration on the quintic with given ends."""
    rise = (p1 - p0) / span
    s2 = span * span
    c2 = 0.5 * a[0]
    c3 = (20.0 * rise - 12.0 * v[0] - 8.0 * v[1] - (3.0 * a[0] - a[1]) * span) / (2.0 * s2)
    c4 = (-30.0 * rise + 16.0 * v[0] + 14.0 * v[1] + (3.0 * a[0] - 2.0 * a[1]) * span) / (
        2.0 * s2 * span
    )
    c5 = (12.0 * rise - 6.0 * (v[0] + v[1]) - (a[0] - a[1]) * span) / (2.0 * s2 * s2)
    return (
        p0 + t * (v[0] + t * (c2 + t * (c3 + t * (c4 + t * c5)))),
        v[0] + t * (2.0 * c2 + t * (3.0 * c3 + t * (4.0 * c4 + 5.0 * t * c5))),
        2.0 * c2 + t * (6.0 * c3 + t * (12.0 * c4 + 20.0 * t * c5)),
    )


def check_trajectory(
    joints: Sequence[str],
    points: Sequence[TrajectoryPoint],
    *,
    own_joints: Sequence[str],
    limits: Mapping[str, tuple[float, float]] | None = None,
) -> Trajectory:
    """Check what a client sent.

    Args:
        joints: Joint names, any subset of `own_joints` in any order.
        points: Waypoints in the order of `joints`.
        own_joints: The joints this controller moves.
        limits: Position range per joint in [rad]; a point outside is refused, since the guard
            would clip it and the path would not be the one that was planned. None: not checked.

    Raises:
        TrajectoryError: With the result code and a sentence that names joint and point.
    """
    _check_joints(joints, own_joints)
    if not points:
        raise TrajectoryError(
            ResultCode.INVALID_GOAL, "the trajectory has no points; send at least one"
        )
    last_s = None
    for index, point in enumerate(points):
        if last_s is not None and not point.time_s > last_s:
            raise TrajectoryError(
                ResultCode.INVALID_GOAL,
                f"time_from_start of point {index} is {point.time_s:.6f} s, expected more than "
                f"{last_s:.6f} s of the point before: times must strictly increase",
            )
        if point.time_s < 0.0:
            raise TrajectoryError(
                ResultCode.INVALID_GOAL,
                f"time_from_start of point {index} is {point.time_s:.6f} s, expected 0 or more",
            )
        last_s = point.time_s
        _check_point(index, point, joints, limits or {})
    for joint, speed in zip(joints, points[-1].velocities, strict=False):
        if abs(speed) > 1e-6:
            raise TrajectoryError(
                ResultCode.INVALID_GOAL,
                f"{joint} has {speed:.4f} rad/s at the last point, expected 0: the arm must end "
                "at rest",
            )
    return Trajectory(tuple(joints), tuple(points))


def _check_joints(joints: Sequence[str], own_joints: Sequence[str]) -> None:
    own = ", ".join(own_joints)
    if not joints:
        raise TrajectoryError(
            ResultCode.INVALID_JOINTS, f"the trajectory names no joints; choose from {own}"
        )
    unknown = [joint for joint in joints if joint not in own_joints]
    if unknown:
        raise TrajectoryError(
            ResultCode.INVALID_JOINTS,
            f"unknown joint {listed(unknown)}; this controller moves {own}",
        )
    if len(set(joints)) != len(joints):
        raise TrajectoryError(
            ResultCode.INVALID_JOINTS, f"a joint is named twice in {listed(joints)}"
        )


def _check_point(
    index: int,
    point: TrajectoryPoint,
    joints: Sequence[str],
    limits: Mapping[str, tuple[float, float]],
) -> None:
    count = len(joints)
    for name in ("positions", "velocities", "accelerations"):
        values = getattr(point, name)
        if len(values) != count and not (name != "positions" and not values):
            raise TrajectoryError(
                ResultCode.INVALID_GOAL,
                f"point {index} has {len(values)} {name}, expected {count}, one per joint",
            )
        for joint, value in zip(joints, values, strict=False):
            if not isfinite(value):
                raise TrajectoryError(
                    ResultCode.INVALID_GOAL,
                    f"point {index}: {name} of {joint} is {value}, expected a finite number",
                )
    for joint, value in zip(joints, point.positions, strict=True):
        low, high = limits.get(joint, (-1e9, 1e9))
        # A measured start pose may lie on its limit: a hundredth of a radian is forgiven.
        if not low - 0.01 <= value <= high + 0.01:
            raise TrajectoryError(
                ResultCode.INVALID_GOAL,
                f"point {index}: {joint} at {fixed(value, 4)} rad, expected {low:.4f} to "
                f"{high:.4f} rad",
            )
