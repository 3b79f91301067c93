# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What a training run needs to go on as if it had never stopped: optimiser, average, randomness.

    OUT/checkpoints/002000/pretrained_model/   the checkpoint (averaged weights when EMA is on)
    OUT/checkpoints/002000/training_state/     this module's files
    OUT/checkpoints/last                       link to the newest one

Pickle is not used: tensors are in safetensors files, the rest in JSON.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from koch_policy.errors import CheckpointError
from koch_policy.files import read_json, write_json
from koch_policy.train.lora import has_adapters
from koch_policy.train.optim import AveragedWeights

STATE_FOLDER = "training_state"
MODEL_FOLDER = "pretrained_model"
_STEP = "training_step.json"
_OPTIMIZER = "optimizer_state.safetensors"
_RANDOM = "rng_state.safetensors"
_WEIGHTS, _AVERAGE = "raw_weights.safetensors", "averaged_weights.safetensors"


def step_folder(out: Path, step: int, steps: int) -> Path:
    """Return the folder of a step's checkpoint."""
    return out / "checkpoints" / f"{step:0{max(6, len(str(steps)))}d}"


def point_last(out: Path, folder: Path) -> None:
    """Let `checkpoints/last` point at a folder, atomically."""
    link = out / "checkpoints" / "last"
    temporary = link.with_name(".last")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(folder.name)
    os.replace(temporary, link)


def save_state(
    folder: Path,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: AveragedWeights | None,
    history: Mapping[str, Any],
) -> None:
    """Write the training state of one step into a folder that exists."""
    folder.mkdir(parents=True, exist_ok=True)
    state = optimizer.state_dict()["state"]
    tensors = {
        f"state/{index}/{name}": torch.as_tensor(value).detach().cpu().contiguous()
        for index, values in state.items()
        for name, value in values.items()
    }
    save_file(tensors, folder / _OPTIMIZER)
    random = {"torch_rng_state": torch.get_rng_state()}
    if torch.cuda.is_available():
        random["torch_cuda_rng_state"] = torch.cuda.get_rng_state()
    save_file(random, folder / _RANDOM)
    adapted = has_adapters(model)
    if average is not None or adapted:  # the checkpoint holds the average, or merged weights
        save_file(_plain(model.state_dict()), folder / _WEIGHTS)
    if average is not None and adapted:
        save_file(_plain(average.values), folder / _AVERAGE)
    updates = average.updates if average is not None else 0
    write_json(folder / _STEP, {"step": step, "ema_updates": updates, "history": dict(history)})


def load_state(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: AveragedWeights | None,
) -> tuple[int, dict[str, Any]]:
    """Restore what `save_state` wrote; the model already holds the checkpoint's weights.

    Returns:
        The step, and the history that was saved with it.

    Raises:
        CheckpointError: A file is missing or damaged, or belongs to another network.
    """
    content = read_json(folder / _STEP)
    if average is not None:
        average.values = {key: value.detach().clone() for key, value in model.state_dict().items()}
        average.updates = int(content["ema_updates"])
        if has_adapters(model):
            for key, value in _tensors(folder / _AVERAGE).items():
                average.values[key].copy_(value)
    if average is not None or has_adapters(model):
        model.load_state_dict(_tensors(folder / _WEIGHTS))
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    saved: dict[int, dict[str, Tensor]] = {}
    for key, value in _tensors(folder / _OPTIMIZER).items():
        _, index, name = key.split("/")
        saved.setdefault(int(index), {})[name] = _laid_out(value, parameters, int(index))
    state = optimizer.state_dict()
    state["state"] = saved
    try:
        optimizer.load_state_dict(state)
    except ValueError as exc:
        raise CheckpointError(folder, f"optimiser does not fit ({exc})", "Start again.") from exc
    random = _tensors(folder / _RANDOM)
    torch.set_rng_state(random["torch_rng_state"])
    if torch.cuda.is_available() and "torch_cuda_rng_state" in random:
        torch.cuda.set_rng_state(random["torch_cuda_rng_state"])
    return int(content["step"]), dict(content["history"])


def _plain(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors as a file holds them; images' weights are channels-last here."""
    return {key: value.detach().cpu().contiguous().clone() for key, value in values.items()}


def _laid_out(value: Tensor, parameters: list[Tensor], index: int) -> Tensor:
    """Return a value in its parameter's memory layout: fused optimisers walk through memory."""
    if index >= len(parameters) or parameters[index].shape != value.shape:
        return value
    return torch.empty_like(parameters[index], dtype=value.dtype, device="cpu").copy_(value)


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as exc:
        raise CheckpointError(
            path, f"cannot be read ({exc})", "Resume from an earlier checkpoint folder."
        ) from exc
