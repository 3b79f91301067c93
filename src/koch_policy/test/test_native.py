# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The compiled ResNet gives torch's features."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from koch_policy.models.resnet import Norm, ResNet, fold_batch_norm
from koch_policy.normalize import Affine
from koch_policy.runtime.float_weights import paired, rounded, widened
from koch_policy.runtime.native import NativeResNet
from koch_policy.runtime.native_library import native_library

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no compiler here")


SIZES = [("resnet18", 96, 128), ("resnet18", 33, 47), ("resnet18", 250, 70), ("resnet34", 64, 65)]


def _network(name: str, norm: Norm) -> torch.nn.Sequential:
    torch.manual_seed(0)
    network = ResNet(name, norm).eval()
    fold_batch_norm(network)
    network.requires_grad_(requires_grad=False)
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d) and layer.bias is not None:
            layer.bias.uniform_(-0.5, 0.5)  # a border of zeros is no longer neutral by chance
        if isinstance(layer, torch.nn.GroupNorm):
            layer.weight.uniform_(-1.0, 2.0)
            layer.bias.uniform_(-0.5, 0.5)
    return network.as_sequential()


def _affine() -> Affine:
    scale, shift = torch.full((3, 1, 1), 4.0), torch.tensor([-1.0, 0.5, 2.0]).view(3, 1, 1)
    return Affine(scale, shift, 1 / scale, -shift / scale)


@needs_compiler
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize(("name", "height", "width"), SIZES)
@pytest.mark.parametrize("norm", [Norm.BATCH, Norm.GROUP])
def test_features_are_torchs(norm: Norm, name: str, height: int, width: int, threads: int) -> None:
    network = _network(name, norm)
    draw = np.random.default_rng(0)
    affine = _affine()
    native = NativeResNet(network, 3, height, width, "f32", threads)
    network.double()
    for maps in ([affine, None], [None], [None, affine, None]):
        # more or fewer than before, of other scales: nothing is left over
        pictures = [draw.integers(0, 256, (height, width, 3), np.uint8) for _ in maps]
        found = native(pictures, maps)
        batch = [torch.from_numpy(p).permute(2, 0, 1) / 255.0 for p in pictures]
        for index, each in enumerate(maps):
            if each is not None:
                batch[index] = batch[index] * each.scale + each.shift
        exact = network(torch.stack(batch).double()).permute(0, 2, 3, 1)
        assert found.shape == tuple(exact.shape)
        largest = float(exact.abs().max())
        assert largest > 1
        assert np.abs(found - exact.numpy()).max() < 1e-5 * largest


@needs_compiler
@pytest.mark.parametrize("stages", [0, 2])
def test_the_first_stages_alone(stages: int) -> None:
    network = _network("resnet18", Norm.GROUP)
    native = NativeResNet(network, 1, 33, 47, "f32", 2, stages)
    picture = np.random.default_rng(0).integers(0, 256, (33, 47, 3), dtype=np.uint8)
    batch = torch.from_numpy(picture).permute(2, 0, 1)[None] / 255.0
    exact = network[: 4 + stages](batch).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(native([picture], [None]), exact, atol=2e-5)


@needs_compiler
def test_group_norm_is_exact_far_from_zero() -> None:
    """A mean that is large beside the deviation must not eat the digits of the variance."""
    network = _network("resnet18", Norm.GROUP)
    native = NativeResNet(network, 1, 65, 90, "f32", 2)
    scale = torch.full((3, 1, 1), 0.01)
    affine = Affine(scale, torch.full((3, 1, 1), 1.0), 1 / scale, -torch.ones(3, 1, 1) / scale)
    picture = np.random.default_rng(0).integers(0, 256, (65, 90, 3), dtype=np.uint8)
    found = native([picture], [affine])
    batch = torch.from_numpy(picture).permute(2, 0, 1)[None] / 255.0 * affine.scale + affine.shift
    torchs = network(batch).permute(0, 2, 3, 1).numpy()
    exact = network.double()(batch.double()).permute(0, 2, 3, 1).numpy()
    errors = [np.abs(each - exact).max() for each in (found, torchs)]
    assert errors[0] < 2 * errors[1] + 1e-5


@needs_compiler
@pytest.mark.parametrize(("height", "width"), [(96, 128), (33, 47)])
@pytest.mark.parametrize("norm", [Norm.BATCH, Norm.GROUP])
def test_bfloat16_errs_as_little_as_torchs(norm: Norm, height: int, width: int) -> None:
    if native_library("bf16") is None:
        pytest.skip("this processor does not multiply bfloat16, or has faster ways")
    network = _network("resnet18", norm)
    native = NativeResNet(network, 2, height, width, "bf16", 2)
    draw = np.random.default_rng(0)
    pictures = [draw.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(2)]
    batch = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 255.0
    exact = network(batch).permute(0, 2, 3, 1).numpy()
    half = network.to(torch.bfloat16)(batch.to(torch.bfloat16)).permute(0, 2, 3, 1)
    own = widened(native(pictures, [None, None]))
    errors = [np.abs(found - exact).mean() for found in (own, half.float().numpy())]
    assert 0 < errors[0] < 3 * errors[1]  # Winograd's transformation doubles rounding or so


def _around(*levels: float) -> Affine:
    """A scaling that makes zero of some bytes."""
    scale = torch.tensor([4.0, 0.5, 2.0]).view(3, 1, 1)
    shift = -scale * torch.tensor(levels).view(3, 1, 1) / 255
    return Affine(scale, shift, 1 / scale, -shift / scale)


@needs_compiler
@pytest.mark.parametrize(("height", "width"), [(96, 128), (33, 47)])
@pytest.mark.parametrize("norm", [Norm.BATCH, Norm.GROUP])
def test_int8_rounds_the_first_weights_and_nothing_else(
    norm: Norm, height: int, width: int
) -> None:
    library = native_library("bf16")
    if library is None or not library.koch_has_bytes():
        pytest.skip("this processor does not multiply bytes")
    network = _network("resnet18", norm)
    native = NativeResNet(network, 2, height, width, "bf16", 2, 0, int8=True)
    conv, exact_weight = network[0], network[0].weight.clone()
    draw = np.random.default_rng(0)
    for maps in ([_around(64, 0, 255)], [None, _around(7, 100, 31)], [_around(1, 2, 3), None]):
        pictures = [draw.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in maps]
        found = widened(native(pictures, maps))
        for picture, affine, own in zip(pictures, maps, found, strict=True):
            factor = torch.ones(3, 1, 1) if affine is None else affine.scale
            weight = exact_weight * factor
            step = weight.abs().amax(dim=(1, 2, 3), keepdim=True) / 127
            conv.weight = torch.nn.Parameter((weight / step).round() * step / factor)
            values = torch.from_numpy(picture).permute(2, 0, 1)[None] / 255.0
            if affine is not None:
                values = values * affine.scale + affine.shift
            exact = network[:4](values).permute(0, 2, 3, 1).detach().numpy()[0]
            # what is stored has 8 bits; group norm reads that and stores once more
            np.testing.assert_allclose(own, exact, rtol=2**-7, atol=2**-8 * np.abs(exact).max())


@needs_compiler
def test_int8_leaves_pictures_that_are_no_bytes_alone() -> None:
    """Floats, and scalings in which no byte stands for the zeros around a picture."""
    if native_library("bf16") is None:
        pytest.skip("this processor does not multiply bfloat16, or has faster ways")
    network = _network("resnet18", Norm.BATCH)
    half, whole = (
        NativeResNet(network, 1, 33, 47, "bf16", 1, 0, int8=stem) for stem in (False, True)
    )
    picture = np.random.default_rng(0).integers(0, 256, (33, 47, 3), dtype=np.uint8)
    for shown, affine in ((picture.astype(np.float32), None), (picture, _around(0, 256, 9))):
        assert np.array_equal(half([shown], [affine]), whole([shown], [affine]))


@needs_compiler
@pytest.mark.parametrize(("norm", "most"), [(Norm.BATCH, 0.05), (Norm.GROUP, 0.08)])
def test_int8_errs_little(norm: Norm, most: float) -> None:
    """By a few percent, and the same for a picture whatever was computed before it."""
    if native_library("bf16") is None:
        pytest.skip("this processor does not multiply bfloat16, or has faster ways")
    network = _network("resnet18", norm)
    native = NativeResNet(network, 2, 120, 160, "bf16", 2, int8=True)
    draw = np.random.default_rng(0)
    first: list[np.ndarray[Any, Any]] = []
    for level in (256, 40, 256, 1, 256):
        pictures = [draw.integers(0, level, (120, 160, 3), dtype=np.uint8) for _ in range(2)]
        first = first or pictures
        found = widened(native(pictures, [None, None]))
        batch = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 255.0
        exact = network(batch).permute(0, 2, 3, 1).numpy()
        assert np.sqrt(((found - exact) ** 2).mean()) < most * exact.std()
    alone = NativeResNet(network, 2, 120, 160, "bf16", 2, int8=True)
    assert np.array_equal(native(first, [None, None]), alone(first, [None, None]))


def _steps(values: torch.Tensor, axis: int) -> torch.Tensor:
    """Round to 127 steps of the largest along an axis."""
    step = values.abs().amax(axis, keepdim=True).clamp_min(1e-30) / 127
    return (values / step).round() * step


def _winograd_in_bytes(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Convolve (N, C, H, W), sides divisible by 4, as Toom and Cook do, each factor rounded."""
    points = np.array([0, -1, 1, -2, 2]) / np.sqrt([1, 2, 2, 2, 2])
    forward, back, kernel = np.zeros((6, 6)), np.zeros((4, 6)), np.zeros((6, 3))
    for i, point in enumerate(points):
        others = np.delete(points, i)
        forward[i, :5] = np.polynomial.polynomial.polyfromroots(others)
        kernel[i] = point ** np.arange(3) / np.prod(point - others)
        back[:, i] = point ** np.arange(4)
    forward[5] = np.polynomial.polynomial.polyfromroots(points)
    kernel[5, 2] = back[3, 5] = 1
    b, g, a = (torch.from_numpy(each) for each in (forward, kernel, back))
    patches = F.pad(x.double(), (1, 1, 1, 1)).unfold(2, 6, 4).unfold(3, 6, 4)
    seen = _steps(torch.einsum("ij,bchwjk,lk->bchwil", b, patches, b), 1)
    factors = _steps(torch.einsum("ij,kcjl,ml->kcim", g, weight.double(), g), 1)
    sums = torch.einsum("bchwil,kcil->bkhwil", seen, factors)
    tiles = torch.einsum("ij,bkhwjl,ml->bkhiwm", a, sums, a)
    return tiles.reshape(x.shape[0], weight.shape[0], *x.shape[2:])


@needs_compiler
def test_int8_rounds_winograds_factors_to_the_largest_of_each() -> None:
    library = native_library("bf16")
    if library is None or not library.koch_has_bytes():
        pytest.skip("this processor does not multiply bytes")
    network = _network("resnet18", Norm.BATCH)
    for conv in (network[4][1].conv1, network[4][1].conv2):  # hands its input on
        conv.weight.zero_()
        conv.bias.zero_()
    pictures = [np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)]
    start, found = (
        widened(NativeResNet(network, 1, 64, 96, "bf16", 2, stages, int8=True)(pictures, [None]))
        for stages in (0, 1)
    )
    rounded_one = torch.from_numpy(start).permute(0, 3, 1, 2)
    exact = network[4](rounded_one).permute(0, 2, 3, 1).numpy()
    block = network[4][0]
    middle = _winograd_in_bytes(rounded_one, block.conv1.weight) + block.conv1.bias[:, None, None]
    middle = middle.relu().bfloat16()
    x = _winograd_in_bytes(middle, block.conv2.weight) + block.conv2.bias[:, None, None]
    x = (x + rounded_one).relu().bfloat16().double()
    same = x.permute(0, 2, 3, 1).numpy()
    error, difference = (np.abs(each - same).mean() for each in (exact, found))
    assert difference < error / 10  # ties that fall to the other side


@needs_compiler
def test_int8_shows_what_is_not_finite() -> None:
    if native_library("bf16") is None:
        pytest.skip("this processor does not multiply bfloat16, or has faster ways")
    network = _network("resnet18", Norm.BATCH)
    broken = network[4][1].conv2.bias
    broken[3] = torch.nan
    native = NativeResNet(network, 1, 64, 64, "bf16", 1, int8=True)
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert np.isnan(widened(native([picture], [None]))).any()


def test_bfloat16_is_rounded_and_paired_by_hand() -> None:
    weight = np.arange(6, dtype=np.float32).reshape(3, 2)  # (L, panel)
    assert widened(paired(weight)).tolist() == [[[0, 2], [1, 3]], [[4, 0], [5, 0]]]
    values = np.array([1.0, 1.0 + 2**-8, 1.0 + 3 * 2**-8, -3.14159], np.float32)
    expected = torch.from_numpy(values).to(torch.bfloat16).float().numpy()
    assert np.array_equal(widened(rounded(values)), expected)
