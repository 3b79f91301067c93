# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Figures of recorded joint motion: rate, and how far one joint runs behind another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Series = Sequence[tuple[float, float]]  # (time [s], value)


def rate_hz(times_s: Sequence[float]) -> float:
    """Mean rate of events at the given times; 0 for fewer than two."""
    if len(times_s) < 2 or times_s[-1] <= times_s[0]:
        return 0.0
    return (len(times_s) - 1) / (times_s[-1] - times_s[0])


def lag_and_error(leader: Series, follower: Series, longest_s: float = 0.5) -> tuple[float, float]:
    """Find the delay that makes the follower agree best with the leader.

    Args:
        leader: Times [s] and values, times increasing.
        follower: The same of the one that follows.
        longest_s: Longest delay tried [s].

    Returns:
        The delay [s], resolved to 1 ms, and the largest difference that is left at that delay, in
        the unit of the values. NaN for both when the two have too little time in common.
    """
    a, b = np.array(leader, dtype=np.float64), np.array(follower, dtype=np.float64)
    if len(a) < 2 or len(b) < 2:
        return float("nan"), float("nan")
    inside = (b[:, 0] >= a[0, 0] + longest_s) & (b[:, 0] <= a[-1, 0])
    times, values = b[inside, 0], b[inside, 1]
    if len(times) < 10:
        return float("nan"), float("nan")

    def left_over(lag_s: float) -> npt.NDArray[np.float64]:
        return np.asarray(values - np.interp(times - lag_s, a[:, 0], a[:, 1]))

    lags = np.arange(0.0, longest_s, 0.001)
    best = min(lags, key=lambda lag: float(np.square(left_over(float(lag))).mean()))
    return float(best), float(np.abs(left_over(float(best))).max())
