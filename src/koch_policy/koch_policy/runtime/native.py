# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""ResNet-18 and -34 on a CPU in float32 or bfloat16, by `resnet.c`: Winograd's convolutions.

A 3x3 convolution takes a quarter of the multiplications there, about half with stride 2, which
neither OpenVINO nor oneDNN offers. Batch norms are folded into the convolutions; group norms are
computed.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from koch_policy.models.resnet import BasicBlock
from koch_policy.normalize import Affine
from koch_policy.runtime.float_weights import direct_weight, paired, winograd_weight
from koch_policy.runtime.int8_weights import (
    ByteStem,
    packed_weight,
    rounded_weight,
    winograd_bytes,
)
from koch_policy.runtime.native_library import (
    LayerDescription,
    MapDescription,
    Program,
    native_library,
)

# As in the C file, like all below.
(
    _PICTURE, _DIRECT, _WINOGRAD, _POOL, _MOMENTS, _NORMALISE, _BYTES, _PEAK, _QUANTISE,
    _WINOGRAD_BYTES,
) = range(10)  # fmt: skip
_TILE = 4
_MOST_TILES, _PATCH = {1: 24, 2: 12}, {1: 6, 2: 9}  # by stride
_IN_GROUP, _EPSILON = 16, 1e-5
_FIRST_STAGE, _STAGES = 4, 4  # of `ResNet.as_sequential`

Array = NDArray[np.float32]


class _Plane(NamedTuple):
    """A map (N, rows, columns, C) with its border of zeros, and its description for C.

    One of bytes has `peaks`, (N, rows): the largest number of each row that they were made of.
    """

    data: NDArray[Any]
    map: MapDescription
    peaks: NDArray[np.float64] | None = None

    @property
    def inside(self) -> NDArray[Any]:
        """The values without the border, (N, H, W, C)."""
        edge, high, wide = self.map.border, self.map.height, self.map.width
        return self.data[:, edge : edge + high, edge : edge + wide]


def can_run(network: nn.Sequential) -> bool:
    """Tell whether `NativeResNet` knows every layer of a network with folded batch norms."""
    norms: list[nn.Module] = [network[1]]
    for block in _blocks(network):
        if not isinstance(block, BasicBlock):
            return False
        norms += [block.bn1, block.bn2]
        if block.downsample is not None:
            norms.append(block.downsample[1])
    return all(
        isinstance(norm, nn.Identity)
        or (
            isinstance(norm, nn.GroupNorm)
            and norm.num_channels == norm.num_groups * _IN_GROUP
            and norm.eps == _EPSILON
        )
        for norm in norms
    )


def _blocks(network: nn.Sequential) -> list[nn.Module]:
    return [block for stage in list(network)[_FIRST_STAGE:] for block in stage.children()]


class NativeResNet:
    """A ResNet of basic blocks for pictures of one size, several at once.

    Args:
        network: As `ResNet.as_sequential` returns it, with batch norms folded; `can_run` it.
        count: How many pictures at most.
        height, width: Of each picture.
        precision: "f32" or "bf16"; `native_library` has it.
        threads: How many to compute with.
        stages: Stop after so many of the four stages; with 0, after the pooling.
        int8: Round what is multiplied to 8 bits, in Winograd's convolutions once transformed,
            by the first one only if pictures are bytes; with "bf16", where processors gain by it.

    Attributes:
        count: As given.
    """

    def __init__(
        self,
        network: nn.Sequential,
        count: int,
        height: int,
        width: int,
        precision: str,
        threads: int,
        stages: int = _STAGES,
        *,
        int8: bool = False,
    ) -> None:
        library = native_library(precision)
        assert library is not None  # the caller asked
        self._library = library
        self._panel = int(library.koch_panel())
        self._half = precision == "bf16"
        self._kept: list[Any] = []  # what the C structures point to
        self._spare: dict[tuple[int, int, int, int, str], list[_Plane]] = {}
        self._layers: list[LayerDescription] = []
        self._scratch_size = 0
        self._threads = threads
        self.count = count
        self._scale, self._shift = (self._keep(np.zeros((count, 3), np.float32)) for _ in "ab")
        self._int8 = int8 and bool(library.koch_has_bytes())
        self._build(nn.Sequential(*list(network)[: _FIRST_STAGE + stages]), height, width)
        self._program = self._assembled(self._layers)
        self._first = LayerDescription.from_address(self._program.layers)
        self._stem: ByteStem | None = None
        if self._int8:
            self._add_stem(network[0], height, width)

    def __call__(
        self, pictures: Sequence[NDArray[Any]], maps: Sequence[Affine | None]
    ) -> NDArray[Any]:
        """Return features (N, h, w, C) of pictures; bfloat16 ones as uint16.

        Args:
            pictures: N, at most `count`, of (H, W, 3), uint8 or float32 in 0..255.
            maps: Scaling of each one's values in 0..1; None leaves them.
        """
        program = self._program
        if self._stem and ByteStem.takes(maps) and all(p.dtype == np.uint8 for p in pictures):
            program = self._byte_program
            for index, (picture, affine) in enumerate(zip(pictures, maps, strict=True)):
                around = self._stem.use(index, affine)
                if around is not None:
                    self._bytes.data[index] = around
                np.copyto(self._bytes.inside[index], picture)
        else:
            self._take(pictures, maps)
        program.images = len(pictures)
        self._library.koch_run(ctypes.byref(program))
        return self._out.inside[: len(pictures)]

    def _take(self, pictures: Sequence[NDArray[Any]], maps: Sequence[Affine | None]) -> None:
        are_bytes = all(picture.dtype == np.uint8 for picture in pictures)
        raw = self._raw[are_bytes]
        self._first.input, self._first.side = ctypes.addressof(raw.map), are_bytes
        for index, (picture, affine) in enumerate(zip(pictures, maps, strict=True)):
            np.copyto(raw.data[index], picture)
            scale = 1.0 if affine is None else affine.scale.numpy().reshape(3)
            self._scale[index] = scale / np.float32(255.0)
            self._shift[index] = 0.0 if affine is None else affine.shift.numpy().reshape(3)

    # -- building -------------------------------------------------------------------------------

    def _build(self, network: nn.Sequential, height: int, width: int) -> None:
        self._raw = [self._plane(height, width, 3, 0, kind) for kind in (np.float32, np.uint8)]
        scaled = self._plane(height, width, 3, 3)
        self._add(_PICTURE, self._raw[0], scaled, bias=self._shift, scale=self._scale)
        x = self._plane((height + 3) // 4, (width + 3) // 4, 64, 1)
        if isinstance(network[1], nn.GroupNorm):
            self._add(_POOL, self._normed(network[0], network[1], scaled, relu=True), x)
        else:
            self._scratch_size = 3 * ((width + 1) // 2 + 2) * 64
            self._convolution(network[0], scaled, relu=True, onto=x, pooled=True)
        for block in _blocks(network):
            assert isinstance(block, BasicBlock)  # `can_run` said so
            source = x
            if block.downsample is not None and self._int8:
                source = self._quantised(x)
            middle = self._normed(block.conv1, block.bn1, source, relu=True)
            if block.downsample is not None:
                x = self._normed(block.downsample[0], block.downsample[1], source, relu=False)
            self._normed(block.conv2, block.bn2, middle, relu=True, onto=x)
            self._give_back(middle)
        self._out = x

    def _add_stem(self, conv: nn.Module, height: int, width: int) -> None:
        """Add a second way into the network, for bytes: one layer in place of the first two."""
        assert isinstance(conv, nn.Conv2d)  # by the network's layout
        bias = None if conv.bias is None else conv.bias.detach().numpy()
        self._stem = ByteStem(conv.weight.detach().numpy(), bias, self.count, self._panel)
        self._bytes = self._plane(height, width, 3, int(conv.padding[0]), np.uint8)
        first = self._layers[1]
        self._byte_program = self._assembled([
            LayerDescription(
                _BYTES, ctypes.addressof(self._bytes.map), first.output, None,
                self._stem.packed.ctypes.data, self._stem.bias.ctypes.data,
                self._stem.scale.ctypes.data, None,
                first.side, first.stride, first.pad, first.relu, first.pooled,
            ),
            *self._layers[2:],
        ])  # fmt: skip

    def _normed(
        self, conv: nn.Module, norm: nn.Module, source: _Plane, *, relu: bool,
        onto: _Plane | None = None,
    ) -> _Plane:  # fmt: skip
        """Add a convolution and its norm; `onto` is added to the result, then replaced by it."""
        if not isinstance(norm, nn.GroupNorm):
            return self._convolution(conv, source, relu=relu, onto=onto)
        x = self._convolution(conv, source, relu=False)
        target = x if onto is None else onto
        groups = (self.count, x.map.height, norm.num_groups, 2)
        sums = self._keep(np.zeros(groups, np.float64))
        self._add(_MOMENTS, x, x, moments=sums)
        self._add(
            _NORMALISE, x, target, (0, 0, 0, int(relu)), residual=onto, moments=sums,
            scale=self._keep(norm.weight.detach().numpy()),
            bias=self._keep(norm.bias.detach().numpy()),
        )  # fmt: skip
        if target is not x:
            self._give_back(x)
        return target

    def _quantised(self, source: _Plane) -> _Plane:
        """Add what makes bytes of a map without negative numbers, its largest 255."""
        one = source.map
        peaks = self._keep(np.zeros((self.count, one.height), np.float64))
        self._add(_PEAK, source, source, moments=peaks)
        plane = self._plane(one.height, one.width, one.channels, one.border, np.uint8)
        plane = plane._replace(peaks=peaks)
        self._add(_QUANTISE, source, plane, moments=peaks)
        return plane

    def _convolution(
        self, layer: nn.Module, source: _Plane, *, relu: bool, onto: _Plane | None = None,
        pooled: bool = False,
    ) -> _Plane:  # fmt: skip
        """Add a convolution; what is pooled goes `onto` a map, else that is added to it."""
        assert isinstance(layer, nn.Conv2d)  # by the network's layout
        side, stride, pad = layer.kernel_size[0], layer.stride[0], int(layer.padding[0])
        weight = layer.weight.detach().numpy()
        bias = torch.zeros(layer.out_channels) if layer.bias is None else layer.bias.detach()
        target = onto
        if target is None:
            high, wide = (
                (length + 2 * pad - side) // stride + 1
                for length in (source.map.height, source.map.width)
            )
            target = self._plane(high, wide, layer.out_channels, 1)
        scale = None
        packed: NDArray[Any]
        if source.peaks is not None:
            kind = _BYTES
            rounded_ones, steps = rounded_weight(weight)
            packed = packed_weight(rounded_ones, self._panel)
            scale = self._keep(steps.astype(np.float32))
        else:
            kind = _WINOGRAD if (side, pad) == (3, 1) else _DIRECT
            if kind == _WINOGRAD:
                packed = winograd_weight(weight, self._panel, stride)
                tiles = _PATCH[stride] ** 2 * _MOST_TILES[stride]
                size = tiles * (layer.in_channels + layer.out_channels)
                self._scratch_size = max(self._scratch_size, size)
            else:
                packed = direct_weight(weight, self._panel)
            if self._int8 and kind == _WINOGRAD:
                kind, packed = _WINOGRAD_BYTES, winograd_bytes(packed)
            elif self._half:
                packed = paired(packed)
        self._add(
            kind, source, target, (side, stride, pad, int(relu), int(pooled)),
            residual=None if pooled else onto, weight=self._keep(packed),
            bias=self._keep(bias.numpy()), scale=scale, moments=source.peaks,
        )  # fmt: skip
        return target

    def _add(
        self, kind: int, source: _Plane, target: _Plane, numbers: Sequence[int] = (), *,
        residual: _Plane | None = None, weight: NDArray[Any] | None = None,
        bias: Array | None = None, scale: Array | None = None,
        moments: NDArray[np.float64] | None = None,
    ) -> None:  # fmt: skip
        planes = (ctypes.addressof(each.map) if each else None
                  for each in (source, target, residual))  # fmt: skip
        arrays = (None if each is None else int(each.ctypes.data)
                  for each in (weight, bias, scale, moments))  # fmt: skip
        self._layers.append(LayerDescription(kind, *planes, *arrays, *numbers))

    def _keep(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return an aligned copy that lives as long as this object."""
        own = _aligned(values.shape, values.dtype)
        own[...] = values
        self._kept.append(own)
        return own

    def _plane(
        self, height: int, width: int, channels: int, border: int, dtype: Any = None
    ) -> _Plane:
        """Return a map; with a border, so large that whole tiles can be read."""
        kind = np.dtype(dtype or (np.uint16 if self._half else np.float32))
        spare = self._spare.get((height, width, channels, border, kind.str))
        if spare:
            return spare.pop()
        rows, columns = height, width
        if border:
            rows, columns = (
                -(-side // _TILE // 2) * _TILE * 2 + 2 * border for side in (height, width)
            )
        data = _aligned((self.count, rows, columns, channels), kind)
        plane = _Plane(data, MapDescription(
            data.ctypes.data, height, width, channels, border, rows, columns,
        ))  # fmt: skip
        self._kept.append(plane)
        return plane

    def _give_back(self, plane: _Plane) -> None:
        """Let later layers use a map that no layer reads any more: it is in the cache still."""
        one = plane.map
        key = (one.height, one.width, one.channels, one.border, plane.data.dtype.str)
        self._spare.setdefault(key, []).append(plane)

    def _assembled(self, described: Sequence[LayerDescription]) -> Program:
        count = len(described)
        layers = (LayerDescription * count)(*described)
        scratch = _aligned((self._threads, self._scratch_size))
        taken = np.zeros(count, np.dtype(ctypes.c_long))
        self._kept += [layers, scratch, taken]
        return Program(
            ctypes.addressof(layers), count, 0, self._threads, self._scratch_size,
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
