# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What trials tell: a rate with its interval, and two policies that were tried in pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: Two-sided 95 % of the normal distribution.
Z_95 = 1.959963984540054
_RESAMPLES = 2000


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Return the 95 % interval of a success rate; (0, 1) when nothing was tried.

    Source: Wilson (1927), Probable inference, the law of succession, and statistical inference.
    """
    if trials == 0:
        return 0.0, 1.0
    rate, z2 = successes / trials, Z_95**2
    centre = (rate + z2 / (2 * trials)) / (1 + z2 / trials)
    half = Z_95 * math.sqrt(rate * (1 - rate) / trials + z2 / (4 * trials**2)) / (1 + z2 / trials)
    return max(0.0, centre - half), min(1.0, centre + half)


def rate_in_words(successes: int, trials: int) -> str:
    """A rate for people, with Wilson's interval: `47 of 50 (84 to 98 %)`."""
    low, high = wilson_interval(successes, trials)
    return f"{successes} of {trials} ({100 * low:.0f} to {100 * high:.0f} %)"


def auroc(scores: Sequence[float], labels: Sequence[bool]) -> tuple[float, float, float]:
    """How well a score tells two kinds apart: the area under the ROC curve, and its 95 % interval.

    The area is how often one that is labelled True scores higher than one that is not; ties count
    half. 0.5 is chance. The interval is the bootstrap's: both kinds are drawn again, by a fixed
    seed. Where all scores of one kind are higher it is empty and says nothing.

    Args:
        scores: One each.
        labels: As many; both kinds are there.
    """
    values, is_one = np.asarray(scores, float), np.asarray(labels, bool)
    ones, others = values[is_one], values[~is_one]
    if not len(ones) or not len(others):
        raise ValueError(f"auroc: {len(ones)} of {len(values)} are labelled True; expected both")
    wins = (ones[:, None] > others) + 0.5 * (ones[:, None] == others)  # (ones, others)
    draw = np.random.default_rng(0)
    rows = draw.integers(len(ones), size=(_RESAMPLES, len(ones)))
    columns = draw.integers(len(others), size=(_RESAMPLES, len(others)))
    areas = [wins[row][:, column].mean() for row, column in zip(rows, columns, strict=True)]
    low, high = np.quantile(areas, (0.025, 0.975))
    return float(wins.mean()), float(low), float(high)


@dataclass(frozen=True)
class Pairs:
    """Two policies in the same set-ups, each set-up tried by both.

    A set-up in which both succeed, or both fail, says nothing about which is better. So only those
    that differ decide, and far fewer trials are needed than where each has its own set-ups.

    Attributes:
        both: Set-ups in which both succeeded.
        first: Only the first did.
        second: Only the second did.
        neither: None did.
    """

    both: int = 0
    first: int = 0
    second: int = 0
    neither: int = 0

    @classmethod
    def of(cls, outcomes: list[tuple[bool, bool]]) -> Pairs:
        """Count pairs of success, the first policy's and the second's."""
        return cls(
            outcomes.count((True, True)),
            outcomes.count((True, False)),
            outcomes.count((False, True)),
            outcomes.count((False, False)),
        )

    @property
    def count(self) -> int:
        """Number of pairs."""
        return self.both + self.first + self.second + self.neither

    @property
    def difference(self) -> float:
        """Success rate of the second less that of the first, -1 to 1; 0 without pairs."""
        return (self.second - self.first) / self.count if self.count else 0.0

    def interval(self) -> tuple[float, float]:
        """The 95 % interval of `difference`; (-1, 1) without pairs.

        Source: Bonett and Price (2012), Adjusted Wald confidence interval for a difference of
        binomial proportions based on paired data.
        """
        if not self.count:
            return -1.0, 1.0
        total = self.count + 2
        only_first, only_second = (self.first + 1) / total, (self.second + 1) / total
        centre = only_second - only_first
        half = Z_95 * math.sqrt((only_first + only_second - centre**2) / total)
        return max(-1.0, centre - half), min(1.0, centre + half)

    def p_value(self) -> float:
        """How likely a division at least so uneven is between equal policies, 0 to 1.

        The exact test of McNemar (1947): each pair that differs is a toss of a coin.
        """
        tosses = self.first + self.second
        fewer = min(self.first, self.second)
        tail = sum(math.comb(tosses, k) for k in range(fewer + 1))
        return min(1.0, 2 * tail / (1 << tosses))

    def in_words(self, first: str, second: str) -> str:
        """The comparison for people, in one sentence or two."""
        low, high = self.interval()
        return (
            f"{second} against {first}: {100 * self.difference:+.0f} points ({100 * low:+.0f} to "
            f"{100 * high:+.0f}) in {self.count} pairs; only {second} succeeded in {self.second}, "
            f"only {first} in {self.first} (McNemar p = {self.p_value():.2g})"
        )
