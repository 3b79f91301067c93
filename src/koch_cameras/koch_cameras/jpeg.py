# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""JPEG: the cheap check of each packet, decoding, and encoding of raw camera pictures."""

from __future__ import annotations

from typing import cast

import numpy as np
import numpy.typing as npt
import simplejpeg

from koch_cameras.errors import CorruptFrameError
from koch_cameras.frame import Encoding, Frame
from koch_cameras.source import Rotation
from koch_rig.rig import ColorMode

_PADDING_BYTES = 4096
"""Cameras pad the packet behind the end marker; within so many bytes we look for the marker."""

_QUARTER_TURNS = {
    # np.rot90 turns counter-clockwise.
    Rotation.NONE: 0,
    Rotation.CLOCKWISE: 3,
    Rotation.HALF: 2,
    Rotation.COUNTERCLOCKWISE: 1,
}


def jpeg_size(source: str, data: bytes) -> tuple[int, int]:
    """Check that a packet looks like one whole JPEG; about 2 us, nothing is decoded.

    Args:
        source: Name for the message.
        data: The packet.

    Returns:
        (width, height) in [px].

    Raises:
        CorruptFrameError: Empty, no start marker, no readable header, or no end marker.
    """
    if data[:2] != b"\xff\xd8":
        raise CorruptFrameError(source, f"{len(data)} bytes without JPEG start marker")
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError as exc:
        raise CorruptFrameError(source, f"JPEG header of {len(data)} bytes: {exc}") from exc
    if data.rfind(b"\xff\xd9", max(0, len(data) - _PADDING_BYTES)) < 0:
        raise CorruptFrameError(source, f"JPEG is cut off after {len(data)} bytes")
    return width, height


def decode(
    source: str, data: bytes, color_mode: ColorMode = ColorMode.RGB
) -> npt.NDArray[np.uint8]:
    """Decode a JPEG strictly.

    Args:
        source: Name for the message.
        data: JPEG bytes; MJPEG packets without Huffman tables decode as well.
        color_mode: Channel order of the result.

    Returns:
        uint8, shape (H, W, 3).

    Raises:
        CorruptFrameError: The decoder found damage, even where it could have gone on.
    """
    try:
        return cast(
            "npt.NDArray[np.uint8]",
            simplejpeg.decode_jpeg(data, colorspace=color_mode.value.upper(), strict=True),
        )
    except ValueError as exc:
        raise CorruptFrameError(source, f"JPEG data: {exc}") from exc


def thumbnail(source: str, data: bytes) -> npt.NDArray[np.uint8]:
    """Decode a JPEG to grey at an eighth of its size, strictly; for the once-a-second check.

    Raises:
        CorruptFrameError: The decoder found damage.
    """
    try:
        grey = simplejpeg.decode_jpeg(data, colorspace="GRAY", min_factor=8, strict=True)
    except ValueError as exc:
        raise CorruptFrameError(source, f"JPEG data: {exc}") from exc
    return cast("npt.NDArray[np.uint8]", grey[:, :, 0])


def encode(picture: npt.NDArray[np.uint8], color_mode: ColorMode, quality: int) -> bytes:
    """Encode a decoded picture of shape (H, W, 3) or (H, W); quality 1..100."""
    if picture.ndim == 2:
        return cast(
            bytes,
            simplejpeg.encode_jpeg(
                np.ascontiguousarray(picture)[:, :, None],
                quality=quality,
                colorspace="GRAY",
                colorsubsampling="Gray",
            ),
        )
    return cast(
        bytes,
        simplejpeg.encode_jpeg(
            np.ascontiguousarray(picture),
            quality=quality,
            colorspace=color_mode.value.upper(),
            colorsubsampling="420",
        ),
    )


def encode_frame(frame: Frame, quality: int) -> bytes:
    """Encode a raw frame without rotation; YUV layouts skip the way over RGB.

    Raises:
        ValueError: The frame is JPEG already (a bug of the caller).
    """
    pixels = frame.pixels
    if pixels is None:
        raise ValueError("encode_frame got a JPEG frame")
    if frame.encoding in (Encoding.YUYV, Encoding.UYVY, Encoding.NV12):
        luma, blue, red = yuv_planes(frame.encoding, pixels)
        if not frame.full_range:
            luma, blue, red = _LUMA_TO_FULL[luma], _CHROMA_TO_FULL[blue], _CHROMA_TO_FULL[red]
        return cast(bytes, simplejpeg.encode_jpeg_yuv_planes(luma, blue, red, quality))
    order = ColorMode.BGR if frame.encoding is Encoding.BGR8 else ColorMode.RGB
    return encode(pixels, order, quality)


def yuv_planes(
    encoding: Encoding, pixels: npt.NDArray[np.uint8]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Split a YUV picture into contiguous Y, U, V planes.

    4:2:2 layouts give (H, W), (H, W/2), (H, W/2); NV12 gives (H, W), (H/2, W/2), (H/2, W/2).
    """
    if encoding is Encoding.NV12:
        rows = pixels.shape[0] * 2 // 3
        chroma = pixels[rows:].reshape(rows // 2, -1, 2)
        planes = (pixels[:rows], chroma[:, :, 0], chroma[:, :, 1])
    else:
        luma, chroma_at = (0, 1) if encoding is Encoding.YUYV else (1, 0)
        planes = (pixels[:, :, luma], pixels[:, 0::2, chroma_at], pixels[:, 1::2, chroma_at])
    y, u, v = (np.ascontiguousarray(plane) for plane in planes)
    return y, u, v


def rotate(picture: npt.NDArray[np.uint8], rotation: Rotation) -> npt.NDArray[np.uint8]:
    """Turn a picture clockwise by the rotation; a view, not a copy."""
    return np.rot90(picture, _QUARTER_TURNS[rotation])


def _full_range_table(low: int, span: int, centre: int) -> npt.NDArray[np.uint8]:
    """Table from studio range to the full range that JFIF prescribes (ITU-R BT.601)."""
    values = (np.arange(256, dtype=np.float64) - low) * 255.0 / span + centre
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


_LUMA_TO_FULL = _full_range_table(16, 219, 0)
_CHROMA_TO_FULL = _full_range_table(128, 224, 128)
