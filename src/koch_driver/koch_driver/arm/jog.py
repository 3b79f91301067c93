# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Teleoperation without a leader: speeds of the hand become joint angles. No ROS.

What is asked for are speeds, as a key or a stick gives them: the TCP's in base_link, the hand's
pitch about the horizontal axis across it, its roll about the way it looks, and the gripper's. The
pose wanted is moved by them and solved for by inverse kinematics. It never runs away from the arm:
where no joint angles reach it, or the arm does not follow, it stops at the border.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from koch_rig.geometry import rpy_to_matrix
from koch_rig.inverse_kinematics import IkSettings, Orientation

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from koch_driver.guard import Workspace
    from koch_rig.kinematics import Kinematics

    Array = NDArray[np.float64]

#: One start: from the pose before, so that the solution is the one beside it.
_IK = IkSettings(
    position_tolerance_m=1e-5, rotation_tolerance_rad=1e-4, max_iterations=25, starts=1
)
_MISSED_M = 5e-4  # a solution that is farther from the wanted place is none
#: Where place and turn cannot both be had the hand tilts; from here on that is its turn.
_TILTED_RAD = 0.05
#: The wanted place may be so far ahead of the arm: its lag at full speed, and its sag [m].
_LEAD_M = 0.05
#: Parts of a step that are tried where the whole is out of reach.
_PARTS = (1.0, 0.5, 0.2)


@dataclass(frozen=True)
class JogSpeed:
    """Speeds that are asked for.

    Attributes:
        linear: Of the TCP along x, y, z of base_link [m/s].
        pitch: Of the hand about the horizontal axis across it [rad/s]; above zero it looks up.
        roll: Of the hand about the way it looks [rad/s].
        gripper: Of the gripper's joint [rad/s]; above zero it opens.
    """

    linear: tuple[float, float, float] = (0.0, 0.0, 0.0)
    pitch: float = 0.0
    roll: float = 0.0
    gripper: float = 0.0

    def goes_as(self, other: JogSpeed) -> bool:
        """Whether another one asks for the same way, however fast."""
        mine, theirs = (
            np.sign([*each.linear, each.pitch, each.roll, each.gripper]) for each in (self, other)
        )
        return bool(np.array_equal(mine, theirs))


@dataclass(frozen=True)
class JogLimits:
    """How fast the hand may be moved.

    Attributes:
        linear: Of the TCP [m/s].
        angular: Of pitch and roll [rad/s].
        gripper: Of the gripper's joint [rad/s].
        joint: Of any joint [rad/s]: near a singularity the hand is slower.
        ramp_s: From rest to full speed, and back [s].
    """

    linear: float = 0.10
    angular: float = 0.8
    gripper: float = 1.2
    joint: float = 1.2
    ramp_s: float = 0.15

    def limited(self, wanted: JogSpeed) -> Array:
        """The speeds as x, y, z, pitch, roll, gripper, none beyond its limit, (6,)."""
        linear = np.array(wanted.linear, dtype=np.float64)
        linear *= min(1.0, self.linear / max(1e-9, float(np.linalg.norm(linear))))
        turns = np.clip([wanted.pitch, wanted.roll], -self.angular, self.angular)
        grip = np.clip(wanted.gripper, -self.gripper, self.gripper)
        return np.array([*linear, *turns, grip])

    @property
    def most(self) -> Array:
        """The limits in the same order, (6,)."""
        return np.array([*[self.linear] * 3, *[self.angular] * 2, self.gripper])


class Jog:
    """The pose that a hand without a leader wants, from one period to the next.

    Args:
        kinematics: Of the arm; Pinocchio's work space makes it this thread's alone.
        lower: Least joint angles that the guard lets through [rad], (J,).
        upper: Greatest ones.
        limits: How fast.
        workspace: Where the TCP may be; None: anywhere.
    """

    def __init__(
        self,
        kinematics: Kinematics,
        lower: Sequence[float],
        upper: Sequence[float],
        limits: JogLimits,
        workspace: Workspace | None = None,
    ) -> None:
        self._kinematics = kinematics
        self._lower, self._upper = np.array(lower), np.array(upper)
        self._limits = limits
        self._workspace = workspace
        # A Koch's gripper opens towards smaller angles.
        wider = kinematics.opening(upper[-1]) - kinematics.opening(lower[-1])
        self._opens = float(np.sign(wider))
        self._speed = np.zeros(6)
        self._q: Array = np.zeros(len(lower))
        self._place: Array = np.zeros(3)
        self._turn: Array = np.eye(3)
        self.border = ""

    @property
    def is_moving(self) -> bool:
        """Whether it has not come to rest yet."""
        return bool(np.any(self._speed))

    def start(self, q: Sequence[float]) -> None:
        """Begin at rest at the joint angles that the arm holds [rad], (J,)."""
        self._speed = np.zeros(6)
        self.border = ""
        self._accept(np.clip(q, self._lower, self._upper))

    def _accept(self, q: Array) -> None:
        pose = self._kinematics.tcp(q)
        self._q, self._place, self._turn = q, pose[:3, 3], pose[:3, :3]

    def step(
        self, wanted: JogSpeed, measured: Sequence[float] | None, period_s: float
    ) -> tuple[float, ...]:
        """Move on for a period; the joint angles to command [rad], (J,).

        Args:
            wanted: Speeds asked for.
            measured: Where the arm is [rad], (J,); None: it follows.
            period_s: Of the commands [s].
        """
        aim = self._limits.limited(wanted)
        change = self._limits.most * (period_s / self._limits.ramp_s)
        self._speed += np.clip(aim - self._speed, -change, change)
        if not self.is_moving:
            if not np.any(aim):
                self.border = ""
            return tuple(self._q.tolist())
        obstacle = ""
        for part in _PARTS:
            obstacle = self._move(self._speed * (part * period_s), measured, period_s)
            if not obstacle:
                break
        if obstacle:
            self._speed[:] = 0.0
        self.border = obstacle
        return tuple(self._q.tolist())

    def _move(self, by: Array, measured: Sequence[float] | None, period_s: float) -> str:
        """Move by x, y, z, pitch, roll, gripper; why not, empty where it was done."""
        seed = self._q.copy()
        grip = float(seed[-1] + by[5] * self._opens)
        seed[-1] = np.clip(grip, self._lower[-1], self._upper[-1])
        if not np.any(by[:5]):
            is_held = seed[-1] == self._q[-1]
            self._q = seed
            return "the gripper is at its end" if is_held else ""
        place = self._place + by[:3]
        turn = self._turned(place, by[3], by[4])
        target = np.eye(4)
        target[:3, :3], target[:3, 3] = turn, place
        reason = "out of reach"
        for orientation in (Orientation.FULL, Orientation.NONE):
            found = self._kinematics.inverse(
                target, seed, orientation=orientation, settings=_IK,
                bounds=(self._lower, self._upper),
            )  # fmt: skip
            q = np.array(found.q)
            # Where a small way takes a large turn, near a singularity, the reach ends as well.
            fastest = np.abs(q - self._q)[:-1].max() / period_s
            if found.position_error_m > _MISSED_M or fastest > self._limits.joint:
                continue
            if reason := self._kept_from(q, place, measured):
                continue
            self._q, self._place, self._turn = q, place, turn
            if orientation is Orientation.NONE or found.rotation_error_rad > _TILTED_RAD:
                self._turn = self._kinematics.tcp(q)[:3, :3]
            return ""
        return reason

    def _turned(self, place: Array, pitch_rad: float, roll_rad: float) -> Array:
        """The hand's rotation at a place: turned with the arm about its base, pitched, rolled."""
        before, after = (float(np.arctan2(p[1], p[0])) for p in (self._place, place))
        pitch = rpy_to_matrix(0.0, -pitch_rad, after)
        roll = rpy_to_matrix(0.0, 0.0, roll_rad)
        turned: Array = pitch @ rpy_to_matrix(0.0, 0.0, -before) @ self._turn @ roll
        return turned

    def _kept_from(self, q: Array, place: Array, measured: Sequence[float] | None) -> str:
        """What keeps the arm from joint angles; moving away from it is always free."""
        room = self._workspace
        if room is not None and room.room(q.tolist()) < min(0.0, room.room(self._q.tolist())):
            return "the table, or the border of the workspace"
        if measured is None:
            return ""
        there = np.array(self._kinematics.tcp_position(list(measured)))
        ahead_m = float(np.linalg.norm(place - there))
        if ahead_m > _LEAD_M and ahead_m > float(np.linalg.norm(self._place - there)):
            return "the arm does not follow"
        return ""
