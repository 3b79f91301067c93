# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Fixtures: golden checkpoints (LeRobot 0.4.4's outputs for weights that follow from their keys).

The five folders in `golden/` describe weights by key and shape; `materialize` writes them out.
"""

from __future__ import annotations

import json
import shutil
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_torch

FOLDER = Path(__file__).parent / "golden"
GOLDEN_NAMES = ("act", "act_novae", "act_prenorm_env", "diffusion_ddim", "diffusion_ddpm_sample")
_NOT_CHECKPOINT = ("keys.json", "buffers.safetensors", "golden_io.safetensors")


def weight(key: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return the float32 tensor that belongs to a state-dict key."""
    draw = np.random.RandomState(zlib.crc32(key.encode()))
    if key.endswith("running_var"):
        return draw.uniform(0.75, 1.25, shape).astype(np.float32)
    if len(shape) < 2:
        centre = 1.0 if key.endswith("weight") else 0.0
        return (centre + 0.05 * draw.standard_normal(shape)).astype(np.float32)
    fan_in = int(np.prod(shape[1:]))
    return (draw.standard_normal(shape) / np.sqrt(fan_in)).astype(np.float32)


def materialize(name: str, out: Path) -> Path:
    """Write a golden checkpoint with its weights into a folder, and return the folder."""
    source = FOLDER / name
    out.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        if file.name not in _NOT_CHECKPOINT:
            shutil.copy(file, out / file.name)
    shapes = json.loads((source / "keys.json").read_text())
    tensors = {key: weight(key, tuple(shape)) for key, shape in shapes.items()}
    if (source / "buffers.safetensors").exists():
        tensors.update(load_file(source / "buffers.safetensors"))
    save_file(tensors, out / "model.safetensors")
    return out


def recorded(name: str) -> dict[str, torch.Tensor]:
    """Return inputs and expected outputs of a golden checkpoint."""
    content = load_torch(FOLDER / name / "golden_io.safetensors")
    if name == "diffusion_ddpm_sample":
        # This one horizon was stored as the memory of its transposed view; its executed part
        # (`expected.action_chunk`) is stored straight and tells the two apart.
        horizon = content["expected.normalized_horizon"]
        _, steps, size = horizon.shape
        content["expected.normalized_horizon"] = horizon.reshape(1, size, steps).transpose(1, 2)
    return content


@dataclass(frozen=True)
class Golden:
    """One materialised golden checkpoint and what LeRobot computed with it."""

    name: str
    path: Path
    recorded: dict[str, torch.Tensor]


@pytest.fixture(scope="session", params=GOLDEN_NAMES)
def golden(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Golden:
    """Each golden checkpoint in turn."""
    name = str(request.param)
    return Golden(name, materialize(name, tmp_path_factory.mktemp(name)), recorded(name))


@pytest.fixture(scope="session")
def golden_act(tmp_path_factory: pytest.TempPathFactory) -> Golden:
    """The plain ACT golden checkpoint; tests that change it copy it first."""
    return Golden("act", materialize("act", tmp_path_factory.mktemp("act")), recorded("act"))


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Keep torch to one thread: tiny networks gain nothing from more, and waiting burns time."""
    torch.set_num_threads(1)
