# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch train` on a dataset folder: training, signals, resuming, several processes, errors."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from koch_episodes.dataset import DatasetWriter, FeatureSpec
from koch_episodes.errors import DatasetFormatError
from koch_policy.checkpoint import load_checkpoint
from koch_policy.configs import ACTION, STATE
from koch_policy.errors import ConfigError, DatasetError
from koch_policy.train.cli import main
from koch_policy.train.config import TrainConfig
from koch_policy.train.degrees import degrees_per_unit
from koch_policy.train.header import header
from koch_policy.train.setup import make_trainer
from koch_policy.train.source import open_demonstrations
from koch_rig.arm_model import KOCH_V1_1

J = len(KOCH_V1_1.joints)

SOURCES = Path(__file__).parents[2]
SMALL = [
    "--set", "train.steps=6", "--set", "train.batch_size=4", "--set", "policy.dim_model=32",
    "--set", "policy.n_heads=2", "--set", "policy.chunk_size=8",
    "--set", "policy.n_action_steps=8", "--set", "train.log_every=3", "--threads", "1",
]  # fmt: skip


@pytest.fixture(scope="module")
def dataset(make: Any, tmp_path_factory: Any) -> Path:
    """The made-up demonstrations as a LeRobot dataset on disk."""
    return Path(make.dataset(Path(tmp_path_factory.mktemp("data")) / "reach"))


def _environment() -> dict[str, str]:
    paths = [str(path) for path in sorted(SOURCES.glob("koch_*"))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


def test_dataset_on_disk_equals_the_one_in_memory(dataset: Path, make: Any) -> None:
    read = open_demonstrations(dataset, TrainConfig())
    made = make.demonstrations()
    assert read.lengths == made.lengths
    for key, values in made.vectors.items():
        assert np.array_equal(read.vectors[key], values), key
    assert read.names["action"] == made.names["action"]
    assert read.tasks == made.tasks


def test_only_episodes_that_ended_so_are_learned(tmp_path: Path) -> None:
    features = {key: FeatureSpec("float32", (1,), ("a",)) for key in (STATE, ACTION)}
    ends = ("success", "failure", "", "success")
    with DatasetWriter(tmp_path / "data", features, fps=10) as writer:
        for number, outcome in enumerate(ends):
            values = np.full((5 + number, 1), number, np.float32)
            writer.add_episode({STATE: values, ACTION: values}, {}, "t", outcome)
    chosen = open_demonstrations(tmp_path / "data", TrainConfig(outcomes=("success",)))
    assert chosen.lengths == (5, 8)
    assert np.unique(chosen.vectors[ACTION]).tolist() == [0.0, 3.0]
    with pytest.raises(DatasetFormatError, match="some that ended as done"):
        open_demonstrations(tmp_path / "data", TrainConfig(outcomes=("done",)))
    with pytest.raises(ConfigError, match=r"outcomes.*a list such as \[success\]"):
        TrainConfig(outcomes="success")  # type: ignore[arg-type]


def test_vectors_can_be_joined_with_statistics_of_their_own(dataset: Path) -> None:
    parts = {"action": ["action", "observation.environment_state"]}
    read = open_demonstrations(dataset, TrainConfig(parts=parts))
    assert read.vectors["action"].shape[1] == 10
    assert read.names["action"][0] == "action/shoulder_pan.pos"
    assert read.names["action"][-1] == "observation.environment_state/e3"


def test_what_the_converter_wrote_is_taken_over(dataset: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(dataset, tmp_path / "copy"))
    made = {"units": "radians", "fingerprint": "sha256:x", "delta_actions": False}
    (copy / "meta" / "koch.json").write_text(json.dumps(made))
    read = open_demonstrations(copy, TrainConfig())
    assert (read.units, read.fingerprint) == ("radians", "sha256:x")
    full, degrees = degrees_per_unit(read, None, None)
    assert full.units == "radians"
    assert degrees == pytest.approx([180 / np.pi] * J)
    with pytest.raises(DatasetError, match="is in radians, not in degrees"):
        degrees_per_unit(read, "degrees", None)
    made["delta_actions"] = True
    (copy / "meta" / "koch.json").write_text(json.dumps(made))
    restored = open_demonstrations(copy, TrainConfig()).vectors
    expected = read.vectors["action"] + read.vectors["observation.state"]
    np.testing.assert_allclose(restored["action"], expected, rtol=1e-6)


def test_trains_and_resumes(dataset: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "run"
    common = ["--dataset", str(dataset), "--out", str(out), "--units", "degrees"]
    assert main([*common, "--preset", "tiny", *SMALL]) == 0
    printed = capsys.readouterr().out
    assert "open-loop error shoulder_pan.pos [deg]" in printed
    assert "at step 6" in printed
    assert load_checkpoint(out).extras.units == "degrees"
    assert main([*common, *SMALL]) == 2
    assert "--resume" in capsys.readouterr().err
    assert main([*common, "--resume", "--set", "train.steps=9", "--threads", "1"]) == 0
    assert "at step 9" in capsys.readouterr().out
    assert load_checkpoint(out).extras.training["step"] == 9


def test_errors_end_with_two_and_one_message(dataset: Path, tmp_path: Path, capsys: Any) -> None:
    assert main(["--dataset", str(tmp_path), "--out", str(tmp_path / "o")]) == 2
    assert main(["--dataset", str(dataset), "--out", str(tmp_path / "o"),
                 "--set", "train.inputs=[observation.images.left]"]) == 2  # fmt: skip
    error = capsys.readouterr().err
    assert "koch train:" in error
    assert "has no vector 'observation.images.left'. It has" in error
    assert "Traceback" not in error


BAD = {  # setting: what the message must name
    "policy.dim_model=[": "`policy.dim_model` is '['; expected a value in YAML",
    "policy.dim_feedforward=0": "`dim_feedforward` is 0; expected a value above zero",
    "policy.n_encoder_layers=-1": "`n_encoder_layers` is -1; expected zero or more",
    "policy.dropout=2.0": "`dropout` is 2.0; expected zero or more, below 1",
    "policy.normalization_mapping=5": "`normalization_mapping` is 5; expected a mapping",
    "policy.normalization_mapping={STAT: MEAN_STD}": "`feature type` is 'STAT'; expected one of",
    "policy.input_features=3": "`input_features` is 3; expected a mapping",
    "policy.optimizer_lr=.nan": "`optimizer_lr` is nan; expected a finite number",
    "train.inputs=[action]": "action among `inputs`",
    "train.inputs=[observation.state,timestamp,observation.environment_state]":
        "`inputs` is 'timestamp'; expected observation.state",
    "train.parts=[1]": "`parts` is [1]",
    "train.parts={action: action}": "`parts.action` is 'action'; expected a list",
    "train.image_size=[3]": "`image_size` is (3,); expected [height, width]",
    "train.image_size=[0,5]": "`image_size` is (0, 5)",
    "train.learning_rate=-1.0": "`learning_rate` is -1.0",
    "train.learning_rate=.nan": "`learning_rate` is nan",
    "train.warmup_steps=-3": "`warmup_steps` is -3",
    "train.clip_norm=0.0": "`clip_norm` is 0.0",
    "train.validation_windows=0": "`validation_windows` is 0",
    "train.seed=-1": "`seed` is -1",
    "train.final_rate_fraction=5.0": "`final_rate_fraction` is 5.0",
    "augment.state_noise=.inf": "`state_noise` is inf",
}  # fmt: skip


@pytest.mark.parametrize("setting", BAD)
def test_bad_setting_is_named(setting: str, dataset: Path, tmp_path: Path, capsys: Any) -> None:
    """Each of these ended in a traceback, or trained something else than was asked for."""
    common = ["--dataset", str(dataset), "--out", str(tmp_path / "o"), *SMALL]
    assert main([*common, "--set", setting]) == 2
    assert BAD[setting] in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "cuda:99"], "device 'cuda:99' cannot be used"),
        (["--device", "toaster"], "device 'toaster' cannot be used"),
        (["--threads", "-1"], "--threads: got -1"),
        (["--out", "/proc/nowhere/x"], "/proc/nowhere"),
        (["--out", "/dev/null"], "/dev/null"),
    ],
)
def test_bad_argument_is_named(
    arguments: list[str], message: str, dataset: Path, tmp_path: Path, capsys: Any
) -> None:
    common = ["--dataset", str(dataset), "--out", str(tmp_path / "o")]
    assert main([*common, *SMALL, *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("policy.optimizer_betas=[0.9]", "expected a list (tuple[float, float])"),
        ("policy.down_dims=[a, b]", "`down_dims` is 'a'; expected int"),
        ("policy.crop_shape=[3]", "expected a list (tuple[int, int])"),
        ("policy.crop_shape=[0, 3]", "expected a height and width of 1 or more"),
        ("policy.spatial_softmax_num_keypoints=0", "expected a value above zero"),
    ],
)
def test_bad_diffusion_setting_is_named(
    setting: str, message: str, dataset: Path, tmp_path: Path, capsys: Any
) -> None:
    common = ["--dataset", str(dataset), "--out", str(tmp_path / "o"), "--policy", "diffusion"]
    assert main([*common, "--preset", "tiny", "--set", setting]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "setting", ["policy.time_alpha=-1.0", "policy.dim_head=0", "policy.time_offset=0.5"]
)
def test_bad_flow_setting_is_named(
    setting: str, dataset: Path, tmp_path: Path, capsys: Any
) -> None:
    common = ["--dataset", str(dataset), "--out", str(tmp_path / "o"), "--policy", "flow"]
    assert main([*common, "--preset", "tiny", "--set", setting]) == 2
    assert setting.partition("=")[0].removeprefix("policy.") in capsys.readouterr().err


def test_interrupt_saves(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [
        sys.executable, "-m", "koch_policy.train",
        "--dataset", str(dataset), "--out", str(out), "--preset", "tiny", *SMALL,
        "--set", "train.steps=1000000", "--set", "train.save_every=1000000",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 90
    while not (out / "loss.csv").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)  # a terminal and a parent may both hand it on
    printed, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    step = load_checkpoint(out).extras.training["step"]
    assert 0 < step < 1_000_000
    assert f"at step {step}" in printed


@pytest.mark.slow
def test_two_processes_train_as_one(dataset: Path, tmp_path: Path) -> None:
    """Gradients are averaged: two halves of each batch give what one whole batch gives."""
    weights = []
    for count in (1, 2):
        out = tmp_path / str(count)
        command = [
            sys.executable, "-m", "torch.distributed.run", "--standalone",
            f"--nproc-per-node={count}", "--module", "koch_policy.train",
            "--dataset", str(dataset), "--out", str(out), "--preset", "tiny", *SMALL,
            "--set", "train.validation_fraction=0.0", "--set", "augment.state_noise=0.0",
            "--set", "train.steps=3", "--device", "cpu",
        ]  # fmt: skip
        done = subprocess.run(
            command, env=_environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        weights.append(load_checkpoint(out).model.state_dict())
    for key, value in weights[0].items():
        assert np.allclose(weights[1][key], value, atol=2e-4), key


def test_a_run_says_first_what_it_will_do(dataset: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "run"
    assert main(["--dataset", str(dataset), "--out", str(out), *SMALL]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().err.splitlines() if line[:1]}
    assert re.search(r"act, [0-9.]+ M parameters, all trainable, not pretrained", lines["policy"])
    assert "6 episodes (5 to learn from, 1 held out), 240 frames at 30" in lines["data"]
    assert "cameras: none" in lines["inputs"]
    assert "observation.environment_state (4)" in lines["inputs"]
    assert "cpu (1 thread(s)), float32" in lines["device"]
    assert re.search(r"step 0 to 6, 4 windows each, \d+\.\d+ s per step: about", lines["run"])
    assert "advice" not in lines


def test_a_long_run_on_a_processor_names_what_to_choose(make: Any, tmp_path: Path) -> None:
    data = make.demonstrations(images=True)
    trainer = make_trainer(data, make.recipe("act", steps=10_000), tmp_path)
    advice = [line for line in header(trainer, 30.0) if line.startswith("advice")]
    assert "83 hours (3 days) on a processor is long" in advice[0]
    assert "--policy act --preset tiny-vision" in advice[0]
    assert "act --preset camera" not in advice[0]
    assert any("train.image_size" in line for line in advice)
    blind = make_trainer(make.demonstrations(), make.recipe("act", steps=10_000), tmp_path)
    assert "--policy act --preset tiny (" in "".join(header(blind, 30.0))
    assert not [line for line in header(trainer, 0.1) if line.startswith("advice")]


def test_timing_a_step_leaves_the_run_as_it_was(make: Any, tmp_path: Path) -> None:
    recipe = make.recipe("flow").with_overrides({"policy": {"backbone_norm": "batch"}}, "test")
    trainers = [
        make_trainer(make.demonstrations(images=True), recipe, tmp_path / str(k)) for k in range(2)
    ]
    assert trainers[0].seconds_per_step() > 0.0
    states = [trainer.model.state_dict() for trainer in trainers]
    for key, value in states[0].items():
        assert torch.equal(value, states[1][key]), key
    draws = []
    for trainer in trainers:
        torch.manual_seed(3)
        trainer.seconds_per_step()
        draws.append(torch.rand(3))
    assert torch.equal(*draws)


def test_a_preset_that_lacks_a_feature_names_one_that_fits(
    make: Any, tmp_path: Path, capsys: Any
) -> None:
    root = make.dataset(tmp_path / "data", images=True)
    info = json.loads((root / "meta/info.json").read_text())
    del info["features"]["observation.environment_state"]
    (root / "meta/info.json").write_text(json.dumps(info))
    asked = ["--dataset", str(root), "--out", str(tmp_path / "o"), "--preset", "tiny"]
    assert main(asked) == 2
    error = capsys.readouterr().err
    assert "has no vector 'observation.environment_state'" in error
    assert "--policy act --preset tiny-vision" in error


def test_wandb_is_refused_where_it_is_not_installed(
    dataset: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    asked = ["--dataset", str(dataset), "--out", str(tmp_path / "o"), *SMALL]
    assert main([*asked, "--set", "train.wandb=koch"]) == 2
    assert "koch setup --with wandb" in capsys.readouterr().err


def test_help_and_wrong_words_do_not_wait_for_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from koch_policy.train.options import parse\n"
        "try: parse(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print('torch' in sys.modules)"
    )
    for words in (["--help"], ["--policy", "atc", "--dataset", "x", "--out", "y"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True
        )
        assert done.stdout.endswith("False\n"), done.stderr
