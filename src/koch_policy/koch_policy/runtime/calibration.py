# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What int8 needs of a dataset, and what it costs: the difference of its actions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from koch_policy.checkpoint import Checkpoint
from koch_policy.configs import ACTION
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
    """Read observations spread evenly over a dataset.

    Raises:
        DatasetError: The dataset does not fit the policy; see `DatasetView`.
    """
    from koch_policy.dataset_view import DatasetView

    view = DatasetView(root, checkpoint.config, checkpoint.extras, checkpoint.rename_map)
    rows = np.unique(np.linspace(0, sum(view.data.lengths) - 1, count).astype(int)).tolist()
    return [view.observation(row) for row in rows]
