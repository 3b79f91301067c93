# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch improve`: what a round is told, and whole rounds of a policy that cannot do the task."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from koch_core.options import OptionError
from koch_policy.files import CONFIG, RECIPE
from koch_policy.train.config import Recipe, TrainConfig, load_recipe
from koch_vla import improve
from koch_vla.cli import main
from koch_vla.improve import ImproveOptions, round_recipe, steps

TINY = [
    "--policy", "act", "--preset", "tiny", "--threads", "1", "--set", "train.steps=8",
    "--set", "train.batch_size=8", "--set", "policy.dim_model=32", "--set", "policy.n_heads=2",
    "--set", "train.validation_fraction=0",
]  # fmt: skip


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A folder that says how its policy was trained."""
    folder = tmp_path / "policy"
    folder.mkdir()
    (folder / CONFIG).write_text("{}")
    recipe = load_recipe("act", "tiny")
    (folder / RECIPE).write_text(json.dumps(recipe.to_dict()))
    return folder


def asked(checkpoint: Path, **changes: object) -> ImproveOptions:
    """The options of a call with one dataset."""
    return replace(ImproveOptions(policy=checkpoint, dataset=("data",), lockstep=True), **changes)


def test_a_round_trains_as_before_but_shorter(checkpoint: Path) -> None:
    told = round_recipe(asked(checkpoint), with_interventions=True)
    recipe = Recipe().with_overrides(told, "round")
    before = load_recipe("act", "tiny")
    assert recipe.train.steps == before.train.steps // 2
    assert recipe.train.warmup_steps == 125  # a tenth
    assert recipe.train.batch_size == before.train.batch_size
    assert recipe.train.ema_decay == before.train.ema_decay
    assert recipe.augment == before.augment
    # A corrected frame counts twice, the policy's own a twentieth: their dataset's weight is 0.05.
    assert recipe.train.weights == {"intervention": 40.0}
    told = round_recipe(asked(checkpoint, steps=70), with_interventions=False)
    assert told["train"]["steps"] == 70
    assert "weights" not in told["train"]


def test_a_checkpoint_that_does_not_say_how_it_was_trained_needs_steps(checkpoint: Path) -> None:
    (checkpoint / RECIPE).unlink()
    with pytest.raises(OptionError, match=r"--steps.*does not say how it was trained"):
        round_recipe(asked(checkpoint), with_interventions=True)
    told = round_recipe(asked(checkpoint, steps=70), with_interventions=True)
    assert Recipe().with_overrides(told, "round").train == TrainConfig(
        steps=70, save_every=70, validate_every=70, weights={"intervention": 40.0}
    )


def test_each_round_has_its_steps() -> None:
    names = [step.name for step in steps(asked(Path("p"), rounds=2))]
    assert names == [
        "evaluate_0",
        *("record_1", "convert_1", "train_1", "evaluate_1"),
        *("record_2", "convert_2", "train_2", "evaluate_2"),
    ]


def test_without_the_simulation_it_says_how_a_person_corrects(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["improve", "--policy", str(checkpoint), "--dataset", "data"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "closing the leader's enable switch" in said
    assert f"koch train --from {checkpoint} --dataset data --dataset round_1:0.05" in said
    assert "train.weights={intervention: 40}" in said


def without_cameras(repository: Path, folder: Path) -> Path:
    """The simulated rig that sees nothing: no image is drawn."""
    text = (repository / "config/rig.sim.yaml").read_text()
    head, rest = text.split("\ncameras:\n")
    rest = rest[rest.index("\nlimits:") :]
    text = re.sub(r"\n  (cameras/|observation\.images).*", "", head + rest)
    text = text.replace("calibration: ", f"calibration: {repository / 'config'}/")
    path = folder / "rig.yaml"
    path.write_text(text)
    return path


@pytest.mark.slow
def test_rounds_of_a_policy_that_cannot_do_the_task(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rig = str(without_cameras(repository, tmp_path))
    episodes, data, run = (str(tmp_path / name) for name in ("episodes", "data", "run"))
    assert main(["record", "--lockstep", "-n", "1", "--rig", rig, "--root", episodes]) == 0
    assert main(["convert", episodes, "--out", data]) == 0
    assert main(["train", "--dataset", data, "--out", run, "--rig", rig, *TINY]) == 0
    folder = tmp_path / "improve"
    words = ["improve", "--lockstep", "--rig", rig, "--policy", run, "--dataset", data]
    words += ["-n", "1", "--rollouts", "1", "--timeout-s", "1", "--correct-after", "1"]
    words += ["--threads", "1", "--folder", str(folder)]
    assert main([*words, "--rounds", "1"]) == 0
    first = json.loads((folder / "improve.json").read_text())
    assert [row["demonstrations"] for row in first["rounds"]] == [1, 2]
    assert [row["interventions"] for row in first["rounds"]] == [0, 1]
    assert [row["rollouts"] for row in first["rounds"]] == [1, 1]
    capsys.readouterr()
    # Other settings do not go on with these runs.
    other = [*words, "--rounds", "1"]
    other[other.index("--correct-after") + 1] = "1.2"
    assert main(other) == 0
    assert len(list((folder / "round_1").glob("episodes_*/episode_*"))) == 2
    capsys.readouterr()
    # Another round goes on from there: what is done is not done again.
    assert main([*words, "--rounds", "2"]) == 0
    said = capsys.readouterr().out
    assert said.count("done before") == 5
    rows = json.loads((folder / "improve.json").read_text())["rounds"]
    assert rows[:2] == first["rounds"]
    assert rows[2]["demonstrations"] == 3
    assert re.search(r"round 2 against round 0: [+-]\d+ points", said)


def test_two_do_not_share_a_folder(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(improve, "_episodes_of", lambda named: 1)
    words = ["improve", "--lockstep", "--policy", str(checkpoint), "--dataset", "data"]
    folder = tmp_path / "improve"
    with improve.alone(folder, "koch improve"):
        assert main([*words, "--folder", str(folder)]) == 2
