# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What a task's vector does inside a network: a token of its own, and FiLM on key points.

Reference: Perez et al. 2017, "FiLM" (arXiv 1709.07871), equation 1.

Shapes: B batch, E task vector, D width of the token, N features that are modulated.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from koch_policy.configs import LanguageInput
from koch_policy.models.text import TASK_ENCODERS

#: An element that the training sentences hardly differ in is not blown up: its deviation counts
#: as this part of the mean deviation, else a new wording would be heard in it above all.
_LEAST_DEVIATION = 0.1
#: Directions in which the training sentences differ by less than this part of the greatest are
#: rounding.
_LEAST_DIRECTION = 1e-3


class TaskProjection(nn.Linear):
    """Task vectors (B, E) to tokens (B, D), scaled first where the encoder asks for it.

    Two sentences that differ in the colour alone have a cosine of 0.88, and a network does not
    hear the difference (docs/learning.md). What a new wording has besides the directions in which
    the training's differ is left out: no training could say what it means, and it may be longer
    than the rest. Both are a part of the weights: fine-tuning on other sentences keeps them.
    """

    def __init__(self, language: LanguageInput, dim: int, *, is_normed: bool) -> None:
        super().__init__(language.dim, dim)
        self.is_normed = is_normed
        kind = TASK_ENCODERS.find(language.encoder)
        self.is_scaled = bool(getattr(kind, "is_scaled", False))
        if self.is_scaled:
            self.register_buffer("mean", torch.zeros(language.dim))
            self.register_buffer("deviation", torch.ones(language.dim))
            self.register_buffer("span", torch.eye(language.dim))  # projects onto what differs

    mean: Tensor
    deviation: Tensor
    span: Tensor

    @torch.no_grad()
    def fit(self, vectors: Tensor) -> None:
        """Measure the scaling on the training tasks' vectors (tasks, E)."""
        if not self.is_scaled:
            return
        deviation = vectors.std(0, correction=0)
        least = _LEAST_DEVIATION * deviation.mean()
        self.mean.copy_(vectors.mean(0))
        # One sentence alone has no deviation, and nothing to tell apart.
        self.deviation.copy_(deviation.clamp_min(least) if least > 0.0 else torch.ones(()))
        scaled = (vectors - self.mean) / self.deviation
        _, length, directions = torch.linalg.svd(scaled, full_matrices=False)
        kept = directions[length > _LEAST_DIRECTION * length.max().clamp_min(_LEAST_DEVIATION)]
        self.span.copy_(kept.T @ kept)

    def forward(self, vectors: Tensor) -> Tensor:
        """Return the tokens."""
        if self.is_scaled:
            vectors = ((vectors - self.mean) / self.deviation) @ self.span
        if self.is_normed:  # a sentence's unit vector would begin as next to nothing
            vectors = F.layer_norm(vectors, vectors.shape[-1:])
        return super().forward(vectors)


class TaskFilm(nn.Linear):
    """Scales and shifts features by the task; begins as if there were no task.

    Which of three blocks is meant is a product of what is seen and what is said, which a few
    layers of attention over two tokens learn slowly.
    """

    def __init__(self, dim: int, features: int) -> None:
        super().__init__(dim, 2 * features)
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def told(self, token: Tensor, features: list[Tensor]) -> list[Tensor]:
        """Modulate each of some features (B, 1, N) by the task's token (B, D)."""
        scale, shift = self(token).unsqueeze(1).chunk(2, dim=-1)
        return [each * (1.0 + scale) + shift for each in features]


def fit_tasks(model: nn.Module, vectors: Tensor) -> None:
    """Let a network measure its scaling of the task on the training tasks' vectors (tasks, E)."""
    for module in model.modules():
        if isinstance(module, TaskProjection):
            module.fit(vectors)
