# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Key points: a small network that says where things are (`vision_backbone: keypoints`).

Four convolutions, then K heat maps. Each map gives one point, the expected place under its
softmax, and what the features hold there. That is a twentieth of a ResNet's arithmetic, and the
place survives where pooling would lose it (docs/learning.md has the figures).

Reference: Finn et al. 2015, "Deep Spatial Autoencoders", section V: spatial soft arg-max.

Shapes: B batch, K key points, C features picked up at each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

KEYPOINTS = "keypoints"
_WIDTHS = ((32, 5, 2), (64, 3, 2), (64, 3, 1), (64, 3, 1))  # channels, kernel, stride
_COUNT, _PICKED = 32, 8
#: Coordinates span -3..3, so that they weigh as much as the features beside them.
_REACH = 3.0
_SMALL = 1e-3
#: Heat maps begin so much steeper than their convolution makes them. Flat ones put all key points
#: into the middle of the image, and some trainings never leave there: docs/learning.md.
_STEEPNESS = 7.0


class KeypointEncoder(nn.Module):
    """Images (B, 3, H, W) of one camera to places and features of its key points, (B, width)."""

    width = _COUNT * (2 + _PICKED)

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for out, kernel, stride in _WIDTHS:
            layers += [nn.Conv2d(channels, out, kernel, stride, kernel // 2), nn.ReLU()]
            channels = out
        self.stack = nn.Sequential(*layers)
        self.maps = nn.Conv2d(channels, _COUNT, 1)
        self.picked = nn.Conv2d(channels, _PICKED, 1)
        self.sharpness = nn.Parameter(torch.tensor(math.log(_STEEPNESS)))

    def forward(self, images: Tensor) -> Tensor:
        """Return x, y of each key point, then the features picked up at each, (B, K * (2 + C))."""
        features = self.stack(images)  # (B, 64, h, w)
        height, width = int(features.shape[-2]), int(features.shape[-1])
        # In float32: a softmax over a thousand pixels loses the tenth of one in bfloat16.
        heat = (self.maps(features).flatten(2).float() * self.sharpness.exp()).softmax(dim=-1)
        y = torch.linspace(-_REACH, _REACH, height, device=heat.device)
        x = torch.linspace(-_REACH, _REACH, width, device=heat.device)
        grid = torch.stack((x.repeat(height), y.repeat_interleave(width)), dim=-1)  # (h * w, 2)
        values = self.picked(features).flatten(2).float().transpose(1, 2)  # (B, h * w, C)
        return torch.cat(((heat @ grid).flatten(1), (heat @ values).flatten(1)), dim=-1)

    @torch.no_grad()
    def fit(self, images: Tensor) -> int:
        """Scale each convolution so that its outputs have mean 0 and deviation 1 on images.

        Takes the place of normalisation layers, which cost a CPU half of a training step.
        Returns how many were scaled. Reference: Mishkin and Matas 2015, arXiv 1511.06422.
        """
        count, x = 0, images
        for layer in self.stack:
            if isinstance(layer, nn.Conv2d):
                out = layer(x)
                mean, deviation = out.mean((0, 2, 3)), out.std((0, 2, 3)) + _SMALL
                layer.weight /= deviation.view(-1, 1, 1, 1)
                assert layer.bias is not None  # as built above
                layer.bias.copy_((layer.bias - mean) / deviation)
                count += 1
            x = layer(x)
        return count


class KeypointRgbEncoder(nn.Module):
    """What a diffusion policy puts in place of its ResNet encoder: features (B, out)."""

    def __init__(self, out: int) -> None:
        super().__init__()
        self.backbone = KeypointEncoder()
        self.out = nn.Linear(KeypointEncoder.width, out)

    def forward(self, image: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to features (B, out)."""
        features: Tensor = self.out(self.backbone(image))
        return features


def keypoint_encoders(model: nn.Module) -> Sequence[KeypointEncoder]:
    """Return a policy's key point encoders, one per camera, in the cameras' order."""
    return [module for module in model.modules() if isinstance(module, KeypointEncoder)]
