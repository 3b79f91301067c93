# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Key points in place of a ResNet: every policy trains, travels through a checkpoint and runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from koch_policy.errors import ConfigError
from koch_policy.models.keypoints import KeypointEncoder, keypoint_encoders
from koch_policy.runtime import load_policy
from koch_policy.runtime.base import example_observation
from koch_policy.train.setup import make_trainer


def test_fitting_gives_every_convolution_unit_outputs() -> None:
    torch.manual_seed(0)
    encoder = KeypointEncoder()
    images = torch.rand(8, 3, 48, 64) * 0.2
    assert encoder.fit(images) == 4
    x = images
    for layer in encoder.stack:
        x = layer(x)
        if isinstance(layer, nn.Conv2d):
            assert x.mean((0, 2, 3)).abs().max() < 0.05
            assert (x.std((0, 2, 3)) - 1.0).abs().max() < 0.1


def test_a_point_lies_where_its_map_is_hot() -> None:
    encoder = KeypointEncoder()
    with torch.no_grad():
        for layer in (*encoder.stack, encoder.maps):
            if isinstance(layer, nn.Conv2d):  # pass brightness through, at its place
                layer.weight.zero_()
                layer.bias.zero_()
                middle = layer.kernel_size[0] // 2
                layer.weight[:, 0, middle, middle] = 1.0
        encoder.sharpness.fill_(5.0)
    images = torch.zeros(2, 3, 64, 64)
    images[0, :, 0:4, 60:64] = 1.0  # top right
    images[1, :, 60:64, 0:4] = 1.0  # bottom left
    points = encoder(images)[:, :2]
    assert points[0, 0] > 2.5
    assert points[0, 1] < -2.5
    assert points[1, 0] < -2.5
    assert points[1, 1] > 2.5


@pytest.mark.parametrize("seed", range(4))
def test_points_follow_what_moves_before_any_training(seed: int) -> None:
    generator = torch.Generator().manual_seed(0)
    images = 0.1 * torch.randn(16, 3, 48, 64, generator=generator)
    corners = torch.rand(16, 2, generator=generator) * torch.tensor([40, 56])
    for image, (y, x) in zip(images, corners.int().tolist(), strict=True):
        image[:, y : y + 8, x : x + 8] += torch.tensor([2.0, -1.0, -1.0]).view(3, 1, 1)
    torch.manual_seed(seed)
    encoder = KeypointEncoder()
    encoder.fit(images)

    def spread() -> float:
        """How far a typical point moves over the images; the square moves by 1.7."""
        with torch.no_grad():
            points = encoder(images)[:, :64].view(16, 32, 2)
        return float(points.std(0).median())

    assert spread() > 1.0
    with torch.no_grad():
        encoder.sharpness.zero_()
    assert spread() < 0.2, "heat maps as flat as their convolution makes them see nothing"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["act", "diffusion", "diffusion_transformer", "fast", "flow"])
def test_every_policy_takes_key_points(kind: str, make: Any, tmp_path: Path) -> None:
    recipe = make.recipe(kind, measure_norms=True).with_overrides(
        {"policy": {"vision_backbone": "keypoints"}}, "test"
    )
    trainer = make_trainer(make.demonstrations(images=True), recipe, tmp_path)
    encoders = keypoint_encoders(trainer.model)
    assert len(encoders) == len(trainer.config.cameras)
    before = encoders[0].stack[0].weight.detach().clone()
    trainer.run()
    assert not torch.equal(before, encoders[0].stack[0].weight)
    policy = load_policy(tmp_path, "torch")
    observation = example_observation(policy._checkpoint)  # type: ignore[attr-defined]
    noise = np.zeros((policy.config.horizon_steps, policy.config.action_dim), np.float32)
    first = policy.predict(observation, noise=noise)
    assert np.isfinite(first).all()
    if kind == "fast":
        return  # the likeliest tokens: after four steps no image changes which those are
    other = {**observation}
    for key in policy.config.cameras:
        other[key] = 255 - observation[key]
    assert not np.allclose(first, policy.predict(other, noise=noise))


def test_a_crop_inside_the_network_is_refused(make: Any, tmp_path: Path) -> None:
    recipe = make.recipe("diffusion").with_overrides(
        {"policy": {"vision_backbone": "keypoints", "crop_shape": [40, 40]}}, "test"
    )
    with pytest.raises(ConfigError, match="none with vision_backbone keypoints"):
        make_trainer(make.demonstrations(images=True), recipe, tmp_path)
