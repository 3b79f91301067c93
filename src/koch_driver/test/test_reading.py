# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What no joint can do is no reading, and is said as what it is."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from koch_driver.arm.reading import ReadingConverter
from koch_driver.bus.dynamixel import MotorState
from koch_driver.bus.motors import FOLLOWER_MOTORS
from koch_driver.errors import ImplausibleReading
from koch_rig.arm_model import KOCH_V1_1
from koch_rig.units import JointUnits

if TYPE_CHECKING:
    from koch_rig.calibration import Calibration
    from koch_rig.rig import Arm

JOINTS = ("shoulder_pan", "elbow_flex", "gripper")


def state(units: JointUnits, joint: str, angle: float, at_s: float) -> MotorState:
    """Everything at rest in the middle of its range but one joint."""
    lower, upper = units.range_rad()
    pose = 0.5 * (lower + upper)
    pose[KOCH_V1_1.joints.index(joint)] += angle
    ticks, zero = units.rad_to_ticks(pose), np.zeros(len(KOCH_V1_1.joints), dtype=np.int64)
    ns = int(1e9 * at_s)
    return MotorState(ticks, zero, zero, ns, ns, 0.001, True, (), (), 0)


@pytest.mark.parametrize("joint", JOINTS)
@pytest.mark.parametrize("turn", [2.0 * math.pi, -2.0 * math.pi])
@pytest.mark.parametrize("seconds", [0.01, 0.3])
def test_a_joint_that_jumps_by_a_turn_is_named_with_both_angles(
    follower: Arm, calibration: Calibration, joint: str, turn: float, seconds: float
) -> None:
    units = JointUnits(follower, calibration)
    converter = ReadingConverter(units, FOLLOWER_MOTORS)
    converter.convert(state(units, joint, 0.0, 1.0))
    with pytest.raises(
        ImplausibleReading, match=rf"{joint} from .* within {1e3 * seconds:.0f} ms"
    ):
        converter.convert(state(units, joint, turn, 1.0 + seconds))
    assert converter.convert(state(units, joint, 0.1, 1.1 + seconds)).positions


@pytest.mark.parametrize("joint", JOINTS)
def test_a_joint_a_turn_outside_its_range_is_refused_without_a_reading_before(
    follower: Arm, calibration: Calibration, joint: str
) -> None:
    units = JointUnits(follower, calibration)
    converter = ReadingConverter(units, FOLLOWER_MOTORS)
    span = float(np.ptp(np.array(units.range_rad()), axis=0)[KOCH_V1_1.joints.index(joint)])
    converter.convert(state(units, joint, 0.5 * span + 3.0, 1.0))
    converter.forget()
    words = rf"{joint} at -?\d+\.\d\d rad, half a turn outside its range\."
    with pytest.raises(ImplausibleReading, match=words):
        converter.convert(state(units, joint, 0.5 * span + 3.2, 1.0))
