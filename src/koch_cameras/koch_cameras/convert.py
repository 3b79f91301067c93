# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Image messages to numpy and back, without cv_bridge.

``rosbags-image`` was looked at first (0.10.4): it ignores ``step``, has no way back from numpy to
a message, and needs OpenCV. Messages are taken by their attributes, so those of rclpy, rosbags and
plain test objects all work, and this module needs no ROS.
"""

from __future__ import annotations

import array
import re
import sys
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from koch_cameras.errors import CorruptFrameError, DepthFormatError, ImageMessageError

AnyArray = npt.NDArray[Any]

_NAMED: dict[str, tuple[str, int]] = {
    "mono8": ("u1", 1),
    "rgb8": ("u1", 3),
    "bgr8": ("u1", 3),
    "rgba8": ("u1", 4),
    "bgra8": ("u1", 4),
    "yuv422": ("u1", 2),
    "uyvy": ("u1", 2),
    "yuv422_yuy2": ("u1", 2),
    "yuyv": ("u1", 2),
    "mono16": ("u2", 1),
    "rgb16": ("u2", 3),
    "bgr16": ("u2", 3),
    "rgba16": ("u2", 4),
    "bgra16": ("u2", 4),
    **{f"bayer_{order}8": ("u1", 1) for order in ("rggb", "bggr", "gbrg", "grbg")},
    **{f"bayer_{order}16": ("u2", 1) for order in ("rggb", "bggr", "gbrg", "grbg")},
}
_GENERIC = re.compile(r"(8U|8S|16U|16S|32S|32F|64F)(?:C([1-9]\d?))?")
_GENERIC_TYPES = {
    "8U": "u1",
    "8S": "i1",
    "16U": "u2",
    "16S": "i2",
    "32S": "i4",
    "32F": "f4",
    "64F": "f8",
}
_DEPTH = ("16UC1", "16SC1", "mono16", "32FC1", "16U", "16S", "32F")
_YUV_LUMA_FIRST = {"yuv422": False, "uyvy": False, "yuv422_yuy2": True, "yuyv": True}
_CHANNELS = {"rgb8": "RGB", "bgr8": "BGR", "rgba8": "RGBA", "bgra8": "BGRA", "mono8": "L"}


class ImageMessage(Protocol):
    """The fields of sensor_msgs/msg/Image that matter here."""

    height: int
    width: int
    encoding: str
    is_bigendian: Any
    step: int
    data: Any


class CompressedMessage(Protocol):
    """The fields of sensor_msgs/msg/CompressedImage that matter here."""

    format: str
    data: Any


def layout_of(encoding: str) -> tuple[np.dtype[Any], int]:
    """Native dtype and number of channels of an encoding.

    Raises:
        ImageMessageError: The encoding is unknown.
    """
    if encoding in _NAMED:
        kind, channels = _NAMED[encoding]
        return np.dtype(kind), channels
    match = _GENERIC.fullmatch(encoding)
    if match is None:
        known = ", ".join([*_NAMED, "8UC1 .. 64FC99"])
        raise ImageMessageError(f"unknown encoding {encoding!r}; known: {known}")
    return np.dtype(_GENERIC_TYPES[match.group(1)]), int(match.group(2) or 1)


def to_numpy(message: ImageMessage, encoding: str | None = None) -> AnyArray:
    """Pixels of an image message.

    Without conversion the result is a view into ``message.data`` whatever the step; only samples
    of foreign byte order are copied. Writing into the view writes into the message.

    Args:
        message: Image; ``step`` may be larger than a row and odd.
        encoding: Wanted encoding (mono8, rgb8, bgr8, rgba8, bgra8), or None for the message's own.

    Returns:
        Shape (H, W) for one channel, else (H, W, C). YUV 4:2:2 as it is: (H, W, 2).

    Raises:
        ImageMessageError: Unknown encoding, step below a row, or too little data.
        DepthFormatError: A depth picture where colour is wanted.
    """
    dtype, channels = layout_of(message.encoding)
    height, width, step = int(message.height), int(message.width), int(message.step)
    row = width * channels * dtype.itemsize
    if step < row:
        raise ImageMessageError(
            f"step is {step}; expected at least {row} for {width} px of {message.encoding}"
        )
    raw = _bytes_view(message.data)
    needed = step * (height - 1) + row if height and width else 0
    if raw.nbytes < needed:
        raise ImageMessageError(
            f"{raw.nbytes} bytes of data; expected {needed} for {width}x{height}, step {step}"
        )
    shape = (height, width) if channels == 1 else (height, width, channels)
    pixel = channels * dtype.itemsize
    strides = (step, pixel) if channels == 1 else (step, pixel, dtype.itemsize)
    stored = dtype.newbyteorder(">") if message.is_bigendian else dtype.newbyteorder("<")
    view: AnyArray = np.ndarray(shape, stored, raw, strides=strides)
    if bool(message.is_bigendian) != (sys.byteorder == "big") and dtype.itemsize > 1:
        view = view.astype(dtype)
    return view if encoding is None else convert(view, message.encoding, encoding)


def fill_image(
    message: ImageMessage, pixels: AnyArray, encoding: str, *, step: int | None = None
) -> None:
    """Put pixels into an image message; header is left alone. One copy is made.

    Args:
        message: Message to fill.
        pixels: Shape (H, W) or (H, W, C); any strides and either byte order, which is kept.
        encoding: Name of the layout that the array already has.
        step: Bytes per row if more than the row is wanted (padding is zero), else None.

    Raises:
        ImageMessageError: Type or shape contradict the encoding, or the step is too small.
    """
    dtype, channels = layout_of(encoding)
    shape_ok = pixels.ndim == 2 if channels == 1 else pixels.shape[2:] == (channels,)
    if not shape_ok or pixels.dtype.newbyteorder("=") != dtype:
        expected = "(H, W)" if channels == 1 else f"(H, W, {channels})"
        raise ImageMessageError(
            f"array of {pixels.dtype} and shape {pixels.shape}; {encoding} expects {dtype}, "
            f"{expected}"
        )
    height, width = pixels.shape[:2]
    row = width * channels * dtype.itemsize
    if step is not None and step < row:
        raise ImageMessageError(f"step is {step}; expected at least {row}")
    data = array.array("B")
    contiguous = np.ascontiguousarray(pixels)
    if step in (None, row):
        data.frombytes(contiguous.reshape(-1).view(np.uint8).data)
    else:
        padded = np.zeros((height, step), np.uint8)
        padded[:, :row] = contiguous.reshape(-1).view(np.uint8).reshape(height, row)
        data.frombytes(padded.data)
    message.height, message.width, message.encoding = height, width, encoding
    message.step = row if step is None else step
    message.is_bigendian = int(
        dtype.itemsize > 1
        and (pixels.dtype.byteorder == ">" or (sys.byteorder == "big" and pixels.dtype.isnative))
    )
    message.data = data


def compressed_to_numpy(message: CompressedMessage, encoding: str = "rgb8") -> AnyArray:
    """Decode a JPEG or PNG message.

    Args:
        message: CompressedImage.
        encoding: rgb8, bgr8, rgba8, bgra8 or mono8.

    Raises:
        DepthFormatError: A compressedDepth message.
        ImageMessageError: Neither JPEG nor PNG.
        CorruptFrameError: Damaged data.
    """
    import simplejpeg

    if "compressedDepth" in message.format or message.format.startswith(_DEPTH):
        raise DepthFormatError("image message", message.format)
    data = bytes(message.data)
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return convert(_decode_png(data), "rgb8", encoding)
    if data[:2] != b"\xff\xd8":
        raise ImageMessageError(f"format {message.format!r} is neither JPEG nor PNG data")
    try:
        rgb = simplejpeg.decode_jpeg(data, colorspace="RGB")
    except ValueError as exc:
        raise CorruptFrameError("message", str(exc)) from exc
    return convert(rgb, "rgb8", encoding)


def convert(pixels: AnyArray, source: str, target: str) -> AnyArray:
    """Convert between colour encodings; the array itself if they are the same.

    Args:
        pixels: Pixels in ``source``.
        source: One of mono8, rgb8, bgr8, rgba8, bgra8, or a yuv422 layout (studio range, BT.601).
        target: One of mono8, rgb8, bgr8, rgba8, bgra8.

    Raises:
        DepthFormatError: ``source`` is a depth picture.
        ImageMessageError: No conversion is known.
    """
    if source == target:
        return pixels
    if source in _DEPTH and target in _CHANNELS:
        raise DepthFormatError("image message", source)
    if target not in _CHANNELS or (source not in _CHANNELS and source not in _YUV_LUMA_FIRST):
        raise ImageMessageError(f"no conversion from {source} to {target}")
    if source in _YUV_LUMA_FIRST:
        luma_first = _YUV_LUMA_FIRST[source]
        pixels, source = yuv422_to_rgb(pixels, luma_first=luma_first, full_range=False), "rgb8"
        if target == source:
            return pixels
    have, want = _CHANNELS[source], _CHANNELS[target]
    if want == "L":
        red, green, blue = (pixels[:, :, have.index(name)].astype(np.uint32) for name in "RGB")
        # ITU-R BT.601 luma in 14-bit fixed point, as OpenCV's.
        return ((red * 4899 + green * 9617 + blue * 1868 + 8192) >> 14).astype(np.uint8)
    result = np.full((*pixels.shape[:2], len(want)), 255, np.uint8)
    for index, name in enumerate(want):
        if have == "L" and name != "A":
            result[:, :, index] = pixels
        elif name in have:
            result[:, :, index] = pixels[:, :, have.index(name)]
    return result


def yuv422_to_rgb(
    pixels: npt.NDArray[np.uint8], *, luma_first: bool, full_range: bool
) -> npt.NDArray[np.uint8]:
    """YUYV or UYVY to RGB by ITU-R BT.601.

    Args:
        pixels: uint8, shape (H, W, 2), W even.
        luma_first: YUYV (True) or UYVY (False).
        full_range: Luma 0..255 (JPEG) or 16..235 (studio).

    Returns:
        uint8, shape (H, W, 3).

    Raises:
        ImageMessageError: Odd width.
    """
    if pixels.shape[1] % 2:
        raise ImageMessageError(f"width {pixels.shape[1]} of a 4:2:2 picture; expected even")
    luma_at, chroma_at = (0, 1) if luma_first else (1, 0)
    scale, offset, gain = (1.0, 0, 1.0) if full_range else (255 / 219, 16, 255 / 224)
    luma = (pixels[:, :, luma_at].astype(np.float32) - offset) * np.float32(scale)
    blue = (pixels[:, 0::2, chroma_at].astype(np.float32) - 128) * np.float32(gain)
    red = (pixels[:, 1::2, chroma_at].astype(np.float32) - 128) * np.float32(gain)
    result = np.empty((*pixels.shape[:2], 3), np.uint8)
    shares = (1.402 * red, -0.344136 * blue - 0.714136 * red, 1.772 * blue)
    for channel, share in enumerate(shares):
        values = luma + np.repeat(share, 2, axis=1)
        np.rint(values, out=values)
        result[:, :, channel] = np.clip(values, 0, 255, out=values)
    return result


def _bytes_view(data: Any) -> AnyArray:
    """A flat uint8 view; plain sequences of ints are copied."""
    if isinstance(data, (list, tuple)):
        return np.array(data, dtype=np.uint8)
    return np.frombuffer(data, dtype=np.uint8) if len(data) else np.empty(0, np.uint8)


def _decode_png(data: bytes) -> AnyArray:
    import av

    decoder = av.CodecContext.create("png", "r")
    try:
        frames = [*decoder.decode(av.Packet(data)), *decoder.decode(None)]
    except av.error.FFmpegError as exc:
        raise CorruptFrameError("message", str(exc)) from exc
    if not frames:
        raise CorruptFrameError("message", "PNG without a picture")
    if frames[0].format.name.startswith("gray16"):
        raise DepthFormatError("image message", "16-bit PNG")
    pixels: AnyArray = frames[0].to_ndarray(format="rgb24")
    return pixels
