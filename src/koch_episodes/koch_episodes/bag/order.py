# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Whether messages lie in a file in another order than that of time, or the clock was set back.

Log times that go back mean one of two things. A script wrote one topic after the other, or a
cache was flushed late: then the pieces fit together like those of a puzzle, and sorting by log
time is right. Or the recorder followed a simulated clock that was reset (`--use-sim-time`), or a
clock that was corrected: then the pieces overlap, and sorting would shuffle two runs.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.int64]

DISORDER_NS = 500_000_000  # messages of one topic may overtake one another by this much
_PERIODS = 5  # between two pieces that belong together, and at least
_SEAM_NS = 100_000_000
_SHARE = 10  # one part in ten of the time may be covered twice by pieces in disorder


def clock_was_set_back(topics: Iterable[Times]) -> bool:
    """Decide by all topics that go back, each with the weight of its messages.

    Args:
        topics: Times of the messages of each topic in the order of the file, [ns].
    """
    fitting = overlapping = 0
    for times in topics:
        steps = np.diff(times)
        if not np.any(steps < -DISORDER_NS):
            continue
        if _fit_together(times, steps):
            fitting += len(times)
        else:
            overlapping += len(times)
    return overlapping > fitting


def _fit_together(times: Times, steps: Times) -> bool:
    forward = steps[steps >= 0]
    seam = max(_SEAM_NS, _PERIODS * int(np.median(forward))) if len(forward) else _SEAM_NS
    edges = np.flatnonzero((steps < -DISORDER_NS) | (steps > seam)) + 1
    edges = np.concatenate([[0], edges])
    first, last = np.minimum.reduceat(times, edges), np.maximum.reduceat(times, edges)
    order = np.argsort(first, kind="stable")
    gaps = first[order][1:] - np.maximum.accumulate(last[order])[:-1]
    moved = np.diff(order) != 1  # a pause within the file is none between two pieces of it
    twice = -int(gaps[gaps < 0].sum())
    span = int(times.max()) - int(times.min())
    return bool(
        np.all(gaps >= -DISORDER_NS)
        and np.all(gaps[moved] <= seam)
        and twice <= max(DISORDER_NS, span // _SHARE)
    )


def overlap(one: Iterable[Times], other: Iterable[Times]) -> bool:
    """Tell whether two files hold the same stretch of time; single odd log times do not count."""
    (a, b), (c, d) = (_bulk(np.concatenate(list(times))) for times in (one, other))
    return min(b, d) - max(a, c) > min(DISORDER_NS, (b - a) // 2, (d - c) // 2)


def _bulk(times: Times) -> tuple[int, int]:
    ordered = np.sort(times)
    edge = len(ordered) // 50
    return int(ordered[edge]), int(ordered[len(ordered) - 1 - edge])
