# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Conversions between servo ticks, joint angles and LeRobot's dataset units.

Ticks are signed Present_Position or Goal_Position values, homing offset included. Joint angles
are the URDF's: angle = sign * (ticks - 2047) * 2 pi / 4096 + offset_rad. LeRobot's formulas:
LeRobot 0.4.4, `motors/motors_bus.py`, `_normalize` and `_unnormalize`.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from koch_core.errors import ShapeError
from koch_rig.arm_model import KOCH_V1_1, ArmModel
from koch_rig.calibration import (
    MIDDLE_TICKS,
    TICKS_PER_TURN,
    MotorCalibration,
    load_calibration,
)
from koch_rig.geometry import constant
from koch_rig.rig import Arm, JointOffset, Rig

Array = NDArray[np.float64]
RAD_PER_TICK = 2.0 * math.pi / TICKS_PER_TURN
_LEROBOT_RESOLUTION = TICKS_PER_TURN - 1  # LeRobot divides by 4095 in degrees; kept on purpose


class Units(enum.Enum):
    """In which units a dataset or checkpoint holds joint positions."""

    LEROBOT = "lerobot"
    """-100..100 over the calibrated range, gripper 0..100: LeRobot's default."""
    DEGREES = "degrees"
    """LeRobot's use_degrees: degrees from the middle of the range, gripper still 0..100."""
    RADIANS = "radians"
    """URDF joint angles."""


class MotorNorm(enum.Enum):
    """How LeRobot maps one motor's ticks; the values are LeRobot's MotorNormMode names."""

    RANGE_M100_100 = "range_m100_100"
    RANGE_0_100 = "range_0_100"
    DEGREES = "degrees"


def norm_of(joint: str, units: Units, model: ArmModel = KOCH_V1_1) -> MotorNorm:
    """LeRobot's mapping for a joint of an arm; `units` may not be RADIANS."""
    if joint in model.percent:
        return MotorNorm.RANGE_0_100
    return {Units.LEROBOT: MotorNorm.RANGE_M100_100, Units.DEGREES: MotorNorm.DEGREES}[units]


def ticks_to_rad(ticks: ArrayLike, *, sign: ArrayLike = 1, offset_rad: ArrayLike = 0.0) -> Array:
    """Convert ticks, any shape, multi-turn values legal, to joint angles [rad], not wrapped."""
    values = np.asarray(ticks, dtype=np.float64) - MIDDLE_TICKS
    result: Array = np.asarray(sign, dtype=np.float64) * values * RAD_PER_TICK
    return result + np.asarray(offset_rad, dtype=np.float64)


def _rad_to_float_ticks(rad: ArrayLike, sign: ArrayLike, offset_rad: ArrayLike) -> Array:
    """Joint angles [rad] to ticks without rounding."""
    values = np.asarray(rad, dtype=np.float64) - np.asarray(offset_rad, dtype=np.float64)
    result: Array = np.asarray(sign, dtype=np.float64) * values / RAD_PER_TICK + MIDDLE_TICKS
    return result


def rad_to_ticks(
    rad: ArrayLike, *, sign: ArrayLike = 1, offset_rad: ArrayLike = 0.0
) -> NDArray[np.int64]:
    """Convert joint angles [rad], any shape, finite, to the nearest tick."""
    return np.rint(_rad_to_float_ticks(rad, sign, offset_rad)).astype(np.int64)


def ticks_to_lerobot(ticks: float, motor: MotorCalibration, norm: MotorNorm) -> float:
    """One motor's ticks to LeRobot's number, in LeRobot's own order of operations.

    The ranges clip; DEGREES does not. Drive mode is not looked at: the servo itself reverses.
    """
    low, high = motor.range_min, motor.range_max
    if norm is MotorNorm.DEGREES:
        return (ticks - (low + high) / 2) * 360 / _LEROBOT_RESOLUTION
    fraction = (min(high, max(low, ticks)) - low) / (high - low)
    if norm is MotorNorm.RANGE_M100_100:
        return fraction * 200 - 100
    return fraction * 100


def _lerobot_to_float_ticks(value: float, motor: MotorCalibration, norm: MotorNorm) -> float:
    """LeRobot's number to ticks before LeRobot's truncation."""
    low, high = motor.range_min, motor.range_max
    if norm is MotorNorm.DEGREES:
        return (value * _LEROBOT_RESOLUTION / 360) + (low + high) / 2
    if norm is MotorNorm.RANGE_M100_100:
        return ((min(100.0, max(-100.0, value)) + 100) / 200) * (high - low) + low
    return (min(100.0, max(0.0, value)) / 100) * (high - low) + low


def lerobot_to_ticks(value: float, motor: MotorCalibration, norm: MotorNorm) -> int:
    """LeRobot's number to one motor's ticks, truncated toward zero as LeRobot does.

    Ticks -> number -> ticks can therefore lose one tick; JointUnits does not truncate.
    """
    return int(_lerobot_to_float_ticks(value, motor, norm))


def rad_to_unit(rad: float, motor: MotorCalibration, mount: JointOffset, norm: MotorNorm) -> float:
    """One joint angle [rad] to LeRobot's number, without rounding to ticks, with its clipping."""
    ticks = mount.sign * (rad - mount.offset_rad) / RAD_PER_TICK + MIDDLE_TICKS
    return ticks_to_lerobot(ticks, motor, norm)


def unit_to_rad(
    value: float, motor: MotorCalibration, mount: JointOffset, norm: MotorNorm
) -> float:
    """LeRobot's number to one joint angle [rad], without truncating to ticks."""
    ticks = _lerobot_to_float_ticks(value, motor, norm)
    return mount.sign * (ticks - MIDDLE_TICKS) * RAD_PER_TICK + mount.offset_rad


class JointUnits:
    """Converts whole vectors of one arm; arrays are (..., J) in the order of its joints."""

    @classmethod
    def for_arm(cls, arm: Arm) -> JointUnits:
        """Of an arm of a rig, with its calibration file.

        Raises:
            CalibrationError: It cannot be used.
        """
        return cls(arm, load_calibration(arm.calibration_path, arm.model.joints))

    def __init__(self, arm: Arm, calibration: Mapping[str, MotorCalibration]) -> None:
        """Take over signs, offsets and ranges; neither argument is kept."""
        self.model = arm.model
        joints = arm.model.joints
        mounts = [arm.joints[name] for name in joints]
        motors = [calibration[name] for name in joints]
        self.sign = constant([mount.sign for mount in mounts])
        self.offset_rad = constant([mount.offset_rad for mount in mounts])
        self.range_min_ticks = constant([motor.range_min for motor in motors])
        self.range_max_ticks = constant([motor.range_max for motor in motors])
        self._span = constant(self.range_max_ticks - self.range_min_ticks)
        self._middle = constant((self.range_max_ticks + self.range_min_ticks) / 2)
        is_percent = [name in arm.model.percent for name in joints]
        # LeRobot's number = fraction of the range * scale + shift.
        self._scale = constant(np.where(is_percent, 100.0, 200.0))
        self._shift = constant(np.where(is_percent, 0.0, -100.0))
        self._is_percent = np.array(is_percent)

    def _vectors(self, values: ArrayLike, what: str) -> Array:
        """Check the trailing length: one value per joint."""
        array = np.asarray(values, dtype=np.float64)
        if array.shape[-1:] != self.sign.shape:
            raise ShapeError(what, got=array.shape, expected=f"(..., {self.sign.size})")
        return array

    def ticks_to_rad(self, ticks: ArrayLike) -> Array:
        """Present_Position [ticks] to joint angles [rad], not wrapped."""
        values = self._vectors(ticks, "ticks")
        return ticks_to_rad(values, sign=self.sign, offset_rad=self.offset_rad)

    def rad_to_ticks(self, rad: ArrayLike) -> NDArray[np.int64]:
        """Joint angles [rad], finite, to the nearest Goal_Position [ticks], int64."""
        values = self._vectors(rad, "joint angles")
        return rad_to_ticks(values, sign=self.sign, offset_rad=self.offset_rad)

    def range_rad(self) -> tuple[Array, Array]:
        """Lower and upper ends of the calibrated ranges as joint angles [rad], each (J,)."""
        ends = np.stack(
            [self.ticks_to_rad(self.range_min_ticks), self.ticks_to_rad(self.range_max_ticks)]
        )
        return ends.min(axis=0), ends.max(axis=0)

    def rad_to(self, units: Units, rad: ArrayLike) -> Array:
        """Joint angles [rad] to dataset units, float64, without rounding to ticks.

        LEROBOT, and the gripper in DEGREES, clip to the calibrated range as LeRobot does.
        """
        values = self._vectors(rad, "joint angles")
        if units is Units.RADIANS:
            return np.array(values)
        ticks = _rad_to_float_ticks(values, self.sign, self.offset_rad)
        clipped = np.clip(ticks, self.range_min_ticks, self.range_max_ticks)
        result: Array = (clipped - self.range_min_ticks) / self._span * self._scale + self._shift
        if units is Units.DEGREES:
            degrees = (ticks - self._middle) * 360 / _LEROBOT_RESOLUTION
            result = np.where(self._is_percent, result, degrees)
        return result

    def to_rad(self, units: Units, values: ArrayLike) -> Array:
        """Dataset units to joint angles [rad], float64; clips where LeRobot's writing clips."""
        numbers = self._vectors(values, "dataset values")
        if units is Units.RADIANS:
            return np.array(numbers)
        bounded = np.clip(numbers, self._shift, 100.0)
        ticks = (bounded - self._shift) / self._scale * self._span + self.range_min_ticks
        if units is Units.DEGREES:
            degrees = numbers * _LEROBOT_RESOLUTION / 360 + self._middle
            ticks = np.where(self._is_percent, ticks, degrees)
        return ticks_to_rad(ticks, sign=self.sign, offset_rad=self.offset_rad)


def joint_units(rig: Rig, arms: Iterable[str] | None = None) -> dict[str, JointUnits]:
    """The converters of some arms of a rig, of all where absent, from their calibration files.

    Raises:
        CalibrationError: A file cannot be used.
    """
    return {name: JointUnits.for_arm(rig.arms[name]) for name in arms or rig.arms}
