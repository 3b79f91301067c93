# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Noise schedules and the reverse steps of diffusion models.

References:
    Ho et al. 2020, "Denoising Diffusion Probabilistic Models" (DDPM), equations 4, 6, 7, 15.
    Song et al. 2020, "Denoising Diffusion Implicit Models" (DDIM), equation 12 with eta = 0.
    Nichol and Dhariwal 2021, "Improved DDPM", equation 17: the cosine schedule.

a_t is the cumulative product of 1 - beta; x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) eps.
Inference visits t = k floor(N / n), k = n-1 .. 0 ("leading" spacing) of the N training steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Output = Callable[[Tensor, int], Tensor]
"""(noisy actions (B, T, A), step) -> network output (B, T, A)."""

Evaluate = Callable[[Tensor, Tensor], Tensor]
"""(x (B, T, A), step or time (B,)) -> network output (B, T, A)."""


def betas(schedule: str, count: int, start: float, end: float) -> Tensor:
    """Return the noise variances, float32 (count,).

    Args:
        schedule: "linear", "scaled_linear" (linear in the square root), "sigmoid", or
            "squaredcos_cap_v2" (cosine, which uses neither start nor end; capped at 0.999).
        count: Number of training steps.
        start: First variance.
        end: Last variance.
    """
    if schedule == "linear":
        return torch.linspace(start, end, count, dtype=torch.float32)
    if schedule == "scaled_linear":
        return torch.linspace(start**0.5, end**0.5, count, dtype=torch.float32) ** 2

    if schedule == "sigmoid":
        return torch.sigmoid(torch.linspace(-6, 6, count)) * (end - start) + start

    def remaining(fraction: float) -> float:
        return math.cos((fraction + 0.008) / 1.008 * math.pi / 2) ** 2

    values = [
        min(1 - remaining((i + 1) / count) / remaining(i / count), 0.999) for i in range(count)
    ]
    return torch.tensor(values, dtype=torch.float32)


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """The forward process and the reverse samplers of one model."""

    signal: Tensor  # a_t, float32 (N,)
    predicts_sample: bool
    clip: float | None

    def add_noise(self, actions: Tensor, noise: Tensor, step: Tensor) -> Tensor:
        """Return x_t for actions x_0 and noise (B, T, A) and integer steps (B,)."""
        kept = self.signal.to(actions.device)[step].view(-1, 1, 1)
        return kept.sqrt() * actions + (1 - kept).sqrt() * noise

    def target(self, actions: Tensor, noise: Tensor) -> Tensor:
        """Return what the network should output."""
        return actions if self.predicts_sample else noise

    def estimate(self, output: Tensor, noisy: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Return the estimates of x_0 (clipped) and eps (from the unclipped x_0)."""
        kept = float(self.signal[step])
        if self.predicts_sample:
            sample = output
            noise = (noisy - math.sqrt(kept) * sample) / math.sqrt(1 - kept)
        else:
            noise = output
            sample = (noisy - math.sqrt(1 - kept) * noise) / math.sqrt(kept)
        if self.clip is not None:
            sample = sample.clamp(-self.clip, self.clip)
        return sample, noise

    def steps(self, count: int) -> list[tuple[int, int]]:
        """Return the visited (step, next step) pairs; the last next step is negative."""
        stride = len(self.signal) // count
        return [(k * stride, (k - 1) * stride) for k in range(count - 1, -1, -1)]

    def _kept(self, step: int) -> float:
        return float(self.signal[step]) if step >= 0 else 1.0

    def ddim_step(self, output: Tensor, noisy: Tensor, step: int, following: int) -> Tensor:
        """Return x at the following step, without added noise."""
        sample, noise = self.estimate(output, noisy, step)
        kept = self._kept(following)
        return math.sqrt(kept) * sample + math.sqrt(1 - kept) * noise

    def ddpm_step(self, output: Tensor, noisy: Tensor, step: int, following: int) -> Tensor:
        """Return a draw of x at the following step (the mean alone at the last one)."""
        sample, _ = self.estimate(output, noisy, step)
        kept, kept_next = self._kept(step), self._kept(following)
        ratio = kept / kept_next
        mean = (
            math.sqrt(kept_next) * (1 - ratio) / (1 - kept) * sample
            + math.sqrt(ratio) * (1 - kept_next) / (1 - kept) * noisy
        )
        if step == 0:
            return mean
        variance = max((1 - kept_next) / (1 - kept) * (1 - ratio), 1e-20)
        draw = torch.randn(noisy.shape, device=noisy.device, dtype=noisy.dtype)
        return mean + math.sqrt(variance) * draw

    def sample(self, denoiser: Output, noise: Tensor, count: int, *, stochastic: bool) -> Tensor:
        """Denoise (B, T, A) in `count` evaluations, by DDPM when stochastic, else by DDIM."""
        x = noise
        for step, following in self.steps(count):
            output = denoiser(x, step)
            if stochastic:
                x = self.ddpm_step(output, x, step, following)
            else:
                x = self.ddim_step(output, x, step, following)
        return x
