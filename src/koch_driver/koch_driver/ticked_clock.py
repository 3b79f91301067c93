# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A clock that only ticks, as /clock does, read between its ticks."""

from __future__ import annotations

import threading
from collections import deque

_KEPT = 50  # ticks
# Farther from where it was expected by so much wall time, a tick is a jump.
_JUMP_NS = 200_000_000
# A tick that is so much later than the others has stopped the clock.
_HOLD_NS = 10_000_000
# What is shown runs at least and at most at these shares of the rate until it meets the line.
_SLOWEST, _FASTEST = 0.1, 3.0


class TickedClock:
    """Follows a clock of any speed by a line along its last ticks. Thread safe.

    A simulation announces its time every few milliseconds; at three times the real speed one
    tick is fifteen of its milliseconds wide. Taken as they come, ticks would give two bus cycles
    the same stamp, and would make commands look older or younger by a tick. On a busy computer
    ticks are heard late, never early: the line leads along those that were least late.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ticks: deque[tuple[int, int]] = deque(maxlen=_KEPT)
        self._rate = 0.0
        self._line = (0, 0)  # a point of it: value, instant
        self._until = 0  # last instant that it holds for
        self._shown = (0, 0)  # newest answer: value, instant

    @property
    def rate(self) -> float:
        """Its seconds per second; 0 before two ticks."""
        return self._rate

    def tick(self, value_ns: int, now_ns: int) -> None:
        """Take a tick.

        Args:
            value_ns: What the clock shows.
            now_ns: `time.monotonic_ns` when it was heard.
        """
        with self._lock:
            ticks = self._ticks
            off_ns = abs(value_ns - self._expected(now_ns))
            jumped = not ticks or value_ns < ticks[-1][0]
            jumped = jumped or off_ns > _JUMP_NS * max(1.0, self._rate)
            if jumped or now_ns > self._until + _JUMP_NS:
                ticks.clear()
            if jumped:
                self._shown = (value_ns, now_ns)
            ticks.append((value_ns, now_ns))
            self._draw()

    def at(self, now_ns: int) -> int:
        """What the clock shows at an instant of `time.monotonic_ns`, now or a moment ago.

        While the clock neither stops nor jumps, later instants have later values.
        """
        with self._lock:
            value, instant = self._shown
            if now_ns <= instant:
                return value - round(self._rate * (instant - now_ns))
            step = self._rate * (now_ns - instant)
            least = value + round(_SLOWEST * step) if now_ns <= self._until else value
            most = value + round(_FASTEST * step)
            value = max(least, min(most, self._expected(now_ns)))
            self._shown = (value, now_ns)
            return value

    def _expected(self, now_ns: int) -> int:
        value, instant = self._line
        return value + round(self._rate * (min(now_ns, self._until) - instant))

    def _draw(self) -> None:
        """Draw the line: the rate from the halves' means, the height from the earliest tick."""
        ticks = list(self._ticks)
        n, half = len(ticks), len(ticks) // 2
        value_0, now_0 = ticks[0]
        values = [value - value_0 for value, _ in ticks]
        nows = [now - now_0 for _, now in ticks]
        if nows[-1] <= 0:
            self._rate, self._line, self._until = 0.0, ticks[-1], ticks[-1][1]
            return
        span = sum(nows[-half:]) - sum(nows[:half])
        self._rate = (sum(values[-half:]) - sum(values[:half])) / span
        height = max(v - self._rate * t for v, t in zip(values, nows, strict=True))
        self._line = (value_0 + round(height), now_0)
        self._until = ticks[-1][1] + nows[-1] // (n - 1) + _HOLD_NS
