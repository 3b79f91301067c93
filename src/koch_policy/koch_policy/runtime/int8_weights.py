# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Weights of 8 bits, and a ResNet's first convolution for pictures as cameras give them: bytes.

A picture of bytes has no more than 8 bits, so that only the weights are rounded (symmetric, per
output channel). Its scaling goes into them:

    sum w (s x + t) = scale (sum q x + sum q t / s),  q = round(w s / scale)

Around the picture the network sees zeros, which are the bytes -t / s there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from koch_policy.normalize import Affine

Array = NDArray[np.float32]

_LARGEST, _BYTE_ZERO = 127, 128
_NOTHING = object()


def rounded_weight(weight: NDArray[Any]) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    """Return a kernel (K, C, h, w) in int8, and what one step of each output's is worth, (K,)."""
    scale = np.maximum(np.abs(weight).max(axis=(1, 2, 3)) / _LARGEST, 1e-30)
    return np.rint(weight / scale[:, None, None, None]).astype(np.int8), scale


def packed_weight(rounded: NDArray[np.int8], panel: int) -> NDArray[np.int8]:
    """Return (K / panel, h, ceil(C w / 4), panel, 4) of a kernel (K, C, h, w)."""
    outputs, channels, high, wide = rounded.shape
    run = -(-wide * channels // 4)
    rows = np.zeros((outputs, high, run * 4), np.int8)
    rows[..., : wide * channels] = rounded.transpose(0, 2, 3, 1).reshape(outputs, high, -1)
    split = rows.reshape(outputs // panel, panel, high, run, 4)
    return np.ascontiguousarray(split.transpose(0, 2, 3, 1, 4))


def winograd_bytes(transformed: Array) -> NDArray[np.uint8]:
    """Return Winograd's weights in 8 bits, as `winograd.h` takes them.

    Args:
        transformed: (36, K / panel, C, panel), C a multiple of 4.

    Returns:
        (36, K / panel, bytes): int8 (C / 4, panel, 4), then int32 (panel,), what the inputs' 128
        for zero adds to each sum, negative, then float32 (panel,), what one step is worth.
    """
    scale = np.maximum(np.abs(transformed).max(axis=2) / _LARGEST, np.float32(1e-30))
    rounded = np.rint(transformed / scale[:, :, None]).astype(np.int8)
    offset = -_BYTE_ZERO * rounded.sum(axis=2, dtype=np.int32)
    frequencies, panels, inputs, panel = rounded.shape
    fours = rounded.reshape(frequencies, panels, inputs // 4, 4, panel).swapaxes(-1, -2)
    parts = (fours, offset.astype(np.int32), scale.astype(np.float32))
    flat = [
        np.ascontiguousarray(part).reshape(frequencies, panels, -1).view(np.uint8)
        for part in parts
    ]
    return np.concatenate(flat, axis=2)


class ByteStem:
    """Weights of the first convolution for each picture of a batch.

    Args:
        weight: (K, 3, h, w).
        bias: (K,), or None.
        count: How many pictures at most.
        panel: Output channels that lie side by side; divides K.

    Attributes:
        packed: int8 (count, K / panel, h, ceil(3 w / 4), panel, 4).
        scale, bias: Of the sums, (count, K).
    """

    def __init__(self, weight: Array, bias: Array | None, count: int, panel: int) -> None:
        outputs, channels, high, wide = weight.shape
        self._weight = weight.astype(np.float64)
        self._own_bias = np.zeros(outputs) if bias is None else bias.astype(np.float64)
        self._used: list[object] = [_NOTHING] * count
        self._panel = panel
        run = -(-wide * channels // 4)
        self.packed = np.zeros((count, outputs // panel, high, run, panel, 4), np.int8)
        self.scale = np.zeros((count, outputs), np.float32)
        self.bias = np.zeros((count, outputs), np.float32)

    @staticmethod
    def takes(maps: Sequence[Affine | None]) -> bool:
        """Tell whether zeros around pictures that are scaled so are bytes."""
        return all(
            (around >= -0.5).all() and (around <= 255.5).all()
            for around in (_around(*_numbers(each)) for each in maps)
        )

    def use(self, index: int, affine: Affine | None) -> NDArray[np.uint8] | None:
        """Prepare for a picture at a place of the batch.

        Args:
            index: Its place.
            affine: Scaling of its values in 0..1; None leaves them.

        Returns:
            The bytes (3,) to put around it; None where this place had the same scaling before.
        """
        if self._used[index] is affine:
            return None
        self._used[index] = affine
        factor, shift = _numbers(affine)
        rounded, scale = rounded_weight(self._weight * factor[:, None, None])
        # q scale stands for w s, so that bytes around the picture add nothing
        offset = np.einsum("kchw,c->k", rounded.astype(np.float64), shift / factor) * scale
        self.scale[index] = scale
        self.bias[index] = self._own_bias + offset
        self.packed[index] = packed_weight(rounded, self._panel)
        return np.rint(_around(factor, shift)).astype(np.uint8)


def _numbers(affine: Affine | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return factor and shift (3,) for bytes."""
    if affine is None:
        return np.full(3, 1 / 255), np.zeros(3)
    both = (affine.scale, affine.shift)
    scale, shift = (each.numpy().reshape(3).astype(np.float64) for each in both)
    return scale / 255, shift


def _around(factor: NDArray[Any], shift: NDArray[Any]) -> NDArray[np.float64]:
    """Return what the network sees as zero, (3,)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(-shift / factor)
