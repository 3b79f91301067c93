# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Braking in discrete time: hand values, inverses, and that a joint can always stop."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koch_driver.guard.motion import JointMotion, brake, stopping_distance, stopping_speed

STEP, PERIOD = 0.2, 0.01
MOTION = JointMotion(3.0, STEP, PERIOD)


def test_stopping_distance_is_the_sum_of_the_remaining_cycles() -> None:
    # 0.5 -> 0.3 -> 0.1 -> 0: two cycles still move.
    assert stopping_distance(0.5, STEP, PERIOD) == pytest.approx((0.3 + 0.1) * PERIOD)
    assert stopping_distance(STEP, STEP, PERIOD) == pytest.approx(0.0)
    assert stopping_distance(0.0, STEP, PERIOD) == 0.0


def test_stopping_speed_of_no_room_is_zero() -> None:
    assert stopping_speed(0.0, STEP, PERIOD) == 0.0
    assert stopping_speed(-1.0, STEP, PERIOD) == 0.0


@given(distance=st.floats(1e-9, 10.0))
def test_stopping_speed_is_the_inverse_of_one_cycle_and_braking(distance: float) -> None:
    speed = stopping_speed(distance, STEP, PERIOD)
    assert speed * PERIOD + stopping_distance(speed, STEP, PERIOD) == pytest.approx(distance)


@given(velocity=st.floats(-3.0, 3.0))
def test_braking_ends_at_exactly_zero_within_the_stopping_distance(velocity: float) -> None:
    way, speed = 0.0, velocity
    while speed != 0.0:
        slower = brake(speed, STEP)
        assert abs(slower - speed) <= STEP * (1 + 1e-12)
        speed = slower
        way += speed * PERIOD
    assert abs(way) == pytest.approx(stopping_distance(abs(velocity), STEP, PERIOD), abs=1e-12)


def test_a_resting_target_is_reached_exactly_without_overshoot() -> None:
    position = velocity = 0.0
    for _ in range(200):
        velocity, _, _ = MOTION.velocity_towards(position, velocity, 1.0, 0.0, -2.0, 2.0)
        position += velocity * PERIOD
        assert position <= 1.0 + 1e-12
    assert position == pytest.approx(1.0, abs=1e-12)
    assert velocity == 0.0


def test_a_steadily_moving_target_is_followed_without_lag() -> None:
    position, velocity, target = 0.0, 0.0, 0.0
    for _ in range(100):
        target += 1.0 * PERIOD
        velocity, _, _ = MOTION.velocity_towards(position, velocity, target, 1.0, -2.0, 2.0)
        position += velocity * PERIOD
    assert position == pytest.approx(target, abs=1e-9)


@given(targets=st.lists(st.floats(-5.0, 5.0), min_size=1, max_size=60), speed=st.floats(-3, 3))
def test_limits_hold_for_any_target(targets: list[float], speed: float) -> None:
    position = velocity = 0.0
    for target in targets:
        before = velocity
        velocity, _, _ = MOTION.velocity_towards(position, velocity, target, speed, -0.3, 0.4)
        position += velocity * PERIOD
        assert -0.3 - 1e-12 <= position <= 0.4 + 1e-12
        assert abs(velocity - before) <= STEP * (1 + 1e-9)
        assert math.isfinite(position)


def test_outside_its_limits_a_joint_only_moves_inwards() -> None:
    outwards, _, _ = MOTION.velocity_towards(0.5, 0.0, 0.9, 0.0, -0.3, 0.5)
    inwards, _, _ = MOTION.velocity_towards(0.5, 0.0, 0.2, 0.0, -0.3, 0.5)
    assert outwards == 0.0
    assert inwards < 0.0
