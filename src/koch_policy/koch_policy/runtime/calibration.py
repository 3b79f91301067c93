# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What int8 needs of a dataset, and what it costs: the difference of its actions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from koch_policy.checkpoint import Checkpoint
from koch_policy.configs import ACTION, TASK
from koch_policy.errors import DatasetError
from koch_policy.files import read_json, write_json
from koch_policy.policy import Observation

if TYPE_CHECKING:
    from koch_policy.runtime.base import Engine

Calibration = Sequence[Observation] | Path | str | None
"""Observations, or the dataset that holds them."""

_FILE = "action_error.json"
_FRAMES = 32


@dataclass(frozen=True)
class ActionError:
    """How far actions are from those of float32, on the frames of the calibration.

    Attributes:
        frames: Number of frames.
        mean, largest: Absolute difference, in normalised units (1 is a standard deviation of the
            action, or half its range, as the checkpoint scales it).
        mean_units: The mean per action element, in dataset units.
    """

    frames: int
    mean: float
    largest: float
    mean_units: list[float]

    def __str__(self) -> str:
        """One line for a person."""
        return (
            f"int8 moves actions by {self.mean:.4f} on average and {self.largest:.4f} at most "
            f"(1 is how far actions spread), over {self.frames} frames"
        )

    def write(self, folder: Path) -> None:
        """Keep it beside the graphs."""
        write_json(folder / _FILE, asdict(self))


def read_action_error(folder: Path) -> ActionError:
    """Read what was measured when the graphs were made."""
    return ActionError(**read_json(folder / _FILE))


def measure_action_error(
    checkpoint: Checkpoint, engine: Engine, frames: Sequence[Observation]
) -> ActionError:
    """Compare an engine's actions with torch's in float32; noise is the same for both."""
    from koch_policy.runtime.base import EnginePolicy
    from koch_policy.runtime.torch_runtime import TorchEngine

    exact = TorchEngine(checkpoint, device=torch.device("cpu"))
    policies = [EnginePolicy(checkpoint, each) for each in (exact, engine)]
    config = checkpoint.config
    draw = np.random.default_rng(0)
    errors = []
    for frame in frames:
        noise = draw.standard_normal((config.horizon_steps, config.action_dim), np.float32)
        chunks = []
        for policy in policies:
            policy.reset()
            torch.manual_seed(0)  # DDPM draws while it denoises
            chunks.append(policy.predict(frame, noise=noise))
        errors.append(np.abs(chunks[1] - chunks[0]))
    found = np.concatenate(errors)  # (N, A), dataset units
    affine = checkpoint.normalizer.maps.get(ACTION)
    scaled = found if affine is None else found * affine.scale.abs().numpy()
    return ActionError(
        len(frames), float(scaled.mean()), float(scaled.max()), found.mean(axis=0).tolist()
    )


def sample_observations(
    root: Path, checkpoint: Checkpoint, count: int = _FRAMES
) -> list[Observation]:
    """Read observations that lie evenly over a dataset.

    Raises:
        DatasetError: An input of the policy is not in the dataset.
    """
    from koch_episodes.dataset.reader import LeRobotDatasetReader
    from koch_policy.execution.compatibility import dataset_keys

    reader = LeRobotDatasetReader(root)
    view: Any = SimpleNamespace(
        config=checkpoint.config, extras=checkpoint.extras, rename=checkpoint.rename_map
    )
    sources = dataset_keys(view)
    require_features(root, reader.features, sources)
    total = sum(episode.length for episode in reader.episodes)
    rows = np.unique(np.linspace(0, total - 1, count).astype(int)).tolist()
    offsets = checkpoint.config.observation_offsets()
    return [dataset_observation(reader, row, sources, offsets) for row in rows]


def require_features(
    root: Path, features: Mapping[str, Any], sources: Mapping[str, list[str]]
) -> None:
    """Raise DatasetError unless a dataset has everything that feeds a policy."""
    for key in [part for parts in sources.values() for part in parts]:
        if key not in features:
            have = ", ".join(name for name in features if name.startswith("observation"))
            raise DatasetError(
                str(root), f"has no {key}, which the policy needs", f"It has {have}."
            )


def dataset_observation(
    reader: Any, row: int, sources: Mapping[str, list[str]], offsets: range
) -> dict[str, Any]:
    """Return the policy's input at a row of a dataset, observation steps in front if several."""
    window = reader.window(row, {part: offsets for parts in sources.values() for part in parts})
    result: dict[str, Any] = {TASK: window["task"]}
    for key, parts in sources.items():
        values = [window[part] for part in parts]
        joined = values[0] if len(values) == 1 else np.concatenate(values, axis=-1)
        result[parts[0] if len(parts) == 1 else key] = joined[0] if len(offsets) == 1 else joined
    return result
