# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The lerobot runtime: any policy that an installed LeRobot can load (SmolVLA, pi0, ...).

LeRobot is optional and imported here alone; networks, processors and tokenisers are its own.
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
from koch_policy.extras import Extras, read_extras
from koch_policy.files import read_json
from koch_policy.policy import Observation


class LeRobotPolicy:
    """A policy run by LeRobot itself; see `koch_policy.policy.Policy` for the interface.

    Args:
        path: Checkpoint folder in LeRobot's layout.
        device: "cpu" or "cuda".

    Raises:
        RuntimeChoiceError: LeRobot is not installed.
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
        self._extras = read_extras(path)
        self._device = device
        self._policy, self._before, self._after = _load(path, str(content["type"]), device)

    @property
    def config(self) -> PolicyConfig:
        """Features of the policy; the rest of its configuration stays LeRobot's."""
        return self._config

    @property
    def extras(self) -> Extras:
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
        """Do nothing: LeRobot keeps history only inside its own action queue."""

    def predict(
        self, observation: Observation, *, noise: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Return a chunk (T, A) in dataset units."""
        batch: dict[str, Any] = {TASK: observation.get(TASK, ""), "robot_type": ""}
        for key, feature in self._config.input_features.items():
            if key not in observation:
                raise ObservationError(key, "nothing", f"shape {feature.shape}")
            value = torch.from_numpy(np.array(observation[key]))
            if feature.type is FeatureType.VISUAL and value.dtype == torch.uint8:
                value = value.movedim(-1, -3).float() / 255.0
            batch[key] = value.float().unsqueeze(0)
        with torch.inference_mode():
            ready = self._before(batch)
            options = {} if noise is None else {"noise": torch.from_numpy(noise).unsqueeze(0)}
            chunk = self._policy.predict_action_chunk(ready, **options)
            result: NDArray[np.float32] = self._after(chunk).float().cpu().numpy()[0]
        bad = int((~np.isfinite(result)).sum())
        if bad:
            raise NotFiniteError(self.runtime, bad, "Do not execute this chunk.")
        return result


def foreign_config(content: Mapping[str, Any]) -> PolicyConfig:
    """Describe a policy of another kind by its features alone."""

    def features(name: str) -> dict[str, PolicyFeature]:
        return {
            key: PolicyFeature(FeatureType(value["type"]), tuple(value["shape"]))
            for key, value in content[name].items()
        }

    steps = int(content.get("chunk_size", content.get("n_action_steps", 1)))
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


def _load(path: Path, kind: str, device: str) -> tuple[Any, Any, Any]:
    """Load policy and both pipelines with LeRobot's own functions."""
    from lerobot.policies.factory import get_policy_class, make_pre_post_processors

    policy = get_policy_class(kind).from_pretrained(str(path)).to(device).eval()
    overrides = {"device_processor": {"device": device}}
    before, after = make_pre_post_processors(
        policy.config, pretrained_path=str(path), preprocessor_overrides=overrides
    )
    return policy, before, after
