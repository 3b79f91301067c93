# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The ticker: every tick once, late ones left out, clocks that jump noticed."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from koch_policy.chunks import Grid
from koch_policy.execution.run import Ticker

NS = 1_000_000_000
ORIGIN = 1_700_000_000 * NS


class Hands:
    """Two clocks for a ticker: the wall clock can be moved, the steady one cannot."""

    def __init__(self) -> None:
        self.wall, self.steady = ORIGIN, 0

    def nap(self, event: Any, seconds: float) -> None:
        self.wall += round(seconds * NS)
        self.steady += round(seconds * NS)


@pytest.mark.parametrize("jump_s", [3.0, -3.0])
def test_a_clock_that_jumps_ends_the_ticks(jump_s: float) -> None:
    hands, ticks, jumps = Hands(), [], []

    def step(tick: int) -> bool:
        ticks.append(tick)
        if tick == 10:
            hands.wall += round(jump_s * NS)
        return tick < 100

    ticker = Ticker(lambda: hands.wall, monotonic_ns=lambda: hands.steady, nap=hands.nap)
    ticker.run(Grid(ORIGIN, 30.0), threading.Event(), step, jumps.append)
    assert ticks == list(range(1, 11))
    assert jumps == [pytest.approx(jump_s, abs=0.01)]


def test_a_simulated_clock_may_run_at_any_speed_but_not_backwards() -> None:
    hands, ticks, jumps = Hands(), [], []

    def nap(event: Any, seconds: float) -> None:
        hands.wall += round(10 * seconds * NS)  # ten times real time
        hands.steady += round(seconds * NS)

    def step(tick: int) -> bool:
        ticks.append(tick)
        if tick >= 60:
            hands.wall -= NS
        return True

    ticker = Ticker(
        lambda: hands.wall, is_simulated=True, monotonic_ns=lambda: hands.steady, nap=nap
    )
    ticker.run(Grid(ORIGIN, 30.0), threading.Event(), step, jumps.append)
    assert len(ticks) > 50
    assert len(jumps) == 1
    assert jumps[0] < 0.0


def test_ticks_slept_over_are_left_out_and_counted() -> None:
    hands, ticks = Hands(), []

    def step(tick: int) -> bool:
        ticks.append(tick)
        if tick == 5:
            hands.nap(None, 0.1)
        return tick < 12

    ticker = Ticker(lambda: hands.wall, monotonic_ns=lambda: hands.steady, nap=hands.nap)
    ticker.run(Grid(ORIGIN, 30.0), threading.Event(), step, lambda s: None)
    assert ticks == [1, 2, 3, 4, 5, 8, 9, 10, 11, 12]
    assert ticker.late == 2
