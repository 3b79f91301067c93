# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A step of the system clock is named, an even clock is not."""

from __future__ import annotations

import time

import pytest

from koch_ros.stamps import ClockWatch

pytestmark = pytest.mark.ros


@pytest.mark.parametrize(
    ("step_s", "word"), [(5.0, "forward"), (-900.0, "back"), (0.1, "forward")]
)
def test_a_step_is_named_once_with_its_size(
    monkeypatch: pytest.MonkeyPatch, step_s: float, word: str
) -> None:
    watch = ClockWatch()
    assert watch.look() == 0.0
    assert watch.words() == ""
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + int(1e9 * step_s))
    assert watch.look() == pytest.approx(step_s, abs=0.01)
    assert f"{word} by {abs(step_s):.1f}" in watch.words()
    assert watch.look() == 0.0


def test_a_slewed_clock_is_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = ClockWatch()
    real = time.time_ns
    for k in range(1, 20):
        monkeypatch.setattr(time, "time_ns", lambda k=k: real() + k * 500_000)
        assert watch.look() == 0.0
