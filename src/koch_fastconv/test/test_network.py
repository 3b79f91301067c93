# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The ResNet in C gives torch's features, on every kernel that this processor gets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from koch_fastconv import load
from koch_fastconv.layers import Scaling
from koch_fastconv.network import FastResNet
from koch_policy.models.resnet import Norm, fold_batch_norm
from koch_policy.models.resnet import ResNet as TorchResNet
from koch_policy.runtime.backbones import resnet_layers, widened


def fast_network(
    network: torch.nn.Sequential, count: int, height: int, width: int, precision: str,
    threads: int, blocks: int | None = None, *, int8: bool = False,
) -> FastResNet:  # fmt: skip
    """A torch network, or its first blocks, in C; skips where this processor has no kernels."""
    fast = load()
    layers = resnet_layers(network, fast)
    assert layers is not None
    found = fast.resnet(
        layers[0], layers[1][:blocks], count=count, height=height, width=width,
        precision=precision, threads=threads, int8=int8,
    )  # fmt: skip
    if found is None:
        pytest.skip(f"no kernels for {precision} on this processor")
    return found


def _exact(affine: Scaling, batch: torch.Tensor) -> torch.Tensor:
    scale, shift = (torch.from_numpy(each).view(3, 1, 1) for each in affine)
    return batch * scale + shift


SIZES = [("resnet18", 96, 128), ("resnet18", 33, 47), ("resnet18", 250, 70), ("resnet34", 64, 65)]


def _network(name: str, norm: Norm) -> torch.nn.Sequential:
    torch.manual_seed(0)
    network = TorchResNet(name, norm).eval()
    fold_batch_norm(network)
    network.requires_grad_(requires_grad=False)
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d) and layer.bias is not None:
            layer.bias.uniform_(-0.5, 0.5)  # a border of zeros is no longer neutral by chance
        if isinstance(layer, torch.nn.GroupNorm):
            layer.weight.uniform_(-1.0, 2.0)
            layer.bias.uniform_(-0.5, 0.5)
    return network.as_sequential()


def _affine() -> Scaling:
    return Scaling(np.full(3, 4.0, np.float32), np.array([-1.0, 0.5, 2.0], np.float32))


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize(("name", "height", "width"), SIZES)
@pytest.mark.parametrize("norm", [Norm.BATCH, Norm.GROUP])
def test_features_are_torchs(norm: Norm, name: str, height: int, width: int, threads: int) -> None:
    network = _network(name, norm)
    draw = np.random.default_rng(0)
    affine = _affine()
    native = fast_network(network, 3, height, width, "f32", threads)
    network.double()
    for maps in ([affine, None], [None], [None, affine, None]):
        # more or fewer than before, of other scales: nothing is left over
        images = [draw.integers(0, 256, (height, width, 3), np.uint8) for _ in maps]
        found = native(images, maps)
        batch = [torch.from_numpy(p).permute(2, 0, 1) / 255.0 for p in images]
        for index, each in enumerate(maps):
            if each is not None:
                batch[index] = _exact(each, batch[index])
        exact = network(torch.stack(batch).double()).permute(0, 2, 3, 1)
        assert found.shape == tuple(exact.shape)
        largest = float(exact.abs().max())
        assert largest > 1
        assert np.abs(found - exact.numpy()).max() < 1e-5 * largest


@pytest.mark.parametrize("blocks", [0, 4])
def test_the_first_stages_alone(blocks: int) -> None:
    network = _network("resnet18", Norm.GROUP)
    native = fast_network(network, 1, 33, 47, "f32", 2, blocks)
    image = np.random.default_rng(0).integers(0, 256, (33, 47, 3), dtype=np.uint8)
    batch = torch.from_numpy(image).permute(2, 0, 1)[None] / 255.0
    exact = network[: 4 + blocks // 2](batch).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(native([image], [None]), exact, atol=2e-5)


def test_group_norm_is_exact_far_from_zero() -> None:
    """A mean that is large beside the deviation must not eat the digits of the variance."""
    network = _network("resnet18", Norm.GROUP)
    native = fast_network(network, 1, 65, 90, "f32", 2)
    affine = Scaling(np.full(3, 0.01, np.float32), np.ones(3, np.float32))
    image = np.random.default_rng(0).integers(0, 256, (65, 90, 3), dtype=np.uint8)
    found = native([image], [affine])
    batch = torch.from_numpy(image).permute(2, 0, 1)[None] / 255.0
    batch = _exact(affine, batch)
    torchs = network(batch).permute(0, 2, 3, 1).numpy()
    exact = network.double()(batch.double()).permute(0, 2, 3, 1).numpy()
    errors = [np.abs(each - exact).max() for each in (found, torchs)]
    assert errors[0] < 2 * errors[1] + 1e-5


@pytest.mark.parametrize(("height", "width"), [(96, 128), (33, 47)])
@pytest.mark.parametrize("norm", [Norm.BATCH, Norm.GROUP])
def test_bfloat16_errs_as_little_as_torchs(norm: Norm, height: int, width: int) -> None:
    network = _network("resnet18", norm)
    native = fast_network(network, 2, height, width, "bf16", 2)
    draw = np.random.default_rng(0)
    images = [draw.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(2)]
    batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 255.0
    exact = network(batch).permute(0, 2, 3, 1).numpy()
    half = network.to(torch.bfloat16)(batch.to(torch.bfloat16)).permute(0, 2, 3, 1)
    own = widened(native(images, [None, None]))
    errors = [np.abs(found - exact).mean() for found in (own, half.float().numpy())]
    assert 0 < errors[0] < 3 * errors[1]  # Winograd's transformation doubles rounding or so


def _around(*levels: float) -> Scaling:
    """A scaling that makes zero of some bytes."""
    scale = np.array([4.0, 0.5, 2.0], np.float32)
    return Scaling(scale, -scale * np.array(levels, np.float32) / np.float32(255))


@pytest.mark.parametrize(("height", "width"), [(96, 128), (33, 47)])
@pytest.mark.parametrize("norm", [Norm.BATCH, Norm.GROUP])
def test_int8_rounds_the_first_weights_and_nothing_else(
    norm: Norm, height: int, width: int
) -> None:
    network = _network("resnet18", norm)
    native = fast_network(network, 2, height, width, "bf16", 2, 0, int8=True)
    conv, exact_weight = network[0], network[0].weight.clone()
    draw = np.random.default_rng(0)
    for maps in ([_around(64, 0, 255)], [None, _around(7, 100, 31)], [_around(1, 2, 3), None]):
        images = [draw.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in maps]
        found = widened(native(images, maps))
        for image, affine, own in zip(images, maps, found, strict=True):
            scale = np.ones(3, np.float32) if affine is None else affine.scale
            factor = torch.from_numpy(scale).view(3, 1, 1)
            weight = exact_weight * factor
            step = weight.abs().amax(dim=(1, 2, 3), keepdim=True) / 127
            conv.weight = torch.nn.Parameter((weight / step).round() * step / factor)
            values = torch.from_numpy(image).permute(2, 0, 1)[None] / 255.0
            if affine is not None:
                values = _exact(affine, values)
            exact = network[:4](values).permute(0, 2, 3, 1).detach().numpy()[0]
            # what is stored has 8 bits; group norm reads that and stores once more
            np.testing.assert_allclose(own, exact, rtol=2**-7, atol=2**-8 * np.abs(exact).max())


def test_int8_leaves_images_that_are_no_bytes_alone() -> None:
    """Floats, and scalings in which no byte stands for the zeros around an image."""
    network = _network("resnet18", Norm.BATCH)
    half, whole = (
        fast_network(network, 1, 33, 47, "bf16", 1, 0, int8=stem) for stem in (False, True)
    )
    image = np.random.default_rng(0).integers(0, 256, (33, 47, 3), dtype=np.uint8)
    for shown, affine in ((image.astype(np.float32), None), (image, _around(0, 256, 9))):
        assert np.array_equal(half([shown], [affine]), whole([shown], [affine]))


@pytest.mark.parametrize(("norm", "most"), [(Norm.BATCH, 0.05), (Norm.GROUP, 0.08)])
def test_int8_errs_little(norm: Norm, most: float) -> None:
    """By a few percent, and the same for an image whatever was computed before it."""
    network = _network("resnet18", norm)
    native = fast_network(network, 2, 120, 160, "bf16", 2, int8=True)
    draw = np.random.default_rng(0)
    first: list[np.ndarray[Any, Any]] = []
    for level in (256, 40, 256, 1, 256):
        images = [draw.integers(0, level, (120, 160, 3), dtype=np.uint8) for _ in range(2)]
        first = first or images
        found = widened(native(images, [None, None]))
        batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 255.0
        exact = network(batch).permute(0, 2, 3, 1).numpy()
        assert np.sqrt(((found - exact) ** 2).mean()) < most * exact.std()
    alone = fast_network(network, 2, 120, 160, "bf16", 2, int8=True)
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


def test_int8_rounds_winograds_factors_to_the_largest_of_each() -> None:
    network = _network("resnet18", Norm.BATCH)
    for conv in (network[4][1].conv1, network[4][1].conv2):  # hands its input on
        conv.weight.zero_()
        conv.bias.zero_()
    images = [np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)]
    start, found = (
        widened(fast_network(network, 1, 64, 96, "bf16", 2, blocks, int8=True)(images, [None]))
        for blocks in (0, 2)
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


def test_int8_shows_what_is_not_finite() -> None:
    network = _network("resnet18", Norm.BATCH)
    broken = network[4][1].conv2.bias
    broken[3] = torch.nan
    native = fast_network(network, 1, 64, 64, "bf16", 1, int8=True)
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert np.isnan(widened(native([image], [None]))).any()
