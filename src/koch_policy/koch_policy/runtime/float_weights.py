# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Weights of convolutions as `resnet.c` takes them, in float32 or bfloat16.

Winograd's transformation of a kernel: see `winograd.h` for the points and why.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

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

Array = NDArray[np.float32]


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


def widened(values: NDArray[np.uint16]) -> Array:
    """Return bfloat16 values as float32."""
    return (values.astype(np.uint32) << 16).view(np.float32)
