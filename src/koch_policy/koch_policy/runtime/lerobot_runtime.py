# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The lerobot runtime: any policy that an installed LeRobot can load (SmolVLA, pi0, ...).

LeRobot is optional and imported here alone; networks, processors and tokenisers are its own.
Policies of one observation hand out a chunk directly. The others (diffusion, vqbet, ...) fill
their history in `select_action` only, so that is called, and their queue emptied afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from koch_policy.configs import (
    ACTION,
    TASK,
    FeatureType,
    NormalizationMode,
    PolicyConfig,
    PolicyFeature,
)
from koch_policy.errors import NotFiniteError, ObservationError, RuntimeChoiceError
from koch_policy.files import read_json
from koch_policy.metadata import CheckpointMetadata, read_metadata
from koch_policy.policy import Observation
from koch_policy.processors import PREPROCESSOR

_PLACEHOLDER = ".empty_camera_"  # LeRobot fills these itself


class LeRobotPolicy:
    """A policy run by LeRobot itself; see `koch_policy.policy.Policy` for the interface.

    Args:
        path: Checkpoint folder in LeRobot's layout.
        device: "cpu" or "cuda".

    Raises:
        RuntimeChoiceError: LeRobot is not installed, or does not know the policy.
    """

    def __init__(self, path: Path, *, device: str) -> None:
        if find_spec("lerobot") is None:
            raise RuntimeChoiceError(
                "lerobot",
                "the package is not installed",
                "Install lerobot (0.4 or later) beside this package.",
            )
        content = read_json(path / "config.json")
        self._config = foreign_config(content)
        self._extras = read_metadata(path)
        self._device = device
        self.rename = _rename_map(path)
        self._sources = {new: old for old, new in self.rename.items()}
        self._policy, self._before, self._after = _load(path, str(content["type"]), device)

    @property
    def config(self) -> PolicyConfig:
        """Features of the policy; the rest of its configuration stays LeRobot's."""
        return self._config

    @property
    def extras(self) -> CheckpointMetadata:
        """What koch.json says, if it is there."""
        return self._extras

    @property
    def runtime(self) -> str:
        """Name of the runtime."""
        return f"lerobot-{self._device}"

    def require_names(self, names: Mapping[str, Sequence[str]]) -> None:
        """Accept any names: LeRobot's checkpoints carry none."""

    def reset(self) -> None:
        """Clear LeRobot's queues."""
        self._policy.reset()

    def observe(self, observation: Observation) -> None:
        """Put a tick's observation into the history of a policy that has one."""
        if self._action_queue() is not None:
            with torch.inference_mode():
                self._remember(self._before(self._batch(observation)))

    def predict(
        self, observation: Observation, *, noise: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Return a chunk (T, A) in dataset units."""
        options = {} if noise is None else {"noise": torch.from_numpy(noise).unsqueeze(0)}
        *past, newest = self._steps(observation)
        with torch.inference_mode():
            if past:
                self.reset()
            for step in past:
                self._remember(self._before(self._batch(step)))
            ready = self._before(self._batch(newest))
            if self._action_queue() is None:
                chunk = self._policy.predict_action_chunk(ready, **options)  # (1, T, A)
            else:
                chunk = self._selected(ready, options)
            result: NDArray[np.float32] = self._after(chunk).float().cpu().numpy()[0]
        bad = int((~np.isfinite(result)).sum())
        if bad:
            raise NotFiniteError(self.runtime, bad, "Do not execute this chunk.")
        return result

    def _batch(self, observation: Observation) -> dict[str, Any]:
        """Return one observation as LeRobot's processors take it, under its own names.

        Raises:
            ObservationError: An input is missing or misshapen.
        """
        batch: dict[str, Any] = {TASK: observation.get(TASK, ""), "robot_type": ""}
        for key, feature in self._config.input_features.items():
            source = self._sources.get(key, key)
            if source not in observation:
                raise ObservationError(source, "nothing", f"shape {feature.shape}")
            value = torch.from_numpy(np.array(observation[source]))
            if feature.type is FeatureType.VISUAL and value.dtype == torch.uint8:
                value = value.movedim(-1, -3).float() / 255.0
            if value.dim() != len(feature.shape):
                raise ObservationError(source, tuple(value.shape), f"shape {feature.shape}")
            batch[source] = value.float().unsqueeze(0)
        return batch

    def _steps(self, observation: Observation) -> list[Observation]:
        """Take observation steps apart, oldest first; a single observation is the newest."""
        ranks = {
            self._sources.get(key, key): len(feature.shape)
            for key, feature in self._config.input_features.items()
        }
        given = {key: np.asarray(observation[key]) for key in ranks if key in observation}
        if not given or any(value.ndim != ranks[key] + 1 for key, value in given.items()):
            return [observation]
        count = min(len(value) for value in given.values())
        return [
            {**observation, **{key: value[step] for key, value in given.items()}}
            for step in range(count)
        ]

    def _action_queue(self) -> Any | None:
        """The action queue of a policy that keeps its observations in queues beside it."""
        queues = getattr(self._policy, "_queues", {})
        return queues.get(ACTION) if len(queues) > 1 else None

    def _remember(self, ready: dict[str, Any]) -> None:
        """Let `select_action` take in an observation; a waiting action keeps it from computing."""
        queue = self._action_queue()
        assert queue is not None  # callers checked
        queue.clear()
        queue.append(torch.zeros(1, self._config.action_dim, device=self._device))
        self._policy.select_action(ready)

    def _selected(self, ready: dict[str, Any], options: dict[str, Any]) -> torch.Tensor:
        """Return the chunk (1, T, A) that `select_action` computes and would hand out in turn."""
        queue = self._action_queue()
        assert queue is not None  # callers checked
        queue.clear()
        first = self._policy.select_action(ready, **options)
        chunk = torch.stack([first, *queue], dim=1)
        queue.clear()
        return chunk


def foreign_config(content: Mapping[str, Any]) -> PolicyConfig:
    """Describe a policy of another kind by its features alone."""

    def features(name: str) -> dict[str, PolicyFeature]:
        return {
            key: PolicyFeature(FeatureType(value["type"]), tuple(value["shape"]))
            for key, value in content[name].items()
            if _PLACEHOLDER not in key
        }

    names = ("chunk_size", "n_action_steps", "action_chunk_size")
    steps = next((int(content[name]) for name in names if content.get(name)), 1)
    return ForeignConfig(
        input_features=features("input_features"),
        output_features={ACTION: features("output_features")[ACTION]},
        normalization_mapping={
            key: NormalizationMode(value)
            for key, value in content.get("normalization_mapping", {}).items()
        },
        n_obs_steps=int(content.get("n_obs_steps", 1)),
        n_action_steps=steps,
    )


class ForeignConfig(PolicyConfig):
    """A policy that is not ours."""

    @property
    def horizon_steps(self) -> int:
        """Steps of one chunk."""
        return self.n_action_steps


def _rename_map(path: Path) -> dict[str, str]:
    """Return {name of the rig: name of the policy} of the pre-processor."""
    file = path / PREPROCESSOR
    steps = read_json(file).get("steps", []) if file.is_file() else []
    found: dict[str, str] = {}
    for step in steps:
        found |= step.get("config", {}).get("rename_map", {})
    return found


def _load(path: Path, kind: str, device: str) -> tuple[Any, Any, Any]:
    """Load policy and both pipelines with LeRobot's own functions.

    Raises:
        RuntimeChoiceError: This LeRobot has no such policy.
    """
    from lerobot.policies.factory import get_policy_class, make_pre_post_processors

    try:
        found = get_policy_class(kind)
    except (NotImplementedError, ValueError) as exc:
        raise RuntimeChoiceError(
            "lerobot", f"does not know the policy {kind!r}", "Install a newer lerobot."
        ) from exc
    policy = found.from_pretrained(str(path)).to(device).eval()
    overrides = {"device_processor": {"device": device}}
    before, after = make_pre_post_processors(
        policy.config, pretrained_path=str(path), preprocessor_overrides=overrides
    )
    return policy, before, after
