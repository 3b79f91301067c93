# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Weights of convolutions as the kernels take them, in float32, bfloat16 or 8 bits.

They lie by panels of output channels, so that one product reads them from front to back.
Winograd's transformation of a kernel: see `winograd.h` for the points and why.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from koch_fastconv.layers import Array

_ROOT, _P, _Q = 2**0.5, 0.4, 1.25
_NEAR, _FAR = 2 * _P * (_P**2 - _Q**2), 2 * _Q * (_Q**2 - _P**2)
_FORWARD = {
    1: np.array(
        [
            [1, 0, 0],
            [-2 / 3, -_ROOT / 3, -1 / 3],
            [-2 / 3, _ROOT / 3, -1 / 3],
            [1 / 6, _ROOT / 6, 1 / 3],
            [1 / 6, -_ROOT / 6, 1 / 3],
            [0, 0, 1],
        ]
    ),
    2: np.array(
        [
            [1 / _NEAR, 0, _P / _NEAR],
            [-1 / _NEAR, 0, _P / _NEAR],
            [1 / _FAR, 0, _Q / _FAR],
            [-1 / _FAR, 0, _Q / _FAR],
            [0, 0, 1],
            [0, 1, 0],
        ]
    ),
}  # by stride
_LARGEST, _BYTE_ZERO = 127, 128  # as winograd.h has them


def winograd_weight(weight: Array, panel: int, stride: int) -> Array:
    """Return (36, K / panel, C, panel) of a kernel (K, C, 3, 3)."""
    outputs, inputs = weight.shape[:2]
    flat = weight.astype(np.float64).transpose(2, 3, 1, 0).reshape(9, -1)  # (9, C K)
    wide = np.kron(_FORWARD[stride], _FORWARD[stride]) @ flat  # (36, C K)
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


def rounded_weight(weight: NDArray[Any]) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    """Return a kernel (K, C, h, w) in int8, and what one step of each output's is worth, (K,)."""
    scale = np.maximum(np.abs(weight).max(axis=(1, 2, 3)) / _LARGEST, 1e-30)
    return np.rint(weight / scale[:, None, None, None]).astype(np.int8), scale


def packed_bytes(rounded: NDArray[np.int8], panel: int) -> NDArray[np.int8]:
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
