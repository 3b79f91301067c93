# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Errors, files, terminals, clocks, streams and aligned frames. No ROS, no arm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from koch_core.lazy import lazy_name

if TYPE_CHECKING:
    from koch_core.errors import KochError
    from koch_core.frame import (
        Frame,
        FrameAssembler,
        FrameFeature,
        Missing,
        MissingStream,
        SampleRule,
    )
    from koch_core.stream import Sample, StreamBuffer

__all__ = [
    "Frame",
    "FrameAssembler",
    "FrameFeature",
    "KochError",
    "Missing",
    "MissingStream",
    "Sample",
    "SampleRule",
    "StreamBuffer",
]

_MODULES = {
    "errors": ("KochError",),
    "frame": ("Frame", "FrameAssembler", "FrameFeature", "Missing", "MissingStream", "SampleRule"),
    "stream": ("Sample", "StreamBuffer"),
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module."""
    return lazy_name(__name__, name, _MODULES)
