# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A clock that only ticks, as /clock does, read between its ticks."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

_KEPT = 50  # ticks
# Farther from where it was expected by so much wall time, a tick is a jump.
_JUMP_NS = 200_000_000
# A tick that is so much later than the others has stopped the clock.
_HOLD_NS = 20_000_000
# An error of what is shown is made up for in this time, running at these shares of the rate.
_CATCH_UP_NS = 100_000_000
_SLOWEST, _FASTEST = 0.1, 3.0
_SEGMENTS = 4


class _Segment(NamedTuple):
    """What is shown from one tick on."""

    begin_ns: int
    value_ns: int
    rate: float
    until_ns: int  # the clock stands still from then on

    def at(self, now_ns: int) -> int:
        return self.value_ns + round(self.rate * (min(now_ns, self.until_ns) - self.begin_ns))


class TickedClock:
    """Follows a clock of any speed by a line along its last ticks.

    A simulation announces its time every few milliseconds; at three times the real speed one
    tick is fifteen of its milliseconds wide. Taken as they come, ticks would give two bus cycles
    the same stamp, and would make commands look older or younger by a tick. On a busy computer
    ticks are heard late, never early: the line leads along those that were least late. What is
    shown approaches the line without a step.

    One thread may call `tick`, any thread the rest.
    """

    def __init__(self) -> None:
        self._ticks: deque[tuple[int, int]] = deque(maxlen=_KEPT)
        self._rate = 0.0
        self._segments: tuple[_Segment, ...] = (_Segment(0, 0, 0.0, 0),)  # newest last

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
        ticks, shown = self._ticks, self.at(now_ns)
        jumped = not ticks or value_ns < ticks[-1][0]
        jumped = jumped or abs(value_ns - shown) > _JUMP_NS * max(1.0, self._rate)
        if jumped or now_ns > self._segments[-1].until_ns + _JUMP_NS:
            ticks.clear()
        ticks.append((value_ns, now_ns))
        if jumped:
            self._rate = 0.0
            self._segments = (_Segment(now_ns, value_ns, 0.0, now_ns),)
        else:
            segment = self._segment(shown, now_ns)
            self._segments = (*self._segments[1 - _SEGMENTS :], segment)

    def at(self, now_ns: int) -> int:
        """What the clock shows at an instant of `time.monotonic_ns`, now or a moment ago.

        While the clock neither stops nor jumps, later instants have later values.
        """
        segments = self._segments
        for segment in reversed(segments):
            if now_ns >= segment.begin_ns:
                return segment.at(now_ns)
        return segments[0].at(now_ns)

    def _segment(self, shown_ns: int, now_ns: int) -> _Segment:
        """From what is shown now towards the line."""
        ticks = list(self._ticks)
        n, half = len(ticks), len(ticks) // 2
        value_0, now_0 = ticks[0]
        values = [value - value_0 for value, _ in ticks]
        nows = [now - now_0 for _, now in ticks]
        if nows[-1] <= 0:
            return _Segment(now_ns, shown_ns, 0.0, now_ns)
        # The rate from the halves' means, the height from the tick that was heard soonest.
        span = sum(nows[-half:]) - sum(nows[:half])
        rate = self._rate = (sum(values[-half:]) - sum(values[:half])) / span
        height = max(v - rate * t for v, t in zip(values, nows, strict=True))
        error = value_0 + height + rate * nows[-1] - shown_ns
        chosen = max(_SLOWEST * rate, min(_FASTEST * rate, rate + error / _CATCH_UP_NS))
        return _Segment(now_ns, shown_ns, chosen, now_ns + nows[-1] // (n - 1) + _HOLD_NS)
