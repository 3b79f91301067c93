# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Figures of joint motion."""

from __future__ import annotations

import math

import pytest

from koch_vla.motion import lag_and_error, rate_hz


def wave(delay_s, offset=0.0, seconds=4.0, rate=100):
    return [
        (k / rate, math.sin(2 * math.pi * (k / rate - delay_s) / 2.0) + offset)
        for k in range(int(seconds * rate))
    ]


@pytest.mark.parametrize("delay_s", [0.0, 0.02, 0.1, 0.35])
def test_the_delay_of_a_delayed_wave_is_found(delay_s):
    lag_s, error = lag_and_error(wave(0.0), wave(delay_s))
    assert lag_s == pytest.approx(delay_s, abs=0.002)
    assert error < 0.01


def test_an_offset_is_left_over_as_error():
    _, error = lag_and_error(wave(0.0), wave(0.1, offset=0.25))
    assert error == pytest.approx(0.25, abs=0.1)


@pytest.mark.parametrize("follower", [[], wave(0.0)[:1], wave(0.0, seconds=0.2)])
def test_too_little_in_common_gives_nan(follower):
    assert all(math.isnan(value) for value in lag_and_error(wave(0.0), follower))


@pytest.mark.parametrize(
    ("times", "rate"), [([], 0.0), ([1.0], 0.0), ([1.0, 1.0], 0.0), ([0.0, 0.5, 1.0], 2.0)]
)
def test_rate(times, rate):
    assert rate_hz(times) == rate
