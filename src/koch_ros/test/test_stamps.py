# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A step of the system clock is named, an even clock is not."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from rclpy.clock import ROSClock
from rclpy.time import Time

from koch_ros.stamps import ClockWatch, RosStamper

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


@pytest.mark.parametrize("speed", [0.5, 3.0])
def test_simulated_time_between_and_behind_ticks_never_falls_or_stands(speed: float) -> None:
    """Ticks of 10 ms, of which some come late and then all at once."""
    clock = ROSClock()
    stamper = RosStamper(clock)
    clock._set_ros_time_is_active(True)  # as rclpy's time source does
    begin_s, ticks, times, walls = time.monotonic(), 0, [], []
    for cycle in range(120):
        time.sleep(0.005)
        held_up = 60 <= cycle < 80
        while not held_up and ticks * 0.01 < time.monotonic() - begin_s:
            ticks += 1
            clock.set_ros_time_override(Time(nanoseconds=round(speed * 1e7 * (ticks + 100))))
        walls.append(time.time_ns())
        if cycle % 3 == 0:  # several are asked for late
            times += [stamper.of_wall_ns(wall) for wall in walls]
            walls.clear()
    steps = [b - a for a, b in pairwise(times[20:])]
    assert min(steps) > 0
    assert times[-1] == pytest.approx(speed * 1e7 * (ticks + 100), abs=speed * 5e7)


def test_real_time_is_left_alone() -> None:
    stamper = RosStamper(ROSClock())
    for wall_ns in (0, 1, time.time_ns()):
        assert stamper.of_wall_ns(wall_ns) == wall_ns
