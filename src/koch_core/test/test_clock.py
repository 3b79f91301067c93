# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Time between the ticks of /clock, at any speed of it."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from koch_core.clock import TickedClock

MS = 1_000_000
START = 1_700_000_000_000 * MS  # large, as real stamps are: no bit may be lost


def run(clock: TickedClock, speed: float, ticks: int, *, begin_ns: int = 0, late_ms: float = 0.0):
    """Ticks every 10 ms, heard up to `late_ms` later; the end of the last interval."""
    rng = random.Random(3)
    for k in range(ticks):
        now = begin_ns + 10 * MS * k
        clock.tick(START + round(speed * now), now + round(rng.uniform(0.0, late_ms) * MS))
    return begin_ns + 10 * MS * ticks


@pytest.mark.parametrize("speed", [0.1, 0.5, 1.0, 3.0, 20.0])
def test_it_runs_on_between_two_ticks(speed: float) -> None:
    clock = TickedClock()
    end = run(clock, speed, 60)
    for ahead in (-7, -3, 0, 3, 7, 2):
        now = end + ahead * MS
        assert clock.at(now) == pytest.approx(START + speed * now, abs=speed * MS / 20, rel=0)
    assert clock.rate == pytest.approx(speed)


@pytest.mark.parametrize("speed", [0.5, 3.0])
def test_no_two_cycles_get_one_stamp_and_none_goes_backwards(speed: float) -> None:
    """The bus at 200 Hz, a clock at 50 Hz, heard up to 15 ms late. The control: bare ticks."""
    clock, rng, raw = TickedClock(), random.Random(5), 0
    heard = [(20 * k * MS + round(rng.uniform(0, 15) * MS), 20 * k * MS) for k in range(150)]
    asked = [(5 * k * MS, None) for k in range(600)]
    stamps, plain = [], []
    for now, tick in sorted(heard + asked, key=lambda event: event[0]):
        if tick is not None:
            raw = START + round(speed * tick)
            clock.tick(raw, now)
        else:
            stamps.append(clock.at(now))
            plain.append(raw)
    steps = [b - a for a, b in pairwise(stamps[100:])]
    assert min(steps) > 0.3 * speed * 5 * MS
    assert max(steps) < 2.5 * speed * 5 * MS
    assert stamps[-1] - START == pytest.approx(speed * 5 * MS * 599, abs=speed * 15 * MS)
    assert 0 in [b - a for a, b in pairwise(plain[100:])]


def test_it_stops_when_the_clock_does_and_goes_on_with_it() -> None:
    clock = TickedClock()
    end = run(clock, 3.0, 60)
    running = clock.at(end)
    stopped = clock.at(end + 500 * MS)
    assert 0 < stopped - running <= 3 * 21 * MS
    assert 0 < clock.at(end + 900 * MS) - stopped < MS / 100
    value = START + round(3.0 * end)
    for k in range(60):
        now = end + (5000 + 10 * k) * MS
        clock.tick(value + 30 * MS * k, now)
        assert clock.at(now) <= max(stopped + MS // 10, value + 30 * MS * (k + 1))
    assert clock.at(now) == pytest.approx(value + 30 * MS * k, abs=MS, rel=0)


def test_a_world_that_loses_time_is_not_led() -> None:
    """A busy simulation drops a third of its time, a hundred milliseconds at once."""
    clock, value, shown = TickedClock(), START, START
    for k in range(600):
        now = 10 * MS * k
        value += 0 if k % 30 < 10 else 30 * MS
        clock.tick(value, now)
        assert shown <= clock.at(now)
        shown = clock.at(now + 5 * MS)
        if k > 60:
            assert -3 * 60 * MS < shown - value < 3 * 40 * MS


@pytest.mark.parametrize("jump_s", [-100.0, -0.1, 5.0])
def test_it_follows_a_jump_at_once(jump_s: float) -> None:
    clock = TickedClock()
    end = run(clock, 1.0, 60)
    there = START + end + round(jump_s * 1e9)
    clock.tick(there, end)
    assert clock.at(end) == there


def test_before_the_first_tick_it_shows_nothing() -> None:
    clock = TickedClock()
    assert clock.at(123 * MS) == 0
    assert clock.rate == 0.0
    clock.tick(START, 5 * MS)
    assert clock.at(700 * MS) == pytest.approx(START, abs=MS / 100, rel=0)


@pytest.mark.parametrize("speed", [0.1, 0.5, 3.0])
def test_cycles_while_the_clock_stands_still_keep_their_own_stamps(speed: float) -> None:
    clock = TickedClock()
    end = run(clock, speed, 60)
    stamps = [clock.at(end + 5 * k * MS) for k in range(200)]
    assert min(b - a for a, b in pairwise(stamps)) > 0
    assert stamps[-1] - stamps[60] < MS / 50


@pytest.mark.parametrize("speed", [0.1, 0.5, 3.0])
@pytest.mark.parametrize("held_up_ms", [15, 60, 150])
def test_ticks_that_are_heard_at_once_change_no_past(speed: float, held_up_ms: int) -> None:
    """A node that was held up hears its ticks at once, before or after it stamps its readings."""
    for stamped_first in (True, False):
        clock = TickedClock()
        end = run(clock, speed, 60)
        stamps = [clock.at(end - 10 * MS)]
        readings = [end + k * MS for k in range(0, held_up_ms, 5)]
        if stamped_first:
            stamps += [clock.at(reading) for reading in readings]
        for k in range(held_up_ms // 10):
            value = START + round(speed * (end + 10 * k * MS))
            clock.tick(value, end + (held_up_ms - 3) * MS + 20_000 * k)
        if not stamped_first:
            stamps += [clock.at(reading) for reading in readings]
        stamps += [clock.at(end + (held_up_ms + k) * MS) for k in range(0, 40, 5)]
        assert min(b - a for a, b in pairwise(stamps)) > 0


@pytest.mark.parametrize("speed", [0.1, 0.25])
def test_a_slow_clock_goes_on_until_its_own_time_says_that_a_tick_is_late(speed: float) -> None:
    """Twenty milliseconds of it are two hundred of ours: a busy computer is no standing clock."""
    clock = TickedClock()
    end = run(clock, speed, 60)
    now = end + 60 * MS
    assert clock.at(now) == pytest.approx(START + speed * now, abs=MS, rel=0)
    assert clock.at(end + 5000 * MS) - START - speed * end < 21 * MS


@pytest.mark.parametrize("speed", [0.5, 3.0])
def test_a_tick_that_another_thread_overtook_changes_no_past(speed: float) -> None:
    """It was heard before a reading, but is taken in after that was stamped."""
    clock = TickedClock()
    end = run(clock, speed, 60)
    before = clock.at(end + 8 * MS)
    # The world came to a stand, so what is shown must slow down.
    clock.tick(START + round(speed * (end - 9 * MS)), end + MS)
    assert before < clock.at(end + 9 * MS)
