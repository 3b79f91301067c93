# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A clock that only ticks, as /clock does, read between its ticks."""

from __future__ import annotations

import threading
from collections import deque

_KEPT = 50  # ticks
# Farther from where it was expected by so much wall time, a tick is a jump.
_JUMP_NS = 200_000_000
# A clock that stays away for so many of its intervals has stopped.
_HOLD_INTERVALS = 3


class TickedClock:
    """Follows a clock of any speed by the straight line through its last ticks. Thread safe.

    A simulation announces its time every few milliseconds; at three times the real speed one
    tick is fifteen of its milliseconds wide. Taken as they come, ticks would give two bus cycles
    the same stamp, and would make commands look older or younger by a tick.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ticks: deque[tuple[int, int]] = deque(maxlen=_KEPT)
        self._line = (0, 0, 0.0, 0)  # value, instant, rate, last instant that it holds for

    @property
    def rate(self) -> float:
        """Its seconds per second; 0 before two ticks."""
        return self._line[2]

    def tick(self, value_ns: int, now_ns: int) -> None:
        """Take a tick.

        Args:
            value_ns: What the clock shows.
            now_ns: `time.monotonic_ns` when it was heard.
        """
        with self._lock:
            ticks = self._ticks
            if ticks:
                backwards = value_ns < ticks[-1][0]
                off_ns = abs(value_ns - self.at(now_ns))
                if backwards or off_ns > _JUMP_NS * max(1.0, self.rate):
                    ticks.clear()
            ticks.append((value_ns, now_ns))
            self._line = self._through(ticks)

    def at(self, now_ns: int) -> int:
        """What the clock shows at an instant of `time.monotonic_ns`, now or a moment ago."""
        value, instant, rate, last = self._line
        return value + round(rate * (min(now_ns, last) - instant))

    @staticmethod
    def _through(ticks: deque[tuple[int, int]]) -> tuple[int, int, float, int]:
        """The line with the ticks' mean rate through their mean, valid until the clock stops."""
        (value, now), (first_value, first) = ticks[-1], ticks[0]
        if now <= first:
            return value, now, 0.0, now
        n = len(ticks)
        mean_value = first_value + sum(v - first_value for v, _ in ticks) // n
        mean_now = first + sum(t - first for _, t in ticks) // n
        hold = _HOLD_INTERVALS * (now - first) // (n - 1)
        return mean_value, mean_now, (value - first_value) / (now - first), now + hold
