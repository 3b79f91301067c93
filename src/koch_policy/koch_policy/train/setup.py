# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""From demonstrations and a recipe to a trainer: features, statistics, split and text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from koch_policy.checkpoint import Checkpoint, load_checkpoint
from koch_policy.config_json import config_from_dict
from koch_policy.configs import ACTION, ACTION_IS_PAD, ENVIRONMENT, STATE, PolicyConfig
from koch_policy.errors import ConfigError, DatasetError
from koch_policy.metadata import CheckpointMetadata
from koch_policy.models.registry import policy_kind
from koch_policy.models.text import TASK_ENCODERS, make_task_encoder
from koch_policy.normalize import IMAGENET, Statistics, ZeroRange, normalizer_for
from koch_policy.train.config import Recipe, TrainConfig
from koch_policy.train.data import Demonstrations, Windows, split_episodes, vector_statistics
from koch_policy.train.degrees import degrees_per_unit
from koch_policy.train.finetune import kept_statistics
from koch_policy.train.lerobot_keys import WHERE, honoured
from koch_policy.train.loop import Trainer
from koch_policy.train.mixture import with_tasks
from koch_policy.train.source import open_all
from koch_policy.train.state import MODEL_FOLDER
from koch_rig.action_layout import JOINT

_CHUNKS = 4000  # of which the statistics of an action space are measured
_TYPES = {STATE: "STATE", ENVIRONMENT: "ENV"}


def policy_config(data: Demonstrations, recipe: Recipe) -> PolicyConfig:
    """Describe the dataset's features in a policy configuration.

    Raises:
        ConfigError, UnknownKeysError: The recipe's `policy` group is not valid, or the data hold a
            vector that no policy reads.
    """
    inputs: dict[str, Any] = {}
    for key, values in data.vectors.items():
        if key not in (ACTION, *_TYPES):
            raise ConfigError(
                "train", "inputs", key, f"{STATE}, {ENVIRONMENT} or a camera",
                f"Other vectors are joined to these, e.g. parts: {{{STATE}: [{STATE}, {key}]}}.",
            )  # fmt: skip
        if key != ACTION:
            inputs[key] = {"type": _TYPES[key], "shape": [values.shape[1]]}
    for key, frames in data.frames.items():
        height, width, channels = frames.shape
        inputs[key] = {"type": "VISUAL", "shape": [channels, height, width]}
    action = {"type": "ACTION", "shape": [data.action_width]}
    policy = {key: value for key, value in honoured(recipe).policy.items() if key != "device"}
    kind = policy_kind(recipe.policy_type, WHERE).config
    policy = {name: getattr(kind, name) for name in kind.lerobot_ambiguous} | policy
    encoder = TASK_ENCODERS.find(str(policy.get("task_encoder")))
    if encoder is not None:
        width = encoder.width(data.tasks)
        if policy.setdefault("task_dim", width) != width:
            raise ConfigError(WHERE, "task_dim", policy["task_dim"], f"{width}, or left out")
    content = {"input_features": inputs, "output_features": {ACTION: action}, **policy}
    return config_from_dict(content, WHERE)


def dataset_statistics(data: Demonstrations, recipe: Recipe) -> Statistics:
    """Return the statistics of all features, computed from the values themselves.

    Images take ImageNet's mean and standard deviation, unless the recipe asks for the
    dataset's own, which are then measured on 64 frames per camera.
    """
    statistics = {key: vector_statistics(values) for key, values in data.vectors.items()}
    for key, frames in data.frames.items():
        if recipe.train.imagenet_statistics:
            statistics[key] = dict(IMAGENET)
        else:
            rows = np.linspace(0, sum(data.lengths) - 1, 64).astype(np.int64)
            pixels = frames.read(np.unique(rows)).reshape(-1, 3).astype(np.float32) / 255.0
            measured = vector_statistics(pixels)
            statistics[key] = {name: value.view(3, 1, 1) for name, value in measured.items()}
    return statistics


def chunk_statistics(data: Demonstrations, config: PolicyConfig) -> dict[str, Tensor]:
    """Return the statistics of an action space over whole chunks, from all over the data.

    What is relative has a range that grows along the chunk, so that single steps do not tell it.
    """
    every = range(len(data.lengths))
    rows = np.concatenate([data.starts[n] + np.arange(data.lengths[n]) for n in every])
    rows = rows[np.linspace(0, len(rows) - 1, min(_CHUNKS, len(rows))).astype(np.int64)]
    chunks = Windows(data, config, every).actions(rows)
    return vector_statistics(chunks[ACTION][~chunks[ACTION_IS_PAD]].numpy())


def task_vectors(config: PolicyConfig, data: Demonstrations) -> NDArray[np.float32] | None:
    """Return one vector per task of the dataset, (tasks, E); None for policies without language.

    Raises:
        DatasetError: A task has no text, so that the policy could not be told to do it.
    """
    if config.language is None:
        return None
    empty = [index for index, text in enumerate(data.tasks) if not text.strip()]
    if empty or not data.tasks:
        raise DatasetError(
            data.name, f"task(s) {empty} have no text", "Write them into the dataset's tasks."
        )
    encoder = make_task_encoder(config.language, data.tasks)
    return np.stack([encoder.encode(text) for text in data.tasks])


def _start(train: TrainConfig, out: Path, is_new: bool) -> Checkpoint | None:
    """Return the checkpoint whose statistics stay: the pretrained one, later the run's own."""
    if not train.keep_statistics or train.pretrained_policy is None:
        return None
    last = out / "checkpoints" / "last" / MODEL_FOLDER
    path = Path(train.pretrained_policy) if is_new else last
    return load_checkpoint(path, zero_range=ZeroRange(train.zero_range))


def _metadata(data: Demonstrations, train: TrainConfig) -> CheckpointMetadata:
    return CheckpointMetadata(
        fingerprint=data.fingerprint,
        rig=dict(data.rig),
        names=dict(data.names),
        units=data.units,
        fps=data.fps,
        robot_type=data.robot_type,
        tasks=list(data.tasks),
        angles={key: dict(value) for key, value in data.angles.items()},
        parts={key: list(value) for key, value in train.parts.items()},
        execution=dict(train.execution),
        action_space=JOINT if data.codec is None else data.codec.space.name,
        joints=list(data.joints),
        crops={key: list(box) for key, box in train.crops.items() if key in data.frames},
        runtime={"resize": True} if train.image_size or train.image_sizes else {},
    )


def make_trainer(
    data: Demonstrations,
    recipe: Recipe,
    out: Path,
    *,
    device: torch.device | None = None,
    degrees: NDArray[np.float64] | None = None,
    show_progress: bool = True,
    is_new: bool = True,
) -> Trainer:
    """Check data and recipe against each other and build the trainer.

    Args:
        data: The demonstrations.
        recipe: What to do with them.
        out: Output folder.
        device: Where the network lives; the CPU where none is given.
        degrees: Factor from dataset units to degrees per action element.
        show_progress: Write a progress line.
        is_new: The run begins: pretrained weights are loaded. False where `resume` follows.

    Raises:
        DatasetError, StatisticsError, ConfigError: They do not go together.
    """
    recipe = honoured(recipe)
    train = recipe.train
    device = device or torch.device("cpu")
    asked = recipe.policy.get("device")
    if asked not in (None, device.type, str(device)):
        raise ConfigError(WHERE, "device", asked, f"{device}, as --device says", "Leave one out.")
    start = _start(train, out, is_new)
    if start is not None:
        data = with_tasks(data, start.extras.tasks)
    config = policy_config(data, recipe)
    statistics, notes = dataset_statistics(data, recipe), list[str]()
    if data.codec is not None:
        statistics = {**statistics, ACTION: chunk_statistics(data, config)}
    if start is not None:
        statistics, notes = kept_statistics(statistics, start, data)
    elif train.pretrained_policy is not None:
        notes = ["statistics are the new data's, the weights were trained under others"]
    normalizer = normalizer_for(
        config, statistics, where=data.name, zero_range=ZeroRange(train.zero_range)
    )
    learn, check = split_episodes(len(data.lengths), train.validation_fraction, train.seed)
    check = [n for n in check if data.lengths[n] >= config.horizon_steps]
    tasks = task_vectors(config, data)
    return Trainer(
        recipe=recipe,
        config=config,
        training=Windows(data, config, learn, tasks),
        validation=Windows(data, config, check, tasks) if check else None,
        normalizer=normalizer,
        statistics=statistics,
        extras=_metadata(data, train),
        out=out,
        device=device,
        degrees=degrees,
        show_progress=show_progress,
        is_new=is_new,
        notes=tuple(notes),
    )


def train_policy(
    dataset: Path | str, out: Path | str, recipe: Recipe, *, show_progress: bool = True
) -> Path:
    """Train a policy on a LeRobot dataset on the CPU, from its beginning to its last step.

    `koch train` does the same and more: it resumes, uses GPUs, and stops and saves at Ctrl-C.

    Args:
        dataset: Dataset folder.
        out: Output folder; checkpoints, loss table and curve go there.
        recipe: What to train and how; see `load_recipe`.
        show_progress: Write a progress line to stderr.

    Returns:
        The folder of the last checkpoint, which `load_policy` opens.

    Raises:
        KochError: Dataset and recipe do not go together.
    """
    data, degrees = degrees_per_unit(open_all([str(dataset)], recipe.train), None, None)
    trainer = make_trainer(data, recipe, Path(out), degrees=degrees, show_progress=show_progress)
    limit_threads(trainer)
    trainer.run()
    return trainer.out / "checkpoints" / "last" / MODEL_FOLDER


def limit_threads(trainer: Trainer) -> None:
    """Let a network without cameras compute with one thread.

    Small matrices gain nothing from a second thread, and one that waits for a core which another
    program has holds up both: 1800 samples/s become 32.
    """
    if not trainer.config.cameras:
        torch.set_num_threads(1)
