# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""How long inference takes: an upper quantile that forgets."""

from __future__ import annotations

import math
from collections import deque


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
