# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""From a frame to what is published: the JPEG of the compressed topic, the pixels of the raw."""

from __future__ import annotations

from typing import cast

import numpy as np
import simplejpeg

from koch_cameras.errors import CorruptFrameError
from koch_cameras.frame import CameraFrame, Encoding
from koch_cameras.source import Rotation
from koch_core.errors import DecodeError
from koch_core.image import Image, decode_image, encode_jpeg, grey_eighth, image_size, is_png
from koch_rig.rig import ColorMode

_QUARTER_TURNS = {
    # np.rot90 turns counter-clockwise.
    Rotation.NONE: 0,
    Rotation.CLOCKWISE: 3,
    Rotation.HALF: 2,
    Rotation.COUNTERCLOCKWISE: 1,
}


def jpeg_size(source: str, data: bytes) -> tuple[int, int]:
    """Check that a packet looks like one complete JPEG; nothing is decoded.

    Args:
        source: Name for the message.
        data: The packet; some cameras pad it behind the end marker.

    Returns:
        (width, height) in [px].

    Raises:
        CorruptFrameError: Empty, no start marker, no readable header, or no end marker.
    """
    if is_png(data):
        raise CorruptFrameError(source, "a PNG where a JPEG is expected")
    try:
        height, width = image_size(data)
    except DecodeError as exc:
        raise CorruptFrameError(source, exc.why) from exc
    return width, height


def compressed(source: str, frame: CameraFrame, rotation: Rotation, quality: int) -> bytes:
    """JPEG bytes to publish.

    A JPEG frame without rotation is handed on untouched. A rotated one is decoded, turned and
    encoded again: no library on PyPI turns JPEG losslessly, and an EXIF orientation mark would be
    obeyed by some decoders (OpenCV) and ignored by others (TurboJPEG), which is worse than 3 ms.

    Args:
        source: Name for messages.
        frame: The image.
        rotation: Clockwise turn.
        quality: JPEG quality 1..100 where encoding is needed.

    Raises:
        CorruptFrameError: The image had to be decoded and is damaged.
    """
    if rotation is Rotation.NONE:
        return frame.jpeg if frame.jpeg is not None else _encode_raw(frame, quality)
    return encode_jpeg(pixels(source, frame, rotation, ColorMode.RGB), quality)


def pixels(source: str, frame: CameraFrame, rotation: Rotation, color_mode: ColorMode) -> Image:
    """Decoded image: uint8, (H, W, 3) in the order of ``color_mode``, or (H, W) for grey.

    Raises:
        CorruptFrameError: The image is damaged.
    """
    if frame.jpeg is not None:
        image = _decoded(source, frame.jpeg, color_mode)
    else:
        image = _raw_pixels(source, frame, color_mode)
    return np.rot90(image, _QUARTER_TURNS[rotation])


def thumbnail(source: str, frame: CameraFrame) -> Image:
    """Small grey image for the watch; a damaged JPEG raises CorruptFrameError."""
    if frame.jpeg is not None:
        try:
            return grey_eighth(frame.jpeg)
        except DecodeError as exc:
            raise CorruptFrameError(source, str(exc.why)) from exc
    data = frame.pixels
    assert data is not None
    if frame.encoding is Encoding.NV12:
        return data[: frame.height : 8, ::8]
    if frame.encoding in (Encoding.YUYV, Encoding.UYVY):
        return data[::8, ::8, 0 if frame.encoding is Encoding.YUYV else 1]
    return data[::8, ::8] if data.ndim == 2 else data[::8, ::8, 1]


def _raw_pixels(source: str, frame: CameraFrame, color_mode: ColorMode) -> Image:
    data = frame.pixels
    assert data is not None
    if frame.encoding is Encoding.MONO8:
        return data
    if frame.encoding in (Encoding.RGB8, Encoding.BGR8):
        same = frame.encoding.value.startswith(color_mode.value)
        return data if same else data[:, :, ::-1]
    if frame.encoding is Encoding.NV12:
        # Rare: by way of a lossless-enough JPEG instead of a converter of its own.
        return _decoded(source, _encode_raw(frame, 95), color_mode)
    luma_first = frame.encoding is Encoding.YUYV
    rgb = yuv422_to_rgb(data, luma_first=luma_first, full_range=frame.full_range)
    return rgb if color_mode is ColorMode.RGB else rgb[:, :, ::-1]


def _decoded(source: str, data: bytes, color_mode: ColorMode) -> Image:
    try:
        return decode_image(data, bgr=color_mode is ColorMode.BGR)
    except DecodeError as exc:
        raise CorruptFrameError(source, exc.why) from exc


def _encode_raw(frame: CameraFrame, quality: int) -> bytes:
    """Encode a raw frame without rotation; YUV layouts skip the way over RGB."""
    pixels = frame.pixels
    assert pixels is not None
    if frame.encoding in (Encoding.YUYV, Encoding.UYVY, Encoding.NV12):
        luma, blue, red = _yuv_planes(frame.encoding, pixels)
        if not frame.full_range:
            luma, blue, red = _LUMA_TO_FULL[luma], _CHROMA_TO_FULL[blue], _CHROMA_TO_FULL[red]
        return cast(bytes, simplejpeg.encode_jpeg_yuv_planes(luma, blue, red, quality))
    return encode_jpeg(pixels, quality, bgr=frame.encoding is Encoding.BGR8)


def _yuv_planes(encoding: Encoding, pixels: Image) -> tuple[Image, Image, Image]:
    """Split a YUV image into contiguous Y, U, V planes.

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


def yuv422_to_rgb(pixels: Image, *, luma_first: bool, full_range: bool) -> Image:
    """YUYV or UYVY to RGB by ITU-R BT.601.

    Args:
        pixels: uint8, shape (H, W, 2), W even.
        luma_first: YUYV (True) or UYVY (False).
        full_range: Luma 0..255 (JPEG) or 16..235 (studio).

    Returns:
        uint8, shape (H, W, 3).
    """
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


def _full_range_table(low: int, span: int, centre: int) -> Image:
    """Table from studio range to the full range that JFIF prescribes (ITU-R BT.601)."""
    values = (np.arange(256, dtype=np.float64) - low) * 255.0 / span + centre
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


_LUMA_TO_FULL = _full_range_table(16, 219, 0)
_CHROMA_TO_FULL = _full_range_table(128, 224, 128)
