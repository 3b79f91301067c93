# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Reading a mapped topic: serialised message in, stamp and value out."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from koch_episodes import cdr
from koch_episodes.bag import RawMessage, Topic
from koch_episodes.bag.types import TypeDecoder
from koch_episodes.convert.mapping import Source
from koch_episodes.convert.options import StampFrom
from koch_episodes.decode import (
    IMAGE_TYPES,
    VECTOR_TYPES,
    decode_image,
    given_names,
    joint_vector,
    message_vector,
    picture_size,
    raw_image,
    vector_names,
)
from koch_episodes.errors import DecodeError, MessageTypeError
from koch_episodes.stream import NS_PER_S

_COMPRESSED, _RAW = "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/Image"
_JOINTS = "sensor_msgs/msg/JointState"
Rgb = npt.NDArray[np.uint8]


class TopicReader:
    """Reads one topic of one bag.

    Args:
        topic: The bag's description.
        source: What the mapping wants of it.
        types: Shared type decoder of the bag.
        stamps: The conversion's choice of clock, where the source leaves it open.

    Raises:
        MessageTypeError: The topic's type cannot fill a feature.
    """

    def __init__(
        self, topic: Topic, source: Source, types: TypeDecoder, stamps: StampFrom
    ) -> None:
        self.topic = topic
        self.source = source
        self.is_picture = topic.type in IMAGE_TYPES
        if not self.is_picture and topic.type not in VECTOR_TYPES:
            raise MessageTypeError(
                topic.name, topic.type, "one of " + ", ".join((*IMAGE_TYPES, *VECTOR_TYPES))
            )
        self._types = types
        self._joints = cdr.JointStateReader()
        self._quick = topic.type in (_COMPRESSED, _RAW, _JOINTS)
        if not self._quick:
            types.add(topic)
        self._clock = source.stamp if source.stamp is not StampFrom.AUTO else stamps
        self.used_receive_time = False

    def stamp_ns(self, message: RawMessage, parsed: Any = None) -> int:
        """Return the acquisition stamp (offset not applied), [ns].

        A topic whose first header stamp is zero, or that has none, is timed by the recorder.

        Raises:
            DecodeError: The stamp is zero in a topic that otherwise has stamps.
        """
        if self._clock is StampFrom.RECEIVE:
            self.used_receive_time = True
            return message.log_ns
        stamp = self._header_ns(message, parsed)
        if self._clock is StampFrom.AUTO:
            self._clock = StampFrom.HEADER if stamp else StampFrom.RECEIVE
            return self.stamp_ns(message, parsed)
        if stamp is None or stamp <= 0:
            raise DecodeError(self.topic.name, "header stamp is zero or negative")
        return stamp

    def _header_ns(self, message: RawMessage, parsed: Any) -> int | None:
        if parsed is None and self._quick and cdr.is_little_endian(message.data):
            return cdr.header_stamp_ns(message.data)
        parsed = self._types.decode(self.topic.type, message.data) if parsed is None else parsed
        if not hasattr(parsed, "header"):
            return None
        stamp = parsed.header.stamp
        return int(stamp.sec) * NS_PER_S + int(stamp.nanosec)

    def _parse(self, data: bytes) -> Any:
        if self._quick:
            self._types.add(self.topic)
        return self._types.decode(self.topic.type, data)

    def vector(self, message: RawMessage) -> tuple[int, npt.NDArray[np.float64]]:
        """Return stamp and vector (message units times the source's scale).

        Raises:
            DecodeError: The message does not hold what the mapping wants.
        """
        source = self.source
        if self.topic.type == _JOINTS and cdr.is_little_endian(message.data):
            names, values = self._joints.read(message.data, source.field)
            stamp = self.stamp_ns(message)
            if not len(values):
                raise DecodeError(self.topic.name, f"no values of {source.field}")
            names = names or given_names((), len(values))
            vector = joint_vector(names, values, source.names)  # type: ignore[arg-type]
        else:
            parsed = self._parse(message.data)
            stamp = self.stamp_ns(message, parsed)
            vector = message_vector(self.topic.type, parsed, source.names, source.field)
        return stamp, vector if source.scale == 1.0 else vector * source.scale

    def names(self, message: RawMessage) -> tuple[str, ...]:
        """Return the element names of a vector message."""
        if self.topic.type == _JOINTS and cdr.is_little_endian(message.data):
            names, values = self._joints.read(message.data)
            return given_names(names, len(values))
        return vector_names(self.topic.type, self._parse(message.data))

    def picture(self, message: RawMessage) -> tuple[int, bytes | RawPicture]:
        """Return stamp and packet, not decoded.

        Raises:
            DecodeError: The message or the packet is cut off.
        """
        if len(message.data) < 16:
            raise DecodeError(self.topic.name, "message cut off")
        if not cdr.is_little_endian(message.data):
            parsed = self._parse(message.data)
            stamp = self.stamp_ns(message, parsed)
            if self.topic.type == _COMPRESSED:
                return stamp, bytes(parsed.data)
            return stamp, RawPicture(
                parsed.encoding, parsed.height, parsed.width, parsed.step, memoryview(parsed.data)
            )
        stamp = self.stamp_ns(message)
        if self.topic.type == _COMPRESSED:
            return stamp, cdr.compressed_image(message.data)
        return stamp, RawPicture(*cdr.image(message.data))


class RawPicture:
    """An uncompressed picture, as sensor_msgs/Image carries it."""

    def __init__(
        self, encoding: str, height: int, width: int, step: int, data: memoryview
    ) -> None:
        self.encoding = encoding
        self.height = height
        self.width = width
        self.step = step
        self.data = data

    def rgb(self) -> Rgb:
        """Return RGB pixels."""
        return raw_image(self.encoding, self.height, self.width, self.step, self.data)


def size_of(picture: bytes | RawPicture) -> tuple[int, int]:
    """Return (height, width) of a picture, [px], and check that it is whole.

    Raises:
        DecodeError: It is not.
    """
    if isinstance(picture, RawPicture):
        if len(picture.data) < picture.height * picture.step:
            raise DecodeError("Image", "fewer bytes than rows")
        return picture.height, picture.width
    return picture_size(picture)


def rgb_of(picture: bytes | RawPicture) -> Rgb:
    """Decode to RGB, as a policy would see it."""
    return picture.rgb() if isinstance(picture, RawPicture) else decode_image(picture)
