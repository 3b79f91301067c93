# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A ResNet as a list of layers for the kernels, with the maps between them.

By Winograd's way a 3x3 convolution takes a quarter of the multiplications, about half with
stride 2. Neither OpenVINO nor oneDNN offers that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from koch_fastconv.byte_stem import ByteStem
from koch_fastconv.layers import Array, Block, Convolution, GroupNorm, Scaling
from koch_fastconv.library import Library
from koch_fastconv.weights import (
    direct_weight,
    packed_bytes,
    paired,
    rounded_weight,
    winograd_bytes,
    winograd_weight,
)

# As winograd.h has them, by stride; what they are for is told there.
_TILE = 4
_MOST_TILES, _PATCH = {1: 24, 2: 12}, {1: 6, 2: 9}


class _Plane(NamedTuple):
    """A map (N, rows, columns, C) with its border of zeros, and its description for C.

    One of bytes has `peaks`, (N, rows): the largest number of each row that they were made of.
    """

    data: NDArray[Any]
    map: Any
    peaks: NDArray[np.float64] | None = None

    @property
    def inside(self) -> NDArray[Any]:
        """The values without the border, (N, H, W, C)."""
        edge, high, wide = self.map.border, self.map.height, self.map.width
        return self.data[:, edge : edge + high, edge : edge + wide]


class FastResNet:
    """A ResNet of basic blocks for images of one size; see `FastConv.resnet` for the arguments.

    Attributes:
        count: How many images at most.
    """

    def __init__(
        self,
        library: Library,
        kernels: Any,
        stem: Convolution,
        blocks: Sequence[Block],
        count: int,
        height: int,
        width: int,
        threads: int,
        *,
        int8: bool,
    ) -> None:
        self._ffi, self._lib, _ = library
        self._kernels = kernels
        self._panel = int(kernels.panel)
        self._half = kernels.precision == self._lib.PRECISION_BF16
        self._int8 = int8
        self._kept: list[Any] = []  # what the C structures point to
        self._spare: dict[tuple[int, int, int, int, str], list[_Plane]] = {}
        self._layers: list[dict[str, Any]] = []
        self._scratch_size = 0
        self.count = count
        self._scale, self._shift = (self._keep(np.zeros((count, 3), np.float32)) for _ in "ab")
        self._build(stem, blocks, height, width)
        self._scratch = self._keep(np.zeros((threads, self._scratch_size), np.float32))
        # Three ways in, which share all layers but the first ones.
        self._raw = {
            kind: self._plane(height, width, 3, 0, kind) for kind in (np.float32, np.uint8)
        }
        self._of_floats = self._program(self._scaling("SCALE_FLOATS", np.float32), self._layers)
        self._of_bytes = self._program(self._scaling("SCALE_BYTES", np.uint8), self._layers)
        if self._int8:
            self._stem = ByteStem(stem, count, self._panel)
            self._stem_in = self._plane(height, width, 3, stem.pad, np.uint8)
            self._of_stem = self._program(self._stem_of_bytes(), self._layers[1:])

    def __call__(
        self, images: Sequence[NDArray[Any]], scalings: Sequence[Scaling | None]
    ) -> NDArray[Any]:
        """Return features (N, h, w, C) of images; bfloat16 ones as uint16.

        Args:
            images: N, at most `count`, of (H, W, 3), uint8 or float32 in 0..255.
            scalings: Of each one's values in 0..1; None leaves them.
        """
        are_bytes = all(image.dtype == np.uint8 for image in images)
        if self._int8 and are_bytes and ByteStem.takes(scalings):
            program = self._of_stem
            for index, (image, scaling) in enumerate(zip(images, scalings, strict=True)):
                around = self._stem.use(index, scaling)
                if around is not None:
                    self._stem_in.data[index] = around
                np.copyto(self._stem_in.inside[index], image)
        else:
            program = self._of_bytes if are_bytes else self._of_floats
            raw = self._raw[np.uint8 if are_bytes else np.float32]
            for index, (image, scaling) in enumerate(zip(images, scalings, strict=True)):
                np.copyto(raw.data[index], image)
                scale = 1.0 if scaling is None else scaling.scale
                self._scale[index] = scale / np.float32(255.0)
                self._shift[index] = 0.0 if scaling is None else scaling.shift
        program.images = len(images)
        self._kernels.run(program)  # cffi lets other threads of Python run meanwhile
        return self._out.inside[: len(images)]

    # -- building -------------------------------------------------------------------------------

    def _build(self, stem: Convolution, blocks: Sequence[Block], height: int, width: int) -> None:
        """Add everything behind the scaling of the images."""
        self._scaled = self._plane(height, width, 3, 3)
        x = self._plane((height + 3) // 4, (width + 3) // 4, 64, 1)
        if stem.norm is not None:
            self._add("POOL", self._normed(stem, self._scaled, relu=True), x)
        else:
            self._scratch_size = 3 * ((width + 1) // 2 + 2) * 64
            self._convolution(stem, self._scaled, relu=True, onto=x, pooled=True)
        for block in blocks:
            source = x
            if block.shortcut is not None and self._int8:
                source = self._quantised(x)
            middle = self._normed(block.first, source, relu=True)
            if block.shortcut is not None:
                x = self._normed(block.shortcut, source, relu=False)
            self._normed(block.second, middle, relu=True, onto=x)
            self._give_back(middle)
        self._out = x

    def _scaling(self, kind: str, dtype: Any) -> dict[str, Any]:
        return self._layer(
            kind, self._raw[dtype], self._scaled, bias=self._shift, scale=self._scale
        )

    def _stem_of_bytes(self) -> dict[str, Any]:
        """One layer for bytes in place of the first two, with weights for each image."""
        stem = self._stem
        arrays = {"weight": stem.packed, "bias": stem.bias, "scale": stem.scale}
        pointers = {name: self._pointer(name, values) for name, values in arrays.items()}
        kind = {"kind": self._lib.BYTES, "in": self._stem_in.map}
        return {**self._layers[0], **kind, **pointers}

    def _normed(
        self, layer: Convolution, source: _Plane, *, relu: bool, onto: _Plane | None = None
    ) -> _Plane:
        """Add a convolution and its norm; `onto` is added to the result, then replaced by it."""
        norm = layer.norm
        if norm is None:
            return self._convolution(layer, source, relu=relu, onto=onto)
        x = self._convolution(layer, source, relu=False)
        target = x if onto is None else onto
        self._add_norm(norm, x, target, relu=relu, residual=onto)
        if target is not x:
            self._give_back(x)
        return target

    def _add_norm(
        self, norm: GroupNorm, source: _Plane, target: _Plane, *, relu: bool,
        residual: _Plane | None,
    ) -> None:  # fmt: skip
        groups = len(norm.weight) // norm.channels_of_group
        sums = self._keep(np.zeros((self.count, source.map.height, groups, 2), np.float64))
        self._add("GROUP_SUMS", source, source, row_values=sums)
        self._add(
            "GROUP_NORMALISE", source, target, residual=residual, row_values=sums,
            scale=self._keep(norm.weight), bias=self._keep(norm.bias), relu=int(relu),
        )  # fmt: skip

    def _quantised(self, source: _Plane) -> _Plane:
        """Add what makes bytes of a map without negative numbers, its largest 255."""
        one = source.map
        peaks = self._keep(np.zeros((self.count, one.height), np.float64))
        self._add("ROW_PEAKS", source, source, row_values=peaks)
        plane = self._plane(one.height, one.width, one.channels, one.border, np.uint8)
        plane = plane._replace(peaks=peaks)
        self._add("QUANTISE", source, plane, row_values=peaks)
        return plane

    def _convolution(
        self, layer: Convolution, source: _Plane, *, relu: bool, onto: _Plane | None = None,
        pooled: bool = False,
    ) -> _Plane:  # fmt: skip
        """Add a convolution; what is pooled goes `onto` a map, else that is added to it."""
        outputs, inputs = layer.weight.shape[:2]
        bias = np.zeros(outputs, np.float32) if layer.bias is None else layer.bias
        target = onto
        if target is None:
            high, wide = (
                (length + 2 * layer.pad - layer.side) // layer.stride + 1
                for length in (source.map.height, source.map.width)
            )
            target = self._plane(high, wide, outputs, 1)
        kind, packed, scale = self._packed(layer, of_bytes=source.peaks is not None)
        if kind.startswith("WINOGRAD"):
            tiles = _PATCH[layer.stride] ** 2 * _MOST_TILES[layer.stride]
            self._scratch_size = max(self._scratch_size, tiles * (inputs + outputs))
        self._add(
            kind, source, target, residual=None if pooled else onto,
            weight=self._keep(packed), bias=self._keep(bias),
            scale=None if scale is None else self._keep(scale), row_values=source.peaks,
            side=layer.side, stride=layer.stride, pad=layer.pad, relu=int(relu),
            pooled=int(pooled),
        )  # fmt: skip
        return target

    def _packed(
        self, layer: Convolution, *, of_bytes: bool
    ) -> tuple[str, NDArray[Any], Array | None]:
        """Return the kernel of a convolution, its weights, and their scale where they have one."""
        if of_bytes:
            rounded, steps = rounded_weight(layer.weight)
            return "BYTES", packed_bytes(rounded, self._panel), steps.astype(np.float32)
        if (layer.side, layer.pad) != (3, 1):
            packed = direct_weight(layer.weight, self._panel)
            return "DIRECT", paired(packed) if self._half else packed, None
        packed = winograd_weight(layer.weight, self._panel, layer.stride)
        if self._int8:
            return "WINOGRAD_BYTES", winograd_bytes(packed), None
        return "WINOGRAD", paired(packed) if self._half else packed, None

    # -- C structures ---------------------------------------------------------------------------

    def _add(self, kind: str, source: _Plane, target: _Plane, **fields: Any) -> None:
        self._layers.append(self._layer(kind, source, target, **fields))

    def _layer(self, kind: str, source: _Plane, target: _Plane, **fields: Any) -> dict[str, Any]:
        """Return the fields of a `Layer`, arrays and maps as pointers; None is left out."""
        layer = {"kind": getattr(self._lib, kind), "in": source.map, "out": target.map}
        for name, value in fields.items():
            if isinstance(value, _Plane):
                layer[name] = value.map
            elif isinstance(value, np.ndarray):
                layer[name] = self._pointer(name, value)
            elif value is not None:
                layer[name] = value
        return layer

    def _pointer(self, field: str, values: NDArray[Any]) -> Any:
        kinds = {"weight": "void *", "row_values": "double *", "data": "void *", "taken": "long *"}
        return self._ffi.cast(kinds.get(field, "float *"), values.ctypes.data)

    def _program(self, first: dict[str, Any], others: Sequence[dict[str, Any]]) -> Any:
        """Return a `Program` of some layers."""
        count = 1 + len(others)
        layers = self._ffi.new("Layer[]", [first, *others])
        taken = self._keep(np.zeros(count, np.dtype("l")))
        program = self._ffi.new("Program *", {
            "layers": layers, "count": count, "threads": len(self._scratch),
            "scratch_size": self._scratch_size,
            "scratch": self._pointer("scratch", self._scratch),
            "taken": self._pointer("taken", taken),
        })  # fmt: skip
        self._kept.append(layers)
        return program

    # -- memory ---------------------------------------------------------------------------------

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
        plane = _Plane(data, self._ffi.new("Map *", {
            "data": self._pointer("data", data), "height": height, "width": width,
            "channels": channels, "border": border, "rows": rows, "columns": columns,
        }))  # fmt: skip
        self._kept.append(plane)
        return plane

    def _give_back(self, plane: _Plane) -> None:
        """Let later layers use a map that no layer reads any more: it is in the cache still."""
        one = plane.map
        key = (one.height, one.width, one.channels, one.border, plane.data.dtype.str)
        self._spare.setdefault(key, []).append(plane)


def _aligned(shape: Sequence[int], dtype: Any) -> NDArray[Any]:
    """Return zeros that begin on a cache line."""
    kind = np.dtype(dtype)
    size = int(np.prod(shape)) * kind.itemsize
    raw = np.zeros(size + 64, np.uint8)
    skip = -raw.ctypes.data % 64
    values: NDArray[Any] = raw[skip : skip + size].view(kind)
    return values.reshape(shape)
