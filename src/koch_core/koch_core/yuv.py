# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Between a frame's planes and RGB, and from a JPEG's planes to a video's, right in the mean.

Every image's range is scaled for the encoder; of the sampled ones some pixels become RGB for
the statistics. FFmpeg's scaler does both, through intermediate lines of 16 bits: the first takes
it five times as long, the second means a second decoding.

A policy in operation sees JPEGs as libjpeg decodes them; in training it sees frames of a video.
FFmpeg's scaler cuts fractions off in its quick conversion to RGB: its images are darker than the
camera's by 1 level in red and blue and by 1.4 in green (640x480, FFmpeg 8.0, x264 at crf 10).
`rgb_of_frame` rounds, and interpolates chroma as libjpeg does; the two then agree within 0.1.

Source: JFIF 1.02 (colour conversion); libjpeg, jdsample.c (triangle filter of the chroma);
ITU-R BT.601, 2.5.3 (limited range).
"""

from __future__ import annotations

from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

Plane = npt.NDArray[np.uint8]
_LUMA_SCALE, _LUMA_BASE = 219 / 255, 16.0
_CHROMA_SCALE, _CHROMA_BASE = 224 / 255, 128 - 128 * 224 / 255
_ROWS_PER_CHROMA = {"yuvj422p": 1, "yuv422p": 1, "yuvj420p": 2, "yuv420p": 2}
_SUBSAMPLINGS = ("420", "422", "440", "444", "411")
# ISO/IEC 23091-2, MatrixCoefficients: unspecified (FFmpeg takes it for BT.601), BT.470BG and
# SMPTE 170M, which are the same matrix.
_BT601 = frozenset((2, 5, 6))
ACCURATE = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
_FIXED = 16  # fractional bits of the colour conversion, as in libjpeg
_HALF = 1 << (_FIXED - 1)


def _fixed(value: float) -> int:
    return round(value * (1 << _FIXED))


def is_full_range(frame: av.VideoFrame) -> bool:
    """Tell whether the planes use 0..255, as JPEG's do."""
    return frame.color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj")


def rgb_of_frame(frame: av.VideoFrame) -> Plane:
    """Convert a decoded frame to RGB by the range and matrix that it declares.

    Args:
        frame: Of any pixel format. 8-bit planes of BT.601 need no intermediate image.

    Returns:
        uint8, shape (H, W, 3).
    """
    if _subsampling(frame) is None or int(frame.colorspace) not in _BT601:
        plain = VideoReformatter().reformat(
            frame, format="rgb24", interpolation=ACCURATE, threads=1
        )
        return np.asarray(plain.to_ndarray(), dtype=np.uint8)
    import cv2

    planes: list[Any] = list(_views(frame))
    if not is_full_range(frame):
        tables = (_TO_FULL_LUMA, _TO_FULL_CHROMA, _TO_FULL_CHROMA)
        planes = [cv2.LUT(plane, table) for plane, table in zip(planes, tables, strict=True)]
    luma, *chroma = planes
    if chroma[0].shape != luma.shape:  # linear: the triangle filter of libjpeg
        size = (frame.width, frame.height)
        chroma = [cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR) for plane in chroma]
    blue, red = chroma
    rgb = cv2.cvtColor(cv2.merge((luma, red, blue)), cv2.COLOR_YCrCb2RGB)
    return np.asarray(rgb, dtype=np.uint8)


def _table(scale: float, base: float) -> Plane:
    """Return the inverse of scaling a plane to the limited range, for each of its values."""
    values = np.rint((np.arange(256) - base) / scale)
    return np.asarray(np.clip(values, 0, 255), dtype=np.uint8)


_TO_FULL_LUMA = _table(_LUMA_SCALE, _LUMA_BASE)
_TO_FULL_CHROMA = _table(_CHROMA_SCALE, _CHROMA_BASE)


def _subsampling(frame: av.VideoFrame) -> str | None:
    """Return ``420`` and the like for planes of 8 bits, None for other pixel formats."""
    name = frame.format.name
    found = name.removeprefix("yuvj").removeprefix("yuv").removesuffix("p")
    return found if name.startswith("yuv") and found in _SUBSAMPLINGS else None


def _rows_per_chroma(frame: av.VideoFrame) -> int | None:
    """Return image rows per chroma row, None for pixel formats that are not handled here."""
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
    """Return the image as yuv420p in the limited range, with chroma averaged to half its sides.

    FFmpeg's scaler cuts fractions off here too: 0.9 levels in red and blue of a 4:4:4 JPEG.

    Args:
        frame: A JPEG's planes of any subsampling, both sides even.

    Returns:
        A new frame; None for other pixel formats.
    """
    if _subsampling(frame) is None or not is_full_range(frame):
        return None
    step = _rows_per_chroma(frame)
    import cv2  # a quarter of a second, which the recorder does not need

    out = av.VideoFrame(frame.width, frame.height, "yuv420p")
    out.color_range, out.colorspace = ColorRange.MPEG, Colorspace.ITU601
    luma, *chroma = _views(frame)
    to_luma, *to_chroma = _views(out)
    cv2.convertScaleAbs(luma, to_luma, _LUMA_SCALE, _LUMA_BASE)
    for plane, target in zip(chroma, to_chroma, strict=True):
        if step is None:
            exact = plane.astype(np.float32)  # rounded once, at the end
            shrunk = cv2.resize(exact, target.shape[::-1], interpolation=cv2.INTER_AREA)
            cv2.convertScaleAbs(shrunk, target, _CHROMA_SCALE, _CHROMA_BASE)
        elif step == 2:
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
        frame: A decoded image of any format.
        step: Distance of the pixels, at least 1.

    Returns:
        uint8, shape (ceil(H / step), ceil(W / step), 3).
    """
    rows_per_chroma = _rows_per_chroma(frame)
    if rows_per_chroma is None:
        return rgb_of_frame(frame)[::step, ::step]
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
