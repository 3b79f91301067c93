# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Leader to follower: LeRobot's numbers on both sides, and who is too far apart to engage."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from koch_driver.arm.teleop_map import SQUEEZED_S, PoseMap, Squeeze, engage
from koch_rig.arm_model import KOCH_V1_1
from koch_rig.calibration import load_calibration
from koch_rig.units import JointUnits, Units

if TYPE_CHECKING:
    from koch_rig.rig import Rig

J = len(KOCH_V1_1.joints)


@pytest.fixture
def units(rig: Rig) -> tuple[JointUnits, JointUnits]:
    arms = [rig.arms[name] for name in ("leader", "follower")]
    made = [JointUnits(arm, load_calibration(arm.calibration_path)) for arm in arms]
    return made[0], made[1]


def test_both_arms_have_the_same_lerobot_numbers(units, rng: np.random.Generator) -> None:
    leader, follower = units
    mapping = PoseMap(leader, follower)
    for _ in range(50):
        numbers = rng.uniform([-100.0] * 5 + [0.0], 100.0)
        mapped = mapping.map(leader.to_rad(Units.LEROBOT, numbers))
        assert follower.rad_to(Units.LEROBOT, mapped) == pytest.approx(numbers, abs=1e-9)


def test_beyond_its_range_the_leader_stands_at_the_end_of_the_followers(units) -> None:
    leader, follower = units
    low, high = follower.range_rad()
    for extreme in ([9.0] * J, [-9.0] * J):
        mapped = np.array(PoseMap(leader, follower).map(extreme))
        assert np.all((np.abs(mapped - low) < 1e-9) | (np.abs(mapped - high) < 1e-9))


ZERO = (0.0,) * J


def test_arms_that_agree_engage() -> None:
    answer = engage(ZERO, (0.1,) * J, threshold_rad=0.2, refuse=True)
    assert answer.engaged


@pytest.mark.parametrize("refuse", [True, False])
def test_arms_apart_name_the_joints(refuse: bool) -> None:
    follower = (0.0, 0.5, 0.0, -0.3, 0.0, 0.9)
    answer = engage(ZERO, follower, threshold_rad=0.2, refuse=refuse)
    assert answer.engaged is not refuse
    assert "shoulder_lift by 0.50 rad, wrist_flex by 0.30 rad" in answer.message
    assert "gripper" not in answer.message  # its trigger rests elsewhere by design


def test_a_silent_arm_does_not_engage() -> None:
    assert "of the leader" in engage(None, ZERO, threshold_rad=0.2, refuse=False).message
    assert not engage(ZERO, None, threshold_rad=0.2, refuse=False).engaged


def test_a_trigger_is_squeezed_once_it_was_let_go() -> None:
    squeeze = Squeeze()
    assert not squeeze.take(5.0, 0.0)
    assert not squeeze.take(5.0, 1.0), "it was squeezed all the time"
    assert not squeeze.take(50.0, 1.1)
    assert not squeeze.take(5.0, 1.2)
    assert not squeeze.take(5.0, 1.2 + 0.9 * SQUEEZED_S)
    assert not squeeze.take(50.0, 1.4), "too short"
    assert not squeeze.take(5.0, 1.5)
    assert squeeze.take(5.0, 1.5 + 1.1 * SQUEEZED_S)
    squeeze.forget()
    assert not squeeze.take(5.0, 2.0)
    assert not squeeze.take(5.0, 3.0)
