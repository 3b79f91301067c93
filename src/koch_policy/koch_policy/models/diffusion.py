# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Diffusion Policy: a 1-D U-Net over time denoises an action sequence given the observations.

References:
    Chi et al. 2023, "Diffusion Policy" (arXiv 2303.04137), section III-A and figure 2: the CNN
    variant; its objective is in `koch_policy.models.denoiser`.
    Perez et al. 2017, "FiLM", equation 1: out = gamma(c) * x + beta(c).
    Janner et al. 2022, "Planning with Diffusion", appendix C: the U-Net.

Shapes: B batch, T horizon, A action, C condition.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn

from koch_policy.models.denoiser import Denoiser
from koch_policy.models.positions import diffusion_step_embedding
from koch_policy.models.registry import register_policy
from koch_policy.policy_configs import DiffusionConfig


class ConvBlock(nn.Module):
    """Conv1d, GroupNorm, Mish."""

    def __init__(self, inputs: int, outputs: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2),
            nn.GroupNorm(groups, outputs),
            nn.Mish(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, T) to (B, outputs, T)."""
        out: Tensor = self.block(x)
        return out


class ResidualBlock(nn.Module):
    """Two convolution blocks; the condition scales and shifts the first one's output."""

    def __init__(self, inputs: int, outputs: int, condition: int, config: DiffusionConfig) -> None:
        super().__init__()
        self.has_scale = config.use_film_scale_modulation
        self.conv1 = ConvBlock(inputs, outputs, config.kernel_size, config.n_groups)
        width = outputs * (2 if self.has_scale else 1)
        self.cond_encoder = nn.Sequential(nn.Mish(), nn.Linear(condition, width))
        self.conv2 = ConvBlock(outputs, outputs, config.kernel_size, config.n_groups)
        self.residual_conv = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, film: Tensor) -> Tensor:
        """Map (B, inputs, T) to (B, outputs, T); `film` is this block's (B, outputs or 2x, 1)."""
        hidden = self.conv1(x)
        if self.has_scale:
            scale, shift = film.chunk(2, dim=1)
            hidden = scale * hidden + shift
        else:
            hidden = hidden + film
        out: Tensor = self.conv2(hidden) + self.residual_conv(x)
        return out


class Stage(nn.ModuleList):
    """Two residual blocks (0, 1) and a resampling layer (2), in a list for the keys' sake."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        condition: int,
        config: DiffusionConfig,
        resample: nn.Module,
    ) -> None:
        first = ResidualBlock(inputs, outputs, condition, config)
        second = ResidualBlock(outputs, outputs, condition, config)
        super().__init__([first, second, resample])

    def run(self, x: Tensor, film: Iterator[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the features (B, C, T) before and after resampling."""
        x = self[0](x, next(film))
        x = self[1](x, next(film))
        return x, self[2](x)


class Unet(nn.Module):
    """The denoiser."""

    def __init__(self, config: DiffusionConfig, condition: int) -> None:
        super().__init__()
        self.step_dim = config.diffusion_step_embed_dim
        dims = config.down_dims
        self.diffusion_step_encoder = nn.Sequential(
            nn.Identity(),  # the sinusoid's index; it carries no weights
            nn.Linear(self.step_dim, 4 * self.step_dim),
            nn.Mish(),
            nn.Linear(4 * self.step_dim, self.step_dim),
        )
        total = condition + self.step_dim
        self.down_modules = nn.ModuleList()
        for index, (inputs, outputs) in enumerate(
            zip((config.action_dim, *dims), dims, strict=False)
        ):
            last = index == len(dims) - 1
            halve = nn.Identity() if last else nn.Conv1d(outputs, outputs, 3, 2, 1)
            self.down_modules.append(Stage(inputs, outputs, total, config, halve))
        self.mid_modules = nn.ModuleList(
            ResidualBlock(dims[-1], dims[-1], total, config) for _ in range(2)
        )
        self.up_modules = nn.ModuleList(
            Stage(
                2 * inputs, outputs, total, config, nn.ConvTranspose1d(outputs, outputs, 4, 2, 1)
            )
            for inputs, outputs in zip(dims[:0:-1], dims[-2::-1], strict=True)
        )
        self.final_conv = nn.Sequential(
            ConvBlock(dims[0], dims[0], config.kernel_size, groups=8),
            nn.Conv1d(dims[0], config.action_dim, 1),
        )

    def blocks(self) -> list[ResidualBlock]:
        """Return the residual blocks in the order in which `denoise` runs them."""
        stages = [*self.down_modules, self.mid_modules, *self.up_modules]
        return [block for stage in stages for block in list(stage)[:2]]

    def films(self, step: Tensor, condition: Tensor) -> list[Tensor]:
        """Return each block's modulation (B, width, 1) for steps (B,) and condition (B, C)."""
        embedding = self.diffusion_step_encoder(diffusion_step_embedding(step, self.step_dim))
        merged = torch.cat((embedding, condition), dim=-1)  # (B, step_dim + C)
        return [block.cond_encoder(merged).unsqueeze(-1) for block in self.blocks()]

    def denoise(self, noisy: Tensor, films: list[Tensor]) -> Tensor:
        """Return the network's output (B, T, A) for noisy actions (B, T, A)."""
        film = iter(films)
        x = noisy.transpose(1, 2)  # (B, A, T)
        skips: list[Tensor] = []
        for stage in self.down_modules:
            skip, x = cast("Stage", stage).run(x, film)  # (B, C, T), (B, C, T / 2)
            skips.append(skip)
        for block in self.mid_modules:
            x = block(x, next(film))
        for stage in self.up_modules:
            x = torch.cat((x, skips.pop()), dim=1)  # (B, 2 C, T / 2)
            _, x = cast("Stage", stage).run(x, film)
        out: Tensor = self.final_conv(x).transpose(1, 2)  # (B, T, A)
        return out

    def forward(self, noisy: Tensor, step: Tensor, condition: Tensor) -> Tensor:
        """Return the output for noisy actions (B, T, A), steps (B,) and condition (B, C)."""
        return self.denoise(noisy, self.films(step, condition))


@register_policy(DiffusionConfig)
class Diffusion(Denoiser):
    """The network; all values in and out are normalised."""

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__(config)
        self.unet = Unet(config, config.n_obs_steps * self.step_width)

    def condition_from(self, batch: dict[str, Tensor], features: list[Tensor]) -> Tensor:
        """Return the observation steps side by side, (B, C)."""
        return self.observe(batch, features).flatten(1)

    def evaluate(self, noisy: Tensor, step: Tensor, condition: Tensor) -> Tensor:
        """Return the U-Net's output (B, T, A) for noisy actions and steps (B,)."""
        out: Tensor = self.unet(noisy, step, condition)
        return out


def modulated_unet(model: nn.Module) -> Unet | None:
    """Return the U-Net whose blocks' scale and shift are sums of step and condition, or None."""
    found = getattr(model, "unet", None)
    return found if isinstance(found, Unet) else None
