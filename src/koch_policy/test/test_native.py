# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The compiled ResNet gives torch's features; without a compiler OpenVINO does its work."""

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
from koch_policy.models.resnet import Norm, ResNet, fold_batch_norm
from koch_policy.normalize import Affine
from koch_policy.runtime import load_policy
from koch_policy.runtime.base import example_observation
from koch_policy.runtime.native import (
    NativeResNet,
    native_library,
    paired,
    rounded,
    widened,
)

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no compiler here")


def _network(name: str) -> ResNet:
    torch.manual_seed(0)
    network = ResNet(name, Norm.BATCH).eval()
    fold_batch_norm(network)
    network.requires_grad_(requires_grad=False)
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d):
            assert layer.bias is not None
            layer.bias.uniform_(-0.5, 0.5)  # a border of zeros is no longer neutral by chance
    return network


@needs_compiler
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize(
    ("name", "height", "width"),
    [("resnet18", 96, 128), ("resnet18", 33, 47), ("resnet18", 250, 70), ("resnet34", 64, 65)],
)
def test_features_are_torchs(name: str, height: int, width: int, threads: int) -> None:
    network = _network(name)
    draw = np.random.default_rng(0)
    scale, shift = torch.full((3, 1, 1), 4.0), torch.tensor([-1.0, 0.5, 2.0]).view(3, 1, 1)
    affine = Affine(scale, shift, 1 / scale, -shift / scale)
    native = NativeResNet(network, [affine, None], height, width, "f32", threads)
    for _ in range(2):  # the second time nothing of the first is left over
        pictures = [draw.integers(0, 256, (height, width, 3), np.uint8) for _ in range(2)]
        found = native(pictures)
        first, second = (torch.from_numpy(p).permute(2, 0, 1) / 255.0 for p in pictures)
        exact = network.double()(
            torch.stack((first * affine.scale + affine.shift, second)).double()
        ).permute(0, 2, 3, 1)
        assert found.shape == tuple(exact.shape)
        largest = float(exact.abs().max())
        assert largest > 1
        assert np.abs(found - exact.numpy()).max() < 1e-5 * largest
        network.float()


@needs_compiler
@pytest.mark.parametrize(("height", "width"), [(96, 128), (33, 47)])
def test_bfloat16_errs_as_little_as_torchs(height: int, width: int) -> None:
    if native_library("bf16") is None:
        pytest.skip("this processor does not multiply bfloat16, or has faster ways")
    network = _network("resnet18")
    native = NativeResNet(network, [None, None], height, width, "bf16", 2)
    draw = np.random.default_rng(0)
    pictures = [draw.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(2)]
    batch = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 255.0
    exact = network(batch).permute(0, 2, 3, 1).numpy()
    half = network.to(torch.bfloat16)(batch.to(torch.bfloat16)).permute(0, 2, 3, 1)
    errors = [np.abs(found - exact).mean() for found in (native(pictures), half.float().numpy())]
    assert 0 < errors[0] < 3 * errors[1]  # Winograd's transformation doubles rounding or so


def test_bfloat16_is_rounded_and_paired_by_hand() -> None:
    weight = np.arange(6, dtype=np.float32).reshape(3, 2)  # (L, panel)
    assert widened(paired(weight)).tolist() == [[[0, 2], [1, 3]], [[4, 0], [5, 0]]]
    values = np.array([1.0, 1.0 + 2**-8, 1.0 + 3 * 2**-8, -3.14159], np.float32)
    expected = torch.from_numpy(values).to(torch.bfloat16).float().numpy()
    assert np.array_equal(widened(rounded(values)), expected)


@needs_compiler
def test_not_a_number_is_not_lost_in_a_relu(make: Any, tmp_path: Path) -> None:
    path = make.checkpoint("act", tmp_path, pictures=True)
    policy: Any = load_policy(path, "openvino")
    backbone = policy.engine._backbone
    assert backbone is not None
    observation = example_observation(load_checkpoint(path))
    policy.predict(observation)
    biases = [kept for kept in backbone._kept if isinstance(kept, np.ndarray) and kept.ndim == 1]
    biases[1][:] = np.nan
    with pytest.raises(NotFiniteError):
        policy.predict(observation)


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A computer without `cc`."""
    monkeypatch.setenv("PATH", str(tmp_path))
    native_library.cache_clear()
    yield
    native_library.cache_clear()


@needs_compiler
def test_both_ways_agree_and_are_kept_side_by_side(
    make: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path = make.checkpoint("act", tmp_path, pictures=True)
    observation = example_observation(load_checkpoint(path), 5)
    fast: Any = load_policy(path, "openvino")
    assert fast.engine._backbone is not None
    request.getfixturevalue("no_compiler")
    plain: Any = load_policy(path, "openvino")
    assert plain.engine._backbone is None
    error = np.abs(fast.predict(observation) - plain.predict(observation))
    assert 0 < error.max() < 1e-4 * np.abs(plain.predict(observation)).max()


def test_a_broken_compiler_is_as_good_as_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    native_library.cache_clear()
    assert native_library("f32") is None
    native_library.cache_clear()
    assert not list((tmp_path / "cache").rglob("*.so"))
