# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What is done with the planes of a decoded JPEG, without a whole RGB picture in between.

Every picture's range is scaled for the encoder; of the sampled ones some pixels become RGB for
the statistics. FFmpeg's scaler does both, through intermediate lines of 16 bits: the first takes
it five times as long, the second means a second decoding.

Source: JFIF 1.02 (colour conversion); libjpeg, jdsample.c (triangle filter of the chroma);
ITU-R BT.601, 2.5.3 (limited range).
"""

from __future__ import annotations

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import ColorRange, Colorspace

Plane = npt.NDArray[np.uint8]
_LUMA_SCALE, _LUMA_BASE = 219 / 255, 16.0
_CHROMA_SCALE, _CHROMA_BASE = 224 / 255, 128 - 128 * 224 / 255
_ROWS_PER_CHROMA = {"yuvj422p": 1, "yuv422p": 1, "yuvj420p": 2, "yuv420p": 2}
_FIXED = 16  # fractional bits of the colour conversion, as in libjpeg
_HALF = 1 << (_FIXED - 1)


def _fixed(value: float) -> int:
    return round(value * (1 << _FIXED))


def is_full_range(frame: av.VideoFrame) -> bool:
    """Tell whether the planes use 0..255, as JPEG's do."""
    return frame.color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj")


def _rows_per_chroma(frame: av.VideoFrame) -> int | None:
    """Return picture rows per chroma row, None for pixel formats that are not handled here."""
    name = frame.format.name
    if name not in _ROWS_PER_CHROMA or not (name[3] == "j" or is_full_range(frame)):
        return None
    return _ROWS_PER_CHROMA[name]


def _views(frame: av.VideoFrame) -> list[Plane]:
    """Return the planes, not copied, without the padding of their rows."""
    return [
        np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:, : plane.width]  # type: ignore[call-overload]
        for plane in frame.planes
    ]


def limited_yuv420p(frame: av.VideoFrame) -> av.VideoFrame | None:
    """Return the picture as yuv420p in the limited range, with halved chroma rows averaged.

    Args:
        frame: A JPEG's planes, 4:2:2 or 4:2:0, both sides even.

    Returns:
        A new frame; None for other pixel formats.
    """
    step = _rows_per_chroma(frame)
    if step is None:
        return None
    import cv2  # a quarter of a second, which readers of datasets and the recorder do not need

    out = av.VideoFrame(frame.width, frame.height, "yuv420p")
    out.color_range, out.colorspace = ColorRange.MPEG, Colorspace.ITU601
    luma, *chroma = _views(frame)
    to_luma, *to_chroma = _views(out)
    cv2.convertScaleAbs(luma, to_luma, _LUMA_SCALE, _LUMA_BASE)
    for plane, target in zip(chroma, to_chroma, strict=True):
        if step == 2:
            cv2.convertScaleAbs(plane, target, _CHROMA_SCALE, _CHROMA_BASE)
        else:
            half = _CHROMA_SCALE / 2
            cv2.addWeighted(plane[0::2], half, plane[1::2], half, _CHROMA_BASE, target)
    return out


def sampled_rgb(frame: av.VideoFrame, step: int) -> Plane:
    """Return every `step`-th pixel of every `step`-th row in RGB.

    From the planes of a JPEG they are what libjpeg makes of them: chroma is interpolated with a
    triangle filter.

    Args:
        frame: A decoded picture of any format.
        step: Distance of the pixels, at least 1.

    Returns:
        uint8, shape (ceil(H / step), ceil(W / step), 3).
    """
    rows_per_chroma = _rows_per_chroma(frame)
    if rows_per_chroma is None:
        return np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)[::step, ::step]
    luma, blue, red = _views(frame)
    rows, columns = np.arange(0, frame.height, step), np.arange(0, frame.width, step)
    y = luma[::step, ::step].astype(np.int32)
    cb = _interpolated(blue, rows, columns, rows_per_chroma) - 128
    cr = _interpolated(red, rows, columns, rows_per_chroma) - 128
    rgb = np.empty((*y.shape, 3), np.int32)
    rgb[..., 0] = y + ((_fixed(1.402) * cr + _HALF) >> _FIXED)
    rgb[..., 1] = y + ((_HALF - _fixed(0.34414) * cb - _fixed(0.71414) * cr) >> _FIXED)
    rgb[..., 2] = y + ((_fixed(1.772) * cb + _HALF) >> _FIXED)
    return np.clip(rgb, 0, 255).astype(np.uint8)


def _interpolated(
    plane: Plane, rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64], per_row: int
) -> npt.NDArray[np.int32]:
    """Return the chroma at some pixels: three quarters of the nearest sample, one of the next."""
    odd = columns % 2
    near = columns // 2
    beside = np.clip(near + 2 * odd - 1, 0, plane.shape[1] - 1)
    if per_row == 1:
        lines = plane[rows].astype(np.int32)
        return np.asarray((3 * lines[:, near] + lines[:, beside] + 1 + odd) >> 2, dtype=np.int32)
    next_row = np.clip(rows // 2 + 2 * (rows % 2) - 1, 0, plane.shape[0] - 1)
    lines = 3 * plane[rows // 2].astype(np.int32) + plane[next_row]
    return np.asarray((3 * lines[:, near] + lines[:, beside] + 8 - odd) >> 4, dtype=np.int32)
