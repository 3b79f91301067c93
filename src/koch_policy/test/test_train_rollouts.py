# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Success at the task during training, with a function in the place of the simulation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from koch_policy.checkpoint import load_checkpoint
from koch_policy.errors import ConfigError
from koch_policy.train.rollouts import EVALUATIONS, EvaluationError
from koch_policy.train.setup import make_trainer


def evaluate(checkpoint: Path, out: Path, rollouts: int, rig: Path | None) -> float:
    """As many rollouts succeed as the checkpoint has steps."""
    assert (checkpoint / "model.safetensors").is_file()
    out.mkdir(parents=True)
    (out / "eval.json").write_text("{}")
    return int(checkpoint.parent.name) / rollouts


def test_rates_of_success_stand_in_the_table(make: Any, tmp_path: Path) -> None:
    recipe = make.recipe(
        "act", steps=5, log_every=5, save_every=5, evaluate_every=2, evaluate_rollouts=8
    )
    trainer = make_trainer(make.demonstrations(), recipe, tmp_path / "run")
    trainer.evaluate_with = evaluate
    trainer.run()
    found = {row["step"]: row["success"] for row in trainer.history.rows if "success" in row}
    assert found == {2: 2 / 8, 4: 4 / 8, 5: 5 / 8}
    assert "success" in (tmp_path / "run/loss.csv").read_text().splitlines()[0]
    assert (tmp_path / "run/eval/000004/eval.json").is_file()
    assert load_checkpoint(tmp_path / "run/checkpoints/000002/pretrained_model")


def test_a_failed_evaluation_is_said_and_ends_no_training(
    make: Any, tmp_path: Path, capsys: Any
) -> None:
    recipe = make.recipe("act", steps=2, evaluate_every=2)
    trainer = make_trainer(make.demonstrations(), recipe, tmp_path / "run")

    def fail(checkpoint: Path, out: Path, rollouts: int, rig: Path | None) -> float:
        raise EvaluationError(checkpoint, "ended with code 3", out / "eval.log")

    trainer.evaluate_with = fail
    trainer.run()
    assert trainer.step == 2
    assert "ended with code 3; its output is in" in capsys.readouterr().err


def test_without_the_simulation_it_is_refused_at_once(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("koch_core.registry.entry_points", lambda **_: ())
    monkeypatch.setattr(EVALUATIONS, "_kinds", {})
    recipe = make.recipe("act", evaluate_every=2)
    with pytest.raises(ConfigError, match="koch_sim is not installed"):
        make_trainer(make.demonstrations(), recipe, tmp_path)
    EVALUATIONS.add(evaluate, "mine")
    assert make_trainer(make.demonstrations(), recipe, tmp_path).evaluate_with is evaluate
