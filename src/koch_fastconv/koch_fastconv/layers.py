# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A network as numbers: what its owner hands over."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


class GroupNorm(NamedTuple):
    """A group normalisation: weight and bias (K,), channels normalised together, epsilon."""

    weight: Array
    bias: Array
    channels_of_group: int
    epsilon: float


class Convolution(NamedTuple):
    """A convolution with its normalisation; a batch norm belongs into weight and bias."""

    weight: Array  # (K, C, side, side)
    bias: Array | None  # (K,)
    stride: int
    pad: int
    norm: GroupNorm | None = None

    @property
    def side(self) -> int:
        """Of the kernel."""
        return int(self.weight.shape[2])

    def fits(self, kernels: Any) -> bool:
        """Tell whether kernels know this layer."""
        outputs, _, high, wide = self.weight.shape
        norm = self.norm
        return bool(
            high == wide
            and outputs % kernels.panel == 0
            and (norm is None or norm.channels_of_group == kernels.channels_of_group)
            and (norm is None or norm.epsilon == kernels.epsilon)
        )


class Block(NamedTuple):
    """Two 3x3 convolutions with ReLUs, and a shortcut; without one the input itself is added."""

    first: Convolution
    second: Convolution
    shortcut: Convolution | None


class Scaling(NamedTuple):
    """What becomes of an image's values in 0..1: times `scale` plus `shift`, (3,) float32 each."""

    scale: Array
    shift: Array
