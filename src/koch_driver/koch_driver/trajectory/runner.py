# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Execution of one trajectory at a time: timing, tolerances, cancel, preemption. No ROS."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from koch_core.clock import step_in_words
from koch_core.wording import listed
from koch_driver.trajectory.trajectory import (
    ResultCode,
    Trajectory,
    TrajectoryError,
    TrajectoryPoint,
)

# Marks in a goal's tolerances, as in control_msgs: keep the default; switch the check off.
_KEEP, _OFF = 0.0, -1.0
# Farther from its trajectory the guard keeps a joint only for a reason that the client must know;
# a cycle that comes late, or the soft start, bends the way by less.
_WORTH_SAYING_RAD = 0.05
# Slower than this a joint has come to rest; JTC's stopped_velocity_tolerance, for real servos.
_STOPPED_SPEED = 0.1  # rad/s


@dataclass(frozen=True)
class Tolerances:
    """How far the arm may be from the trajectory; 0 switches a check off, as in JTC.

    Attributes:
        path: Position error per joint while moving in [rad].
        goal: Position error per joint at the end in [rad].
        goal_time_s: How long after the last point the goal must be reached.
    """

    path: Mapping[str, float] = field(default_factory=dict)
    goal: Mapping[str, float] = field(default_factory=dict)
    goal_time_s: float = 0.0

    def override(
        self,
        *,
        path: Mapping[str, float],
        goal: Mapping[str, float],
        goal_time_s: float,
        own_joints: Sequence[str],
    ) -> Tolerances:
        """Apply what a goal asks for: per value 0 keeps the default, -1 switches the check off.

        Raises:
            TrajectoryError: INVALID_JOINTS for a joint this controller does not move;
                INVALID_GOAL for a value below zero that is not -1, or not a number.
        """
        return Tolerances(
            _merged(self.path, path, own_joints, "path_tolerance"),
            _merged(self.goal, goal, own_joints, "goal_tolerance"),
            _chosen(self.goal_time_s, goal_time_s, "goal_time_tolerance"),
        )


def _merged(
    defaults: Mapping[str, float], asked: Mapping[str, float], own: Sequence[str], what: str
) -> dict[str, float]:
    result = dict(defaults)
    for joint, value in asked.items():
        if joint not in own:
            raise TrajectoryError(
                ResultCode.INVALID_JOINTS,
                f"{what} names the unknown joint {listed([joint])}; this controller moves "
                f"{', '.join(own)}",
            )
        result[joint] = _chosen(defaults.get(joint, 0.0), value, f"{what} of {joint}")
    return result


def _chosen(default: float, asked: float, what: str) -> float:
    if asked == _KEEP:
        return default
    if asked == _OFF:
        return 0.0
    if not asked > 0.0:
        raise TrajectoryError(
            ResultCode.INVALID_GOAL, f"{what} is {asked}, expected a positive number, 0 or -1"
        )
    return asked


@dataclass(frozen=True)
class TrajectoryResult:
    """How an execution ended.

    Attributes:
        code: The action's result code.
        message: A sentence for the client.
        cancelled: The client asked for the end.
    """

    code: ResultCode
    message: str = ""
    cancelled: bool = False


@dataclass(frozen=True)
class TrajectoryProgress:
    """Snapshot of an execution; angles in the order of the trajectory's joints."""

    desired: TrajectoryPoint
    actual: tuple[float, ...]


class Execution:
    """A trajectory under way. Created by `TrajectoryRunner.start`; any thread may read it."""

    def __init__(
        self,
        trajectory: Trajectory,
        tolerances: Tolerances,
        start_s: float,
        start: TrajectoryPoint,
    ) -> None:
        self.trajectory = trajectory
        self.tolerances = tolerances
        self.start_s = start_s
        self.start = start
        self.progress: TrajectoryProgress | None = None
        self._changes: dict[tuple[str, str], tuple[int, float, float]] = {}
        self._steps_s: list[float] = []
        self._outcome: TrajectoryResult | None = None
        self._done = threading.Event()

    @property
    def outcome(self) -> TrajectoryResult | None:
        """How it ended, None while it runs."""
        return self._outcome

    def note_change(self, rule: str, joint: str, asked: float, granted: float) -> None:
        """Note that the guard changed a target in this cycle."""
        count, *largest = self._changes.get((rule, joint), (0, asked, granted))
        if abs(asked - granted) > abs(largest[0] - largest[1]):
            largest = [asked, granted]
        self._changes[rule, joint] = count + 1, largest[0], largest[1]

    def shift(self, step_s: float) -> None:
        """Go on evenly, and remember it: the clock that `start_s` is a time of was set."""
        self.start_s += step_s
        self._steps_s.append(step_s)

    @property
    def changes(self) -> str:
        """What happened to the way, for people; empty when nothing that matters.

        Steps of the clock, and what the guard changed.
        """
        steps = [f"{step_in_words(s)} on the way, which went on evenly" for s in self._steps_s]
        return "; ".join([*steps, *self._guard_changes()])

    def _guard_changes(self) -> list[str]:
        parts = [
            f"{rule} of {joint} in {count} cycles (at most {asked:.3f} to {granted:.3f} rad)"
            for (rule, joint), (count, asked, granted) in sorted(
                dict(self._changes).items(), key=lambda item: -item[1][0]
            )
            if abs(asked - granted) > _WORTH_SAYING_RAD
        ]
        return [f"the guard changed the way: {', '.join(parts)}"] if parts else []

    def wait(self, timeout_s: float) -> TrajectoryResult | None:
        """Wait for the end; None when it still runs after the time-out."""
        self._done.wait(timeout_s)
        return self._outcome

    def finish(self, outcome: TrajectoryResult) -> None:
        """Set the outcome; the first one counts."""
        if self._outcome is None:
            self._outcome = outcome
            self._done.set()


class TrajectoryRunner:
    """Executes trajectories for the bus loop, one at a time.

    `update` is called by the bus loop once per cycle; everything else from any thread. Times are
    ROS time in seconds, so that a scaled simulation clock scales the motion.
    """

    def __init__(self, joints: Sequence[str]) -> None:
        self.joints = tuple(joints)
        self._lock = threading.Lock()
        self._execution: Execution | None = None
        self._desired: dict[str, tuple[float, float]] = {}

    @property
    def active(self) -> Execution | None:
        """The execution under way."""
        execution = self._execution
        return execution if execution is not None and execution.outcome is None else None

    def start(
        self,
        trajectory: Trajectory,
        tolerances: Tolerances,
        *,
        stamp_s: float,
        now_s: float,
        pose: Mapping[str, float],
    ) -> Execution:
        """Begin a trajectory and preempt the one under way.

        Args:
            trajectory: What to do.
            tolerances: What to accept.
            stamp_s: `header.stamp`: 0 starts now; in the future: the arm waits until then; in the
                past: the points that lie in the past are dropped.
            now_s: ROS time.
            pose: Angles in [rad] where the motion starts, per joint.

        Raises:
            TrajectoryError: OLD_HEADER_TIMESTAMP when all of it is in the past.
        """
        start_s = now_s if stamp_s == 0.0 else stamp_s
        if start_s + trajectory.duration_s < now_s:
            raise TrajectoryError(
                ResultCode.OLD_HEADER_TIMESTAMP,
                f"the trajectory ended {now_s - start_s - trajectory.duration_s:.3f} s ago "
                f"(header.stamp {stamp_s:.3f}, now {now_s:.3f}); stamp it 0 to start at once",
            )
        with self._lock:
            running = self.active
            # A preempting trajectory goes on from the desired state, not from where the arm lags.
            known = self._desired if running is not None else {}
            states = [known.get(joint, (pose[joint], 0.0)) for joint in trajectory.joints]
            start = TrajectoryPoint(
                max(now_s - start_s, 0.0),
                tuple(state[0] for state in states),
                tuple(state[1] for state in states),
                (0.0,) * len(states),
            )
            execution = Execution(trajectory, tolerances, start_s, start)
            self._execution = execution
        if running is not None:
            running.finish(
                TrajectoryResult(
                    ResultCode.INVALID_GOAL, "preempted: a newer trajectory took over"
                )
            )
        return execution

    def shift(self, step_s: float) -> None:
        """The clock was set by so much: what is under way goes on as if it had not been."""
        with self._lock:
            running = self.active
            if running is not None:
                running.shift(step_s)

    def cancel(self, execution: Execution, message: str = "cancelled by the client") -> None:
        """End an execution on the client's wish; the arm holds."""
        execution.finish(TrajectoryResult(ResultCode.SUCCESSFUL, message, cancelled=True))

    def abort(self, message: str) -> None:
        """End the execution under way, if any, because the arm cannot go on."""
        running = self.active
        if running is not None:
            running.finish(TrajectoryResult(ResultCode.INVALID_GOAL, message))

    def update(
        self,
        now_s: float,
        measured: Mapping[str, float],
        speeds: Mapping[str, float] | None = None,
    ) -> dict[str, float] | None:
        """Advance the execution.

        Args:
            now_s: ROS time.
            measured: Measured angles in [rad] per joint.
            speeds: Measured velocities in [rad/s] per joint; where given, a goal is reached only
                by joints that have come to rest.

        Returns:
            Desired angles in [rad] of the trajectory's joints; None when there is nothing to do.
        """
        with self._lock:
            execution = self.active
            if execution is None:
                self._desired = {}
                return None
            elapsed = now_s - execution.start_s
            joints = execution.trajectory.joints
            if elapsed < 0.0:
                desired = TrajectoryPoint(elapsed, execution.start.positions)
            else:
                desired = execution.trajectory.sample(elapsed, execution.start)
            velocities = desired.velocities or (0.0,) * len(joints)
            self._desired = {
                joint: (p, v)
                for joint, p, v in zip(joints, desired.positions, velocities, strict=True)
            }
        actual = tuple(measured[joint] for joint in joints)
        execution.progress = TrajectoryProgress(desired, actual)
        outcome = self._judge(execution, elapsed, desired, actual)
        if outcome is not None and outcome.code is ResultCode.SUCCESSFUL and speeds is not None:
            outcome = _once_at_rest(execution, elapsed, speeds)
        if outcome is not None:
            execution.finish(outcome)
        return dict(zip(joints, desired.positions, strict=True))

    def _judge(
        self,
        execution: Execution,
        elapsed: float,
        desired: TrajectoryPoint,
        actual: tuple[float, ...],
    ) -> TrajectoryResult | None:
        """Check tolerances; None while all is well and not over."""
        overtime = elapsed - execution.trajectory.duration_s
        tolerances = execution.tolerances
        bounds = tolerances.goal if overtime >= 0.0 else tolerances.path
        worst = _worst(execution.trajectory.joints, desired.positions, actual, bounds)
        if overtime < 0.0:
            if worst is None:
                return None
            return TrajectoryResult(ResultCode.PATH_TOLERANCE_VIOLATED, f"left the path: {worst}")
        if worst is None:
            return TrajectoryResult(ResultCode.SUCCESSFUL)
        if tolerances.goal_time_s > 0.0 and overtime > tolerances.goal_time_s:
            return TrajectoryResult(
                ResultCode.GOAL_TOLERANCE_VIOLATED,
                f"{overtime:.2f} s after the last point (tolerance {tolerances.goal_time_s} s) "
                f"{worst}",
            )
        return None


def _once_at_rest(
    execution: Execution, elapsed: float, speeds: Mapping[str, float]
) -> TrajectoryResult | None:
    """The outcome of a goal whose position is reached; None while a watched joint still moves."""
    tolerances = execution.tolerances
    moving = [
        joint
        for joint in execution.trajectory.joints
        if tolerances.goal.get(joint, 0.0) > 0.0 and abs(speeds[joint]) > _STOPPED_SPEED
    ]
    if not moving:
        return TrajectoryResult(ResultCode.SUCCESSFUL)
    overtime = elapsed - execution.trajectory.duration_s
    if tolerances.goal_time_s > 0.0 and overtime > tolerances.goal_time_s:
        return TrajectoryResult(
            ResultCode.GOAL_TOLERANCE_VIOLATED,
            f"{overtime:.2f} s after the last point {', '.join(moving)} still moves",
        )
    return None


def _worst(
    joints: Sequence[str],
    desired: Sequence[float],
    actual: Sequence[float],
    bounds: Mapping[str, float],
) -> str | None:
    """Describe the joint that violates its bound most; None when none does."""
    found, excess = None, 0.0
    for joint, want, have in zip(joints, desired, actual, strict=True):
        bound = bounds.get(joint, 0.0)
        error = abs(want - have)
        if bound > 0.0 and error - bound > excess:
            excess = error - bound
            found = f"{joint} is {error:.3f} rad off, tolerance {bound:.3f} rad"
    return found
