# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Fixtures: golden checkpoints (LeRobot 0.4.4's outputs for weights that follow from their keys).

The five folders in `golden/` describe weights by key and shape; `materialize` writes them out.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_torch

from koch_policy.train.config import Recipe
from koch_policy.train.data import ArrayFrames, Demonstrations
from koch_policy.train.setup import make_trainer
from koch_rig.arm_model import KOCH_V1_1

J = len(KOCH_V1_1.joints)

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


EPISODES, FRAMES = 6, 40
CAMERA = "observation.images.above"


def make_demonstrations(*, images: bool = False, **changes: object) -> Demonstrations:
    """Six short episodes in which the arm moves to where the environment state says."""
    draw = np.random.default_rng(3)
    state, environment, action = [], [], []
    for _ in range(EPISODES):
        goal = draw.uniform(-50, 50, J)
        path = np.linspace(np.zeros(J), goal, FRAMES + 1)
        state.append(path[:-1])
        action.append(path[1:])
        environment.append(np.tile(goal[:4] / 100, (FRAMES, 1)) + 0.001 * draw.normal(size=4))
    total = EPISODES * FRAMES
    joints = [f"{name}.pos" for name in KOCH_V1_1.joints]
    values: dict[str, object] = {
        "name": "made-up dataset",
        "fps": 30.0,
        "lengths": (FRAMES,) * EPISODES,
        "vectors": {
            "observation.state": np.concatenate(state).astype(np.float32),
            "observation.environment_state": np.concatenate(environment).astype(np.float32),
            "action": np.concatenate(action).astype(np.float32),
        },
        "task_index": np.arange(total, dtype=np.int64) // FRAMES % 2,
        "tasks": ("reach left", "reach right"),
        "names": {"observation.state": joints, "action": joints},
    }
    if images:
        values["frames"] = {
            CAMERA: ArrayFrames(draw.integers(0, 256, (total, 48, 64, 3), dtype=np.uint8))
        }
    return Demonstrations(**{**values, **changes})  # type: ignore[arg-type]


TINY: dict[str, dict[str, object]] = {
    "act": {"chunk_size": 8, "n_action_steps": 8, "dim_model": 32, "n_heads": 2,
            "dim_feedforward": 64, "n_encoder_layers": 1, "n_vae_encoder_layers": 1,
            "latent_dim": 4, "dropout": 0.0},
    "diffusion": {"horizon": 8, "n_action_steps": 4, "down_dims": [16, 32], "n_groups": 4,
                  "diffusion_step_embed_dim": 16, "spatial_softmax_num_keypoints": 4,
                  "num_train_timesteps": 20, "num_inference_steps": 5,
                  "noise_scheduler_type": "DDIM"},
    "diffusion_transformer": {"horizon": 8, "n_action_steps": 4, "dim_model": 32, "n_heads": 2,
                              "n_layers": 1, "spatial_softmax_num_keypoints": 4, "dropout": 0.0,
                              "num_train_timesteps": 20, "num_inference_steps": 5,
                              "noise_scheduler_type": "DDIM"},
    "flow": {"chunk_size": 8, "n_action_steps": 8, "dim_model": 32, "dim_expert": 32,
             "n_heads": 2, "dim_head": 16, "n_layers": 1, "num_inference_steps": 4},
    "fast": {"chunk_size": 8, "n_action_steps": 8, "dim_model": 32, "n_heads": 2, "dim_head": 16,
             "n_layers": 1, "vocabulary": 128},
}  # fmt: skip


def make_recipe(policy: str, **train: object) -> Recipe:
    """A recipe for a network of a few thousand weights."""
    groups = {
        "policy": {"type": policy, **TINY[policy]},
        "train": {"batch_size": 8, "steps": 4, "learning_rate": 1e-3, "warmup_steps": 1,
                  "validate_every": 4, "save_every": 4, "log_every": 2, **train},
    }  # fmt: skip
    return Recipe().with_overrides(groups, "test recipe")


def make_checkpoint(policy: str, out: Path, *, images: bool = False, **overrides: object) -> Path:
    """Write an untrained checkpoint of a tiny policy and return its folder."""
    recipe = make_recipe(policy).with_overrides({"policy": overrides}, "test")
    trainer = make_trainer(make_demonstrations(images=images), recipe, out)
    trainer.save()
    return out / "checkpoints" / "last" / "pretrained_model"


def write_dataset(root: Path, *, images: bool = False) -> Path:
    """Write the made-up demonstrations as a LeRobot dataset; the camera shows a moving square."""
    from koch_episodes.dataset.layout import FeatureSpec
    from koch_episodes.dataset.writer import DatasetWriter

    data = make_demonstrations()
    features = {
        key: FeatureSpec("float32", (values.shape[1],), tuple(
            data.names.get(key, [f"e{i}" for i in range(values.shape[1])])))
        for key, values in data.vectors.items()
    }  # fmt: skip
    if images:
        features[CAMERA] = FeatureSpec("video", (48, 64, 3), ("height", "width", "channels"))
    with DatasetWriter(root, features, fps=30, robot_type="koch_follower") as writer:
        for index, start in enumerate(data.starts):
            rows = slice(int(start), int(start) + data.lengths[index])
            columns = {key: values[rows] for key, values in data.vectors.items()}
            frames = {CAMERA: squares(columns["observation.state"])} if images else {}
            writer.add_episode(columns, frames, data.tasks[data.task_index[rows.start]])
        writer.finalize()
    return root


def squares(states: NDArray[np.float32]) -> list[NDArray[np.uint8]]:
    """One 48x64 image per state, with a square where its first two joints point."""
    frames = []
    for state in states:
        image = np.full((48, 64, 3), 90, np.uint8)
        y, x = int(20 + 0.3 * state[0]), int(28 + 0.4 * state[1])
        image[y : y + 8, x : x + 8] = (230, 60, 20)
        frames.append(image)
    return frames


class LeRobot:
    """LeRobot itself, in a Python of its own."""

    def __init__(self, python: str) -> None:
        self.python = python
        printed = self.run("-c", "import importlib.metadata as m; print(m.version('lerobot'))")
        self.version = tuple(int(part) for part in printed.strip().split(".")[:3])

    def run(self, *arguments: object, path: str = "") -> str:
        """Run its Python; return what it printed."""
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        environment["PYTHONPATH"] = path
        command = [self.python, *map(str, arguments)]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    def side(self, *arguments: object) -> str:
        """Run benchmarks/lerobot_policy_side.py."""
        return self.run(SIDE, *arguments)


SIDE = Path(__file__).parents[3] / "benchmarks" / "lerobot_policy_side.py"


@pytest.fixture(scope="session")
def lerobot(lerobot_python: str) -> LeRobot:
    """Each LeRobot that KOCH_LEROBOT_PYTHON names."""
    return LeRobot(lerobot_python)


class Factory:
    """What tests build things with; a fixture, because test modules cannot import each other."""

    camera = CAMERA
    tiny = TINY
    demonstrations = staticmethod(make_demonstrations)
    recipe = staticmethod(make_recipe)
    checkpoint = staticmethod(make_checkpoint)
    materialize = staticmethod(materialize)
    recorded = staticmethod(recorded)
    dataset = staticmethod(write_dataset)


@pytest.fixture(scope="session")
def make() -> type[Factory]:
    """Builders of tiny data sets, recipes and checkpoints."""
    return Factory
