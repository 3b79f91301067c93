# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The table over training runs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from koch_policy.errors import CheckpointError
from koch_policy.runs_cli import describe_runs, find_runs, main


def write(folder: Path, policy: str, step: int, loss: str, age_s: float) -> Path:
    """What `koch train` leaves, as far as it is read."""
    inner = folder / "checkpoints" / f"{step:06d}" / "pretrained_model"
    inner.mkdir(parents=True)
    (folder / "checkpoints/last").symlink_to(f"{step:06d}")
    (inner / "config.json").write_text(json.dumps({"type": policy}))
    training = {"step": step, "dataset": "data/set", "data": {"episodes": 7}}
    (inner / "koch.json").write_text(json.dumps({"format": 1, "training": training}))
    (inner / "koch_train_config.json").write_text(json.dumps({"train": {"steps": 900}}))
    (folder / "loss.csv").write_text(f"step,loss,error\n1,9.0,3.5\n{step},{loss},\n")
    os.utime(inner, (1e9 - age_s, 1e9 - age_s))
    return folder


def test_runs_are_listed_with_their_newest_figures(tmp_path: Path, capsys: object) -> None:
    write(tmp_path / "a", "act", 300, "0.25", 100.0)
    b = write(tmp_path / "deep" / "b", "flow", 900, "0.125", 0.0)
    (b / "eval").mkdir()
    trials = [{"success": True}, {"success": False}, {"success": True}]
    (b / "eval/eval.json").write_text(json.dumps({"trials": trials}))
    newest, older = find_runs([tmp_path])
    assert (newest.policy, newest.step, newest.steps) == ("flow", 900, 900)
    assert newest.figures == {"step": 900, "loss": 0.125, "error": 3.5}
    assert newest.success == (pytest.approx(2 / 3), 3)
    assert (older.policy, older.success, older.episodes) == ("act", None, 7)
    row = newest.cells(tmp_path)
    assert row[:5] == ["deep/b", "flow", "900", "900", "0.125"]
    assert "2/3" in row


def test_the_command_prints_lines_and_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path)]) == 1
    assert "no training run" in capsys.readouterr().out
    write(tmp_path / "a", "act", 3, "0.5", 0.0)
    assert main([str(tmp_path)]) == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["run", "policy", "step"]
    assert row.split()[:3] == ["a", "act", "3"]
    assert main([str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["policy"] == "act"


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        list(find_runs([tmp_path / "nowhere"]))
    folder = write(tmp_path / "a", "act", 3, "0.5", 0.0)
    (folder / "checkpoints/last/pretrained_model/koch.json").write_text("{cut")
    with pytest.raises(CheckpointError, match=r"koch\.json: not readable as JSON"):
        list(find_runs([tmp_path]))


def test_a_page_gets_curves_and_evaluations_and_a_damaged_run_hides_no_other(tmp_path):
    run = write(tmp_path / "good", "act", 500, "0.25", age_s=0.0)
    (run / "eval").mkdir()
    trials = [{"success": True}, {"success": False}, {"success": True}]
    (run / "eval" / "eval.json").write_text(json.dumps({"trials": trials}))
    (run / "eval" / "rollout_7.mp4").touch()
    bad = write(tmp_path / "bad", "act", 500, "0.25", age_s=60.0)
    (bad / "checkpoints/last/pretrained_model/config.json").write_text("{")
    first, second = describe_runs(tmp_path)
    assert first["name"] == "good"
    assert first["curve"]["loss"] == [(1.0, 9.0), (500.0, 0.25)]
    assert first["evaluations"] == [
        {
            "name": "eval",
            "successes": 2,
            "trials": 3,
            "films": ["rollout_7"],
            "film": False,
            "sheet": False,
        }
    ]
    assert first["checkpoints"] == ["last", "000500"]
    json.dumps(first)  # plain data but for nothing
    assert second["name"] == "bad"
    assert "not readable as JSON" in second["problem"]
    assert describe_runs(tmp_path / "none") == []


def test_a_training_shows_its_curve_before_the_first_checkpoint(tmp_path):
    (tmp_path / "young").mkdir()
    (tmp_path / "young" / "loss.csv").write_text("step,loss,error\n10,3.5,\n20,2.5,\n30,1e-")
    (described,) = describe_runs(tmp_path)
    assert described["curve"]["loss"] == [(10.0, 3.5), (20.0, 2.5)]
    assert described["checkpoints"] == []
    assert "problem" not in described


def test_a_long_curve_is_thinned_to_its_newest_value(tmp_path):
    run = write(tmp_path, "act", 999, "0.25", age_s=0.0)
    rows = "".join(f"{step},{1 / step},\n" for step in range(1, 1000))
    (run / "loss.csv").write_text("step,loss,error\n" + rows)
    (described,) = describe_runs(tmp_path)
    steps = [step for step, _ in described["curve"]["loss"]]
    assert len(steps) <= 300
    assert steps[-1] == 999
    assert steps == sorted(steps)
