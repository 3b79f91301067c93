# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Health of a stream by its stamps: rate, gaps, jitter, losses, and when a rate is too low.

Three readers judge streams, each something else, and measure with what is here:

* the camera's watch (`koch_cameras.watch`) sees the images before they are published. It alone
  says that samples are unusable (black, frozen, damaged), in a message that all others obey:
  `StreamBuffer.mark`;
* the recorder (`koch_episodes.recorder.quality`) sees what arrives: whether an episode may start,
  and whether a recorded one has holes;
* the converter reports figures only. Which sample is too old is the `FrameAssembler`'s rule.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np

from koch_core.stream import NS_PER_S, to_ns

_SLOW_FRACTION = 0.9
_UNKNOWN_SEQUENCE = (1 << 64) - 1  # what middlewares without sequence numbers report


class Light(enum.IntEnum):
    """Green: fine. Amber: usable. Red: not. The numbers of diagnostic_msgs/DiagnosticStatus."""

    GREEN = 0
    AMBER = 1
    RED = 2


@dataclass(frozen=True)
class StreamStatistics:
    """Measures of one stream.

    Attributes:
        count: Samples taken.
        rate_hz: Samples per second, from first to last; 0 with fewer than two.
        median_gap_s: Middle distance of neighbouring samples.
        max_gap_s: Largest distance of neighbouring samples.
        jitter_s: Standard deviation of the distances.
        late: Always 0; older reports counted samples that came after their tick was decided.
    """

    count: int
    rate_hz: float
    median_gap_s: float
    max_gap_s: float
    jitter_s: float
    late: int = 0

    @classmethod
    def of(cls, stamps_ns: Any, runs: Any = None) -> StreamStatistics:
        """Measure a sequence of stamps [ns], any order; nothing across two runs of the clock."""
        stamps = np.asarray(stamps_ns, dtype=np.int64)
        run = np.zeros(len(stamps), np.int64) if runs is None else np.asarray(runs)
        order = np.lexsort((stamps, run))
        gaps = np.diff(stamps[order])[np.diff(run[order]) == 0] / NS_PER_S
        if not len(gaps):
            return cls(len(stamps), 0.0, 0.0, 0.0, 0.0)
        first, last = (
            np.flatnonzero(np.diff(run[order], prepend=-1)),
            np.flatnonzero(np.diff(run[order], append=1 << 40)),
        )
        span = float((stamps[order][last] - stamps[order][first]).sum()) / NS_PER_S
        rate = len(gaps) / span if span > 0 else 0.0
        return cls(len(stamps), rate, float(np.median(gaps)), float(gaps.max()), float(gaps.std()))


class StampWindow:
    """The stamps of the last seconds of a stream, by the stamps' own clock."""

    def __init__(self, window_s: float) -> None:
        self._window_ns = to_ns(window_s)
        self._stamps: deque[int] = deque()

    def add(self, stamp_ns: int) -> None:
        """Take in the stamp of the newest sample, [ns]."""
        self._stamps.append(stamp_ns)
        oldest = stamp_ns - self._window_ns
        while self._stamps[0] < oldest:
            self._stamps.popleft()

    def clear(self) -> None:
        """Forget all: the clock of the stamps was set."""
        self._stamps.clear()

    @property
    def newest_ns(self) -> int | None:
        """The stamp that came last, [ns]."""
        return self._stamps[-1] if self._stamps else None

    def statistics(self) -> StreamStatistics:
        """Measure the window."""
        return StreamStatistics.of(list(self._stamps))


class LossCounter:
    """Counts samples that were sent and did not arrive, by their sequence numbers from 1."""

    def __init__(self) -> None:
        self._last: dict[Hashable, int] = {}
        self.lost = 0

    def add(self, sequence: int, sender: Hashable) -> int:
        """Return how many samples of a sender are missing in front of this one.

        A number that is not above the last one is a sender that began again.
        """
        if sequence <= 0 or sequence == _UNKNOWN_SEQUENCE:
            return 0
        last = self._last.get(sender)
        self._last[sender] = sequence
        if last is None or sequence <= last:
            return 0
        missing = sequence - last - 1
        self.lost += missing
        return missing


def is_slow(rate_hz: float, expected_hz: float | None) -> bool:
    """Whether a rate is below the nominal one by more than clocks differ; never without one."""
    return bool(expected_hz) and rate_hz < _SLOW_FRACTION * (expected_hz or 0.0)
