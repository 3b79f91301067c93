# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The one door of this package: what this processor can do, and networks on it."""

from __future__ import annotations

from collections.abc import Sequence

from koch_fastconv import layers
from koch_fastconv.library import Library, open_library
from koch_fastconv.network import FastResNet


class FastConv:
    """Makes networks of what is handed to it as numbers; knows nothing of torch."""

    Convolution = layers.Convolution
    GroupNorm = layers.GroupNorm
    Block = layers.Block

    def __init__(self, library: Library) -> None:
        self._library = library

    def __str__(self) -> str:
        """Name the kernels in use, for a person."""
        kernels = self._library.kernels.values()
        names = [self._library.ffi.string(each.name).decode() for each in kernels]
        return ", ".join(names) or "no kernels: OpenVINO is faster on this processor"

    def resnet(
        self,
        stem: layers.Convolution,
        blocks: Sequence[layers.Block],
        *,
        count: int,
        height: int,
        width: int,
        precision: str,
        threads: int,
        int8: bool = False,
    ) -> FastResNet | None:
        """Return a network for images of one size, several at once.

        Args:
            stem: The first convolution; ReLU and pooling follow it.
            blocks: What follows the pooling.
            count: How many images at most.
            height, width: Of each image.
            precision: "f32" or "bf16", of maps and weights.
            threads: How many to compute with.
            int8: With "bf16": multiply 8 bits where the processor gains by it.

        Returns:
            The network; None where this processor has no kernels for the precision, or they do not
            know one of the layers.
        """
        kernels = self._library.kernels.get(precision)
        every = [stem, *(layer for block in blocks for layer in block if layer is not None)]
        if kernels is None or not all(layer.fits(kernels) for layer in every):
            return None
        return FastResNet(
            self._library, kernels, stem, blocks, count, height, width, threads,
            int8=int8 and precision == "bf16",
        )  # fmt: skip


def load() -> FastConv:
    """Load the library.

    Raises:
        ImportError, OSError: It was not built, or not for this machine.
    """
    return FastConv(open_library())
