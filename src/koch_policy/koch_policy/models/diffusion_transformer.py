# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Diffusion Policy: a transformer denoises an action sequence, attending to the observations.

References:
    Chi et al. 2023, "Diffusion Policy" (arXiv 2303.04137), section III-B: the time-series
    diffusion transformer. Action tokens pass through decoder layers whose cross-attention sees
    one token for the denoising step and one per observation step; self-attention is causal.

Shapes: B batch, O observation steps, T horizon, A action, D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from koch_policy.models.denoiser import Denoiser
from koch_policy.models.positions import diffusion_step_embedding
from koch_policy.models.registry import register_policy
from koch_policy.policy_configs import DiffusionTransformerConfig


class CrossLayer(nn.Module):
    """Pre-norm decoder layer: self-attention, cross-attention, feed-forward."""

    def __init__(self, config: DiffusionTransformerConfig) -> None:
        super().__init__()
        dim = config.dim_model
        self.heads = config.n_heads
        self.dropout = config.dropout
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))
        self.self_qkv = nn.Linear(dim, 3 * dim)
        self.self_out = nn.Linear(dim, dim)
        self.cross_q = nn.Linear(dim, dim)
        self.cross_kv = nn.Linear(dim, 2 * dim)
        self.cross_out = nn.Linear(dim, dim)
        self.mlp = nn.Sequential(
            nn.Linear(dim, 4 * dim), nn.GELU(), nn.Dropout(config.dropout), nn.Linear(4 * dim, dim)
        )
        self.drop = nn.Dropout(config.dropout)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Attend with (B, Q, D) over (B, K, D); mask is bool (Q, K), True where seen."""

        def split(x: Tensor) -> Tensor:
            return x.view(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)

        drop = self.dropout if self.training else 0.0
        out = F.scaled_dot_product_attention(
            split(q), split(k), split(v), attn_mask=mask, dropout_p=drop
        )
        return out.transpose(1, 2).flatten(2)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None) -> Tensor:
        """Map action tokens (B, T, D), given memory (B, 1 + O, D)."""
        q, k, v = self.self_qkv(self.norms[0](x)).chunk(3, dim=-1)
        x = x + self.drop(self.self_out(self.attend(q, k, v, mask)))
        k, v = self.cross_kv(memory).chunk(2, dim=-1)
        q = self.cross_q(self.norms[1](x))
        x = x + self.drop(self.cross_out(self.attend(q, k, v, None)))
        out: Tensor = x + self.drop(self.mlp(self.norms[2](x)))
        return out


@register_policy(DiffusionTransformerConfig)
class DiffusionTransformer(Denoiser):
    """The network; all values in and out are normalised."""

    def __init__(self, config: DiffusionTransformerConfig) -> None:
        super().__init__(config)
        dim = config.dim_model
        self.step_dim = dim
        self.action_in = nn.Linear(config.action_dim, dim)
        self.action_position = nn.Parameter(torch.zeros(1, config.horizon, dim))
        self.observation_in = nn.Linear(self.step_width, dim)
        self.memory_position = nn.Parameter(torch.zeros(1, 1 + config.n_obs_steps, dim))
        self.memory_mlp = nn.Sequential(
            nn.Linear(dim, 4 * dim), nn.Mish(), nn.Linear(4 * dim, dim)
        )
        self.layers = nn.ModuleList(CrossLayer(config) for _ in range(config.n_layers))
        self.norm = nn.LayerNorm(dim)
        self.action_out = nn.Linear(dim, config.action_dim)
        mask = torch.ones(config.horizon, config.horizon, dtype=torch.bool).tril()
        self.register_buffer("causal", mask if config.is_causal else mask | True, persistent=False)
        for parameter in (self.action_position, self.memory_position):
            nn.init.normal_(parameter, std=0.02)

    causal: Tensor

    def condition_from(self, batch: dict[str, Tensor], features: list[Tensor]) -> Tensor:
        """Return one token per observation step, (B, O, D)."""
        tokens: Tensor = self.observation_in(self.observe(batch, features))
        return tokens

    def evaluate(self, noisy: Tensor, step: Tensor, condition: Tensor) -> Tensor:
        """Return the transformer's output (B, T, A) for noisy actions and steps (B,)."""
        step_token = diffusion_step_embedding(step, self.step_dim).unsqueeze(1)  # (B, 1, D)
        memory = torch.cat((step_token, condition), dim=1) + self.memory_position
        memory = self.memory_mlp(memory)  # (B, 1 + O, D)
        x = self.action_in(noisy) + self.action_position  # (B, T, D)
        for layer in self.layers:
            x = layer(x, memory, self.causal)
        out: Tensor = self.action_out(self.norm(x))
        return out
