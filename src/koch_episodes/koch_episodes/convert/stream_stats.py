# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What is worth knowing about one stream of an episode: rate, gaps, jitter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from koch_core.stream import NS_PER_S


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
