# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Success in simulation during training, with a program in the place of the simulation."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from koch_policy.checkpoint import load_checkpoint
from koch_policy.errors import ConfigError
from koch_policy.train.rollouts import EvaluationError, require_simulation, success_rate
from koch_policy.train.setup import make_trainer

# Reads its arguments as `koch eval` does; as many rollouts succeed as the step has thousands.
PROGRAM = """
import json, pathlib, sys
words = sys.argv[1:]
value = {name: words[words.index(name) + 1] for name in ("--policy", "--rollouts", "--out")}
assert "--lockstep" in words and pathlib.Path(value["--policy"], "model.safetensors").is_file()
step = int(pathlib.Path(value["--policy"]).parent.name)
report = {"rollouts": int(value["--rollouts"]), "successes": step}
pathlib.Path(value["--out"], "eval.json").write_text(json.dumps(report))
"""


@pytest.fixture
def program(tmp_path: Path) -> tuple[str, ...]:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return (sys.executable, str(path))


def test_rates_of_success_stand_in_the_table(
    make: Any, program: tuple[str, ...], tmp_path: Path
) -> None:
    recipe = make.recipe(
        "act", steps=5, log_every=5, save_every=5, evaluate_every=2, evaluate_rollouts=8
    )
    trainer = make_trainer(make.demonstrations(), recipe, tmp_path / "run")
    trainer.evaluate_with = program
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
    trainer.evaluate_with = (sys.executable, "-c", "raise SystemExit(3)")
    trainer.run()
    assert trainer.step == 2
    assert "ended with code 3; its output is in" in capsys.readouterr().err
    with pytest.raises(EvaluationError):
        success_rate(tmp_path, tmp_path / "out", 2, None, trainer.evaluate_with)


def test_without_the_simulation_it_is_refused_at_once(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="koch_sim is not installed"):
        make_trainer(make.demonstrations(), make.recipe("act", evaluate_every=2), tmp_path)
    require_simulation(("anything",))
