# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A clock that only ticks, as /clock does, read between its ticks."""

from __future__ import annotations

import threading
from collections import deque
from typing import NamedTuple

_KEPT = 50  # ticks
# Who was held up hears ticks at once. They say nothing of the rate, and a short time says little.
_AT_ONCE_NS, _BASE_NS = 5_000_000, 50_000_000
_REMEMBERED_NS = 1_000_000_000  # how long ago an instant may be that someone asks for
# A tick so far ahead of what was expected, in wall time, is a jump, and one so far behind.
_AHEAD_NS, _BEHIND_NS = 200_000_000, 1_000_000_000
_FIRST_NS = 10_000_000_000  # while the rate is not known
# A tick that is so much later than the others has stopped the clock; of the time of a slow clock.
_HOLD_NS, _LONGEST_HOLD_NS = 20_000_000, 200_000_000
# An error of what is shown is made up for in this time, running at these shares of the rate.
_CATCH_UP_NS = 100_000_000
_SLOWEST, _FASTEST = 0.1, 3.0
# A clock that stands still goes on by 10 ns per millisecond, so that two bus cycles, which read
# the arm twice, keep two stamps: equal ones would count as a fault of the driver.
_CREEP = 1e-5


class _Segment(NamedTuple):
    """What is shown from one tick on."""

    begin_ns: int
    value_ns: int
    rate: float
    until_ns: int  # the clock stands still from then on

    def at(self, now_ns: int) -> int:
        running_ns = min(now_ns, self.until_ns) - self.begin_ns
        standing_ns = max(0, now_ns - self.until_ns)
        return self.value_ns + round(self.rate * running_ns + _CREEP * standing_ns)


_BEFORE = _Segment(0, 0, 0.0, 2**63)  # the first tick


class TickedClock:
    """Follows a clock of any speed without its steps.

    A simulation announces its time every few milliseconds; at three times the real speed one
    tick is fifteen of its milliseconds wide. Taken as they come, ticks would give two bus cycles
    the same stamp, and would make commands look older or younger by a tick. So what is shown runs
    on at the rate of the last ticks and approaches each new one by running faster or slower,
    which also evens out that ticks are heard late on a busy computer. It never leads by more
    than a late tick: a simulation that falls behind stops its clock.

    What it has said of an instant stays: a tick that is heard late, or many at once, changes only
    what comes after the newest instant that was asked for.

    One thread may call `tick`, any thread the rest.
    """

    def __init__(self) -> None:
        self._ticks: deque[tuple[int, int]] = deque(maxlen=_KEPT)
        self._rate = 0.0
        self._segments: tuple[_Segment, ...] = (_BEFORE,)  # newest last
        self._asked_ns = self._group_ns = 0
        self._lock = threading.Lock()

    @property
    def rate(self) -> float:
        """Its seconds per second; 0 before it is known."""
        return self._rate

    def tick(self, value_ns: int, now_ns: int) -> None:
        """Take a tick.

        Args:
            value_ns: What the clock shows.
            now_ns: `time.monotonic_ns` when it was heard.
        """
        with self._lock:
            begin_ns = max(now_ns, self._asked_ns)
            shown = self._shown(begin_ns)
            # How far what is shown lags, as if the tick had been heard at once.
            off_ns = (value_ns - shown) / max(1.0, self._rate)
            ahead_ns = _AHEAD_NS if self._rate > 0.0 else _FIRST_NS
            fell = not self._ticks or value_ns < self._ticks[-1][0] or off_ns <= -_BEHIND_NS
            jumped = fell or off_ns >= ahead_ns
            if jumped or now_ns > self._segments[-1].until_ns + _AHEAD_NS:
                self._ticks.clear()
                self._rate = 0.0
            self._note(value_ns, now_ns)
            if fell:
                self._segments = (_Segment(now_ns, value_ns, 0.0, now_ns),)
            else:
                segment = self._approach(shown, begin_ns)
                self._segments = (*self._recent(now_ns), segment)

    def _note(self, value_ns: int, now_ns: int) -> None:
        """Keep a tick, of those heard at once only the newest, and learn the rate from all."""
        if self._ticks and now_ns - self._group_ns < _AT_ONCE_NS:
            self._ticks[-1] = (value_ns, now_ns)
        else:
            self._group_ns = now_ns
            self._ticks.append((value_ns, now_ns))
        values, nows = zip(*self._ticks, strict=True)
        half = len(nows) // 2
        if nows[-1] - nows[0] < _BASE_NS or not half:
            return
        # The halves' means: single late ticks at either end would bend the rate.
        (n0, n1), (v0, v1) = ((sum(row[:half]), sum(row[-half:])) for row in (nows, values))
        self._rate = (v1 - v0) / (n1 - n0)

    def at(self, now_ns: int) -> int:
        """What the clock shows at an instant of `time.monotonic_ns`, now or a moment ago.

        While the clock does not jump, later instants have later values.
        """
        with self._lock:
            self._asked_ns = max(self._asked_ns, now_ns)
            return self._shown(now_ns)

    def _shown(self, now_ns: int) -> int:
        segments = self._segments
        for segment in reversed(segments):
            if now_ns >= segment.begin_ns:
                return segment.at(now_ns)
        return segments[0].at(now_ns)

    def _recent(self, now_ns: int) -> tuple[_Segment, ...]:
        """The segments that may still be asked for: many ticks are heard at once at times."""
        segments = self._segments
        first = 0
        while first + 1 < len(segments) and segments[first + 1].begin_ns < now_ns - _REMEMBERED_NS:
            first += 1
        return segments[first:]

    def _approach(self, shown_ns: int, begin_ns: int) -> _Segment:
        """From what is shown at an instant towards the newest tick."""
        rate, (newest_ns, heard_ns) = self._rate, self._ticks[-1]
        if rate <= 0.0:  # not known yet
            return _Segment(begin_ns, max(shown_ns, newest_ns), 0.0, begin_ns)
        error = newest_ns + rate * (begin_ns - heard_ns) - shown_ns
        chosen = max(_SLOWEST * rate, min(_FASTEST * rate, rate + error / _CATCH_UP_NS))
        interval_ns = (heard_ns - self._ticks[0][1]) // max(1, len(self._ticks) - 1)
        hold_ns = min(_LONGEST_HOLD_NS, round(_HOLD_NS / min(1.0, rate)))
        until_ns = max(begin_ns, heard_ns + interval_ns + hold_ns)
        return _Segment(begin_ns, shown_ns, chosen, until_ns)


def step_in_words(step_s: float) -> str:
    """A step of the system clock for people."""
    way = "forward" if step_s > 0.0 else "back"
    return f"the system clock was set {way} by {abs(step_s):.3f} s"
