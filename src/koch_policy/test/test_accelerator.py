# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Policies on an accelerator for camera images; without one OpenVINO does its work."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from koch_policy.checkpoint import load_checkpoint
from koch_policy.errors import NotFiniteError
from koch_policy.runtime import accelerator, load_policy
from koch_policy.runtime.base import example_observation
from koch_policy.train.data import ArrayFrames
from koch_policy.train.setup import make_trainer
from koch_rig.arm_model import KOCH_V1_1

J = len(KOCH_V1_1.joints)

needs_accelerator = pytest.mark.skipif(accelerator.find() is None, reason="no koch_fastconv")


@needs_accelerator
@pytest.mark.parametrize("layer", [0, 1])  # before the pooling and after it
def test_not_a_number_is_not_lost_on_the_way(make: Any, tmp_path: Path, layer: int) -> None:
    path = make.checkpoint("act", tmp_path, images=True)
    policy: Any = load_policy(path, "openvino")
    backbone = policy.engine._backbones.networks[0]
    observation = example_observation(load_checkpoint(path))
    policy.predict(observation)
    biases = [kept for kept in backbone._kept if isinstance(kept, np.ndarray) and kept.ndim == 1]
    biases[layer][:] = np.nan
    with pytest.raises(NotFiniteError):
        policy.predict(observation)


@pytest.fixture
def no_accelerator(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A workspace whose folder `src/koch_fastconv` was deleted: no entry point."""
    monkeypatch.setattr(metadata, "entry_points", lambda **_: ())
    accelerator.find.cache_clear()
    yield
    accelerator.find.cache_clear()


POLICIES: list[tuple[str, dict[str, Any]]] = [
    ("act", {}),
    ("flow", {}),
    ("flow", {"backbone_norm": "frozen"}),
    ("diffusion", {}),
    ("diffusion", {"use_group_norm": False}),
    ("diffusion", {"crop_shape": [41, 50]}),
    ("diffusion", {"use_film_scale_modulation": False, "num_inference_steps": None}),
    ("diffusion", {"vision_backbone": "resnet34", "use_separate_rgb_encoder_per_camera": True}),
    ("diffusion_transformer", {"n_obs_steps": 1}),
]


def _two_cameras(kind: str, options: dict[str, Any], make: Any, out: Path) -> Path:
    """Write a tiny untrained policy that sees two cameras."""
    draw = np.random.default_rng(0)
    frames = {
        key: ArrayFrames(draw.integers(0, 256, (240, 48, 64, 3), dtype=np.uint8))
        for key in (make.camera, "observation.images.wrist")
    }
    recipe = make.recipe(kind).with_overrides({"policy": options}, "test")
    make_trainer(make.demonstrations(frames=frames), recipe, out).save()
    return out / "checkpoints" / "last" / "pretrained_model"


@needs_accelerator
@pytest.mark.parametrize(("kind", "options"), POLICIES)
def test_both_ways_agree_and_are_kept_side_by_side(
    kind: str,
    options: dict[str, Any],
    make: Any,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    path = _two_cameras(kind, options, make, tmp_path)
    ticks = [example_observation(load_checkpoint(path), seed) for seed in range(3)]
    noise = np.random.default_rng(0).standard_normal((8, J), np.float32)
    fast: Any = load_policy(path, "openvino")
    backbones = fast.engine._backbones
    shared = not options.get("use_separate_rgb_encoder_per_camera")
    assert [network.count for network in backbones.networks] == ([2] if shared else [1, 1])
    request.getfixturevalue("no_accelerator")
    plain: Any = load_policy(path, "openvino")
    assert plain.engine._backbones is None
    exact = load_policy(path, "torch", device="cpu")
    # the last observation repeats one camera's image: only the other is encoded
    ticks.append({**ticks[-1], make.camera: ticks[0][make.camera]})
    for tick in ticks:
        chunks = []
        for policy in (fast, plain, exact):
            torch.manual_seed(0)  # DDPM draws while it denoises
            chunks.append(policy.predict(tick, noise=noise))
        largest = max(np.abs(chunks[2]).max(), 1.0)
        for way in chunks[:2]:
            assert np.abs(way - chunks[2]).max() < 5e-5 * largest
        apart = np.abs(chunks[0] - chunks[1]).max()
        assert apart > 0
        # A hundred steps of noise carry either's error far, and not to the same side.
        if "num_inference_steps" not in options:
            assert apart < 5e-5 * largest


@needs_accelerator
@pytest.mark.parametrize("kind", ["act", "diffusion", "flow"])
def test_bfloat16_features_reach_openvino(kind: str, make: Any, tmp_path: Path) -> None:
    path = _two_cameras(kind, {}, make, tmp_path)
    observation = example_observation(load_checkpoint(path))
    noise = np.random.default_rng(0).standard_normal((8, J), np.float32)
    half: Any = load_policy(path, "openvino", precision="bf16")
    exact = load_policy(path, "torch", device="cpu").predict(observation, noise=noise)
    error = np.abs(half.predict(observation, noise=noise) - exact).max()
    assert 0 < error < 0.05 * np.abs(exact).max()


@needs_accelerator
@pytest.mark.parametrize(
    "options", [{"vision_backbone": "resnet50"}, {"resize_shape": [40, 50], "crop_ratio": 0.9}]
)
def test_other_networks_are_openvinos(options: dict[str, Any], make: Any, tmp_path: Path) -> None:
    path = make.checkpoint("diffusion", tmp_path, images=True, **options)
    policy: Any = load_policy(path, "openvino")
    assert policy.engine._backbones is None
    observation, noise = example_observation(load_checkpoint(path)), np.zeros((8, J), np.float32)
    exact = load_policy(path, "torch", device="cpu").predict(observation, noise=noise)
    largest = max(np.abs(exact).max(), 1.0)
    assert np.abs(policy.predict(observation, noise=noise) - exact).max() < 2e-5 * largest


class _Entry:
    """An entry point of a package that is installed and does not load."""

    value = "koch_fastconv:load"

    def __init__(self, error: Exception) -> None:
        self._error = error

    def load(self) -> Any:
        raise self._error


@pytest.mark.parametrize("error", [ImportError("No module named 'cffi'"), OSError("no such file")])
def test_a_broken_accelerator_is_said_once_and_left_out(
    error: Exception, no_accelerator: None, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr(metadata, "entry_points", lambda **_: (_Entry(error),))
    assert accelerator.find() is None
    assert accelerator.find() is None
    (record,) = caplog.records
    assert f"koch_fastconv:load cannot be loaded ({error})" in record.getMessage()
    assert "./koch setup --force" in record.getMessage()


def test_without_an_accelerator_nothing_is_said(no_accelerator: None, caplog: Any) -> None:
    assert accelerator.find() is None
    assert not caplog.records
