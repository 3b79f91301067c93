# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The check of the guard's promises finds what breaks them."""

from __future__ import annotations

import numpy as np
import pytest
from goal_bounds import Goals, violations
from repository import ROOT

from koch_rig.arm_model import KOCH_V1_1
from koch_rig.load import load_rig
from koch_rig.rig import Rig

J = len(KOCH_V1_1.joints)

RATE_HZ, ACCELERATION, SPEED = 100.0, 20.0, 3.0


@pytest.fixture(scope="module")
def rig() -> Rig:
    loaded: Rig = load_rig(ROOT / "config" / "rig.sim.yaml")
    return loaded


def goals(
    positions: np.ndarray, *, gap_at: int | None = None, lost_at: int | None = None
) -> Goals:
    """Goals that move the wrist's roll; after a pause, or one of them not heard."""
    count = len(positions)
    stamps, numbers = np.arange(count) / RATE_HZ, np.arange(1, count + 1)
    if gap_at is not None:
        stamps[gap_at:] += 1.0
    if lost_at is not None:
        numbers[lost_at:] += 1
    whole = np.zeros((count, J))
    whole[:, 4] = positions
    velocities = np.diff(whole, axis=0, prepend=whole[:1]) * RATE_HZ
    if gap_at is not None:
        velocities[gap_at] = 0.0
    return Goals(numbers, stamps, whole, velocities)


def speeding_up(count: int, acceleration: float = ACCELERATION) -> np.ndarray:
    speeds = np.minimum(np.arange(count) * acceleration / RATE_HZ, SPEED)
    path: np.ndarray = np.cumsum(speeds) / RATE_HZ
    return path


def test_the_fastest_allowed_motion_passes(rig: Rig) -> None:
    assert violations(rig, goals(speeding_up(40))) == []


def test_too_fast_is_found(rig: Rig) -> None:
    path = speeding_up(40)
    path[30:] += 0.02
    assert any("speed of wrist_roll" in line for line in violations(rig, goals(path)))


def test_too_hard_is_found_even_across_a_late_cycle(rig: Rig) -> None:
    path = speeding_up(10, acceleration=2.0 * ACCELERATION)
    assert any("acceleration of wrist_roll" in line for line in violations(rig, goals(path)))


def test_a_jump_is_found_unless_the_guard_began_anew(rig: Rig) -> None:
    path = np.zeros(20)
    path[10:] = 0.5
    assert violations(rig, goals(path)) != []
    assert violations(rig, goals(path, gap_at=10)) == []


def test_a_new_sequence_must_begin_at_rest(rig: Rig) -> None:
    path = np.concatenate([np.zeros(10), 0.5 + 0.02 * np.arange(10)])
    assert any("acceleration" in line for line in violations(rig, goals(path, gap_at=10)))


def test_goals_that_were_not_heard_accuse_nobody(rig: Rig) -> None:
    path = np.delete(speeding_up(40), 20)
    assert violations(rig, goals(path)) != []
    assert violations(rig, goals(path, lost_at=20)) == []


def test_leaving_the_limits_is_found_but_coming_back_is_not(rig: Rig) -> None:
    upper = rig.limits.joints["wrist_roll"][1]
    path = np.linspace(upper + 0.05, upper - 0.05, 60)
    assert violations(rig, goals(path[::-1])) != []
    assert not any("goal" in line for line in violations(rig, goals(path)))


def test_a_goal_below_the_table_is_found(rig: Rig) -> None:
    whole = np.zeros((60, J))
    whole[:, 1] = np.linspace(0.0, -1.2, 60)
    stamps = np.arange(60) / RATE_HZ
    found = violations(rig, Goals(np.arange(1, 61), stamps, whole, np.zeros((60, J))))
    assert any("outside the workspace" in line for line in found)
