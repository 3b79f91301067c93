# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Runs that a person judged are counted as what they were, and compared in pairs."""

from __future__ import annotations

from collections import Counter

import pytest

from koch_core.options import OptionError
from koch_core.trials import Pairs
from koch_policy.arm_trials import ArmEvaluation, ArmTrial, schedule
from koch_policy.run_options import RunOptions
from koch_policy.watched_run import RunRecord


def trial(setup: int, policy: str, outcome: str, failure: str = "") -> ArmTrial:
    return ArmTrial(setup, policy, RunRecord(0, "out of time", 90, 3.0, outcome), failure)


def test_each_setup_is_tried_by_all_before_the_next_in_an_order_of_its_own() -> None:
    order = schedule(["a", "b", "c"], 40, seed=3)
    assert [setup for setup, _ in order] == [k for k in range(1, 41) for _ in "abc"]
    firsts = Counter(order[k][1] for k in range(0, 120, 3))
    assert all(Counter(p for _, p in order[k : k + 3]) == Counter("abc") for k in range(0, 120, 3))
    assert min(firsts[p] for p in "abc") > 5
    assert order == schedule(["a", "b", "c"], 40, seed=3)
    assert order != schedule(["a", "b", "c"], 40, seed=4)


def test_what_nobody_judged_is_no_failure() -> None:
    trials = [trial(1, "a", "success"), trial(2, "a", ""), trial(3, "a", "failure", "stuck")]
    evaluation = ArmEvaluation({"a": "a"}, trials)
    assert evaluation.judged("a") == [True, False]
    assert evaluation.summary() == [
        "a: 1 of 2 (9 to 91 %) succeeded, median 3.0 s; failures: stuck 1",
        "not judged, and not counted: 1 of 3 runs",
    ]
    assert [t["success"] for t in evaluation.to_json()["trials"]] == [True, None, False]


def test_pairs_are_those_setups_in_which_both_were_judged() -> None:
    trials = [
        trial(1, "b", "success"), trial(1, "a", "failure"),
        trial(2, "a", "success"), trial(2, "b", ""),
        trial(3, "a", "success"), trial(3, "b", "success"),
        trial(4, "a", "success"),
    ]  # fmt: skip
    evaluation = ArmEvaluation({"a": "outputs/a", "b": "outputs/b"}, trials)
    assert evaluation.summary()[:2] == ["a is outputs/a", "b is outputs/b"]
    assert evaluation.pairs("a", "b") == Pairs(both=1, second=1)
    assert evaluation.pairs("b", "a") == Pairs(both=1, first=1)


def test_a_run_that_was_cut_short_says_so() -> None:
    cut = ArmTrial(1, "a", RunRecord(2, "cameras/above is 0.9 s old", 20, 1.0))
    lines = ArmEvaluation({"a": "a"}, [cut]).table(None)
    assert "not judged" in lines[1]
    assert "cameras/above is 0.9 s old" in lines[1]


def test_a_label_for_all_is_no_verdict() -> None:
    with pytest.raises(OptionError, match=r"none of .*--label"):
        RunOptions(num_episodes=3, label="success")
