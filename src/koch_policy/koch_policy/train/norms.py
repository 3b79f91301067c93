# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Statistics for the frozen batch norms of a backbone that starts without pretrained weights.

Frozen norms are made for networks that were trained before. On random weights they normalise
nothing: the features grow from block to block, and training begins in a bad place. Measured once
on the dataset's own images and then kept, they do what batch norm does at its first step.

Reference: Mishkin and Matas 2015, "All you need is a good init" (arXiv 1511.06422).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from koch_policy.models.keypoints import keypoint_encoders
from koch_policy.models.resnet import FrozenBatchNorm2d, ResNet

_AT_ONCE = 8  # images of 640x480 then take 160 MB behind the first layer


@torch.no_grad()
def measure_norms(model: nn.Module, images: Sequence[Tensor]) -> int:
    """Set mean and variance of every frozen norm to what the images show behind its layer.

    Key point encoders have no norms: their convolutions are scaled instead.

    Args:
        model: A policy with ResNet backbones.
        images: Normalised images (B, 3, H, W), one tensor for each camera.

    Returns:
        How many norms were set.
    """
    encoders = zip(keypoint_encoders(model), images, strict=False)
    count = sum(encoder.fit(seen) for encoder, seen in encoders)
    for network in [module for module in model.modules() if isinstance(module, ResNet)]:
        places = _frozen_norms(network)
        meters = [
            nn.BatchNorm2d(len(norm.weight), affine=False, momentum=None).to(norm.weight.device)
            for _, _, norm in places
        ]  # momentum None: the average over all calls
        for (parent, name, _), meter in zip(places, meters, strict=True):
            setattr(parent, name, meter.train())
        for batch in images:
            for part in torch.split(batch, _AT_ONCE):
                network(part)
        for (parent, name, norm), meter in zip(places, meters, strict=True):
            assert meter.running_mean is not None  # batch norm tracks them by default
            assert meter.running_var is not None
            norm.running_mean.copy_(meter.running_mean)
            norm.running_var.copy_(meter.running_var)
            setattr(parent, name, norm)
        count += len(places)
    return count


def _frozen_norms(network: ResNet) -> list[tuple[nn.Module, str, FrozenBatchNorm2d]]:
    """Return every frozen norm with the module that holds it and its name there."""
    return [
        (parent, name, child)
        for parent in network.modules()
        for name, child in parent.named_children()
        if isinstance(child, FrozenBatchNorm2d)
    ]
