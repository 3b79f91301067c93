# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""How smooth a stream of commands is at the seams of its chunks, against everywhere else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class SeamStatistics:
    """Third differences of commands, the greatest over the joints, in [rad/s^3].

    Attributes:
        seams: Number of seams counted.
        seam_mean, seam_median, seam_p95, seam_max: At the seams.
        inside_median, inside_p95: At all other commands.
    """

    seams: int
    seam_mean: float
    seam_median: float
    seam_p95: float
    seam_max: float
    inside_median: float
    inside_p95: float


def seam_statistics(
    commands: NDArray[np.float64], seams: Sequence[int], step_s: float
) -> SeamStatistics:
    """Compare jerk at the chunk boundaries with jerk elsewhere.

    A third difference spans four commands; it belongs to a seam when the first command of the new
    chunk is its second, third or fourth. Its greatest value over these three is the seam's.

    Args:
        commands: One command per tick (N, J) in [rad]; NaN where nothing was commanded, and no
            difference is taken across.
        seams: Index of the first command of each new chunk.
        step_s: Time between two commands [s].
    """
    jerk = np.abs(np.diff(commands, n=3, axis=0)).max(axis=1) / step_s**3  # (N - 3,)
    known = np.isfinite(jerk)
    belongs = np.zeros(len(jerk), dtype=bool)
    peaks = []
    for seam in seams:
        window = np.arange(max(0, seam - 3), min(len(jerk), seam))
        window = window[known[window]]
        if seam >= 1 and len(window):
            belongs[window] = True
            peaks.append(float(jerk[window].max()))
    inside = jerk[~belongs & known]
    return SeamStatistics(
        len(peaks),
        float(np.mean(peaks)) if peaks else 0.0,
        *(_quantile(peaks, q) for q in (0.5, 0.95, 1.0)),
        *(_quantile(inside, q) for q in (0.5, 0.95)),
    )


def seams_of_messages(
    commands: Sequence[tuple[int, Sequence[float]]],
    chunks: Sequence[tuple[int, int]],
    step_s: float,
) -> SeamStatistics:
    """Recompute the statistics from what the policy node published.

    A chunk begins with the first command at or after the moment its entry row is due; one that
    another chunk replaced before any command counts nothing.

    Args:
        commands: (stamp [ns], positions [rad]) of `<arm>/command/policy`, in any order.
        chunks: (first_step_time [ns], entry_index) of `policy/action_chunk`.
        step_s: Time between two steps [s].
    """
    if not commands:
        return seam_statistics(np.zeros((0, 1)), [], step_s)
    ordered = sorted(commands)
    begin, step_ns = ordered[0][0], step_s * 1e9
    table = np.full((round((ordered[-1][0] - begin) / step_ns) + 1, len(ordered[0][1])), np.nan)
    for stamp_ns, positions in ordered:
        table[round((stamp_ns - begin) / step_ns)] = positions
    entries = [round((first - begin) / step_ns) + entry for first, entry in chunks]
    given = np.flatnonzero(np.isfinite(table).all(axis=1))  # ticks with a command
    places = np.searchsorted(given, [entry for entry in entries if entry <= given[-1]])
    found = given[np.unique(places)]
    return seam_statistics(table, found.tolist(), step_s)


def _quantile(values: Sequence[float] | NDArray[np.float64], fraction: float) -> float:
    return float(np.quantile(values, fraction)) if len(values) else 0.0
