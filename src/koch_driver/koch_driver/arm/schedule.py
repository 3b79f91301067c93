# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""An absolute schedule for a periodic thread, and how well it was kept."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

_KEPT_CYCLES = 2000


def quantile(values: Sequence[float], fraction: float) -> float:
    """The value below which this fraction of the values lies; NaN without values."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[min(int(fraction * len(ordered)), len(ordered) - 1)]


@dataclass(frozen=True)
class ScheduleStatus:
    """How the schedule was kept, over the last cycles.

    Attributes:
        cycles: Cycles begun since the start.
        missed: Cycles left out because the one before took too long.
        lateness_p50_s: Median of (begin - deadline).
        lateness_p99_s: 99th percentile of the same.
        busy_p50_s: Median time a cycle worked.
        busy_p99_s: 99th percentile of the same.
    """

    cycles: int
    missed: int
    lateness_p50_s: float
    lateness_p99_s: float
    busy_p50_s: float
    busy_p99_s: float


class Schedule:
    """Deadlines at start + k * period on the monotonic clock.

    A late cycle does not shift the following ones. When a cycle ends after one or more later
    deadlines, those are counted as missed and the schedule goes on with the next one ahead.
    """

    def __init__(self, period_s: float) -> None:
        self.period_s = period_s
        self._next_s = time.monotonic()
        self._cycles = 0
        self._missed = 0
        self._late: deque[float] = deque(maxlen=_KEPT_CYCLES)
        self._busy: deque[float] = deque(maxlen=_KEPT_CYCLES)
        self._begun_s: float | None = None

    def restart(self) -> None:
        """Begin again at the present; what passed in between is not counted as missed."""
        self._next_s = time.monotonic()
        self._begun_s = None

    def wait(self) -> float:
        """Sleep until the next deadline.

        Returns:
            Monotonic time at which this cycle began in [s].
        """
        now = time.monotonic()
        if self._begun_s is not None:
            self._busy.append(now - self._begun_s)
        behind = now - self._next_s
        if behind > self.period_s:
            skipped = int(behind / self.period_s)
            self._missed += skipped
            self._next_s += skipped * self.period_s
        if self._next_s > now:
            time.sleep(self._next_s - now)
            now = time.monotonic()
        self._late.append(now - self._next_s)
        self._next_s += self.period_s
        self._cycles += 1
        self._begun_s = now
        return now

    def status(self) -> ScheduleStatus:
        """Figures of the last cycles; may be called from another thread."""
        late, busy = list(self._late), list(self._busy)
        return ScheduleStatus(
            self._cycles,
            self._missed,
            quantile(late, 0.5),
            quantile(late, 0.99),
            quantile(busy, 0.5),
            quantile(busy, 0.99),
        )
