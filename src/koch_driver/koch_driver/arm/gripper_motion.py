# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""One motion of the gripper: to an angle, or until it holds something. No ROS."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

from koch_driver.arm.grip import NM_PER_A
from koch_driver.trajectory.runner import Execution, Tolerances, TrajectoryResult
from koch_driver.trajectory.trajectory import (
    ResultCode,
    Trajectory,
    TrajectoryError,
    TrajectoryPoint,
)

if TYPE_CHECKING:
    from koch_driver.arm.follower_controller import FollowerController
    from koch_driver.bus.motor_bus import MotorBus

_SPEED = 1.2  # rad/s, mean
_SHORTEST_S = 0.2
_REACHED_RAD = 0.04
_STILL = 0.05  # rad/s
_STALL_WATCHES = 4


class GripperMotion:
    """Moves the gripper and says whether it arrived or holds something.

    `watch` is called some twenty times a second while the motion is under way; a gripper that
    stands still short of its goal in several of them is stalled, which ends the motion well: it
    holds the object, and its goal stays where it was asked, so that it presses.
    """

    def __init__(self, controller: FollowerController, limits: tuple[float, float]) -> None:
        self._controller = controller
        self._joint = controller.model.gripper
        self._index = controller.model.joints.index(self._joint)
        self._limits = limits
        self._goal = 0.0
        self._still = 0
        self._execution: Execution | None = None
        self.stalled = False

    @property
    def position(self) -> float:
        """Measured angle in [rad]."""
        reading = self._controller.reading
        return float("nan") if reading is None else reading.positions[self._index]

    @property
    def effort_nm(self) -> float:
        """Torque estimated from the current in [N m]."""
        reading = self._controller.reading
        return float("nan") if reading is None else reading.currents[self._index] * NM_PER_A

    @property
    def reached(self) -> bool:
        """Whether the gripper is at its goal."""
        return abs(self.position - self._goal) <= _REACHED_RAD

    def start(self, goal: float, now_s: float, max_speed: float = 0.0) -> Execution:
        """Begin.

        Args:
            goal: Angle in [rad].
            now_s: ROS time.
            max_speed: Greatest mean speed in [rad/s]; 0 for the usual one, which bounds all.

        Raises:
            TrajectoryError: The angle is outside the joint's limits, or not a number.
        """
        low, high = self._limits
        if not (isfinite(goal) and low - 0.01 <= goal <= high + 0.01):
            raise TrajectoryError(
                ResultCode.INVALID_GOAL,
                f"gripper position {goal} rad, expected {low:.3f} to {high:.3f} rad",
            )
        self._goal = goal
        begin = self.position
        speed = min(_SPEED, max_speed) if max_speed > 0.0 else _SPEED
        duration = max(_SHORTEST_S, abs(goal - begin) / speed)
        end = TrajectoryPoint(duration, (goal,), (0.0,), (0.0,))
        self._execution = self._controller.trajectories.gripper.start(
            Trajectory((self._joint,), (end,)),
            Tolerances(goal={self._joint: _REACHED_RAD}, goal_time_s=5.0),
            stamp_s=0.0,
            now_s=now_s,
            pose={self._joint: begin},
        )
        return self._execution

    def limit_effort(self, bus: MotorBus, max_effort_nm: float) -> None:
        """Limit the torque in [N m] of this motion; 0: the follower's limit, which bounds all."""
        self._controller.grip.lower(bus, max(0.0, max_effort_nm) / NM_PER_A)

    def watch(self) -> None:
        """Notice that the gripper holds something."""
        reading, execution = self._controller.reading, self._execution
        if reading is None or execution is None or execution.progress is None:
            return
        arrived = execution.progress.desired.time_s >= execution.trajectory.duration_s
        still = abs(reading.velocities[self._index]) < _STILL
        self._still = self._still + 1 if arrived and still and not self.reached else 0
        if self._still >= _STALL_WATCHES:
            self.stalled = True
            execution.finish(TrajectoryResult(ResultCode.SUCCESSFUL, "holds something"))
