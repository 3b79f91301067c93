# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""LeRobot's calibration routine on our bus: same registers, same order, same file.

Source: LeRobot 0.4.4, robots/koch_follower/koch_follower.py and
teleoperators/koch_leader/koch_leader.py, `calibrate`; motors/motors_bus.py,
`set_half_turn_homings` and `record_ranges_of_motion`. Beyond LeRobot, Drive_Mode is written to
every servo where it differs, so that a replaced elbow servo is not left mirrored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from koch_driver.bus.control_table import TICKS_PER_TURN, OperatingMode
from koch_driver.errors import CalibrationAborted
from koch_rig.calibration import MIDDLE_TICKS, Calibration, MotorCalibration
from koch_rig.units import RAD_PER_TICK

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from koch_driver.bus.motor_bus import MotorBus
    from koch_rig.arm_model import ArmModel
    from koch_rig.rig import JointOffset

_TOP = TICKS_PER_TURN - 1
_LEAST_MOTION_TICKS = 50  # less than that is a joint that no one moved


@dataclass(frozen=True)
class JointRange:
    """What the range step knows of one joint, in ticks."""

    joint: str
    low: int
    high: int
    position: int
    recorded: bool  # False: a full-turn joint, fixed at 0..4095

    @property
    def moved(self) -> bool:
        """Whether the joint has a usable range."""
        return not self.recorded or self.high - self.low >= _LEAST_MOTION_TICKS


class CalibrationRoutine:
    """The steps in order: prepare, set_middle, observe (repeatedly), finish."""

    def __init__(self, bus: MotorBus, model: ArmModel) -> None:
        self._bus = bus
        self._model = model
        self._homing: list[int] = []
        self._low: NDArray[np.int64] | None = None
        self._high: NDArray[np.int64] | None = None
        self._position: NDArray[np.int64] | None = None

    def prepare(self) -> None:
        """Torque off: the arm can be led by hand. Nothing is written that outlives its power."""
        self._bus.set_turn_offsets([0] * len(self._bus.motors))
        self._bus.write_all("Torque_Enable", 0)

    def set_middle(self) -> dict[str, int]:
        """Set modes and take the present pose as the middle: it reads 2047 from now on.

        Returns:
            Homing offset by joint, in ticks.
        """
        bus = self._bus
        bus.write_all("Operating_Mode", int(OperatingMode.EXTENDED_POSITION))
        bus.write_all("Drive_Mode", [m.drive_mode for m in bus.motors])
        bus.write_all("Homing_Offset", 0)
        bus.write_all("Min_Position_Limit", 0)
        bus.write_all("Max_Position_Limit", _TOP)
        present = bus.read_all("Present_Position")
        self._homing = (MIDDLE_TICKS - present).tolist()
        bus.write_all("Homing_Offset", self._homing)
        self._low = self._high = None
        return {m.joint: h for m, h in zip(bus.motors, self._homing, strict=True)}

    def observe(self) -> list[JointRange]:
        """Read the positions once and widen the ranges; call it often while joints are moved."""
        ticks = self._bus.read_all("Present_Position")
        self._position = ticks
        self._low = ticks if self._low is None else np.minimum(self._low, ticks)
        self._high = ticks if self._high is None else np.maximum(self._high, ticks)
        return self._ranges()

    def _ranges(self) -> list[JointRange]:
        if self._low is None or self._high is None or self._position is None:
            raise CalibrationAborted("no position was read in the range step")
        rows = []
        for k, spec in enumerate(self._bus.motors):
            full = spec.joint in self._model.full_turn
            low = 0 if full else int(self._low[k])
            high = _TOP if full else int(self._high[k])
            rows.append(JointRange(spec.joint, low, high, int(self._position[k]), not full))
        return rows

    def finish(self, path: Path) -> Calibration:
        """Check the ranges, write them into the servos.

        Args:
            path: Where the calibration will be saved; for messages.

        Raises:
            CalibrationAborted: A joint was not moved, or its range leaves one turn.
        """
        ranges = self._ranges()
        still = [r.joint for r in ranges if not r.moved]
        if still:
            raise CalibrationAborted(f"not moved through their range: {', '.join(still)}")
        outside = [
            f"{r.joint} ({r.low} .. {r.high})" for r in ranges if r.low < 0 or r.high > _TOP
        ]
        if outside:
            raise CalibrationAborted(
                f"the range leaves 0 .. {_TOP} ticks: {', '.join(outside)}; the middle pose was "
                "too near one end, put the joint in the middle of its range and start again"
            )
        motors = {}
        for spec, homing, row in zip(self._bus.motors, self._homing, ranges, strict=True):
            motors[spec.joint] = MotorCalibration(
                spec.id, spec.drive_mode, homing, row.low, row.high
            )
        self._bus.write_all("Min_Position_Limit", [r.low for r in ranges])
        self._bus.write_all("Max_Position_Limit", [r.high for r in ranges])
        return Calibration(motors, path, self._model.joints)


def zero_offsets(
    ticks: Sequence[int], mounts: Mapping[str, JointOffset], pose_rad: Sequence[float]
) -> dict[str, float]:
    """URDF zero offsets from one known pose.

    Args:
        ticks: Positions in the pose, turn offsets added, in joint order.
        mounts: Signs of the joints, in their order (their offsets are not used).
        pose_rad: The joint angles that the pose stands for.

    Returns:
        offset_rad by joint, so that angle = sign * (ticks - 2047) * 2 pi / 4096 + offset_rad,
        wrapped into +- pi.
    """
    offsets = {}
    for (joint, mount), tick, angle in zip(mounts.items(), ticks, pose_rad, strict=True):
        offset = angle - mount.sign * (tick - MIDDLE_TICKS) * RAD_PER_TICK
        offsets[joint] = float((offset + np.pi) % (2.0 * np.pi) - np.pi)
    return offsets
