# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Streams of a rig: what each carries, decided once from its name, arms and cameras."""

from __future__ import annotations

import enum
from collections.abc import Container
from dataclasses import dataclass
from typing import NamedTuple

JOINT_STREAMS = ("joint_states", "joint_command")
_CAMERAS = "cameras"

COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
JOINT_STATE = "sensor_msgs/msg/JointState"
NAMED_VECTOR = "koch_interfaces/msg/NamedVector"


class StreamKind(enum.Enum):
    """What the samples of a stream are."""

    IMAGE = "image"
    """Images of a camera of the rig."""
    JOINTS = "joints"
    """All joints of an arm of the rig, which have its calibration's units."""
    NUMBERS = "numbers"
    """Numbers with names, taken as they are."""


class StreamContent(NamedTuple):
    """What a stream carries.

    Attributes:
        kind: What its samples are.
        source: The camera or arm that it is of; empty where it is of neither.
        message_type: Name of the ROS message.
    """

    kind: StreamKind
    source: str
    message_type: str


NUMBERS = StreamContent(StreamKind.NUMBERS, "", NAMED_VECTOR)


@dataclass(frozen=True)
class Stream:
    """One stream of stamped messages.

    Attributes:
        name: Name in the rig, such as "follower/joint_states" or "cameras/above".
        topic: Absolute ROS topic.
        max_age_s: An older value does not exist [s].
        offset_s: Added to a header stamp to get the acquisition time [s]; a camera that stamps
            40 ms late has -0.04.
        holds: It is sent only when its value changes, which holds whatever its age.
        content: What it carries; follows from the name and the rig.
    """

    name: str
    topic: str
    max_age_s: float
    offset_s: float = 0.0
    holds: bool = False
    content: StreamContent = NUMBERS

    @property
    def kind(self) -> StreamKind:
        """What its samples are."""
        return self.content.kind


def camera_stream(camera: str) -> str:
    """The stream of a camera's images."""
    return f"{_CAMERAS}/{camera}"


def topic_of(stream: str) -> str:
    """The ROS topic of a stream: a camera's is its compressed image, others are the name."""
    return f"/{stream}/image_raw/compressed" if names_camera(stream) else f"/{stream}"


def image_topic(camera: str) -> str:
    """The relative ROS topic of a camera's images."""
    return topic_of(camera_stream(camera)).lstrip("/")


def names_camera(stream: str) -> bool:
    """Say whether a name is that of a camera's stream, whatever cameras there are."""
    return stream.startswith(f"{_CAMERAS}/")


def content_of(stream: str, arms: Container[str], cameras: Container[str]) -> StreamContent:
    """Work out what a stream of a rig with these arms and cameras carries."""
    folder, _, rest = stream.partition("/")
    if folder == _CAMERAS:
        return StreamContent(StreamKind.IMAGE, rest if rest in cameras else "", COMPRESSED_IMAGE)
    if folder not in arms:
        return NUMBERS
    kind = StreamKind.JOINTS if rest in JOINT_STREAMS else StreamKind.NUMBERS
    return StreamContent(kind, folder, JOINT_STATE)
