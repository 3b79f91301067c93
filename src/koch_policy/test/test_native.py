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
from koch_policy.runtime import native_library as native_library_module
from koch_policy.runtime.base import example_observation
from koch_policy.runtime.native import NativeResNet, paired, rounded, widened
from koch_policy.runtime.native_library import native_library
from koch_policy.train.data import ArrayFrames
from koch_policy.train.setup import make_trainer

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
@pytest.mark.parametrize("norm", [Norm.BATCH, Norm.GROUP])
def test_int8_errs_little(norm: Norm) -> None:
    """Little more than bfloat16, and the same for a picture whatever was computed before it."""
    if native_library("bf16") is None:
        pytest.skip("this processor does not multiply bfloat16, or has faster ways")
    network = _network("resnet18", norm)
    native, half = (
        NativeResNet(network, 2, 120, 160, "bf16", 2, int8=int8) for int8 in (True, False)
    )
    draw = np.random.default_rng(0)
    first: list[np.ndarray[Any, Any]] = []
    for level in (256, 40, 256, 1, 256):
        pictures = [draw.integers(0, level, (120, 160, 3), dtype=np.uint8) for _ in range(2)]
        first = first or pictures
        found, other = (widened(each(pictures, [None, None])) for each in (native, half))
        batch = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 255.0
        exact = network(batch).permute(0, 2, 3, 1).numpy()
        assert ((found - exact) ** 2).mean() < 5 * ((other - exact) ** 2).mean()
    alone = NativeResNet(network, 2, 120, 160, "bf16", 2, int8=True)
    assert np.array_equal(native(first, [None, None]), alone(first, [None, None]))


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
        assert np.abs(chunks[0] - chunks[2]).max() < 5e-5 * largest
        assert 0 < np.abs(chunks[0] - chunks[1]).max() < 5e-5 * largest


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
