# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Packages that compute the ResNets of camera images faster than OpenVINO, where one is installed.

Such a package names a function without arguments under the entry point `koch_policy.backbones`; it
returns an `Accelerator`. `koch_fastconv` is one. Without any, OpenVINO does the work.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any, Protocol

from numpy.typing import NDArray

_GROUP = "koch_policy.backbones"
_LOGGER = logging.getLogger(__name__)


class Network(Protocol):
    """A ResNet for images of one size, at most `count` at once."""

    count: int

    def __call__(self, images: Sequence[NDArray[Any]], scalings: Sequence[Any]) -> NDArray[Any]:
        """Return features (N, h, w, C) of images (H, W, 3); bfloat16 ones as uint16.

        Args:
            images: uint8, or float32 in 0..255.
            scalings: Of each one's values in 0..1, with `scale` and `shift`; None leaves them.
        """
        ...


class Accelerator(Protocol):
    """What such a package offers. A network is handed over as numbers, in the package's types."""

    Convolution: Callable[..., Any]  # weight (K, C, side, side), bias or None, stride, pad, norm
    GroupNorm: Callable[..., Any]  # weight, bias, channels of a group, epsilon
    Block: Callable[..., Any]  # first, second, shortcut or None

    def resnet(
        self,
        stem: Any,
        blocks: Sequence[Any],
        *,
        count: int,
        height: int,
        width: int,
        precision: str,
        threads: int,
        int8: bool = False,
    ) -> Network | None:
        """Return a network; None where OpenVINO is faster or a layer is unknown."""
        ...


@functools.lru_cache(maxsize=1)
def find() -> Accelerator | None:
    """Return the accelerator that is installed, None without one.

    One that cannot be loaded is said once: cameras take longer than they need to.
    """
    for entry in metadata.entry_points(group=_GROUP):
        try:
            found: Accelerator = entry.load()()
        except (ImportError, OSError) as exc:
            _LOGGER.warning(
                "%s cannot be loaded (%s): camera images run in OpenVINO, slower than they could. "
                "Run `./koch setup --force` to build it again.",
                entry.value,
                exc,
            )
        else:
            return found
    return None
