# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A JPEG's planes: the encoder's copy and the sampled pixels, against the formulas and libjpeg."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import simplejpeg
from av.video.reformatter import ColorRange, Colorspace

from koch_core.image import PacketDecoder, decode_image
from koch_core.yuv import limited_yuv420p, sampled_rgb
from koch_episodes.dataset.frames import VideoFrames
from koch_episodes.dataset.layout import Codec
from koch_episodes.dataset.video import VideoSettings, VideoWriter


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
    frame = PacketDecoder().decode(jpeg(subsampling))
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


def grey(height: int = 96, width: int = 140) -> bytes:
    levels = np.arange(height * width).reshape(height, width, 1) % 251
    return bytes(simplejpeg.encode_jpeg(levels.astype(np.uint8), quality=95, colorspace="GRAY"))


def test_other_formats_are_left_to_the_scaler() -> None:
    frame = PacketDecoder().decode(grey())
    assert limited_yuv420p(frame) is None
    assert sampled_rgb(frame, 3).shape == (32, 47, 3)


def blurred(seed: int) -> np.ndarray[Any, Any]:
    """A colourful image without hard edges, not clipped."""
    import cv2

    small = np.random.default_rng(seed).integers(25, 226, (6, 8, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(small, (160, 96), interpolation=cv2.INTER_LINEAR))


KINDS: dict[str, Any] = {
    name: lambda image, s=name: simplejpeg.encode_jpeg(image, quality=92, colorsubsampling=s)
    for name in ("422", "420", "444", "440", "411")
}
KINDS["gray"] = lambda image: simplejpeg.encode_jpeg(
    image[..., :1].copy(), quality=92, colorspace="GRAY"
)
KINDS["png"] = lambda image: bytes(__import__("cv2").imencode(".png", image)[1])


@pytest.mark.parametrize("codec", list(Codec))
@pytest.mark.parametrize("kind", KINDS)
def test_training_sees_the_image_that_the_live_policy_sees(
    tmp_path: Path, kind: str, codec: Codec
) -> None:
    """FFmpeg's quick conversion made every video darker than the camera's JPEG, green by 1.5."""
    if kind == "png" and codec is Codec.COPY:
        pytest.skip("a PNG is not copied")
    packets = [KINDS[kind](blurred(k)) for k in range(8)]
    path = tmp_path / "video.mp4"
    with VideoWriter(path, VideoSettings.for_codec(codec), 10, 96, 160) as video:
        for packet in packets:
            if codec is Codec.COPY:
                video.write_packet(packet)
            else:
                video.write(PacketDecoder().decode(packet))
    frames = VideoFrames()
    off = [
        frames.rgb(path, k / 10, 0.02).astype(float) - decode_image(packet)
        for k, packet in enumerate(packets)
    ]
    assert np.abs(np.mean(off, axis=(0, 1, 2))).max() < 0.3
    assert np.abs(off).mean() < 3


def yuv420p(
    image: np.ndarray[Any, Any], matrix: Colorspace | None, *, full: bool
) -> av.VideoFrame:
    """Convert by the formulas of BT.601 and BT.709; FFmpeg's scaler is off by up to a level."""
    red, blue = (0.2126, 0.0722) if matrix is Colorspace.ITU709 else (0.299, 0.114)
    r, g, b = np.moveaxis(image.astype(float), -1, 0)
    y = red * r + (1 - red - blue) * g + blue * b
    scale, base, chroma = (1.0, 0.0, 1.0) if full else (219 / 255, 16.0, 224 / 255)
    halves = [
        128 + chroma * (d / (2 - 2 * w)).reshape(48, 2, 80, 2).mean((1, 3))
        for d, w in ((b - y, blue), (r - y, red))
    ]
    planes = [base + scale * y, *halves]
    flat = np.concatenate([np.rint(plane).reshape(-1) for plane in planes]).astype(np.uint8)
    return av.VideoFrame.from_ndarray(flat.reshape(144, 160), format="yuv420p")


@pytest.mark.parametrize("codec", ["libx264", "libsvtav1"])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", [Colorspace.ITU601, Colorspace.ITU709, None])
def test_video_of_others_is_read_by_what_it_declares(
    tmp_path: Path, codec: str, full: bool, matrix: Colorspace | None
) -> None:
    """LeRobot declares nothing, which means BT.601; cameras in HD declare BT.709."""
    path, images = tmp_path / "video.mp4", [blurred(k) for k in range(6)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, options={"crf": "5"})
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        wide = ColorRange.JPEG if full else ColorRange.MPEG
        if matrix is not None or full:
            stream.codec_context.color_range = wide
        if matrix is not None:
            stream.codec_context.colorspace = matrix
        for k, image in enumerate(images):
            frame = yuv420p(image, matrix, full=full)
            frame.pts = k
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    frames = VideoFrames()
    off = [frames.rgb(path, k / 10, 0.02).astype(float) - image for k, image in enumerate(images)]
    assert np.abs(np.mean(off, axis=(0, 1, 2))).max() < 0.3
    assert np.abs(off).mean() < 2.5


@pytest.mark.parametrize("subsampling", ["422", "420"])
@pytest.mark.parametrize("step", [1, 3, 4])
def test_sampled_pixels_are_libjpegs(subsampling: str, step: int) -> None:
    data = jpeg(subsampling)
    wanted = simplejpeg.decode_jpeg(data, colorspace="RGB")[::step, ::step].astype(int)
    off = np.abs(sampled_rgb(PacketDecoder().decode(data), step).astype(int) - wanted)
    # The inverse cosine transforms round differently: by one, before the colour conversion.
    assert off.max() <= 3
    assert off.mean() < 0.1
