# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""From a frame to what is published: the JPEG of the compressed topic, the pixels of the raw."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from koch_cameras import jpeg
from koch_cameras.convert import yuv422_to_rgb
from koch_cameras.frame import Encoding, Frame
from koch_cameras.source import Rotation
from koch_rig.rig import ColorMode


def compressed(source: str, frame: Frame, rotation: Rotation, quality: int) -> bytes:
    """JPEG bytes to publish.

    A JPEG frame without rotation is handed on untouched. A rotated one is decoded, turned and
    encoded again: no library on PyPI turns JPEG losslessly, and an EXIF orientation mark would be
    obeyed by some decoders (OpenCV) and ignored by others (TurboJPEG), which is worse than 3 ms.

    Args:
        source: Name for messages.
        frame: The picture.
        rotation: Clockwise turn.
        quality: JPEG quality 1..100 where encoding is needed.

    Raises:
        CorruptFrameError: The picture had to be decoded and is damaged.
    """
    if rotation is Rotation.NONE:
        return frame.jpeg if frame.jpeg is not None else jpeg.encode_frame(frame, quality)
    return jpeg.encode(pixels(source, frame, rotation, ColorMode.RGB), ColorMode.RGB, quality)


def pixels(
    source: str, frame: Frame, rotation: Rotation, color_mode: ColorMode
) -> npt.NDArray[np.uint8]:
    """Decoded picture: uint8, (H, W, 3) in the order of ``color_mode``, or (H, W) for grey.

    Raises:
        CorruptFrameError: The picture is damaged.
    """
    if frame.jpeg is not None:
        picture = jpeg.decode(source, frame.jpeg, color_mode)
    else:
        picture = _raw_pixels(source, frame, color_mode)
    return jpeg.rotate(picture, rotation)


def thumbnail(source: str, frame: Frame) -> npt.NDArray[np.uint8]:
    """Small grey picture for the watch; a damaged JPEG raises CorruptFrameError."""
    if frame.jpeg is not None:
        return jpeg.thumbnail(source, frame.jpeg)
    data = frame.pixels
    assert data is not None
    if frame.encoding is Encoding.NV12:
        return data[: frame.height : 8, ::8]
    if frame.encoding in (Encoding.YUYV, Encoding.UYVY):
        return data[::8, ::8, 0 if frame.encoding is Encoding.YUYV else 1]
    return data[::8, ::8] if data.ndim == 2 else data[::8, ::8, 1]


def _raw_pixels(source: str, frame: Frame, color_mode: ColorMode) -> npt.NDArray[np.uint8]:
    data = frame.pixels
    assert data is not None
    if frame.encoding is Encoding.MONO8:
        return data
    if frame.encoding in (Encoding.RGB8, Encoding.BGR8):
        same = frame.encoding.value.startswith(color_mode.value)
        return data if same else data[:, :, ::-1]
    if frame.encoding is Encoding.NV12:
        # Rare: by way of a lossless-enough JPEG instead of a converter of its own.
        return jpeg.decode(source, jpeg.encode_frame(frame, 95), color_mode)
    luma_first = frame.encoding is Encoding.YUYV
    rgb = yuv422_to_rgb(data, luma_first=luma_first, full_range=frame.full_range)
    return rgb if color_mode is ColorMode.RGB else rgb[:, :, ::-1]
