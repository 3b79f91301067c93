# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Errors, files, terminals, clocks, streams and aligned frames. No ROS, no arm."""

from koch_core.errors import KochError
from koch_core.frame import Frame, FrameAssembler, FrameFeature, Missing, MissingStream, SampleRule
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
