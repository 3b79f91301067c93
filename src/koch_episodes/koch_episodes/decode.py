# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""From message contents to arrays: pictures and named vectors, live and offline alike."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from koch_core.errors import DecodeError
from koch_rig.joints import JOINT_NAMES, plain_joints

Rgb = npt.NDArray[np.uint8]
Vector = npt.NDArray[np.float64]

_RAW_CHANNELS = {
    "rgb8": 3,
    "bgr8": 3,
    "8UC3": 3,
    "rgba8": 4,
    "bgra8": 4,
    "mono8": 1,
    "8UC1": 1,
    "yuv422_yuy2": 2,  # the two orders of sensor_msgs/image_encodings.hpp, old names and new
    "yuyv": 2,
    "yuv422": 2,
    "uyvy": 2,
}
_JPEG_START = b"\xff\xd8"
_JPEG_END = b"\xff\xd9"
_PNG_START = b"\x89PNG\r\n\x1a\n"
# Start-of-frame markers (ITU-T T.81, table B.1) without DHT (C4), JPG (C8) and DAC (CC).
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SEQUENTIAL_MARKERS = frozenset((0xC0, 0xC1))
_SCAN_MARKER = 0xDA
# Inside a scan: FF 00 is a byte of data, FF D0..D7 are restart markers, FF FF is padding.
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def joint_vector(
    names: Sequence[str], values: Sequence[float], wanted: Sequence[str] = JOINT_NAMES
) -> Vector:
    """Pick joint values by name.

    Args:
        names: Joint names of the message, any order; an arm's with or without a prefix.
        values: Values in the order of `names` (position, velocity or effort), SI units.
        wanted: Names in the order of the result.

    Returns:
        float64, shape (len(wanted),).

    Raises:
        DecodeError: A wanted joint is missing or there twice, the lengths differ, or a value is
            not finite.
    """
    if len(names) != len(values):
        raise DecodeError("joint state", f"{len(names)} names but {len(values)} values")
    if wanted is JOINT_NAMES:
        names = plain_joints(names)
    if tuple(names) == tuple(wanted):
        vector = np.asarray(values, dtype=np.float64)
    else:
        place = {name: index for index, name in enumerate(names)}
        if twice := named_twice(names, wanted):
            raise DecodeError("joint state", f"{twice} named twice among {list(names)}")
        missing = [name for name in wanted if name not in place]
        if missing:
            raise DecodeError(
                "joint state", f"joint(s) {', '.join(missing)} missing among {list(names)}"
            )
        vector = np.array([values[place[name]] for name in wanted], dtype=np.float64)
    if not np.isfinite(vector).all():
        broken = [n for n, good in zip(wanted, np.isfinite(vector), strict=True) if not good]
        raise DecodeError("joint state", f"value not finite: {', '.join(broken)}")
    return vector


def named_twice(names: Sequence[str], wanted: Sequence[str] | None = None) -> str:
    """Return the first name that is there twice (and wanted), empty where there is none."""
    seen: set[str] = set()
    for name in names:
        if name in seen and (wanted is None or name in wanted):
            return name
        seen.add(name)
    return ""


def is_png(data: bytes) -> bool:
    """Tell whether a compressed picture is a PNG."""
    return data[:8] == _PNG_START


def picture_size(data: bytes) -> tuple[int, int]:
    """Read (height, width) in [px] from a JPEG or PNG header, and check that it is whole.

    Raises:
        DecodeError: Not a JPEG or PNG, or cut off.
    """
    if is_png(data):
        if len(data) < 33 or b"IEND" not in data[-12:]:
            raise DecodeError("PNG picture", "cut off")
        width, height = struct.unpack(">II", data[16:24])
        if data[24] == 16:
            # A depth image in millimetres: 8 bits of it would be a picture of nothing.
            raise DecodeError("PNG picture", "16 bits per channel, expected 8 (a depth image?)")
        return height, width
    if data[:2] != _JPEG_START:
        raise DecodeError("picture", f"neither JPEG nor PNG (starts with {data[:4].hex()})")
    # Some UVC cameras pad the packet behind the end marker.
    if data[-2:] != _JPEG_END and data.rfind(_JPEG_END, max(0, len(data) - 4096)) < 0:
        raise DecodeError("JPEG picture", "cut off (no end marker)")
    place = 2
    while place + 9 <= len(data):
        if data[place] != 0xFF:
            break
        marker = data[place + 1]
        if marker in _FRAME_MARKERS:
            height, width = struct.unpack(">HH", data[place + 5 : place + 9])
            return height, width
        if marker == 0xFF:
            place += 1
            continue
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    raise DecodeError("JPEG picture", "no frame header")


def check_jpeg(data: bytes) -> None:
    """Check that a JPEG's segments follow one another and that its scan ends with the picture.

    FFmpeg passes over a broken header and paints what it can; libjpeg refuses such a picture.

    Raises:
        DecodeError: They do not.
    """
    place, components = 2, 0
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:
            place += 1
            continue
        if marker in _SEQUENTIAL_MARKERS and place + 9 < len(data):
            components = data[place + 9]
        start = place + 4
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        if marker == _SCAN_MARKER:
            end = _AFTER_SCAN.search(data, place)
            # A picture of several scans has markers between them.
            if components == data[start] and (end is None or end[0] != _JPEG_END):
                raise DecodeError("JPEG picture", "a marker inside the picture data")
            return
    raise DecodeError("JPEG picture", f"no segment at byte {place}")


def decode_image(data: bytes) -> Rgb:
    """Decode a compressed picture (JPEG, with or without Huffman tables, or PNG).

    Args:
        data: The `data` field of a sensor_msgs/CompressedImage.

    Returns:
        RGB, uint8, shape (H, W, 3).

    Raises:
        DecodeError: The picture is cut off or broken.
    """
    picture_size(data)
    if data[:2] == _JPEG_START:
        import simplejpeg

        try:
            # strict: libjpeg's warnings (it paints what is missing grey) are errors here.
            image: Rgb = simplejpeg.decode_jpeg(data, colorspace="RGB", strict=True)
            return image
        except ValueError as exc:
            if "Huffman" not in str(exc) and "DHT" not in str(exc):
                raise DecodeError("JPEG picture", str(exc)) from exc
    return _decode_with_ffmpeg(data)


def _decode_with_ffmpeg(data: bytes) -> Rgb:
    from koch_episodes.dataset.planes import rgb_of_frame
    from koch_episodes.dataset.video import decode_packet

    return rgb_of_frame(decode_packet(data))


def raw_image(encoding: str, height: int, width: int, step: int, data: bytes | memoryview) -> Rgb:
    """Turn the pixels of a sensor_msgs/Image into RGB.

    Args:
        encoding: ``rgb8 bgr8 rgba8 bgra8 mono8 8UC1 8UC3 yuv422_yuy2 yuyv yuv422 uyvy``.
        height: Rows in [px].
        width: Columns in [px].
        step: Bytes per row, padding included.
        data: Pixels, height * step bytes.

    Returns:
        RGB, uint8, shape (H, W, 3), own memory.

    Raises:
        DecodeError: Unknown encoding, or too few bytes.
    """
    channels = _RAW_CHANNELS.get(encoding)
    if channels is None:
        raise DecodeError(
            "image", f"encoding {encoding!r}, expected one of {', '.join(_RAW_CHANNELS)}"
        )
    flat = np.frombuffer(data, dtype=np.uint8)
    if height < 1 or width < 1 or step < width * channels or flat.size < height * step:
        raise DecodeError(
            "image", f"{flat.size} bytes do not hold {height} rows of {step} for {width} px"
        )
    rows = flat[: height * step].reshape(height, step)[:, : width * channels]
    pixels = rows.reshape(height, width, channels)
    if encoding in ("rgb8", "8UC3"):
        return np.array(pixels)
    if encoding == "rgba8":
        return np.array(pixels[..., :3])
    if encoding in ("bgr8", "bgra8"):
        return np.array(pixels[..., 2::-1])
    if channels == 1:
        return np.repeat(pixels, 3, axis=2)
    import av

    if width % 2:
        raise DecodeError("image", f"{encoding} of {width} px in a row, expected an even number")
    if encoding in ("yuv422", "uyvy"):
        pixels = pixels[..., ::-1]  # chroma first
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="yuyv422")
    return np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)


def _xyz(message: Any) -> list[float]:
    return [message.x, message.y, message.z]


def _twist(message: Any) -> list[float]:
    return [*_xyz(message.linear), *_xyz(message.angular)]


def _pose(message: Any) -> list[float]:
    turn = message.orientation
    return [*_xyz(message.position), turn.x, turn.y, turn.z, turn.w]


_POSE = ("x", "y", "z", "qx", "qy", "qz", "qw")
_TWIST = ("vx", "vy", "vz", "wx", "wy", "wz")
_WRENCH = ("fx", "fy", "fz", "tx", "ty", "tz")

# Message type to (element names, reader); a number of names of 0 means: as many as come.
_VECTORS: dict[str, tuple[tuple[str, ...], Callable[[Any], Sequence[float]]]] = {
    "geometry_msgs/msg/Pose": (_POSE, _pose),
    "geometry_msgs/msg/PoseStamped": (_POSE, lambda m: _pose(m.pose)),
    "geometry_msgs/msg/Twist": (_TWIST, _twist),
    "geometry_msgs/msg/TwistStamped": (_TWIST, lambda m: _twist(m.twist)),
    "geometry_msgs/msg/Wrench": (_WRENCH, lambda m: [*_xyz(m.force), *_xyz(m.torque)]),
    "geometry_msgs/msg/WrenchStamped": (
        _WRENCH,
        lambda m: [*_xyz(m.wrench.force), *_xyz(m.wrench.torque)],
    ),
    "geometry_msgs/msg/PointStamped": (("x", "y", "z"), lambda m: _xyz(m.point)),
    "geometry_msgs/msg/Vector3Stamped": (("x", "y", "z"), lambda m: _xyz(m.vector)),
    "std_msgs/msg/Float64MultiArray": ((), lambda m: list(m.data)),
    "std_msgs/msg/Float32MultiArray": ((), lambda m: list(m.data)),
    "std_msgs/msg/Float64": (("value",), lambda m: [m.data]),
    "std_msgs/msg/Float32": (("value",), lambda m: [m.data]),
}
NAMED_TYPES = ("sensor_msgs/msg/JointState", "koch_interfaces/msg/NamedVector")
IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
VECTOR_TYPES = (*NAMED_TYPES, *_VECTORS)


def given_names(names: Sequence[str], count: int) -> tuple[str, ...]:
    """Return the names of a message's elements: ``value_0`` and so on where it has none."""
    return tuple(str(name) for name in names) or tuple(f"value_{k}" for k in range(count))


def message_elements(
    message_type: str, message: Any, field: str = "position"
) -> tuple[tuple[str, ...], Vector]:
    """Return names and values of a message of one of VECTOR_TYPES; names empty where it has none.

    Args:
        message_type: ROS type name, ``pkg/msg/Name``.
        message: rclpy or rosbags message.
        field: For JointState: ``position``, ``velocity`` or ``effort``.
    """
    if message_type in NAMED_TYPES:
        values = message.value if hasattr(message, "value") else getattr(message, field)
        return tuple(map(str, message.name)), np.asarray(values, dtype=np.float64)
    names, read = _VECTORS[message_type]
    return names, np.asarray(read(message), dtype=np.float64)
