# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Waking at each tick of the grid, and noticing when the clock jumps."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from koch_policy.chunks import Grid

_NS = 1_000_000_000
_LONGEST_NAP_S = 0.05
_JUMP_S = 0.25
_SIMULATED_JUMP_S = 2.0


class Ticker:
    """Calls back at each tick until told to stop.

    Ticks that were slept over are left out: the newest one is done at once.

    Args:
        clock: Time now [ns], in the clock of the stamps.
        is_simulated: The clock is /clock: it runs at any speed, but never backwards.
        monotonic_ns: A clock that never jumps.
        nap: Waits for some seconds, or until the event is set.
    """

    def __init__(
        self,
        clock: Callable[[], int],
        *,
        is_simulated: bool = False,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        nap: Callable[[threading.Event, float], None] = lambda event, s: void(event.wait(s)),
    ) -> None:
        self._clock = clock
        self._is_simulated = is_simulated
        self._monotonic_ns = monotonic_ns
        self._nap = nap
        self.late = 0

    def run(
        self,
        grid: Grid,
        stop: threading.Event,
        step: Callable[[int], bool],
        jumped: Callable[[float], None],
    ) -> None:
        """Tick until `step` returns False, `stop` is set, or the clock jumps.

        Args:
            grid: The ticks.
            stop: Ends the loop.
            step: Called with each tick.
            jumped: Called with the size of the jump in [s]; the loop ends then.
        """
        before = (self._clock(), self._monotonic_ns())
        tick = grid.tick_at(before[0]) + 1
        while not stop.is_set():
            now, steady = self._clock(), self._monotonic_ns()
            jump_s = self._jump_s(before, (now, steady))
            before = (now, steady)
            if jump_s:
                jumped(jump_s)
                return
            left_s = (grid.time_ns(tick) - now) / _NS
            if left_s > 0.0:
                longest = 0.002 if self._is_simulated else _LONGEST_NAP_S
                self._nap(stop, min(left_s, longest))
                continue
            newest = grid.tick_at(now)
            self.late += newest - tick
            if not step(newest):
                return
            tick = newest + 1

    def _jump_s(self, before: tuple[int, int], now: tuple[int, int]) -> float:
        """How far the clock moved beyond the time that passed [s], 0 when it did not jump."""
        moved_s, passed_s = (now[0] - before[0]) / _NS, (now[1] - before[1]) / _NS
        if self._is_simulated:
            return moved_s if moved_s < 0.0 or moved_s > _SIMULATED_JUMP_S else 0.0
        return moved_s - passed_s if abs(moved_s - passed_s) > _JUMP_S else 0.0


def void(_: object) -> None:
    """Drop a value."""
