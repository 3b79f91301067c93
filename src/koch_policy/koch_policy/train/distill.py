# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Distillation: a policy that learns what another one does (`koch train --teacher DIR`).

References:
    Hinton et al. 2015, arXiv 1503.02531: a small network learns a large one's outputs.
    Liu et al. 2022, "Flow Straight and Fast" (arXiv 2209.03003), section 2.2: a flow that learns
    pairs of a noise and what a teacher makes of it has straight paths, which one step follows.

In a part of the windows the teacher's chunk takes the place of the demonstration's. Its step t
weighs exp(-decay t): what is far ahead will be predicted again before it is executed. The other
windows stay demonstrations, so that the student also learns what its teacher does wrong.

A diffusion student with a single, last training step (`num_train_timesteps: 1`, where all but
1e-4 of the signal is gone) that predicts the sample is the map from noise to chunk of a DDIM
teacher: the same pairs, one evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from koch_policy.checkpoint import load_checkpoint
from koch_policy.configs import (
    ACTION,
    ACTION_IS_PAD,
    ACTION_NOISE,
    ACTION_WEIGHT,
    TASK_EMBEDDING,
    PolicyConfig,
)
from koch_policy.errors import ConfigError
from koch_policy.metadata import CheckpointMetadata
from koch_policy.models.registry import iterative_model
from koch_policy.normalize import Normalizer
from koch_policy.train.config import TrainConfig
from koch_policy.train.data import Demonstrations
from koch_policy.train.finetune import require_same_meaning
from koch_policy.train.metrics import prepare


class Teacher:
    """A trained policy whose chunks another one learns.

    Args:
        train: Names it, and says how much of it is learned.
        config: The student's configuration.
        normalizer: The student's.
        data: What both see.
        extras: What the student's checkpoints will say: crops, among others.
        device: Where it is computed.

    Raises:
        CheckpointError: There is no checkpoint.
        ConfigError: It sees or predicts something else than the student.
        DatasetError: Units or names of the data are others than the teacher's.
    """

    def __init__(
        self,
        train: TrainConfig,
        config: PolicyConfig,
        normalizer: Normalizer,
        data: Demonstrations,
        extras: CheckpointMetadata,
        device: torch.device,
    ) -> None:
        assert train.teacher is not None  # asked for by the caller
        start = load_checkpoint(Path(train.teacher))
        _require_same_windows(train.teacher, start.config, config, data, start.extras.tasks)
        require_same_meaning(start, data)
        if dict(start.extras.crops) != dict(extras.crops):
            raise ConfigError(
                train.teacher, "crops", dict(extras.crops), f"its teacher's {start.extras.crops}"
            )
        self._config = start.config
        self._model: Any = start.model.to(device).requires_grad_(requires_grad=False).eval()
        self._theirs, self._ours = start.normalizer.to(device), normalizer
        self._fraction, self._device = train.teacher_fraction, device
        # DDPM draws at each step, so that its first noise does not decide its chunk.
        draws = getattr(start.config, "noise_scheduler_type", "") == "DDPM"
        self._keeps_noise = iterative_model(self._model) is not None and not draws
        steps = torch.arange(config.horizon_steps, dtype=torch.float32, device=device)
        # Time runs from the observation: steps before it count as it does.
        ahead = (steps + config.first_action_offset).clamp(min=0)
        self._weight = torch.exp(-train.teacher_decay * ahead)  # (T,)

    @torch.no_grad()
    def teach(
        self, batch: dict[str, Tensor], raw: Mapping[str, Tensor], generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Return a normalised batch in which a part of the chunks is the teacher's.

        Args:
            batch: The student's, normalised and augmented.
            raw: The same windows as the dataset has them.
            generator: Draws the windows, and the noise.
        """
        true = batch[ACTION]
        noise = torch.randn(true.shape, generator=generator).to(true.device)
        drawn = torch.rand(len(true), generator=generator).to(true.device) < self._fraction
        seen = {key: raw[key] for key in self._config.input_features}
        if TASK_EMBEDDING in raw:
            seen[TASK_EMBEDDING] = raw[TASK_EMBEDDING]
        ready = prepare(seen, self._theirs, self._device)
        chunk = self._model(ready, noise) if self._keeps_noise else self._model(ready)
        chunk = self._theirs.restore(ACTION, chunk[:, : true.shape[1]])
        chunk = self._ours.normalize(ACTION, chunk)
        taught = drawn.view(-1, 1)
        result = {
            **batch,
            ACTION: torch.where(taught.unsqueeze(-1), chunk, true),
            ACTION_IS_PAD: batch[ACTION_IS_PAD] & ~taught,  # a teacher knows all steps
            ACTION_WEIGHT: torch.where(taught, self._weight, 1.0),
        }
        if self._keeps_noise:
            result[ACTION_NOISE] = noise
        return result


def _require_same_windows(
    where: str, teacher: PolicyConfig, student: PolicyConfig, data: Demonstrations, tasks: Any
) -> None:
    """Refuse a teacher whose inputs the student's batches lack, or whose chunk is another one."""
    for key, feature in teacher.input_features.items():
        own = student.input_features.get(key)
        if own is None or own.shape != feature.shape:
            raise ConfigError(
                where, key, "none" if own is None else own.shape,
                f"{feature.shape} in the student's inputs, as its teacher has it",
            )  # fmt: skip
    for name in ("has_step_axis", "n_obs_steps", "first_action_offset", "language"):
        asked, got = getattr(teacher, name), getattr(student, name)
        if asked != got and not (name == "language" and asked is None):
            raise ConfigError(where, name, got, f"{asked}, as its teacher has it")
    if teacher.language is not None and list(tasks) != list(data.tasks):
        raise ConfigError(where, "tasks", list(data.tasks), f"{list(tasks)}, as its teacher knows")
    if teacher.horizon_steps < student.horizon_steps:
        raise ConfigError(
            where, "chunk_size", student.horizon_steps, f"{teacher.horizon_steps} at most"
        )
    if not teacher.is_single_shot and teacher.horizon_steps != student.horizon_steps:
        raise ConfigError(
            where, "chunk_size", student.horizon_steps, f"{teacher.horizon_steps}: noise is shared"
        )
