# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""ResNet-18 and -34 on a CPU in float32 or bfloat16, by `resnet.c`: Winograd's convolutions.

A 3x3 convolution takes a quarter of the multiplications there, which neither OpenVINO nor oneDNN
offers. The C file is compiled at the first use with the machine's `cc` and kept in the user's
cache folder; where that does not work, `native_backbone` returns None.
"""

from __future__ import annotations

import copy
import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from koch_policy.checkpoint import Checkpoint
from koch_policy.models.resnet import BasicBlock, ResNet, fold_batch_norm
from koch_policy.normalize import Affine

_SOURCE = Path(__file__).with_name("resnet.c")
_FLAGS = ("-O3", "-march=native", "-Wno-psabi", "-shared", "-fPIC", "-pthread")
_PICTURE, _DIRECT, _WINOGRAD, _POOL = range(4)  # as in the C file, like all below
_MOST_TILES, _PATCH, _TILE = 24, 6, 4
_FORWARD = np.array(
    [[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],
     [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1]]
)  # fmt: skip

Array = NDArray[np.float32]
_Pointer = ctypes.c_void_p


class _Map(ctypes.Structure):
    _fields_ = (
        ("data", _Pointer),
        *((name, ctypes.c_long) for name in (
            "count", "height", "width", "channels", "border", "rows", "columns")),
    )  # fmt: skip


class _Layer(ctypes.Structure):
    _fields_ = (
        ("kind", ctypes.c_long),
        *((name, _Pointer) for name in (
            "input", "output", "residual", "weight", "bias", "scale")),
        *((name, ctypes.c_long) for name in ("side", "stride", "pad", "relu")),
    )  # fmt: skip


class _Program(ctypes.Structure):
    _fields_ = (
        ("layers", _Pointer), ("count", ctypes.c_long), ("threads", ctypes.c_long),
        ("scratch_size", ctypes.c_long), ("scratch", _Pointer), ("taken", _Pointer),
        ("arrived", ctypes.c_long),
    )  # fmt: skip


class _Plane(NamedTuple):
    """A map (N, rows, columns, C) with its border of zeros, and its description for C."""

    data: NDArray[Any]
    map: _Map

    @property
    def inside(self) -> NDArray[Any]:
        """The values without the border, (N, H, W, C)."""
        edge, high, wide = self.map.border, self.map.height, self.map.width
        return self.data[:, edge : edge + high, edge : edge + wide]


@functools.lru_cache(maxsize=2)
def native_library(precision: str) -> Any | None:
    """Return the library compiled for "f32" or "bf16", or None where it cannot be had."""
    compiler = shutil.which("cc")
    if compiler is None or platform.system() != "Linux":
        return None
    flags = [*_FLAGS, *(["-DBF16"] if precision == "bf16" else [])]
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "koch_policy"
    target = home / f"resnet-{_machine_key(flags)}.so"
    try:
        if not target.is_file():
            home.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=home) as folder:
                made = Path(folder) / "resnet.so"
                command = [compiler, *flags, str(_SOURCE), "-o", str(made)]
                subprocess.run(command, check=True, capture_output=True, timeout=60)
                made.replace(target)
        library = ctypes.CDLL(str(target))
    except (OSError, subprocess.SubprocessError):
        return None
    library.koch_panel.restype = ctypes.c_long
    library.koch_run.restype = None
    return library


def _machine_key(flags: Sequence[str]) -> str:
    """Return a hash of the source, the flags and what the processor can do."""
    digest = hashlib.sha256(_SOURCE.read_bytes() + repr(flags).encode())
    digest.update(platform.machine().encode())
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    able = [line for line in lines if line.startswith(("flags", "Features", "model name"))]
    digest.update("".join(able[:2]).encode())
    return digest.hexdigest()[:16]


def winograd_weight(weight: Array, panel: int) -> Array:
    """Return (36, K / panel, C, panel) of a kernel (K, C, 3, 3)."""
    outputs, inputs = weight.shape[:2]
    flat = weight.astype(np.float64).transpose(2, 3, 1, 0).reshape(9, -1)  # (9, C K)
    wide = np.kron(_FORWARD, _FORWARD) @ flat  # (36, C K)
    order = wide.astype(np.float32).reshape(36, inputs, outputs // panel, panel)
    return np.ascontiguousarray(order.transpose(0, 2, 1, 3))


def direct_weight(weight: Array, panel: int) -> Array:
    """Return (K / panel, h, w C, panel) of a kernel (K, C, h, w)."""
    outputs, inputs, high, wide = weight.shape
    order = weight.reshape(outputs // panel, panel, inputs, high, wide).transpose(0, 3, 4, 2, 1)
    return np.ascontiguousarray(order.reshape(outputs // panel, high, wide * inputs, panel))


def paired(weight: Array) -> NDArray[np.uint16]:
    """Return bfloat16 (..., L / 2, panel, 2) of (..., L, panel); an odd L gets a zero."""
    *outer, length, panel = weight.shape
    even = np.zeros((*outer, (length + 1) // 2, 2, panel), np.float32)
    even.reshape(*outer, -1, panel)[..., :length, :] = weight
    return rounded(np.ascontiguousarray(even.swapaxes(-1, -2)))


def rounded(values: Array) -> NDArray[np.uint16]:
    """Return the upper halves of float32 values, to nearest and ties to even."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def widened(values: NDArray[np.uint16]) -> Array:
    """Return bfloat16 values as float32."""
    return (values.astype(np.uint32) << 16).view(np.float32)


def native_backbone(checkpoint: Checkpoint, precision: str, threads: int) -> NativeResNet | None:
    """Return ACT's backbone for all cameras at once, or None where this module cannot run it."""
    config = checkpoint.config
    sizes = {config.input_features[key].shape[1:] for key in config.cameras}
    network = getattr(checkpoint.model, "backbone", None)
    if not isinstance(network, ResNet) or len(sizes) != 1 or native_library(precision) is None:
        return None
    network = copy.deepcopy(network).eval().requires_grad_(requires_grad=False)
    fold_batch_norm(network)
    if not isinstance(network.layer1[0], BasicBlock) or not isinstance(network.bn1, nn.Identity):
        return None
    maps = [checkpoint.normalizer.maps.get(key) for key in config.cameras]
    height, width = sizes.pop()
    return NativeResNet(network, maps, height, width, precision, threads)


class NativeResNet:
    """A folded ResNet of basic blocks for pictures of one size, all at once.

    Args:
        network: With batch norms folded into its convolutions.
        maps: Scaling of each picture's values 0..1; None leaves them.
        height, width: Of each picture.
        precision: "f32" or "bf16".
        threads: How many to compute with.
    """

    def __init__(
        self,
        network: ResNet,
        maps: Sequence[Affine | None],
        height: int,
        width: int,
        precision: str,
        threads: int,
    ) -> None:
        library = native_library(precision)
        assert library is not None  # `native_backbone` asked
        self._library = library
        self._panel = int(library.koch_panel())
        self._half = precision == "bf16"
        self._kept: list[Any] = []  # what the C structures point to
        self._layers: list[_Layer] = []
        self._scratch_size = 0
        self._threads = threads
        self._count = len(maps)
        self._build(network, maps, height, width)
        self._finish()

    def __call__(self, pictures: Sequence[NDArray[Any]]) -> Array:
        """Return features (N, h, w, C) of N pictures (H, W, 3), uint8 or float32 in 0..255."""
        for place, picture in zip(self._pictures, pictures, strict=True):
            np.copyto(place, picture)
        self._library.koch_run(ctypes.byref(self._program))
        found = self._out.inside
        return widened(found) if self._half else found

    # -- building -------------------------------------------------------------------------------

    def _build(
        self, network: ResNet, maps: Sequence[Affine | None], height: int, width: int
    ) -> None:
        raw = self._plane(height, width, 3, 0, np.float32)
        self._pictures = raw.inside
        scaled = self._plane(height, width, 3, 3)
        ones, zeros = torch.ones(3, 1, 1), torch.zeros(3, 1, 1)
        scales = [(each.scale if each else ones).numpy().reshape(3) / 255.0 for each in maps]
        shifts = [(each.shift if each else zeros).numpy().reshape(3) for each in maps]
        self._add(_PICTURE, raw, scaled, bias=np.stack(shifts), scale=np.stack(scales))
        x = self._convolution(network.conv1, scaled, relu=True)
        pooled = self._plane((x.map.height + 1) // 2, (x.map.width + 1) // 2, 64, 1)
        self._add(_POOL, x, pooled)
        x = pooled
        for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
            for block in stage:
                assert isinstance(block, BasicBlock)  # `native_backbone` asked
                middle = self._convolution(block.conv1, x, relu=True)
                if block.downsample is not None:
                    first = block.downsample[0]
                    assert isinstance(first, nn.Conv2d)
                    x = self._convolution(first, x, relu=False)
                self._convolution(block.conv2, middle, relu=True, onto=x)
        self._out = x

    def _convolution(
        self, layer: nn.Conv2d, source: _Plane, *, relu: bool, onto: _Plane | None = None
    ) -> _Plane:
        """Add a convolution; `onto` is added to its result and then replaced by it."""
        side, stride, pad = layer.kernel_size[0], layer.stride[0], int(layer.padding[0])
        weight, bias = layer.weight.detach().numpy(), layer.bias
        assert bias is not None  # of the folded norm
        if onto is None:
            high, wide = (
                (length + 2 * pad - side) // stride + 1
                for length in (source.map.height, source.map.width)
            )
            target = self._plane(high, wide, layer.out_channels, 1)
        else:
            target = onto
        if (side, stride, pad) == (3, 1, 1):
            packed = winograd_weight(weight, self._panel)
            size = _PATCH**2 * _MOST_TILES * (layer.in_channels + layer.out_channels)
            self._scratch_size = max(self._scratch_size, size)
            kind = _WINOGRAD
        else:
            packed, kind = direct_weight(weight, self._panel), _DIRECT
        self._add(
            kind, source, target, (side, stride, pad, int(relu)), residual=onto,
            weight=paired(packed) if self._half else packed, bias=bias.detach().numpy(),
        )  # fmt: skip
        return target

    def _add(
        self, kind: int, source: _Plane, target: _Plane, numbers: Sequence[int] = (), *,
        residual: _Plane | None = None, weight: NDArray[Any] | None = None,
        bias: Array | None = None, scale: Array | None = None,
    ) -> None:  # fmt: skip
        def pointer(values: NDArray[Any] | None) -> int | None:
            if values is None:
                return None
            own = _aligned(values.shape, values.dtype)
            own[...] = values
            self._kept.append(own)
            return int(own.ctypes.data)

        planes = (ctypes.addressof(each.map) if each else None
                  for each in (source, target, residual))  # fmt: skip
        arrays = (pointer(each) for each in (weight, bias, scale))
        self._layers.append(_Layer(kind, *planes, *arrays, *numbers))

    def _plane(
        self, height: int, width: int, channels: int, border: int, dtype: Any = None
    ) -> _Plane:
        """Make a map; with a border, so large that whole tiles can be read."""
        rows, columns = height, width
        if border:
            rows, columns = (-(-side // _TILE) * _TILE + 2 * border for side in (height, width))
        kind = dtype or (np.uint16 if self._half else np.float32)
        data = _aligned((self._count, rows, columns, channels), kind)
        plane = _Plane(data, _Map(
            data.ctypes.data, self._count, height, width, channels, border, rows, columns,
        ))  # fmt: skip
        self._kept.append(plane)
        return plane

    def _finish(self) -> None:
        count = len(self._layers)
        layers = (_Layer * count)(*self._layers)
        scratch = _aligned((self._threads, self._scratch_size))
        taken = np.zeros(count, np.dtype(ctypes.c_long))
        self._kept += [layers, scratch, taken]
        self._program = _Program(
            ctypes.addressof(layers), count, self._threads, self._scratch_size,
            scratch.ctypes.data, taken.ctypes.data, 0,
        )  # fmt: skip


def _aligned(shape: Sequence[int], dtype: Any = np.float32) -> NDArray[Any]:
    """Return zeros that begin on a cache line."""
    kind = np.dtype(dtype)
    size = int(np.prod(shape)) * kind.itemsize
    raw = np.zeros(size + 64, np.uint8)
    skip = -raw.ctypes.data % 64
    values: NDArray[Any] = raw[skip : skip + size].view(kind)
    return values.reshape(shape)
