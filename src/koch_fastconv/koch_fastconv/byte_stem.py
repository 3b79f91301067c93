# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A ResNet's first convolution for images as cameras give them: bytes.

An image of bytes has no more than 8 bits, so that only the weights are rounded (symmetric, per
output channel). Its scaling goes into them:

    sum w (s x + t) = scale (sum q x + sum q t / s),  q = round(w s / scale)

Around the image the network sees zeros, which are the bytes -t / s there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from koch_fastconv.layers import Convolution, Scaling
from koch_fastconv.weights import packed_bytes, rounded_weight

_NOTHING = object()


class ByteStem:
    """Weights of the first convolution for each image of a batch.

    Args:
        stem: The convolution; weight (K, 3, h, w).
        count: How many images at most.
        panel: Output channels that lie side by side; divides K.

    Attributes:
        packed: int8 (count, K / panel, h, ceil(3 w / 4), panel, 4).
        scale, bias: Of the sums, (count, K).
    """

    def __init__(self, stem: Convolution, count: int, panel: int) -> None:
        outputs, channels, high, wide = stem.weight.shape
        self._weight = stem.weight.astype(np.float64)
        bias = stem.bias
        self._own_bias = np.zeros(outputs) if bias is None else bias.astype(np.float64)
        self._used: list[object] = [_NOTHING] * count
        self._panel = panel
        run = -(-wide * channels // 4)
        self.packed = np.zeros((count, outputs // panel, high, run, panel, 4), np.int8)
        self.scale = np.zeros((count, outputs), np.float32)
        self.bias = np.zeros((count, outputs), np.float32)

    @staticmethod
    def takes(scalings: Sequence[Scaling | None]) -> bool:
        """Tell whether zeros around images that are scaled so are bytes."""
        return all(
            (around >= -0.5).all() and (around <= 255.5).all()
            for around in (_around(*_numbers(each)) for each in scalings)
        )

    def use(self, index: int, scaling: Scaling | None) -> NDArray[np.uint8] | None:
        """Prepare for an image at a place of the batch.

        Args:
            index: Its place.
            scaling: Scaling of its values in 0..1; None leaves them.

        Returns:
            The bytes (3,) to put around it; None where this place had the same scaling before.
        """
        if self._used[index] is scaling:
            return None
        self._used[index] = scaling
        factor, shift = _numbers(scaling)
        rounded, scale = rounded_weight(self._weight * factor[:, None, None])
        # q scale stands for w s, so that bytes around the image add nothing
        offset = np.einsum("kchw,c->k", rounded.astype(np.float64), shift / factor) * scale
        self.scale[index] = scale
        self.bias[index] = self._own_bias + offset
        self.packed[index] = packed_bytes(rounded, self._panel)
        return np.rint(_around(factor, shift)).astype(np.uint8)


def _numbers(scaling: Scaling | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return factor and shift (3,) for bytes."""
    if scaling is None:
        return np.full(3, 1 / 255), np.zeros(3)
    return scaling.scale.astype(np.float64) / 255, scaling.shift.astype(np.float64)


def _around(factor: NDArray[Any], shift: NDArray[Any]) -> NDArray[np.float64]:
    """Return what the network sees as zero, (3,)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(-shift / factor)
