# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Units against values worked out by hand from LeRobot's formulas, and over all ticks."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from koch_core.errors import ShapeError
from koch_rig.arm_model import KOCH_V1_1
from koch_rig.calibration import Calibration, MotorCalibration
from koch_rig.rig import Arm, JointOffset, Mount, Role
from koch_rig.units import (
    JointUnits,
    MotorNorm,
    Units,
    lerobot_to_ticks,
    norm_of,
    rad_to_ticks,
    rad_to_unit,
    ticks_to_lerobot,
    ticks_to_rad,
    unit_to_rad,
)

J = len(KOCH_V1_1.joints)


def make_arm(*, sign: int = 1, offset_rad: float = 0.0, role: Role = Role.FOLLOWER) -> Arm:
    """An arm whose joints all have this sign and offset."""
    mount = JointOffset(sign=sign, offset_rad=offset_rad)
    return Arm(
        name=role.value,
        role=role,
        port="/dev/null",
        calibration_path=Path("none.json"),
        base=Mount(),
        rate_hz=100.0,
        joints=dict.fromkeys(KOCH_V1_1.joints, mount),
    )


def make_calibration(low: int = 1000, high: int = 3000) -> Calibration:
    """A calibration with the same range for all joints."""
    return Calibration(
        {
            name: MotorCalibration(index + 1, 0, 0, low, high)
            for index, name in enumerate(KOCH_V1_1.joints)
        }
    )


MULTI_TURN = np.arange(-3 * 4096, 4 * 4096)
MOTOR = MotorCalibration(id=1, drive_mode=0, homing_offset=0, range_min=1000, range_max=3000)


def test_tick_2047_is_the_offset_and_a_quarter_turn_is_1024_ticks() -> None:
    assert ticks_to_rad(2047, offset_rad=0.25) == 0.25
    assert ticks_to_rad(2047 + 1024) == pytest.approx(math.pi / 2, abs=1e-15)
    assert ticks_to_rad(2047 + 1024, sign=-1, offset_rad=1.0) == pytest.approx(1.0 - math.pi / 2)
    assert rad_to_ticks(math.pi) == 2047 + 2048


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("offset_rad", [0.0, -0.485, 2.0])
def test_all_ticks_of_seven_turns_survive_the_round_trip(sign: int, offset_rad: float) -> None:
    rad = ticks_to_rad(MULTI_TURN, sign=sign, offset_rad=offset_rad)
    np.testing.assert_array_equal(rad_to_ticks(rad, sign=sign, offset_rad=offset_rad), MULTI_TURN)


def test_truncating_instead_of_rounding_loses_ticks() -> None:
    """Negative control for the round trip: int() is what rounding guards against."""
    rad = ticks_to_rad(MULTI_TURN, sign=-1, offset_rad=-0.485)
    truncated = (-(rad + 0.485) * 4096 / (2 * math.pi) + 2047).astype(np.int64)
    assert (truncated != MULTI_TURN).any()


@pytest.mark.parametrize(
    ("ticks", "norm", "value"),
    [
        (1000, MotorNorm.RANGE_M100_100, -100.0),
        (3000, MotorNorm.RANGE_M100_100, 100.0),
        (2500, MotorNorm.RANGE_M100_100, 50.0),
        (999, MotorNorm.RANGE_M100_100, -100.0),
        (3001, MotorNorm.RANGE_M100_100, 100.0),
        (-500, MotorNorm.RANGE_M100_100, -100.0),
        (1000, MotorNorm.RANGE_0_100, 0.0),
        (1500, MotorNorm.RANGE_0_100, 25.0),
        (5000, MotorNorm.RANGE_0_100, 100.0),
        (2000, MotorNorm.DEGREES, 0.0),
        (2000 + 4095, MotorNorm.DEGREES, 360.0),
        (2000 - 2 * 4095, MotorNorm.DEGREES, -720.0),
    ],
)
def test_ticks_to_lerobot_by_hand(ticks: int, norm: MotorNorm, value: float) -> None:
    assert ticks_to_lerobot(ticks, MOTOR, norm) == value


@pytest.mark.parametrize(
    ("value", "norm", "ticks"),
    [
        (0.0, MotorNorm.RANGE_M100_100, 2000),
        (0.09, MotorNorm.RANGE_M100_100, 2000),  # 2000.9 is truncated
        (150.0, MotorNorm.RANGE_M100_100, 3000),
        (-150.0, MotorNorm.RANGE_M100_100, 1000),
        (-5.0, MotorNorm.RANGE_0_100, 1000),
        (33.33, MotorNorm.RANGE_0_100, 1666),  # 1666.6
        (-360.0, MotorNorm.DEGREES, -2095),
        (-180.0, MotorNorm.DEGREES, -47),  # -47.5 goes toward zero
    ],
)
def test_lerobot_to_ticks_truncates_toward_zero(value: float, norm: MotorNorm, ticks: int) -> None:
    assert lerobot_to_ticks(value, MOTOR, norm) == ticks


@pytest.mark.parametrize("norm", list(MotorNorm))
@pytest.mark.parametrize(("low", "high"), [(0, 4095), (1330, 2764), (7, 8)])
def test_round_trip_through_lerobot_loses_at_most_one_tick(
    norm: MotorNorm, low: int, high: int
) -> None:
    motor = MotorCalibration(1, 1, 0, low, high)  # drive mode 1: LeRobot ignores it here
    for ticks in range(low, high + 1):
        back = lerobot_to_ticks(ticks_to_lerobot(ticks, motor, norm), motor, norm)
        assert 0 <= ticks - back <= 1


def test_gripper_is_0_to_100_even_in_degrees() -> None:
    assert norm_of("gripper", Units.DEGREES) is MotorNorm.RANGE_0_100
    assert norm_of("elbow_flex", Units.DEGREES) is MotorNorm.DEGREES
    assert norm_of("elbow_flex", Units.LEROBOT) is MotorNorm.RANGE_M100_100


def test_vector_conversion_equals_lerobots_scalar_one_at_whole_ticks() -> None:
    calibration = make_calibration()
    units = JointUnits(make_arm(sign=-1, offset_rad=0.3), calibration)
    for ticks in (500, 1000, 1777, 2999, 3500):
        rad = units.ticks_to_rad([ticks] * J)
        for kind in (Units.LEROBOT, Units.DEGREES):
            expected = [
                ticks_to_lerobot(ticks, calibration[name], norm_of(name, kind))
                for name in KOCH_V1_1.joints
            ]
            np.testing.assert_allclose(units.rad_to(kind, rad), expected, atol=1e-9)


@given(
    fraction=st.floats(0.0, 1.0),
    sign=st.sampled_from([1, -1]),
    offset_rad=st.floats(-3.0, 3.0),
    units=st.sampled_from(list(Units)),
    low=st.integers(-4096, 4000),
    span=st.integers(1, 8192),
)
def test_dataset_units_round_trip_within_the_range(
    fraction: float, sign: int, offset_rad: float, units: Units, low: int, span: int
) -> None:
    converter = JointUnits(
        make_arm(sign=sign, offset_rad=offset_rad), make_calibration(low, low + span)
    )
    rad = converter.ticks_to_rad(np.full(J, low + fraction * span))
    back = converter.to_rad(units, converter.rad_to(units, rad))
    np.testing.assert_allclose(back, rad, atol=1e-9)


@pytest.mark.parametrize("norm", list(MotorNorm))
def test_scalar_conversions_are_inverse_of_each_other(norm: MotorNorm) -> None:
    mount = JointOffset(sign=-1, offset_rad=0.7)
    for ticks in (1000.0, 1234.5, 3000.0):
        rad = float(ticks_to_rad(ticks, sign=-1, offset_rad=0.7))
        assert unit_to_rad(rad_to_unit(rad, MOTOR, mount, norm), MOTOR, mount, norm) == (
            pytest.approx(rad, abs=1e-12)
        )


def test_outside_the_range_lerobot_units_clip_and_degrees_do_not() -> None:
    units = JointUnits(make_arm(), make_calibration())
    outside = units.ticks_to_rad([3500] * J)
    np.testing.assert_allclose(units.rad_to(Units.LEROBOT, outside), 100.0)
    degrees = units.rad_to(Units.DEGREES, outside)
    np.testing.assert_allclose(degrees[:5], 1500 * 360 / 4095)
    assert degrees[5] == 100.0
    np.testing.assert_allclose(
        units.to_rad(Units.LEROBOT, [150] * J), units.ticks_to_rad([3000] * J)
    )
    assert units.to_rad(Units.DEGREES, [-200] * J)[5] == units.ticks_to_rad([1000] * J)[5]


def test_nan_stays_nan() -> None:
    units = JointUnits(make_arm(), make_calibration())
    for kind in Units:
        assert np.isnan(units.rad_to(kind, np.full(J, np.nan))).all()
        assert np.isnan(units.to_rad(kind, np.full(J, np.nan))).all()


def test_results_are_new_arrays_and_constants_cannot_be_changed() -> None:
    units = JointUnits(make_arm(), make_calibration())
    rad = np.zeros(J)
    units.rad_to(Units.RADIANS, rad)[0] = 5.0
    assert rad[0] == 0.0
    with pytest.raises(ValueError, match="read-only"):
        units.sign[0] = -1


def test_range_is_ordered_for_reversed_joints() -> None:
    low, high = JointUnits(make_arm(sign=-1), make_calibration()).range_rad()
    assert (low < high).all()
    assert high[0] == pytest.approx((2047 - 1000) * 2 * math.pi / 4096)


def test_wrong_length_is_refused() -> None:
    units = JointUnits(make_arm(), make_calibration())
    with pytest.raises(ShapeError, match=r"shape \(5,\), expected \(\.\.\., 6\)"):
        units.rad_to(Units.LEROBOT, np.zeros(5))
