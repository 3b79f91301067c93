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
        commands: Consecutive commands (N, J) in [rad].
        seams: Index of the first command of each new chunk.
        step_s: Time between two commands [s].
    """
    jerk = np.abs(np.diff(commands, n=3, axis=0)).max(axis=1) / step_s**3  # (N - 3,)
    belongs = np.zeros(len(jerk), dtype=bool)
    peaks = []
    for seam in seams:
        window = slice(max(0, seam - 3), min(len(jerk), seam))
        if seam >= 1 and window.start < window.stop:
            belongs[window] = True
            peaks.append(float(jerk[window].max()))
    inside = jerk[~belongs]
    return SeamStatistics(
        len(peaks),
        float(np.mean(peaks)) if peaks else 0.0,
        *(_quantile(peaks, q) for q in (0.5, 0.95, 1.0)),
        *(_quantile(inside, q) for q in (0.5, 0.95)),
    )


def _quantile(values: Sequence[float] | NDArray[np.float64], fraction: float) -> float:
    return float(np.quantile(values, fraction)) if len(values) else 0.0
