# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch train` finds its evaluation; what `koch eval` says becomes a rate or a reason."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("koch_policy.train")
pytest.importorskip("koch_sim")

from koch_policy.train.rollouts import EvaluationError, find_evaluation
from koch_vla.training_evaluation import evaluate


def test_it_is_found_by_its_entry_point() -> None:
    assert find_evaluation() is evaluate


def test_the_report_of_koch_eval_is_the_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def run(words: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        asked.append(words)
        (tmp_path / "out/eval.json").write_text('{"rollouts": 8, "successes": 2}')
        return subprocess.CompletedProcess(words, 0)

    monkeypatch.setattr("subprocess.run", run)
    assert evaluate(tmp_path / "policy", tmp_path / "out", 8, tmp_path / "rig.yaml") == 0.25
    assert asked[0][1:5] == ["-m", "koch_vla", "eval", "--lockstep"]
    assert asked[0][-2:] == ["--rig", str(tmp_path / "rig.yaml")]


def test_a_checkpoint_that_is_none_is_told_with_the_log(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(EvaluationError, match=r"ended with code 2; its output is in .*eval\.log"):
        evaluate(tmp_path / "nothing", out, 1, None)
    assert "nothing" in (out / "eval.log").read_text()
