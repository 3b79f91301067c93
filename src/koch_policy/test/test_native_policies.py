# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Policies on the compiled ResNet; without a compiler OpenVINO does its work."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from koch_policy.checkpoint import load_checkpoint
from koch_policy.errors import NotFiniteError
from koch_policy.runtime import load_policy
from koch_policy.runtime import native_library as native_library_module
from koch_policy.runtime.base import example_observation
from koch_policy.runtime.native_library import native_library
from koch_policy.train.data import ArrayFrames
from koch_policy.train.setup import make_trainer

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no compiler here")


@needs_compiler
@pytest.mark.parametrize("layer", [0, 1])  # before the pooling and after it
def test_not_a_number_is_not_lost_on_the_way(make: Any, tmp_path: Path, layer: int) -> None:
    path = make.checkpoint("act", tmp_path, pictures=True)
    policy: Any = load_policy(path, "openvino")
    backbone = policy.engine._backbones.networks[0]
    observation = example_observation(load_checkpoint(path))
    policy.predict(observation)
    biases = [kept for kept in backbone._kept if isinstance(kept, np.ndarray) and kept.ndim == 1]
    biases[layer][:] = np.nan
    with pytest.raises(NotFiniteError):
        policy.predict(observation)


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A computer without `cc`; the folder where it would be found."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    forget = (native_library.cache_clear, native_library_module._warn.cache_clear)
    for each in forget:
        each()
    yield folder
    for each in forget:
        each()


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


@needs_compiler
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
    noise = np.random.default_rng(0).standard_normal((8, 6), np.float32)
    fast: Any = load_policy(path, "openvino")
    backbones = fast.engine._backbones
    shared = not options.get("use_separate_rgb_encoder_per_camera")
    assert [network.count for network in backbones.networks] == ([2] if shared else [1, 1])
    request.getfixturevalue("no_compiler")
    plain: Any = load_policy(path, "openvino")
    assert plain.engine._backbones is None
    exact = load_policy(path, "torch", device="cpu")
    # the last observation repeats one camera's picture: only the other is encoded
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


@needs_compiler
@pytest.mark.parametrize("kind", ["act", "diffusion", "flow"])
def test_bfloat16_features_reach_openvino(kind: str, make: Any, tmp_path: Path) -> None:
    path = _two_cameras(kind, {}, make, tmp_path)
    observation = example_observation(load_checkpoint(path))
    noise = np.random.default_rng(0).standard_normal((8, 6), np.float32)
    half: Any = load_policy(path, "openvino", precision="bf16")
    assert (half.engine._backbones is None) == (native_library("bf16") is None)
    exact = load_policy(path, "torch", device="cpu").predict(observation, noise=noise)
    error = np.abs(half.predict(observation, noise=noise) - exact).max()
    assert 0 < error < 0.05 * np.abs(exact).max()


@needs_compiler
@pytest.mark.parametrize(
    "options", [{"vision_backbone": "resnet50"}, {"resize_shape": [40, 50], "crop_ratio": 0.9}]
)
def test_other_networks_are_openvinos(options: dict[str, Any], make: Any, tmp_path: Path) -> None:
    path = make.checkpoint("diffusion", tmp_path, pictures=True, **options)
    policy: Any = load_policy(path, "openvino")
    assert policy.engine._backbones is None
    observation, noise = example_observation(load_checkpoint(path)), np.zeros((8, 6), np.float32)
    exact = load_policy(path, "torch", device="cpu").predict(observation, noise=noise)
    largest = max(np.abs(exact).max(), 1.0)
    assert np.abs(policy.predict(observation, noise=noise) - exact).max() < 2e-5 * largest


def test_no_compiler_is_said_once(no_compiler: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert native_library("f32") is None
    assert native_library("bf16") is None
    assert [record.getMessage() for record in caplog.records] == [
        "Camera networks run in OpenVINO, slower than they could: there is no C compiler `cc`. "
        "Install a C compiler, on Debian and Ubuntu by `sudo apt install g++`."
    ]


def test_a_broken_compiler_is_as_good_as_none(
    no_compiler: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _write_compiler(no_compiler, "echo stdlib.h: No such file >&2; exit 1")
    assert native_library("f32") is None
    assert not list((tmp_path / "cache").rglob("*.so"))
    said = caplog.records[0].getMessage()
    assert "cannot compile resnet.c (stdlib.h: No such file)" in said
    assert "sudo apt install g++" in said


def test_a_processor_that_gains_nothing_is_no_defect(
    no_compiler: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _write_compiler(no_compiler, "echo 'resnet.h:12: error: #error No products' >&2; exit 1")
    assert native_library("bf16") is None
    assert not caplog.records


def _write_compiler(folder: Path, command: str) -> None:
    compiler = folder / "cc"
    compiler.write_text(f"#!/bin/sh\n{command}\n", encoding="utf-8")
    compiler.chmod(0o755)
