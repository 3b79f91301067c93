# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A JPEG's planes: the encoder's copy and the sampled pixels, against the formulas and libjpeg."""

from __future__ import annotations

from typing import Any

import av
import numpy as np
import pytest
import simplejpeg
from av.video.reformatter import ColorRange

from koch_episodes.dataset.planes import limited_yuv420p, sampled_rgb
from koch_episodes.dataset.video import decode_packet


def jpeg(subsampling: str, height: int = 96, width: int = 140) -> bytes:
    """Smooth colours and hard edges; a width that makes FFmpeg pad its rows."""
    rows, columns = np.mgrid[0:height, 0:width]
    image = np.stack([columns % 256, 2 * rows % 256, 255 - columns], -1)
    image[20:60, 31:77] = (250, 10, 30)
    image[40:80, 100:120] = 255
    data: bytes = simplejpeg.encode_jpeg(
        image.astype(np.uint8), quality=95, colorsubsampling=subsampling
    )
    return data


def planes_of(frame: av.VideoFrame) -> list[np.ndarray[Any, Any]]:
    return [
        np.frombuffer(bytes(p), np.uint8).reshape(-1, p.line_size)[:, : p.width].astype(float)
        for p in frame.planes
    ]


@pytest.mark.parametrize("subsampling", ["422", "420"])
def test_planes_are_scaled_to_the_limited_range(subsampling: str) -> None:
    frame = decode_packet(jpeg(subsampling))
    out = limited_yuv420p(frame)
    assert out is not None
    assert (out.format.name, out.color_range) == ("yuv420p", ColorRange.MPEG)
    luma, *chroma = planes_of(frame)
    found_luma, *found_chroma = planes_of(out)
    assert np.abs(found_luma - (16 + luma * 219 / 255)).max() <= 0.51
    for plane, found in zip(chroma, found_chroma, strict=True):
        halved = (plane[0::2] + plane[1::2]) / 2 if subsampling == "422" else plane
        assert found.shape == (48, 70)
        assert np.abs(found - (128 + (halved - 128) * 224 / 255)).max() <= 0.51


@pytest.mark.parametrize("subsampling", ["444", "gray"])
def test_other_formats_are_left_to_the_scaler(subsampling: str) -> None:
    if subsampling == "gray":
        data = simplejpeg.encode_jpeg(np.zeros((16, 16, 1), np.uint8), colorspace="GRAY")
        frame = decode_packet(data)
    else:
        frame = decode_packet(jpeg(subsampling))
    assert limited_yuv420p(frame) is None
    assert sampled_rgb(frame, 3).shape == (-(-frame.height // 3), -(-frame.width // 3), 3)


@pytest.mark.parametrize("subsampling", ["422", "420"])
@pytest.mark.parametrize("step", [1, 3, 4])
def test_sampled_pixels_are_libjpegs(subsampling: str, step: int) -> None:
    data = jpeg(subsampling)
    wanted = simplejpeg.decode_jpeg(data, colorspace="RGB")[::step, ::step].astype(int)
    off = np.abs(sampled_rgb(decode_packet(data), step).astype(int) - wanted)
    # The inverse cosine transforms round differently: by one, before the colour conversion.
    assert off.max() <= 3
    assert off.mean() < 0.1
