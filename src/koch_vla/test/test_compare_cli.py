# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch compare`: what does not go together is refused; the same seeds make the pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from koch_policy.errors import CheckpointError
from koch_sim.evaluation import Evaluation, Trial
from koch_vla.compare_cli import lockstep_lines, main

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a"], "two different checkpoint folders or more"),
        (["a", "a"], "two different checkpoint folders or more"),
        (["a", "b", "--seed", "4"], "--seed needs --lockstep"),
        (["a", "b", "--spread", "1.0"], "--spread needs --lockstep"),
        (["a", "b", "--lockstep", "--record"], "--record needs no --lockstep"),
        (["a", "b", "--lockstep", "--reset-time-s", "3"], "--reset-time-s needs no --lockstep"),
    ],
)
def test_what_does_not_go_together_is_refused(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(words)
    assert said in " ".join(capsys.readouterr().err.split())


def test_a_folder_without_checkpoint_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        main([str(tmp_path), str(tmp_path / "b"), "--lockstep"])


def test_the_same_seeds_make_the_pairs() -> None:
    def ends(name: str, successes: str) -> Evaluation:
        trials = [
            Trial(k, end == "+", 4.0, "", milestone="gripped") for k, end in enumerate(successes)
        ]
        return Evaluation(name, trials)

    lines = lockstep_lines({"a": ends("a", "+-+---"), "b": ends("b", "+++++-")})
    assert (
        lines[0]
        == "a: 2 of 6 (10 to 70 %) succeeded; failures by the furthest milestone: gripped 4"
    )
    assert lines[1].startswith("b: 5 of 6")
    assert lines[2].startswith("b against a: +50 points")
    assert "only b succeeded in 3, only a in 0" in lines[2]
