# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Reading a mapped topic: serialised message in, stamp and form or its value out."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from koch_core.errors import DecodeError
from koch_core.image import (
    decode_image,
    image_size,
    is_png,
    raw_image,
)
from koch_core.stream import stamp_ns
from koch_episodes import cdr
from koch_episodes.bag import RawMessage, Topic
from koch_episodes.bag.types import TypeDecoder
from koch_episodes.convert.mapping import FeatureSource
from koch_episodes.decode import (
    IMAGE_TYPES,
    VECTOR_TYPES,
    given_names,
    joint_vector,
    message_elements,
)
from koch_episodes.errors import MessageTypeError

_COMPRESSED, _RAW = "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/Image"
_JOINTS = "sensor_msgs/msg/JointState"
Rgb = npt.NDArray[np.uint8]


class Form(NamedTuple):
    """What a message holds, apart from its values.

    Attributes:
        why: What is wrong with it, empty for a sound one.
        size: (height, width) of an image, [px].
        packing: ``jpeg``, ``png`` or ``raw`` for an image.
        names: Element names of a vector.
        broken: Names of those whose value is not finite.
    """

    why: str = ""
    size: tuple[int, int] | None = None
    packing: str = ""
    names: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()


class TopicReading(NamedTuple):
    """What of a topic is read: two features may take two fields of one topic."""

    topic: str
    field: str

    @classmethod
    def of(cls, source: FeatureSource) -> TopicReading:
        """What a source of the mapping reads."""
        return cls(source.topic, source.field)


class TopicReader:
    """Reads one topic of one bag.

    Args:
        topic: The bag's description.
        source: What the mapping wants of it.
        types: Shared type decoder of the bag.

    Raises:
        MessageTypeError: The topic's type cannot fill a feature.
    """

    def __init__(self, topic: Topic, source: FeatureSource, types: TypeDecoder) -> None:
        self.topic = topic
        self.source = source
        self.is_image = topic.type in IMAGE_TYPES
        if not self.is_image and topic.type not in VECTOR_TYPES:
            raise MessageTypeError(
                topic.name, topic.type, "one of " + ", ".join((*IMAGE_TYPES, *VECTOR_TYPES))
            )
        self._types = types
        self._joints = cdr.JointStateReader()
        self._quick = topic.type in (_COMPRESSED, _RAW, _JOINTS)
        if not self._quick:
            types.add(topic)

    def look(self, message: RawMessage) -> tuple[int, Form]:
        """Return the header stamp [ns] (0 where there is none) and what a message holds.

        Raises:
            DecodeError: The message is broken.
        """
        if message.type and message.type != self.topic.type:
            raise DecodeError(
                self.topic.name, f"type {message.type}, not {self.topic.type} as most have"
            )
        if self.is_image:
            stamp, image = self._image(message)
            size = size_of(image)
            packing = "raw" if isinstance(image, RawImage) else _packing(image)
            return stamp, Form(size=size, packing=packing)
        stamp, names, values = self._elements(message)
        if not names:
            raise DecodeError(self.topic.name, "a message without elements")
        if len(names) != len(values):
            raise DecodeError("joint state", f"{len(names)} names but {len(values)} values")
        broken: tuple[str, ...] = ()
        if not np.isfinite(values).all():
            broken = tuple(n for n, v in zip(names, values, strict=True) if not np.isfinite(v))
        return stamp, Form(names=names, broken=broken)

    def vector(self, message: RawMessage) -> npt.NDArray[np.float64]:
        """Return the source's elements (message units times the source's scale).

        Raises:
            DecodeError: The message does not hold what the mapping wants.
        """
        _, names, values = self._elements(message)
        vector = joint_vector(names, values, self.source.names)  # type: ignore[arg-type]
        return vector if self.source.scale == 1.0 else vector * self.source.scale

    def image(self, message: RawMessage) -> bytes | RawImage:
        """Return the packet, not decoded.

        Raises:
            DecodeError: The message or the packet is cut off.
        """
        return self._image(message)[1]

    def _elements(
        self, message: RawMessage
    ) -> tuple[int, tuple[str, ...], npt.NDArray[np.float64]]:
        """Return header stamp, element names and values of a vector message."""
        field = self.source.field
        if self.topic.type == _JOINTS and cdr.is_little_endian(message.data):
            names, values = self._joints.read(message.data, field)
            stamp = cdr.header_stamp_ns(message.data)
        else:
            parsed = self._parse(message.data)
            stamp = _header_ns(parsed)
            names, values = message_elements(self.topic.type, parsed, field)
        if not len(values) and (names or self.topic.type == _JOINTS):
            raise DecodeError(self.topic.name, f"no values of {field}")
        return stamp, given_names(names, len(values)), values

    def _parse(self, data: bytes) -> Any:
        if self._quick:
            self._types.add(self.topic)
        return self._types.decode(self.topic.type, data)

    def _image(self, message: RawMessage) -> tuple[int, bytes | RawImage]:
        if len(message.data) < 16:
            raise DecodeError(self.topic.name, "message cut off")
        if not cdr.is_little_endian(message.data):
            parsed = self._parse(message.data)
            stamp = _header_ns(parsed)
            if self.topic.type == _COMPRESSED:
                return stamp, bytes(parsed.data)
            return stamp, RawImage(
                parsed.encoding, parsed.height, parsed.width, parsed.step, memoryview(parsed.data)
            )
        stamp = cdr.header_stamp_ns(message.data)
        if self.topic.type == _COMPRESSED:
            return stamp, cdr.compressed_image(message.data)
        return stamp, RawImage(*cdr.image(message.data))


def _header_ns(parsed: Any) -> int:
    return stamp_ns(parsed.header.stamp) if hasattr(parsed, "header") else 0


def _packing(image: bytes) -> str:
    return "png" if is_png(image) else "jpeg"


class RawImage:
    """An uncompressed image, as sensor_msgs/Image carries it."""

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


def size_of(image: bytes | RawImage) -> tuple[int, int]:
    """Return (height, width) of an image, [px], and check that it is whole.

    Raises:
        DecodeError: It is not.
    """
    if isinstance(image, RawImage):
        if len(image.data) < image.height * image.step:
            raise DecodeError("Image", "fewer bytes than rows")
        return image.height, image.width
    return image_size(image)


def rgb_of(image: bytes | RawImage) -> Rgb:
    """Decode to RGB, as a policy would see it."""
    return image.rgb() if isinstance(image, RawImage) else decode_image(image)
