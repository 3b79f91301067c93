# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Success rates come with their intervals, and the sheet shows each end."""

import json

import pytest

from koch_sim.evaluation import Evaluation, Success, Trial


def test_json_holds_all_trials():
    evaluation = Evaluation(
        "expert", [Trial(3, True, 12.5, "done"), Trial(4, False, 30.0, "late")]
    )
    content = json.loads(evaluation.to_json())
    assert (content["successes"], content["rollouts"]) == (1, 2)
    assert content["median_success_s"] == 12.5
    assert content["trials"][1]["reason"] == "late"
    assert "1 of 2 succeeded" in evaluation.table()


def test_what_was_lifted_is_compared_with_what_was_named():
    named = [("red", "red"), ("green", "green"), ("red", "green"), ("green", "")]
    trials = [Trial(n, a == b, 9.0, "", asked=a, lifted=b) for n, (a, b) in enumerate(named)]
    assert "lifted first what was named: 2 of the 3" in Evaluation("p", trials).table()
    alone = [Trial(0, True, 9.0, "", asked="red", lifted="red")]
    assert "named" not in Evaluation("p", alone).table(), "there was nothing to choose"


def test_energies_are_compared_over_the_same_time():
    """Failures last longer: what they do after the first success has ended counts for nothing."""
    trials = [
        Trial(0, True, 4.0, "", energy=((2.0, 0.3), (4.0, 0.1))),
        Trial(1, True, 5.0, "", energy=((2.0, 0.1), (4.0, 0.1), (5.0, 9.0))),
        Trial(2, False, 12.0, "", energy=((2.0, 0.2), (4.0, 0.3), (9.0, 0.0))),
        Trial(3, False, 12.0, "", energy=((2.0, 0.1), (4.0, 0.2), (9.0, 50.0))),
    ]
    told = Evaluation("p", trials).energy_auroc()
    assert (told["until_s"], told["auroc"]) == (4.0, 0.75)  # means 0.2, 0.1 and 0.25, 0.15
    assert (
        "energy of the first 4.0 s tells failures: AUROC 0.75" in Evaluation("p", trials).table()
    )
    assert Evaluation("p", trials[:2]).energy_auroc() == {}
    assert Evaluation("p", [Trial(0, True, 4.0, "")]).energy_auroc() == {}


@pytest.mark.parametrize("void", [0, 1, 3, 4, 9])
def test_a_void_rollout_is_repeated_and_counted_apart(void):
    evaluation, said, runs = Evaluation("policy x"), [], iter(range(100))
    late = "cameras/above is 0.31 s old"

    def run():
        is_void = next(runs) < void
        return Trial(7, not is_void, 9.0, late if is_void else "in the cup", is_void)

    trial = evaluation.attempt(run, "[1/1] seed 7: ", said.append)
    if trial is not None:
        evaluation.trials.append(trial)
    given_up = void > 3
    assert (trial is None) is given_up
    assert len(evaluation.void) == min(void, 4)
    assert len(said) == min(void, 4)
    assert all(late in line for line in said)
    assert (evaluation.successes, len(evaluation.trials)) == (int(not given_up),) * 2
    found = json.loads(evaluation.to_json())
    assert (found["rollouts"], len(found["void"])) == (int(not given_up), min(void, 4))
    assert ("not counted" in evaluation.table()) is (void > 0)


def test_a_success_counts_when_it_has_lasted():
    success = Success()
    seen = [(0.1, False), (0.2, True), (0.5, True), (0.6, False), (0.7, True), (1.1, True)]
    assert not any(success.lasts(done, now) for now, done in seen)
    assert success.lasts(True, 1.3)
    assert success.time_s(1.3) == 0.7
    success.lasts(False, 1.4)
    assert success.time_s(1.5) == 1.5
