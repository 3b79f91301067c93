# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Frozen batch norms measured on images do what batch norm does at its first step."""

from __future__ import annotations

import torch
from torch import Tensor

from koch_policy.models.resnet import FrozenBatchNorm2d, Norm, ResNet
from koch_policy.train.norms import measure_norms


def _images(count: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return 2.0 + 3.0 * torch.randn((count, 3, 64, 96), generator=generator)


def _networks() -> tuple[ResNet, ResNet]:
    """One network with frozen and one with trained norms, of equal weights."""
    torch.manual_seed(1)
    frozen = ResNet("resnet18", Norm.FROZEN)
    trained = ResNet("resnet18", Norm.BATCH)
    trained.load_state_dict(frozen.state_dict(), strict=False)
    return frozen, trained


def test_features_are_those_of_batch_norm_in_training() -> None:
    frozen, trained = _networks()
    assert measure_norms(frozen, [_images()]) == 20
    with torch.no_grad():
        found, expected = frozen(_images()), trained.train()(_images())
    # The variance kept is the unbiased estimate, larger by n / (n - 1): the last maps of eight
    # images have 48 values to a channel, and twenty layers add up.
    assert float((found - expected).abs().mean() / expected.std()) < 0.05


def test_without_it_features_of_random_weights_are_far_off() -> None:
    frozen, trained = _networks()
    with torch.no_grad():
        assert frozen(_images()).std() > 3 * trained.train()(_images()).std()


def test_the_network_keeps_its_frozen_layers_and_weights() -> None:
    frozen, _ = _networks()
    before = {key: value.clone() for key, value in frozen.state_dict().items()}
    measure_norms(frozen, [_images(4), _images(20)[..., :64]])
    after = frozen.state_dict()
    assert list(after) == list(before)
    changed = {key for key in after if not torch.equal(after[key], before[key])}
    assert changed == {key for key in after if "running_" in key}
    assert sum(isinstance(module, FrozenBatchNorm2d) for module in frozen.modules()) == 20
