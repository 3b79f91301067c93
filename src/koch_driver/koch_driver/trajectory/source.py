# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Arm and gripper trajectories as one source of whole commands for the guard. No ROS."""

from __future__ import annotations

from collections.abc import Sequence

from koch_driver.trajectory.runner import Execution, TrajectoryRunner
from koch_driver.trajectory.trajectory import ResultCode
from koch_rig.arm_model import KOCH_V1_1, ArmModel


class TrajectorySource:
    """Two runners, one for any joints and one for the gripper, merged into angles of all joints.

    Joints that no trajectory moves hold the goal they had. After a trajectory has ended well its
    last point is held, as JTC does, until `release`; after a cancelled or aborted one the guard
    brakes and holds.

    Attributes:
        arm: Runner of the arm controller; it accepts any joints of the arm.
        gripper: Runner of the gripper controller.
    """

    def __init__(self, model: ArmModel = KOCH_V1_1) -> None:
        self.arm = TrajectoryRunner(model.joints)
        self.gripper = TrajectoryRunner((model.gripper,))
        self._joints = model.joints
        self._hold: list[float] | None = None
        self._seen: dict[TrajectoryRunner, Execution] = {}

    @property
    def active(self) -> bool:
        """True while a trajectory is under way."""
        return self.arm.active is not None or self.gripper.active is not None

    @property
    def holds(self) -> bool:
        """True while only the end of the last trajectory is held, until someone else drives."""
        return self._hold is not None and not self.active

    def note_change(self, rule: str, joint: str, asked: float, granted: float) -> None:
        """Note a change by the guard in the trajectories under way that move the joint."""
        for runner in (self.arm, self.gripper):
            execution = runner.active
            if execution is not None and joint in execution.trajectory.joints:
                execution.note_change(rule, joint, asked, granted)

    def shift(self, step_s: float) -> None:
        """The clock was set by so much: what is under way goes on as if it had not been."""
        self.arm.shift(step_s)
        self.gripper.shift(step_s)

    def abort(self, message: str) -> None:
        """End what is under way and hold nothing."""
        self.arm.abort(message)
        self.gripper.abort(message)
        self.release()

    def release(self) -> None:
        """Stop holding the end of the last trajectory."""
        self._hold = None
        self._seen.clear()

    def update(
        self,
        now_s: float,
        measured: Sequence[float],
        goal: Sequence[float] | None,
        velocities: Sequence[float] | None = None,
    ) -> tuple[float, ...] | None:
        """Targets of this cycle.

        Args:
            now_s: ROS time.
            measured: Measured angles in [rad], one per joint.
            goal: The goals of the last cycle in [rad], None when there were none.
            velocities: Measured velocities in [rad/s], to see when a goal is really reached.

        Returns:
            One angle per joint in [rad]; None when this source wants nothing.
        """
        pose = dict(zip(self._joints, measured, strict=True))
        speeds = None
        if velocities is not None:
            speeds = dict(zip(self._joints, velocities, strict=True))
        arm = self._advance(self.arm, now_s, pose, speeds)
        gripper = self._advance(self.gripper, now_s, pose, speeds)
        if arm is None and gripper is None:
            return None if self._hold is None else tuple(self._hold)
        hold = self._hold or list(measured if goal is None else goal)
        moved = {**(gripper or {}), **(arm or {})}
        for joint, value in moved.items():
            hold[self._joints.index(joint)] = value
        self._hold = hold
        return tuple(hold)

    def _advance(
        self,
        runner: TrajectoryRunner,
        now_s: float,
        pose: dict[str, float],
        speeds: dict[str, float] | None,
    ) -> dict[str, float] | None:
        """Advance a runner, and forget the held pose when its trajectory ended badly."""
        execution = runner.active
        if execution is not None:
            self._seen[runner] = execution
        target = runner.update(now_s, pose, speeds)
        known = self._seen.get(runner)
        outcome = None if known is None else known.outcome
        if outcome is not None:
            del self._seen[runner]
            if outcome.cancelled or outcome.code is not ResultCode.SUCCESSFUL:
                self._hold = None
                return None
        return target
