# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What a training run is going to do, said before its first step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from koch_policy.configs import STATE
from koch_policy.train.config import Recipe, load_recipe, preset_names
from koch_policy.train.data import Demonstrations
from koch_policy.train.loop import Trainer
from koch_policy.train.metrics import clock

COLUMN = 9  # where the texts behind the words begin
_PATIENCE_S = 4 * 3600.0  # longer on a processor: say what to choose instead


def header(trainer: Trainer, step_s: float) -> list[str]:
    """Describe a run in lines for a person.

    Args:
        trainer: Ready to run.
        step_s: Measured time of one step [s].
    """
    recipe, data = trainer.recipe, trainer.training.data
    train = recipe.train
    left_s = step_s * (train.steps - trainer.step)
    held = 0 if trainer.validation is None else len(trainer.validation.episodes)
    cameras = [
        f"{key.rpartition('.')[2]} {frames.shape[1]}x{frames.shape[0]}"
        for key, frames in data.frames.items()
    ]
    vectors = [f"{key} ({values.shape[1]})" for key, values in data.vectors.items()]
    numbers = "bfloat16" if trainer.uses_bfloat16 else "float32"
    lines = [
        f"policy   {recipe.policy_type}, {_parameters(trainer)}, {_start(trainer)}",
        f"data     {len(data.lengths)} episodes ({len(trainer.training.episodes)} to learn from, "
        f"{held} held out), {sum(data.lengths)} frames at {data.fps:g} per second",
        *([f"selected {train.episodes}"] if isinstance(train.episodes, str) else []),
        f"inputs   cameras: {', '.join(cameras) or 'none'}; vectors: {', '.join(vectors)}",
        f"device   {_device(trainer.device)}, {numbers}",
        f"run      step {trainer.step} to {train.steps}, {train.batch_size} windows each, "
        f"{step_s:.2f} s per step: about {duration(left_s)}",
    ]
    lines += [f"note     {note}" for note in trainer.notes]
    if trainer.device.type == "cpu" and left_s > _PATIENCE_S:
        lines += [
            f"advice   {duration(left_s)} on a processor is long. {line}"
            for line in _instead(recipe, data)
        ]
    return lines


def duration(seconds: float) -> str:
    """Return a time for a person: seconds and minutes as M:SS, then hours, then days."""
    if seconds < 3600:
        return f"{clock(seconds)} min"
    hours = seconds / 3600
    return f"{hours:.1f} hours" if hours < 48 else f"{hours:.0f} hours ({hours / 24:.0f} days)"


def _parameters(trainer: Trainer) -> str:
    total = sum(each.numel() for each in trainer.model.parameters())
    frozen = sum(each.numel() for each in trainer.model.parameters() if not each.requires_grad)
    kept = f"{_millions(frozen)} frozen" if frozen else "all trainable"
    return f"{_millions(total)} parameters, {kept}"


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f} M" if count >= 1e6 else f"{count / 1e3:.0f} k"


def _start(trainer: Trainer) -> str:
    train = trainer.recipe.train
    if trainer.step:
        return f"resumed at step {trainer.step}"
    if train.pretrained_policy is not None:
        return f"starts from {train.pretrained_policy}"
    if train.pretrained_backbone is not None:
        return f"image backbones start from {train.pretrained_backbone}"
    if trainer.config.cameras:
        return "not pretrained: image backbones start from random weights"
    return "not pretrained"


def _device(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device} ({torch.get_num_threads()} thread(s))"


def _instead(recipe: Recipe, data: Demonstrations) -> Iterator[str]:
    features = [*data.vectors, *data.frames]
    hints = preset_hints(features, processor_only=True)
    if hints:
        yield "Presets that fit these data and a processor: " + "; ".join(hints) + "."
    if data.frames and recipe.train.image_size is None and not recipe.train.image_sizes:
        yield "Smaller images help most: --set train.image_size=[96,128]."
    yield "Or train on a machine with a GPU and copy the output folder here."


def preset_hints(features: Sequence[str], *, processor_only: bool = False) -> list[str]:
    """Return the presets whose inputs are among a dataset's features, with what they take."""
    hints = []
    for name in preset_names():
        policy, _, preset = name.partition("-")
        recipe = load_recipe(policy, preset, [], [])
        needed = recipe.train.inputs or (STATE,)
        hardware = str(recipe.about.get("hardware", ""))
        if all(key in features for key in needed) and not (processor_only and "GPU" in hardware):
            time = recipe.about.get("wall_time", "")
            hints.append(f"--policy {policy} --preset {preset} ({time} on {hardware})")
    return hints
