# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Fixed position and time tables of the networks.

References:
    Vaswani et al. 2017, "Attention Is All You Need", section 3.5: sinusoidal positions.
    Carion et al. 2020, "End-to-End Object Detection with Transformers": their 2-D form.
    Black et al. 2024, "pi0", section IV: time embedding with periods between two bounds.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor


def sinusoid_1d(count: int, dim: int) -> Tensor:
    """Return positions 0..count-1 as float32 (count, dim): even channels sine, odd cosine.

    angle[p, i] = p / 10000^(2 floor(i / 2) / dim), computed in float64.
    """
    channel = np.arange(dim)
    angle = np.arange(count)[:, None] / np.power(10000, 2 * (channel // 2) / dim)[None, :]
    table = np.where(channel % 2 == 0, np.sin(angle), np.cos(angle))
    return torch.from_numpy(table.astype(np.float32))


def sinusoid_2d(height: int, width: int, dim: int) -> Tensor:
    """Return the positions of a feature map's pixels in row-major order, float32 (H * W, dim).

    The first dim / 2 channels hold the row, the others the column. Rows and columns count from
    one and are scaled to (0, 2 pi]; the 1e-6 in the divisor is part of the published model.
    """
    half = dim // 2
    divisor = 10000 ** (2 * (torch.arange(half, dtype=torch.float32) // 2) / half)  # (half,)

    def axis(count: int) -> Tensor:
        position = torch.arange(1, count + 1, dtype=torch.float32)
        position = position / (position[-1] + 1e-6) * (2 * math.pi)
        angle = position[:, None] / divisor  # (count, half)
        return torch.stack((angle[:, 0::2].sin(), angle[:, 1::2].cos()), dim=-1).flatten(1)

    rows = axis(height)[:, None, :].expand(height, width, half)
    columns = axis(width)[None, :, :].expand(height, width, half)
    return torch.cat((rows, columns), dim=-1).reshape(height * width, dim)


def diffusion_step_embedding(step: Tensor, dim: int) -> Tensor:
    """Embed integer denoising steps (B,) as [sin, cos], float32 (B, dim).

    Frequencies are exp(-ln(10000) k / (dim / 2 - 1)), k = 0 .. dim / 2 - 1.
    """
    half = dim // 2
    rate = math.log(10000) / (half - 1)
    frequency = torch.exp(torch.arange(half, device=step.device) * -rate)  # (half,)
    angle = step.unsqueeze(-1) * frequency.unsqueeze(0)  # (B, half)
    return torch.cat((angle.sin(), angle.cos()), dim=-1)


def flow_time_embedding(
    time: Tensor, dim: int, *, min_period: float = 4e-3, max_period: float = 4.0
) -> Tensor:
    """Embed times in [0, 1], shape (B,), as [sin, cos] of geometric periods, float32 (B, dim)."""
    half = dim // 2
    fraction = torch.linspace(0.0, 1.0, half, dtype=torch.float32, device=time.device)
    period = min_period * (max_period / min_period) ** fraction  # (half,)
    angle = 2 * math.pi * time.float().unsqueeze(-1) / period  # (B, half)
    return torch.cat((angle.sin(), angle.cos()), dim=-1)
