# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""JPEG checks, encoding of raw images, rotation."""

from __future__ import annotations

import numpy as np
import pytest
import simplejpeg

from koch_cameras.errors import CorruptFrameError
from koch_cameras.frame import CameraFrame, Encoding, TimeBase
from koch_cameras.image import compressed, jpeg_size, pixels, thumbnail, yuv422_to_rgb
from koch_cameras.source import Rotation
from koch_core.image import decode_image
from koch_rig.rig import ColorMode


def frame(encoding: Encoding, data: object, *, full_range: bool = True) -> CameraFrame:
    return CameraFrame(0, 0, TimeBase.MONOTONIC, encoding, 64, 48, data, full_range)


def to_yuv422(rgb: np.ndarray, encoding: Encoding, *, full_range: bool) -> np.ndarray:
    """BT.601 from its definition, chroma averaged over pairs."""
    red, green, blue = (rgb[:, :, index].astype(float) for index in range(3))
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    chroma = [(blue - luma) / 1.772 + 128, (red - luma) / 1.402 + 128]
    if not full_range:
        luma = luma * 219 / 255 + 16
        chroma = [(plane - 128) * 224 / 255 + 128 for plane in chroma]
    result = np.empty((*rgb.shape[:2], 2), np.uint8)
    luma_at = 0 if encoding is Encoding.YUYV else 1
    result[:, :, luma_at] = np.rint(luma)
    for parity, plane in enumerate(chroma):
        pairs = (plane[:, 0::2] + plane[:, 1::2]) / 2
        result[:, parity::2, 1 - luma_at] = np.rint(pairs)
    return result


def test_size_is_read_and_padding_is_tolerated(jpeg):
    assert jpeg_size("x", jpeg(0)) == (64, 48)
    assert jpeg_size("x", jpeg(0) + b"\0" * 500) == (64, 48)


@pytest.mark.parametrize("cut", [0, 1, 2, 20, 400, -3])
def test_every_cut_is_noticed(jpeg, cut):
    with pytest.raises(CorruptFrameError, match=r"camera x: damaged image dropped"):
        jpeg_size("x", jpeg(0)[:cut])


def test_corrupt_body_is_noticed_by_the_decoder(jpeg):
    data = bytearray(jpeg(0))
    middle = len(data) - 150
    data[middle : middle + 60] = b"\xff\xd8" * 30
    assert jpeg_size("x", bytes(data)) == (64, 48)
    damaged = frame(Encoding.JPEG, bytes(data))
    for look in (
        lambda: pixels("x", damaged, Rotation.NONE, ColorMode.RGB),
        lambda: thumbnail("x", damaged),
        lambda: compressed("x", damaged, Rotation.HALF, 90),
    ):
        with pytest.raises(CorruptFrameError, match="damaged"):
            look()


def test_packets_of_cameras_without_huffman_tables_decode(jpeg):
    whole = jpeg(3)
    stripped, position = bytearray(whole[:2]), 2
    while whole[position + 1] != 0xDA:
        length = 2 + int.from_bytes(whole[position + 2 : position + 4], "big")
        if whole[position + 1] != 0xC4:
            stripped += whole[position : position + length]
        position += length
    stripped += whole[position:]
    assert len(stripped) < len(whole) - 100
    assert jpeg_size("x", bytes(stripped)) == (64, 48)
    np.testing.assert_array_equal(decode_image(bytes(stripped)), decode_image(whole))


@pytest.mark.parametrize("full_range", [True, False])
@pytest.mark.parametrize("encoding", [Encoding.YUYV, Encoding.UYVY])
def test_yuv_images_keep_their_colours(image, encoding, full_range):
    rgb = image(0)
    data = to_yuv422(rgb, encoding, full_range=full_range)
    item = frame(encoding, data, full_range=full_range)
    encoded = simplejpeg.decode_jpeg(compressed("x", item, Rotation.NONE, 95)).astype(int)
    assert np.abs(encoded - rgb).mean() < 6
    direct = pixels("x", item, Rotation.NONE, ColorMode.RGB).astype(int)
    assert np.abs(direct - rgb).mean() < 3
    wrong = yuv422_to_rgb(
        data, luma_first=encoding is Encoding.YUYV, full_range=not full_range
    ).astype(int)
    assert np.abs(wrong - rgb).mean() > np.abs(direct - rgb).mean() + 2


def test_nv12_keeps_its_colours():
    planes = np.vstack([np.full((48, 64), 100), np.tile([90, 200], (24, 32))]).astype(np.uint8)
    result = pixels("x", frame(Encoding.NV12, planes), Rotation.NONE, ColorMode.RGB)
    expected = (100 + 1.402 * 72, 100 - 0.344 * -38 - 0.714 * 72, 100 + 1.772 * -38)
    np.testing.assert_allclose(result[20, 20], expected, atol=4)
    assert thumbnail("x", frame(Encoding.NV12, planes)).mean() == 100


@pytest.mark.parametrize(
    ("encoding", "mode", "flip"),
    [
        (Encoding.RGB8, ColorMode.RGB, False),
        (Encoding.RGB8, ColorMode.BGR, True),
        (Encoding.BGR8, ColorMode.BGR, False),
        (Encoding.BGR8, ColorMode.RGB, True),
    ],
)
def test_channel_order_follows_the_colour_mode(image, encoding, mode, flip):
    result = pixels("x", frame(encoding, image(1)), Rotation.NONE, mode)
    np.testing.assert_array_equal(result, image(1)[:, :, ::-1] if flip else image(1))


def test_grey_images_stay_grey(image):
    grey = np.ascontiguousarray(image(0)[:, :, 0])
    item = frame(Encoding.MONO8, grey)
    decoded = simplejpeg.decode_jpeg(compressed("x", item, Rotation.NONE, 95), colorspace="GRAY")[
        :, :, 0
    ]
    assert np.abs(decoded.astype(int) - grey).mean() < 3
    np.testing.assert_array_equal(
        pixels("x", item, Rotation.HALF, ColorMode.RGB), grey[::-1, ::-1]
    )


def test_unrotated_jpeg_is_the_same_object(jpeg):
    data = jpeg(0)
    assert compressed("x", frame(Encoding.JPEG, data), Rotation.NONE, 50) is data


@pytest.mark.parametrize(
    ("rotation", "corner"),
    [(0, (0, 0)), (90, (0, -1)), (180, (-1, -1)), (-90, (-1, 0))],
)
def test_rotation_is_clockwise_as_in_lerobot(rotation, corner):
    image = np.zeros((2, 3, 3), np.uint8)
    image[0, 0] = 255
    turned = pixels("x", frame(Encoding.RGB8, image), Rotation(rotation), ColorMode.RGB)
    assert turned[corner].tolist() == [255, 255, 255]
    assert turned.sum() == 765
