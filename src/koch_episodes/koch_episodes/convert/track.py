# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What is worth knowing about one stream of an episode: rate, gaps, jitter, refused samples."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from koch_episodes.stream import NS_PER_S


@dataclass(frozen=True)
class StreamFacts:
    """Measures of one stream.

    Attributes:
        count: Samples taken.
        rate_hz: Samples per second, from first to last; 0 with fewer than two.
        median_gap_s: Middle distance of neighbouring samples.
        max_gap_s: Largest distance of neighbouring samples.
        jitter_s: Standard deviation of the distances.
        late: Samples that came after their tick was decided.
    """

    count: int
    rate_hz: float
    median_gap_s: float
    max_gap_s: float
    jitter_s: float
    late: int = 0

    @classmethod
    def of(cls, stamps_ns: Any, late: int = 0) -> StreamFacts:
        """Measure a sequence of stamps [ns], any order."""
        stamps = np.sort(np.asarray(stamps_ns, dtype=np.int64))
        if len(stamps) < 2:
            return cls(len(stamps), 0.0, 0.0, 0.0, 0.0, late)
        gaps = np.diff(stamps) / NS_PER_S
        span = float(stamps[-1] - stamps[0]) / NS_PER_S
        rate = (len(stamps) - 1) / span if span > 0 else 0.0
        return cls(
            len(stamps), rate, float(np.median(gaps)), float(gaps.max()), float(gaps.std()), late
        )


class StreamTrack:
    """Collects the facts of one stream while it is read; 8 bytes per sample."""

    def __init__(self) -> None:
        self.stamps = array("q")
        self.refused: Counter[str] = Counter()
        self.late = 0
        self.first_ns: int | None = None
        self.newest_ns: int | None = None

    def take(self, stamp_ns: int) -> None:
        """Note an accepted sample."""
        self.stamps.append(stamp_ns)
        if self.first_ns is None or stamp_ns < self.first_ns:
            self.first_ns = stamp_ns
        if self.newest_ns is None or stamp_ns > self.newest_ns:
            self.newest_ns = stamp_ns

    def restart(self) -> None:
        """Forget first and newest: the clock was set."""
        self.first_ns = self.newest_ns = None

    def facts(self, start_ns: int, end_ns: int) -> StreamFacts:
        """Measure the samples between two times."""
        stamps = np.frombuffer(self.stamps, dtype=np.int64)
        return StreamFacts.of(stamps[(stamps >= start_ns) & (stamps <= end_ns)], self.late)
