# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Trained policies act alike in LeRobot, and training takes LeRobot's course.

Runs where KOCH_LEROBOT_PYTHON names Pythons with lerobot; its own loading, processors, control
loop (`select_action`) and optimiser presets are used.
"""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from koch_policy.checkpoint import load_checkpoint
from koch_policy.configs import ACTION, ACTION_IS_PAD
from koch_policy.runtime import load_policy
from koch_policy.train.cli import main
from koch_policy.train.config import TrainConfig
from koch_policy.train.data import Demonstrations
from koch_policy.train.setup import make_trainer
from koch_policy.train.source import open_demonstrations

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

IMAGES = "train.inputs=[observation.state,observation.images.above]"
SHORT = {  # episodes have 40 frames
    "act": ["policy.chunk_size=12", "policy.n_action_steps=5"],
    "diffusion": ["policy.horizon=16", "policy.n_action_steps=6"],
}
RUNS = {
    "act tiny": ("act", "tiny", SHORT["act"]),
    "act tiny-vision": ("act", "tiny-vision", [*SHORT["act"], "train.image_size=[32,40]"]),
    "act vae": ("act", "tiny", [*SHORT["act"], "policy.use_vae=true", "policy.latent_dim=4"]),
    "diffusion tiny": ("diffusion", "tiny", SHORT["diffusion"]),
    "diffusion images": ("diffusion", "tiny", [*SHORT["diffusion"], IMAGES]),
    "diffusion ddpm crop": ("diffusion", "tiny", [
        *SHORT["diffusion"], IMAGES, "policy.noise_scheduler_type=DDPM",
        "policy.crop_shape=[40,56]", "policy.use_separate_rgb_encoder_per_camera=true",
        "policy.n_obs_steps=3"]),
}  # fmt: skip
NORMALISED = {"act": 1e-5, "diffusion": 1e-4}
"""How far actions may differ, in normalised units."""


@pytest.fixture(scope="module")
def dataset(make: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Episodes with images, on disk."""
    root: Path = make.dataset(tmp_path_factory.mktemp("data") / "reach", images=True)
    return root


@pytest.fixture(scope="module")
def trained(
    lerobot: Any, dataset: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Checkpoints of a few steps of `koch train`, one per run."""
    folders = {}
    for name, (policy, preset, settings) in RUNS.items():
        out = tmp_path_factory.mktemp("run") / "out"
        chosen = ["train.steps=12", "train.batch_size=8", "train.warmup_steps=2", *settings]
        arguments = ["--dataset", dataset, "--policy", policy, "--preset", preset, "--out", out,
                     "--threads", "1", "--device", "cpu"]  # fmt: skip
        for setting in chosen:
            arguments += ["--set", setting]
        assert main([str(each) for each in arguments]) == 0
        folders[name] = (out / "checkpoints" / "last" / "pretrained_model").resolve()
    return folders


def _observations(folder: Path, dataset: Path, count: int) -> list[dict[str, Any]]:
    """The first frames of the dataset's second episode as the policy sees them."""
    config = load_checkpoint(folder).config
    sizes = {shape[1:] for shape in config.cameras.values()}
    size = next(iter(sizes)) if sizes else None
    data = open_demonstrations(dataset, TrainConfig(image_size=size))  # type: ignore[arg-type]
    rows = np.arange(count) + int(data.starts[1])
    found = {}
    for key in config.input_features:
        found[key] = data.frames[key].read(rows) if key in data.frames else data.vectors[key][rows]
    return [{key: value[tick] for key, value in found.items()} for tick in range(count)]


def _record(folder: Path, ticks: list[dict[str, Any]], noise: Any) -> None:
    """Write the observations for LeRobot: images channels first, 0..1."""
    content = {}
    for key in ticks[0]:
        values = torch.from_numpy(np.stack([tick[key] for tick in ticks]))
        if values.dtype == torch.uint8:
            values = values.permute(0, 3, 1, 2).float() / 255.0
        content[key] = values.contiguous()
    if noise is not None:
        content["noise"] = torch.from_numpy(noise)
    save_file(content, folder / "ticks.safetensors")


def _act(folder: Path, ticks: list[dict[str, Any]], noise: Any) -> dict[str, Any]:
    """Our actions (N, A), executed like LeRobot's queue, and the first chunk."""
    policy = load_policy(folder, "torch", device="cpu")
    every = policy.config.n_action_steps
    actions: list[Any] = []
    first = None
    for number, tick in enumerate(ticks):
        if number % every:
            policy.observe(tick)
            continue
        torch.manual_seed(number // every)
        start = None if noise is None else noise[number // every]
        chunk = policy.predict(tick, noise=start)
        first = chunk if first is None else first
        actions.extend(chunk[:every])
    return {"actions": np.array(actions[: len(ticks)]), "chunk": first}


def test_what_was_trained_here_acts_alike_in_lerobot(
    lerobot: Any, trained: dict[str, Path], dataset: Path
) -> None:
    if lerobot.version < (0, 4):
        pytest.skip("0.3 cannot read checkpoints whose statistics lie in processor files")
    told = {}
    for name, folder in trained.items():
        config = load_checkpoint(folder).config
        noise = None
        if config.type == "diffusion":
            shape = (3, config.horizon_steps, config.action_dim)
            noise = np.random.default_rng(5).standard_normal(shape).astype(np.float32)
        ticks = _observations(folder, dataset, 2 * config.n_action_steps + 3)
        _record(folder, ticks, noise)
        told[name] = _act(folder, ticks, noise)
    lerobot.side("select", *trained.values())
    for name, folder in trained.items():
        theirs = load_file(folder / "lerobot_actions.safetensors")
        scale = load_checkpoint(folder).normalizer.maps[ACTION].scale.numpy()
        limit = NORMALISED[RUNS[name][0]]
        spread = np.abs(np.diff(told[name]["actions"] * scale, axis=0)).max()
        assert spread > 20 * limit, f"{name}: all actions alike would prove nothing"
        for key, value in theirs.items():
            error = np.abs((told[name][key] - value.numpy()) * scale).max()
            assert error < limit, f"{name}: {key} {error:.1e}"


def test_what_lerobot_saved_again_is_read(lerobot: Any, trained: dict[str, Path]) -> None:
    """Fine-tuning there writes our configuration, processors and weights again."""
    if lerobot.version < (0, 4):
        pytest.skip("0.3 cannot read checkpoints whose statistics lie in processor files")
    lerobot.side("again", *trained.values())
    for name, folder in trained.items():
        ours, theirs = load_checkpoint(folder), load_checkpoint(folder / "again")
        assert theirs.config == ours.config, name
        for key, value in ours.model.state_dict().items():
            assert torch.equal(theirs.model.state_dict()[key], value), (name, key)
        for key, affine in ours.normalizer.maps.items():
            assert torch.equal(theirs.normalizer.maps[key].shift, affine.shift), (name, key)


def _flat(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A raw batch as LeRobot's data loader gives it: images 0..1."""
    return {
        key: value.float() / 255.0 if value.dtype == torch.uint8 else value.clone()
        for key, value in batch.items()
    }


STILL = {"use_vae": True, "dropout": 0.0}
# name: (policy, changes to it, sees images, steps, largest relative difference)
CURVES: dict[str, tuple[str, dict[str, Any], bool, int, float]] = {
    "act": ("act", STILL, False, 40, 1e-4),
    "act with dropout": ("act", {"dropout": 0.1, "n_decoder_layers": 2}, False, 50, 1e-4),
    "act with dropout, pre-norm, no VAE":
        ("act", {"dropout": 0.2, "use_vae": False, "pre_norm": True}, False, 20, 1e-4),
    "diffusion": ("diffusion", {}, False, 40, 1e-4),
    # Rounding grows faster through a ResNet: the same losses in float64 are as far away.
    "act with images": ("act", STILL, True, 8, 1e-3),
    "diffusion with images": ("diffusion", {"crop_is_random": False}, True, 8, 1e-3),
}  # fmt: skip


def losses_of_both(curve: str, lerobot: Any, make: Any, folder: Path) -> tuple[Any, Any]:
    """Losses of our trainer and of LeRobot's classes and optimiser from the same first weights.

    Same windows in the same order, same noise; constant rate, as LeRobot's ACT has it.
    """
    kind, changes, has_images, steps, _ = CURVES[curve]
    recipe = make.recipe(
        kind, learning_rate=None, warmup_steps=0, final_rate_fraction=1.0, steps=steps
    ).with_overrides({"policy": {**changes, "optimizer_lr": 3e-4}}, "test")
    data: Demonstrations = make.demonstrations(images=has_images)
    trainer = make_trainer(data, recipe, folder, show_progress=False)
    trainer.save()
    start = (folder / "checkpoints" / "last" / "pretrained_model").resolve()
    rows = list(islice(trainer._row_batches(), steps))
    batches = [_flat(trainer.training.batch(chosen)) for chosen in rows]
    if lerobot.version < (0, 6):  # there the mean runs over padded steps too
        for batch in batches:
            batch[ACTION_IS_PAD][:] = False
    stacked = {key: torch.stack([batch[key] for batch in batches]) for key in batches[0]}
    save_file({k: v.contiguous() for k, v in stacked.items()}, folder / "batches.safetensors")
    printed = lerobot.side("losses", start, folder / "batches.safetensors", 7)
    trainer.model.train()
    torch.manual_seed(7)
    ours = []
    for batch in batches:
        ours.append(float(trainer._optimise(batch)[0]["loss"]))
        trainer.step += 1
    return np.array(ours), np.array(json.loads(printed.splitlines()[-1]))


@pytest.mark.parametrize("curve", list(CURVES))
def test_the_loss_takes_the_course_of_lerobots(
    curve: str, lerobot: Any, make: Any, tmp_path: Path
) -> None:
    if lerobot.version < (0, 4):
        pytest.skip("0.3 cannot read checkpoints whose statistics lie in processor files")
    ours, theirs = losses_of_both(curve, lerobot, make, tmp_path)
    assert np.ptp(ours) > 0.01 * ours[0], "a curve, not a point"
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-6)
    np.testing.assert_allclose(ours, theirs, rtol=CURVES[curve][-1])
