# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""When to infer, how long that takes, and which row of which chunk belongs to now."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from koch_policy.chunks.chunk import Arrival, Chunk, RawRows, Request, Rows
from koch_policy.chunks.strategies import Strategy

_NS = 1_000_000_000


@dataclass(frozen=True)
class Grid:
    """The control ticks: tick k is at origin_ns + k * step_ns (the clock of the stamps).

    Attributes:
        origin_ns: Time of tick 0 [ns].
        rate_hz: Ticks per second; times are exact over hours, without a rounded step adding up.
    """

    origin_ns: int
    rate_hz: float

    @property
    def step_s(self) -> float:
        """Time between two ticks [s]."""
        return 1.0 / self.rate_hz

    def time_ns(self, tick: int) -> int:
        """Time of a tick [ns]."""
        return self.origin_ns + round(tick * _NS / self.rate_hz)

    def tick_at(self, time_ns: int) -> int:
        """The newest tick at or before a time."""
        tick = int((time_ns - self.origin_ns) * self.rate_hz / _NS)
        while self.time_ns(tick) > time_ns:
            tick -= 1
        while self.time_ns(tick + 1) <= time_ns:
            tick += 1
        return tick


class DelayQuantile:
    """Weighted quantile of the newest delays; a delay's weight halves every `half_life` samples.

    One slow inference (a compilation, a page fault) is believed for a while and then forgotten,
    unlike a maximum, which would cost reaction time for the rest of the run.

    Args:
        quantile: In (0, 1).
        half_life: Number of samples after which a sample counts half.
        initial_s: Answer before the first sample [s].
    """

    def __init__(
        self, quantile: float = 0.9, half_life: float = 10.0, initial_s: float = 0.1
    ) -> None:
        if not 0.0 < quantile < 1.0 or not half_life > 0.0 or not initial_s >= 0.0:
            raise ValueError(f"quantile {quantile}, half_life {half_life}, initial_s {initial_s}")
        self._quantile = quantile
        self._factor = 0.5 ** (1.0 / half_life)
        self._initial_s = initial_s
        self._delays: deque[float] = deque(maxlen=max(8, math.ceil(8 * half_life)))

    def add(self, delay_s: float) -> None:
        """Take in one delay [s]; negative ones (a clock that jumped) count as zero."""
        self._delays.append(max(0.0, delay_s))

    @property
    def estimate_s(self) -> float:
        """The decaying quantile [s]."""
        if not self._delays:
            return self._initial_s
        count = len(self._delays)
        weighted = sorted(
            (delay, self._factor ** (count - 1 - place))
            for place, delay in enumerate(self._delays)
        )
        bound = self._quantile * sum(weight for _, weight in weighted)
        passed = 0.0
        for delay, weight in weighted:
            passed += weight
            if passed >= bound:
                return delay
        return weighted[-1][0]

    def steps(self, step_s: float) -> int:
        """The estimate in whole steps, rounded up."""
        return math.ceil(self.estimate_s / step_s - 1e-9)

    def percentile(self, fraction: float) -> float:
        """Plain quantile of the remembered delays [s], 0 without any: for people to read."""
        if not self._delays:
            return 0.0
        ordered = sorted(self._delays)
        return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))]


class ChunkScheduler:
    """Runs one strategy on the grid. One thread calls it; inference happens elsewhere.

    Every tick executes exactly the row that was predicted for it. A late chunk is entered where
    it is due, an older plan goes on until then, and what no chunk predicted is not executed.

    Args:
        strategy: Empty or cleared.
        delay: Estimator, shared between runs.
        grid: The ticks.
        clock: Time now [ns], in the clock of the grid.
        is_still: The arm stands still while there is no plan, so that the first chunk begins with
            its first row however long it took. Not so where something else moves the arm: a
            recording that is replayed, or a human in shadow mode.
    """

    def __init__(
        self,
        strategy: Strategy,
        delay: DelayQuantile,
        grid: Grid,
        clock: Callable[[], int],
        *,
        is_still: bool = False,
    ) -> None:
        self.strategy = strategy
        self.delay = delay
        self.grid = grid
        self.executed = 0
        self.skipped = 0  # ticks that passed without a call of `action` while a plan was there
        self.starved = 0  # ticks after the first action for which no chunk had one
        self.expired = 0  # chunks that came when all their steps were over
        self._clock = clock
        self._is_still = is_still
        self._pending: Request | None = None
        self._count = 0
        self._last_tick: int | None = None
        self._newest_tick: int | None = None

    @property
    def observation_tick(self) -> int | None:
        """Tick of the observation behind the newest chunk, None when there is no plan."""
        return self._newest_tick

    def wants(self, tick: int) -> bool:
        """Whether an inference should begin with this tick's observation."""
        if self._pending is not None:
            return False
        return self.strategy.wants(tick, self.delay.steps(self.grid.step_s))

    def begin(
        self, tick: int, continued: Callable[[RawRows], RawRows] = lambda kept: kept
    ) -> Request:
        """An inference begins with the observation of this tick.

        Args:
            tick: The tick.
            continued: Says what is left of the plan in the policy's numbers of today.
        """
        self._count += 1
        leftover = self.strategy.leftover(tick)
        self._pending = Request(
            self._count,
            tick,
            self.delay.steps(self.grid.step_s),
            None if leftover is None else continued(leftover),
        )
        return self._pending

    def arrive(
        self,
        request: Request,
        rows: Rows,
        raw: RawRows,
        tick: int,
        finished_ns: int | None = None,
    ) -> Arrival:
        """Take the chunk of a request; it may be executed from `tick` on.

        Args:
            request: What `begin` returned.
            rows: The chunk in [rad], (T, A).
            raw: The same as `begin` hands it on.
            tick: The next tick to execute.
            finished_ns: When the chunk was there [ns], now where absent.
        """
        done_ns = self._clock() if finished_ns is None else finished_ns
        delay_s = (done_ns - self.grid.time_ns(request.tick)) / _NS
        self.delay.add(delay_s)
        chunk = Chunk(request.tick, rows, raw)
        entry = tick - request.tick
        if self._pending is not request:  # cleared in the meantime
            return Arrival(entry, rows, usable=False, delay_s=delay_s)
        self._pending = None
        if tick >= chunk.end:
            self.expired += 1
            return Arrival(entry, rows, usable=False, delay_s=delay_s)
        if self._is_still and self._newest_tick is None:
            # Rows 0 to entry - 1 were due while the arm could not move. It starts where the
            # policy began, and not with a jump to what should have been reached by now.
            chunk = Chunk(request.tick, _begun_late(rows, entry), _begun_late(raw, entry))
        self.strategy.accept(chunk, tick)
        self._newest_tick = request.tick
        return Arrival(entry, chunk.rows, usable=True, delay_s=delay_s)

    def owns(self, request: Request) -> bool:
        """Whether this is the inference that is waited for."""
        return self._pending is request

    def awaits(self, tick: int) -> bool:
        """Whether the inference with this tick's observation is under way."""
        return self._pending is not None and self._pending.tick == tick

    def cancel(self, request: Request) -> None:
        """The inference failed; nothing will arrive."""
        if self._pending is request:
            self._pending = None

    def action(self, tick: int) -> Rows | None:
        """The action of a tick (A,) in [rad]; None when no chunk predicted it.

        Raises:
            ValueError: The tick was asked for before.
        """
        last = self._last_tick
        if last is not None and tick <= last:
            raise ValueError(f"tick {tick} is over already (last: {last})")
        if last is not None and self._newest_tick is not None:
            self.skipped += tick - last - 1
        self._last_tick = tick
        row = self.strategy.action(tick)
        if row is not None:
            self.executed += 1
        elif self.executed:
            self.starved += 1
        return row

    def renew(self) -> None:
        """Something else is asked for: what is being inferred no longer counts."""
        self.strategy.renew()
        self._pending = None

    def clear(self) -> None:
        """Forget the plan and whatever is being inferred: the arm was somewhere else since."""
        self.strategy.clear()
        self._pending = None
        self._last_tick = None
        self._newest_tick = None


def _begun_late(rows: NDArray[Any], steps: int) -> NDArray[Any]:
    """Repeat the first row, so that what followed it comes `steps` later."""
    return np.concatenate([np.repeat(rows[:1], steps, axis=0), rows])
