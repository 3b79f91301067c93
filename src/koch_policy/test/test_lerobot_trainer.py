# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch train --policy smolvla`: LeRobot's trainer on our dataset, until the policy runs."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from koch_policy.errors import ConfigError
from koch_policy.runtime import load_policy
from koch_policy.train.cli import main
from koch_policy.train.lerobot_trainer import trainer_arguments
from koch_policy.train.options import TrainOptions

SMOLVLA = Path(__file__).with_name("smolvla_side.py")


def options(**changes: Any) -> TrainOptions:
    """What `koch train --policy smolvla` is given."""
    given = {"dataset": ("DIR",), "policy": "smolvla", "out": Path("OUT"), **changes}
    return TrainOptions(**given)


def arguments(settings: dict[str, dict[str, str]], **changes: Any) -> dict[str, str]:
    """The options that LeRobot's trainer gets."""
    groups = {"train": {}, "policy": {}, "lerobot": {}, **settings}
    found = trainer_arguments(options(**changes), groups, Path("/data/DIR"))
    return dict(each.removeprefix("--").split("=", 1) for each in found)


def test_ours_become_its_options() -> None:
    found = arguments(
        {"train": {"steps": "7", "save_every": "3"}, "policy": {"chunk_size": "30"},
         "lerobot": {"rename_map": '{"a": "b"}', "batch_size": "4"}},
        device="cuda",
    )  # fmt: skip
    expected = {
        "policy.type": "smolvla", "dataset.root": "/data/DIR", "output_dir": "OUT", "steps": "7",
        "save_freq": "3", "policy.chunk_size": "30", "rename_map": '{"a": "b"}', "batch_size": "4",
        "policy.device": "cuda", "policy.push_to_hub": "false", "log_freq": "50",
    }  # fmt: skip
    assert expected.items() <= found.items()
    assert not any(key.startswith("peft") for key in found)


def test_adapters_and_a_start_from_the_hub() -> None:
    found = arguments({}, start=Path("lerobot/smolvla_base"), lora=True)
    assert found["policy.path"] == "lerobot/smolvla_base"
    assert "policy.type" not in found
    assert (found["peft.method_type"], found["peft.r"]) == ("LORA", "16")
    found = arguments({"train": {"lora": "{rank: 4, targets: [q_proj, v_proj]}"}}, lora=True)
    assert (found["peft.r"], found["peft.target_modules"]) == ("4", "[q_proj, v_proj]")
    with pytest.raises(ConfigError, match=r"train\.lora\.alpha"):
        arguments({"train": {"lora": "{alpha: 4}"}})


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--set", "train.ema_decay=0.9"], "train.ema_decay"),
        (["--set", "augment.hue=0.1"], "lerobot.KEY=VALUE"),
        (["--preset", "tiny"], "--preset"),
        (["--dataset", "other"], "one with LeRobot's trainer"),
        (["--resume"], "nothing to resume"),
    ],
)
def test_what_its_trainer_does_not_know_is_refused_by_name(
    more: list[str], said: str, make: Any, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    monkeypatch.setenv("KOCH_LEROBOT_PYTHON", "/bin/false")
    dataset = make.dataset(tmp_path / "data")
    words = ["--policy", "smolvla", "--dataset", str(dataset), "--out", str(tmp_path / "o")]
    assert main([*words, *more]) == 2
    assert said in capsys.readouterr().err


def test_a_trainer_that_fails_is_quoted(
    make: Any, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho no module lerobot\nexit 3\n")
    python.chmod(0o755)
    monkeypatch.setenv("KOCH_LEROBOT_PYTHON", str(python))
    dataset = make.dataset(tmp_path / "data")
    words = ["--policy", "pi0", "--dataset", str(dataset), "--out", str(tmp_path / "o")]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "ended with code 3" in said
    assert "no module lerobot" in said
    assert "no module lerobot" in (tmp_path / "o.log").read_text()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_tiny_vla_is_fine_tuned_with_adapters_and_runs(
    lerobot_python: str, make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    offline = {**os.environ, "PYTHONPATH": "", "HF_HUB_OFFLINE": "1"}
    has = [lerobot_python, "-c", "import peft, num2words, lerobot.policies.smolvla"]
    if subprocess.run(has, env=offline, capture_output=True, check=False).returncode != 0:
        pytest.skip("this LeRobot lacks its extras smolvla and peft")
    made = [lerobot_python, str(SMOLVLA), str(tmp_path)]
    subprocess.run(made, env=offline, capture_output=True, check=True)
    monkeypatch.setenv("KOCH_LEROBOT_PYTHON", lerobot_python)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    dataset, out = make.dataset(tmp_path / "data", images=True), tmp_path / "out"
    words = ["--policy", "smolvla", "--from", str(tmp_path / "policy"), "--lora",
             "--dataset", str(dataset), "--out", str(out), "--device", "cpu", "--threads", "1",
             "--set", "train.steps=2", "--set", "train.batch_size=2", "--set", "train.log_every=1",
             "--set", "lerobot.num_workers=0", "--set", "policy.load_vlm_weights=false",
             "--set", "policy.optimizer_lr=0.1",
             "--set", "policy.scheduler_warmup_steps=0"]  # fmt: skip
    assert main(words) == 0
    assert "koch run --runtime lerobot" in capsys.readouterr().out
    about = json.loads((out / "checkpoints/last/pretrained_model/koch.json").read_text())
    assert about["names"]["action"][0] == "shoulder_pan.pos"
    assert "observation.environment_state" not in about["names"]
    assert about["tasks"] == ["reach left", "reach right"]
    look = {
        "observation.state": np.zeros(6, np.float32),
        make.camera: np.full((480, 640, 3), 90, np.uint8),
        "task": "reach left",
    }
    chunks = []
    for path in (tmp_path / "policy", out):
        policy = load_policy(path, "lerobot", device="cpu", threads=1)
        chunks.append(policy.predict(look, noise=np.zeros((1, 1), np.float32)))
        policy.close()  # type: ignore[attr-defined]
    assert chunks[1].shape == (30, 6)
    assert np.isfinite(chunks[1]).all()
    assert not np.allclose(*chunks)  # the adapter is in it
