# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Augmentation of a batch in torch: light, colour, focus and position of the cameras, and noise.

Each image draws its own parameters; the images of one window and camera share them. All draws
come from one generator seeded by the training step, so that a resumed run repeats them.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from koch_policy.configs import ACTION, ENVIRONMENT, STATE
from koch_policy.train.config import AugmentConfig


def augment_images(images: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Augment images float (B, [O,] 3, H, W) in [0, 1]; the result stays in [0, 1]."""
    if not (config.has_colour or config.has_motion or config.blur_px):
        return images
    shape = images.shape
    steps = shape[1] if images.dim() == 5 else 1
    flat = images.reshape(-1, *shape[-3:])  # (B * O, 3, H, W)

    def draw(low: float, high: float) -> Tensor:
        value = torch.rand(shape[0], generator=generator) * (high - low) + low
        return value.repeat_interleave(steps).to(flat.device)

    if config.has_motion:
        flat = _move(flat, config, draw(-1, 1), draw(-1, 1), draw(-1, 1))
    if config.has_colour:
        flat = _colour(
            flat,
            draw(1 - config.brightness, 1 + config.brightness),
            draw(1 - config.contrast, 1 + config.contrast),
            draw(1 - config.saturation, 1 + config.saturation),
            draw(-config.hue, config.hue),
        )
    if config.blur_px:
        flat = _blur(flat, float(draw(0.0, config.blur_px)[0]))
    return flat.clamp(0.0, 1.0).view(shape)


def _move(flat: Tensor, config: AugmentConfig, x: Tensor, y: Tensor, turn: Tensor) -> Tensor:
    """Shift and rotate as if the camera had been bumped; edges are repeated."""
    height, width = flat.shape[-2:]
    angle = turn * math.radians(config.rotate_deg)
    cos, sin = angle.cos(), angle.sin()
    reach = 2 * config.shift_fraction  # grid coordinates span 2
    rows = (
        torch.stack((cos, -sin * height / width, x * reach), dim=-1),
        torch.stack((sin * width / height, cos, y * reach), dim=-1),
    )
    theta = torch.stack(rows, dim=1).to(flat.dtype)  # (B * O, 2, 3)
    grid = F.affine_grid(theta, list(flat.shape), align_corners=False)
    return F.grid_sample(flat, grid, padding_mode="border", align_corners=False)


def _colour(
    flat: Tensor, brightness: Tensor, contrast: Tensor, satur: Tensor, hue: Tensor
) -> Tensor:
    """Apply one 3x3 matrix and offset per image: hue and saturation in YIQ, then contrast."""
    to_yiq = flat.new_tensor(
        [[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]]
    )
    angle = hue * (2 * math.pi)
    zero, one = torch.zeros_like(angle), torch.ones_like(angle)
    turned = torch.stack(
        (
            torch.stack((one, zero, zero), -1),
            torch.stack((zero, satur * angle.cos(), -satur * angle.sin()), -1),
            torch.stack((zero, satur * angle.sin(), satur * angle.cos()), -1),
        ),
        dim=1,
    ).to(flat.dtype)  # (B * O, 3, 3)
    gain = (brightness * contrast).to(flat.dtype)
    matrix = torch.linalg.inv(to_yiq) @ turned @ to_yiq * gain[:, None, None]
    mean = (flat.mean(dim=(2, 3)) @ to_yiq[0]) * brightness.to(flat.dtype)  # grey level (B * O,)
    offset = mean * (1 - contrast.to(flat.dtype))
    out = torch.einsum("bij,bjhw->bihw", matrix, flat)
    return out + offset[:, None, None, None]


def _blur(flat: Tensor, sigma: float) -> Tensor:
    """Blur with a separable Gaussian of `sigma` pixels, the same for the whole batch."""
    if sigma < 0.1:
        return flat
    radius = math.ceil(2 * sigma)
    offset = torch.arange(-radius, radius + 1, device=flat.device, dtype=flat.dtype)
    kernel = torch.exp(-0.5 * (offset / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(3, 1, -1)
    padded = F.pad(flat, (radius, radius, radius, radius), mode="replicate")
    padded = F.conv2d(padded, kernel.unsqueeze(2), groups=3)
    return F.conv2d(padded, kernel.unsqueeze(3), groups=3)


def noise_of(key: str, config: AugmentConfig) -> float:
    """Return the standard deviation of the noise on a vector feature, normalised units."""
    scales = {
        ACTION: config.action_noise,
        STATE: config.state_noise,
        ENVIRONMENT: config.environment_noise,
    }
    return scales.get(key, 0.0)


def add_noise(values: Tensor, scale: float, generator: torch.Generator) -> Tensor:
    """Add Gaussian noise of the given standard deviation to normalised values."""
    if scale == 0.0:
        return values
    noise = torch.randn(values.shape, generator=generator)
    return values + scale * noise.to(values.device)
