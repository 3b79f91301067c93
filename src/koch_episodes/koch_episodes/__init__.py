# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Episodes: streams and frames, bags, LeRobot datasets."""

from koch_episodes.decode import decode_image, joint_vector
from koch_episodes.frame import Frame, FrameAssembler, FrameFeature, Missing, MissingStream, Rule
from koch_episodes.stream import Sample, StreamBuffer

__all__ = [
    "Frame",
    "FrameAssembler",
    "FrameFeature",
    "Missing",
    "MissingStream",
    "Rule",
    "Sample",
    "StreamBuffer",
    "decode_image",
    "joint_vector",
]
