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

from koch_rig.calibration import Calibration, MotorCalibration
from koch_rig.errors import ShapeError
from koch_rig.joints import JOINT_NAMES
from koch_rig.rig import Arm, JointMount, Mount, Role
from koch_rig.units import JointUnits, Units, rad_to_ticks, ticks_to_rad


def make_arm(*, sign: int = 1, offset_rad: float = 0.0, role: Role = Role.FOLLOWER) -> Arm:
    """An arm whose joints all have this sign and offset."""
    mount = JointMount(sign=sign, offset_rad=offset_rad)
    return Arm(
        name=role.value,
        role=role,
        port="/dev/null",
        calibration_path=Path("none.json"),
        base=Mount(),
        rate_hz=100.0,
        joints=dict.fromkeys(JOINT_NAMES, mount),
    )


def make_calibration(low: int = 1000, high: int = 3000) -> Calibration:
    """A calibration with the same range for all joints."""
    return Calibration(
        {
            name: MotorCalibration(index + 1, 0, 0, low, high)
            for index, name in enumerate(JOINT_NAMES)
        }
    )


MULTI_TURN = np.arange(-3 * 4096, 4 * 4096)
ELBOW, GRIPPER = JOINT_NAMES.index("elbow_flex"), JOINT_NAMES.index("gripper")


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


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("ticks", "units", "joint", "value"),
    [
        (1000, Units.LEROBOT, ELBOW, -100.0),
        (3000, Units.LEROBOT, ELBOW, 100.0),
        (2500, Units.LEROBOT, ELBOW, 50.0),
        (999, Units.LEROBOT, ELBOW, -100.0),
        (3001, Units.LEROBOT, ELBOW, 100.0),
        (-500, Units.LEROBOT, ELBOW, -100.0),
        (1000, Units.LEROBOT, GRIPPER, 0.0),
        (1500, Units.LEROBOT, GRIPPER, 25.0),
        (5000, Units.LEROBOT, GRIPPER, 100.0),
        (2000, Units.DEGREES, ELBOW, 0.0),
        (2000 + 4095, Units.DEGREES, ELBOW, 360.0),
        (2000 - 2 * 4095, Units.DEGREES, ELBOW, -720.0),
        (1500, Units.DEGREES, GRIPPER, 25.0),  # 0..100 even in degrees
    ],
)
def test_dataset_units_by_hand(
    ticks: int, units: Units, joint: int, value: float, sign: int
) -> None:
    converter = JointUnits(make_arm(sign=sign, offset_rad=0.3), make_calibration())
    rad = converter.ticks_to_rad([ticks] * 6)
    assert converter.rad_to(units, rad)[joint] == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize(
    ("value", "units", "joint", "ticks"),
    [
        (0.0, Units.LEROBOT, ELBOW, 2000.0),
        (0.09, Units.LEROBOT, ELBOW, 2000.9),  # where LeRobot writes 2000
        (150.0, Units.LEROBOT, ELBOW, 3000.0),
        (-150.0, Units.LEROBOT, ELBOW, 1000.0),
        (-5.0, Units.LEROBOT, GRIPPER, 1000.0),
        (33.33, Units.LEROBOT, GRIPPER, 1666.6),
        (-360.0, Units.DEGREES, ELBOW, -2095.0),
        (-180.0, Units.DEGREES, ELBOW, -47.5),
    ],
)
def test_dataset_values_become_angles_without_truncation(
    value: float, units: Units, joint: int, ticks: float
) -> None:
    converter = JointUnits(make_arm(sign=-1, offset_rad=0.3), make_calibration())
    rad = converter.to_rad(units, [value] * 6)[joint]
    assert rad == pytest.approx(float(ticks_to_rad(ticks, sign=-1, offset_rad=0.3)), abs=1e-9)


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
    rad = converter.ticks_to_rad(np.full(6, low + fraction * span))
    back = converter.to_rad(units, converter.rad_to(units, rad))
    np.testing.assert_allclose(back, rad, atol=1e-9)


def test_outside_the_range_lerobot_units_clip_and_degrees_do_not() -> None:
    units = JointUnits(make_arm(), make_calibration())
    outside = units.ticks_to_rad([3500] * 6)
    np.testing.assert_allclose(units.rad_to(Units.LEROBOT, outside), 100.0)
    degrees = units.rad_to(Units.DEGREES, outside)
    np.testing.assert_allclose(degrees[:5], 1500 * 360 / 4095)
    assert degrees[5] == 100.0
    np.testing.assert_allclose(
        units.to_rad(Units.LEROBOT, [150] * 6), units.ticks_to_rad([3000] * 6)
    )
    assert units.to_rad(Units.DEGREES, [-200] * 6)[5] == units.ticks_to_rad([1000] * 6)[5]


def test_nan_stays_nan() -> None:
    units = JointUnits(make_arm(), make_calibration())
    for kind in Units:
        assert np.isnan(units.rad_to(kind, np.full(6, np.nan))).all()
        assert np.isnan(units.to_rad(kind, np.full(6, np.nan))).all()


def test_results_are_new_arrays_and_constants_cannot_be_changed() -> None:
    units = JointUnits(make_arm(), make_calibration())
    rad = np.zeros(6)
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
