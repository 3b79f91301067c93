# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The observation as a prefix of tokens, whose keys and values are computed once.

Reference: Black et al. 2024, "pi0" (arXiv 2410.24164), appendix B: the block-wise mask.

Attention blocks: [images, task] | [state, environment]; a token sees its own and earlier blocks.
What is predicted (`flow`: a chunk, `fast`: one token after another) attends to all of them, and
none of them to it.

Shapes: B batch, P prefix tokens, L layers, H heads, W head width, D prefix width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from koch_policy.configs import ENVIRONMENT, STATE, TASK_EMBEDDING
from koch_policy.models.keypoints import KEYPOINTS, KeypointEncoder
from koch_policy.models.positions import sinusoid_2d
from koch_policy.models.resnet import Norm, ResNet, each_camera
from koch_policy.models.task import TaskFilm, TaskProjection
from koch_policy.policy_configs import PrefixConfig


class ExpertBlock(nn.Module):
    """Pre-norm transformer layer of its own width, with heads of the shared width."""

    def __init__(self, dim: int, config: PrefixConfig) -> None:
        super().__init__()
        self.heads = config.n_heads
        inner = config.n_heads * config.dim_head
        self.norm1 = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * inner)
        self.out = nn.Linear(inner, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(
            nn.Linear(dim, 4 * dim), nn.GELU(approximate="tanh"), nn.Linear(4 * dim, dim)
        )
        self.drop = nn.Dropout(config.dropout)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values (B, H, N, W) of tokens (B, N, dim)."""
        q, k, v = self.qkv(self.norm1(x)).chunk(3, dim=-1)
        return self._split(q), self._split(k), self._split(v)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)

    def finish(self, x: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Attend and feed forward; mask is bool (N, K), True where seen."""
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + self.drop(self.out(seen.transpose(1, 2).flatten(2)))
        out: Tensor = x + self.drop(self.mlp(self.norm2(x)))
        return out


def block_mask(blocks: Tensor) -> Tensor:
    """Return bool (N, N): token i sees token j unless j's block comes later. blocks: (N,)."""
    return blocks[:, None] >= blocks[None, :]


class ObservationPrefix(nn.Module):
    """Cameras, task, state and environment to keys and values; normalised."""

    backbones = ("backbone.",)

    def __init__(self, config: PrefixConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.dim_model
        self.has_keypoints = bool(config.cameras) and config.vision_backbone == KEYPOINTS
        if self.has_keypoints:  # one token per camera
            self.backbone: nn.Module = nn.ModuleList(KeypointEncoder() for _ in config.cameras)
            self.image_in = nn.Linear(KeypointEncoder.width, dim)
            if config.task_dim:
                self.task_film = TaskFilm(dim, KeypointEncoder.width)
        elif config.cameras:
            resnet = ResNet(config.vision_backbone, Norm(config.backbone_norm))
            self.backbone = resnet
            self.image_in = nn.Linear(resnet.channels, dim)
        if config.cameras:
            self.camera_embed = nn.Parameter(0.02 * torch.randn(len(config.cameras), dim))
        if config.language is not None:
            self.task_in = TaskProjection(config.language, dim, is_normed=self.has_keypoints)
            self.no_task = nn.Parameter(0.02 * torch.randn(dim))
        if config.state_dim:
            self.state_in = nn.Linear(config.state_dim, dim)
        if config.environment_dim:
            self.environment_in = nn.Linear(config.environment_dim, dim)
        self.prefix = nn.ModuleList(ExpertBlock(dim, config) for _ in range(config.n_layers))
        self._positions: dict[tuple[int, int], Tensor] = {}

    def camera_features(self, index: int, images: Tensor) -> Tensor:
        """Encode images (B, 3, H, W) of one camera to tokens (B, h * w, D)."""
        if self.has_keypoints:
            assert isinstance(self.backbone, nn.ModuleList)
            found: Tensor = self.backbone[index](images).unsqueeze(1)  # (B, 1, width)
            return found if self.config.task_dim else self._camera_token(index, found)
        features = self.backbone(images)  # (B, C, h, w)
        size = (int(features.shape[-2]), int(features.shape[-1]))
        if size not in self._positions:
            self._positions[size] = sinusoid_2d(*size, self.config.dim_model)
        position = self._positions[size].to(features.device)
        tokens: Tensor = self.image_in(features.flatten(2).transpose(1, 2))
        return tokens + position + self.camera_embed[index]

    def _camera_token(self, index: int, found: Tensor) -> Tensor:
        token: Tensor = self.image_in(found) + self.camera_embed[index]
        return token

    def _told(self, task: Tensor, found: list[Tensor]) -> list[Tensor]:
        """Return the cameras' tokens: key points (B, 1, width), weighed by the task (B, D)."""
        told = self.task_film.told(task, found)
        return [self._camera_token(index, points) for index, points in enumerate(told)]

    def condition_from(
        self, batch: dict[str, Tensor], features: list[Tensor], hide_task: Tensor | None = None
    ) -> Tensor:
        """Run the prefix and return its keys and values (L, 2, B, H, P, W).

        With classifier-free guidance, B is doubled at inference: with the task, then without.

        Args:
            batch: State, environment and task embedding.
            features: Each camera's tokens; its key points where there is a task, too.
            hide_task: bool (B,), windows that are to see no task (training).
        """
        tokens = list(features)
        if self.config.task_dim:
            task: Tensor = self.task_in(batch[TASK_EMBEDDING])  # (B, D)
            if hide_task is not None:
                task = torch.where(hide_task.unsqueeze(-1), self.no_task, task)
            if self._is_guided():
                task = torch.cat((task, self.no_task.expand_as(task)))
                tokens = [torch.cat((part, part)) for part in tokens]
            if self.has_keypoints:
                tokens = self._told(task, tokens)
            tokens.append(task.unsqueeze(1))
        seen_by_all = sum(part.shape[1] for part in tokens)
        vectors = []
        if self.config.state_dim:
            vectors.append(self.state_in(batch[STATE]).unsqueeze(1))
        if self.config.environment_dim:
            vectors.append(self.environment_in(batch[ENVIRONMENT]).unsqueeze(1))
        if self._is_guided():
            vectors = [torch.cat((part, part)) for part in vectors]
        x = torch.cat((*tokens, *vectors), dim=1)  # (B, P, D)
        blocks = (torch.arange(x.shape[1], device=x.device) >= seen_by_all).long()
        mask = block_mask(blocks)
        cache = []
        for layer in self.prefix:
            q, k, v = layer.project(x)  # type: ignore[operator]
            cache.append(torch.stack((k, v)))
            x = layer.finish(x, q, k, v, mask)  # type: ignore[operator]
        return torch.stack(cache)

    def _is_guided(self) -> bool:
        """Say whether the condition is computed with and without the task."""
        return False

    def condition(self, batch: dict[str, Tensor], hide_task: Tensor | None = None) -> Tensor:
        """Encode an observation once for all steps: keys and values (L, 2, B, H, P, W)."""
        features = [
            self.camera_features(index, batch[key])
            for index, key in enumerate(self.config.cameras)
        ]
        return self.condition_from(batch, features, hide_task)

    def camera_encoders(self) -> list[nn.Module]:
        """Return what encodes each camera: one ResNet for all, or key points of its own."""
        cameras = self.config.cameras
        return each_camera(self.backbone, len(cameras)) if cameras else []
