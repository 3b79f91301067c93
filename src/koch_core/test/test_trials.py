# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Figures of trials against known ones, and intervals against what they promise."""

from __future__ import annotations

import numpy as np
import pytest

from koch_core.trials import Pairs, auroc, rate_in_words, wilson_interval


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (5, 10, 0.2366, 0.7634),
        (81, 263, 0.2553, 0.3662),
    ],
)
def test_wilson_interval_of_known_cases(successes, trials, low, high):
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=1e-3)


def test_nothing_tried_tells_nothing():
    assert wilson_interval(0, 0) == (0.0, 1.0)
    assert Pairs().interval() == (-1.0, 1.0)
    assert Pairs().p_value() == 1.0
    assert Pairs().difference == 0.0


def test_auroc_by_hand_and_what_its_interval_promises():
    area, low, high = auroc([1.0, 2.0, 2.0, 3.0], [False, False, True, True])
    assert area == (1 + 0.5 + 1 + 1) / 4
    assert low <= area <= high
    assert auroc([1.0, 5.0], [True, False]) == (0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="0 of 2 are labelled True"):
        auroc([1.0, 2.0], [False, False])
    draw = np.random.default_rng(5)
    held = 0
    for _ in range(60):  # normal scores a standard deviation apart: the area is 0.760
        scores = np.concatenate([draw.normal(1.0, 1.0, 40), draw.normal(0.0, 1.0, 40)])
        _, low, high = auroc(scores.tolist(), [True] * 40 + [False] * 40)
        held += low <= 0.7602 <= high
    assert held >= 51  # 57 expected


def test_a_rate_is_told_with_its_interval():
    assert rate_in_words(47, 50) == "47 of 50 (84 to 98 %)"


@pytest.mark.parametrize(
    ("first", "second", "p"),
    [(0, 5, 0.0625), (0, 6, 0.03125), (1, 9, 22 / 1024), (7, 7, 1.0), (0, 1, 1.0)],
)
def test_mcnemar_of_known_cases(first, second, p):
    assert Pairs(3, first, second, 4).p_value() == pytest.approx(p)
    assert Pairs(3, second, first, 4).p_value() == pytest.approx(p)


def test_pairs_are_counted_in_order():
    pairs = Pairs.of([(True, False), (True, True), (False, True), (False, True), (False, False)])
    assert pairs == Pairs(both=1, first=1, second=2, neither=1)
    assert pairs.difference == pytest.approx(0.2)
    assert pairs.in_words("A", "B").startswith("B against A: +20 points (")


def test_the_interval_of_a_difference_holds_it_as_often_as_it_says():
    """Two policies at 70 and 80 % in set-ups that are easy or hard for both."""
    generator = np.random.default_rng(4)
    held = 0
    for _ in range(2000):
        ease = generator.uniform(size=60)
        a = ease + generator.normal(0, 0.1, 60) > 0.3
        b = ease + generator.normal(0, 0.1, 60) > 0.2
        low, high = Pairs.of(list(zip(a.tolist(), b.tolist(), strict=True))).interval()
        held += low <= 0.1 <= high
    assert 0.93 < held / 2000 < 0.99
