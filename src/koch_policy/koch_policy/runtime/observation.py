# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Checks an observation against the policy and brings it into the network's form."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from koch_core.image import fit_rgb
from koch_policy.angles import expand
from koch_policy.checkpoint import Checkpoint
from koch_policy.configs import ENVIRONMENT, STATE, TASK, TASK_EMBEDDING, FeatureType
from koch_policy.errors import LayoutError, ObservationError

if TYPE_CHECKING:
    from koch_policy.models.text import TaskEncoder


class ObservationReader:
    """Turns observations into tensors with the observation steps in front, (O, ...).

    Vectors come out as float32 (O, D); images as uint8 (O, H, W, 3), or as float32
    (O, 3, H, W) where the caller gave LeRobot's prepared form (channels first, 0..1).
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.config = checkpoint.config
        self.rename = dict(checkpoint.rename_map)
        self.resize = bool(checkpoint.extras.runtime.get("resize", False))
        self.crops = dict(checkpoint.extras.crops)
        self._names = checkpoint.extras.names
        self._angles = checkpoint.extras.angles
        self._past: deque[dict[str, Tensor]] = deque(maxlen=self.config.n_obs_steps)
        self._tasks: TaskEncoder | None = None
        if self.config.language is not None:
            from koch_policy.models.text import make_task_encoder

            self._tasks = make_task_encoder(self.config.language, checkpoint.extras.tasks)
        used = {STATE, ENVIRONMENT}
        self._inputs = {
            key: feature
            for key, feature in self.config.input_features.items()
            if key in used or feature.type is FeatureType.VISUAL
        }

    def require_names(self, names: Mapping[str, Sequence[str]]) -> None:
        """Compare the caller's element names with the checkpoint's, where it has some.

        Raises:
            LayoutError: Names or their order differ.
        """
        for key, expected in self._names.items():
            if key in names and list(names[key]) != list(expected):
                raise LayoutError(key, list(names[key]), list(expected))

    def reset(self) -> None:
        """Forget the history."""
        self._past.clear()

    def read(self, observation: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return all inputs with the observation steps in front; remembers single steps.

        Raises:
            ObservationError: A feature is missing, of another shape or dtype, or not finite.
        """
        observation = {self.rename.get(key, key): value for key, value in observation.items()}
        stacked: dict[str, Tensor] = {}
        single: dict[str, Tensor] = {}
        for key, feature in self._inputs.items():
            if key not in observation:
                given = ", ".join(sorted(observation)) or "nothing"
                raise ObservationError(
                    key, f"nothing (given: {given})", f"shape {feature.shape}", "Is it connected?"
                )
            value = np.asarray(observation[key])
            if feature.type is FeatureType.VISUAL:
                tensor, has_steps = self._image(key, value, feature.shape)
            else:
                tensor, has_steps = self._vector(key, value, feature.shape)
            (stacked if has_steps else single)[key] = tensor
        if stacked and single:
            raise ObservationError(
                next(iter(single)),
                "one step",
                f"{self.config.n_obs_steps} steps, as {next(iter(stacked))} has",
            )
        if single:
            stacked = self._with_history(single)
        if self._tasks is not None:
            stacked[TASK_EMBEDDING] = self._task(observation)
        return stacked

    def _with_history(self, single: dict[str, Tensor]) -> dict[str, Tensor]:
        """Append one step; the first one of an episode is repeated."""
        if self.config.n_obs_steps == 1:
            return {key: value.unsqueeze(0) for key, value in single.items()}
        self._past.append(single)
        steps = list(self._past)
        steps = [steps[0]] * (self.config.n_obs_steps - len(steps)) + steps
        return {key: torch.stack([step[key] for step in steps]) for key in single}

    def _vector(
        self, key: str, value: NDArray[Any], shape: tuple[int, ...]
    ) -> tuple[Tensor, bool]:
        angles = self._angles.get(key)
        if angles:
            shape = (shape[0] - len(angles),)  # as it is given
        steps = (self.config.n_obs_steps, *shape)
        if value.shape not in (shape, steps) or value.dtype.kind not in "fiub":
            raise ObservationError(
                key, f"{value.dtype} {value.shape}", f"numbers of shape {shape} or {steps}"
            )
        if not np.isfinite(value).all():
            raise ObservationError(key, "NaN or infinity", "finite numbers")
        has_steps = value.shape == steps
        if angles:
            value = expand(value.astype(np.float32), self._names[key], angles)
        if has_steps and self.config.n_obs_steps == 1:
            value, has_steps = value[0], False
        return torch.from_numpy(np.array(value, dtype=np.float32)), has_steps

    def _image(self, key: str, value: NDArray[Any], shape: tuple[int, ...]) -> tuple[Tensor, bool]:
        channels, height, width = shape
        if value.dtype == np.uint8 and value.ndim >= 3:
            crop = self.crops.get(key)
            value = fit_rgb(value, height, width, crop=crop, resizes=self.resize)
        last, first = (height, width, channels), (channels, height, width)
        expected = last if value.dtype == np.uint8 else first
        if value.dtype not in (np.uint8, np.float32) or value.shape[-3:] != expected:
            raise ObservationError(
                key,
                f"{value.dtype} {value.shape}",
                f"uint8 {last}, RGB (or float32 {first} in 0..1)",
                "The camera must deliver the size that the policy was trained with.",
            )
        has_steps = value.ndim == 4
        if has_steps and len(value) != self.config.n_obs_steps:
            raise ObservationError(key, f"{len(value)} steps", f"{self.config.n_obs_steps} steps")
        if value.dtype == np.float32 and not np.isfinite(value).all():
            raise ObservationError(key, "NaN or infinity", "finite numbers")
        if has_steps and self.config.n_obs_steps == 1:
            value, has_steps = value[0], False
        return torch.from_numpy(np.array(value)), has_steps

    def _task(self, observation: Mapping[str, Any]) -> Tensor:
        text = observation.get(TASK)
        if not isinstance(text, str) or not text.strip():
            raise ObservationError(
                TASK, repr(text), "the task as text", "This policy is told what to do by language."
            )
        assert self._tasks is not None
        return torch.from_numpy(self._tasks.encode(text)).unsqueeze(0)  # (1, E)
