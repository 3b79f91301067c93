# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A policy that does what the demonstrator did when things looked most alike.

    koch train --policy nearest --preset tiny --dataset DIR --out DIR

Reference: Pari et al. 2021, "The Surprising Effectiveness of Representation Learning for Visual
Imitation" (arXiv 2112.01511): nearest neighbours over observations, without a network for actions.

Shapes: B batch, N remembered windows, D description, T chunk, A action.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from koch_policy import PolicyConfig, register_policy
from koch_policy.configs import ACTION, ACTION_IS_PAD, ENVIRONMENT, STATE, NormalizationMode


@dataclass(frozen=True, kw_only=True)
class NearestConfig(PolicyConfig):
    """What is remembered, and how observations are compared.

    Attributes:
        memory: Windows to remember; the newest of the training stay.
        thumbnail: Height and width that a camera's image is reduced to for the comparison [px].
    """

    type: ClassVar[str] = "nearest"
    is_single_shot: ClassVar[bool] = True
    normalization_mapping: Mapping[str, NormalizationMode] = field(
        default_factory=lambda: dict.fromkeys(
            ("VISUAL", "STATE", "ENV", "ACTION"), NormalizationMode.MEAN_STD
        )
    )
    chunk_size: int = 30
    n_action_steps: int = 15
    memory: int = 4096
    thumbnail: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("chunk_size", "memory", "thumbnail")

    @property
    def horizon_steps(self) -> int:
        return self.chunk_size

    @property
    def width(self) -> int:
        """Length D of an observation's description."""
        return self.state_dim + self.environment_dim + 3 * self.thumbnail**2 * len(self.cameras)


@register_policy(NearestConfig, presets=Path(__file__).parent / "presets")
class Nearest(nn.Module):
    """Training fills the memory; what is learned by gradient is one offset for all actions."""

    state_dict_prefix = "model."

    def __init__(self, config: NearestConfig) -> None:
        super().__init__()
        self.config = config
        chunk = (config.memory, config.chunk_size, config.action_dim)
        # Nothing is as far away as an empty place, so that none is ever the nearest.
        self.register_buffer("seen", torch.full((config.memory, config.width), 1e4))
        self.register_buffer("done", torch.zeros(chunk))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.offset = nn.Parameter(torch.zeros(config.action_dim))

    seen: Tensor
    done: Tensor
    count: Tensor

    def describe(self, batch: dict[str, Tensor]) -> Tensor:
        """Put all that is observed side by side, (B, D)."""
        parts = [batch[key] for key in (STATE, ENVIRONMENT) if key in self.config.input_features]
        size = (self.config.thumbnail, self.config.thumbnail)
        for key in self.config.cameras:
            parts.append(
                F.adaptive_avg_pool2d(batch[key], size).flatten(1) / self.config.thumbnail
            )
        return torch.cat(parts, dim=1)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the chunk (B, T, A) that followed the most similar observation."""
        apart = (self.describe(batch).unsqueeze(1) - self.seen).square().sum(-1)  # (B, N)
        chunk: Tensor = self.done[apart.argmin(dim=1)] + self.offset
        return chunk

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mean error of what was remembered before, then remember these windows too."""
        valid = ~batch[ACTION_IS_PAD].unsqueeze(-1)  # (B, T, 1)
        error = ((self(batch) - batch[ACTION]).abs() * valid).sum()
        l1 = error / (valid.sum() * self.config.action_dim).clamp_min(1)
        if self.training:
            self._remember(batch)
        return l1, {"l1": l1.detach()}

    @torch.no_grad()
    def _remember(self, batch: dict[str, Tensor]) -> None:
        places = (self.count + torch.arange(len(batch[ACTION]), device=self.count.device)) % len(
            self.seen
        )
        self.seen[places] = self.describe(batch)
        self.done[places] = batch[ACTION]
        self.count += len(places)
