# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Messages to numpy and back over all encodings, strides and byte orders."""

from __future__ import annotations

import array
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from koch_cameras import errors
from koch_cameras.convert import (
    _NAMED,
    compressed_to_numpy,
    convert,
    fill_image,
    layout_of,
    to_numpy,
)

ENCODINGS = [*_NAMED, "8UC1", "8UC3", "8SC2", "16UC1", "16SC4", "32SC1", "32FC1", "64FC2", "16U"]


@dataclass
class Message:
    """Stands for sensor_msgs/msg/Image."""

    height: int = 0
    width: int = 0
    encoding: str = ""
    is_bigendian: int = 0
    step: int = 0
    data: Any = field(default_factory=lambda: array.array("B"))


@dataclass
class Compressed:
    """Stands for sensor_msgs/msg/CompressedImage."""

    format: str
    data: Any


def make(encoding: str, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Random bits in the encoding's layout."""
    dtype, channels = layout_of(encoding)
    shape = (height, width) if channels == 1 else (height, width, channels)
    raw = np.random.default_rng(seed).integers(0, 256, (*shape, dtype.itemsize), dtype=np.uint8)
    return raw.view(dtype)[..., 0]


@settings(max_examples=150, deadline=None)
@given(
    encoding=st.sampled_from(ENCODINGS),
    height=st.integers(0, 5),
    width=st.integers(0, 7),
    padding=st.integers(0, 9),
    big=st.booleans(),
)
def test_round_trip_is_exact(encoding, height, width, padding, big):
    pixels = make(encoding, height, width)
    dtype, channels = layout_of(encoding)
    stored = pixels.astype(dtype.newbyteorder(">")) if big else pixels
    message = Message()
    step = width * channels * dtype.itemsize + padding
    fill_image(message, stored, encoding, step=step)
    assert message.step == step
    assert bool(message.is_bigendian) == (big and dtype.itemsize > 1)
    back = to_numpy(message)
    assert back.dtype == dtype
    assert back.dtype.isnative
    assert back.tobytes() == pixels.tobytes()
    assert back.shape == pixels.shape


@pytest.mark.parametrize("encoding", ["rgb8", "mono8", "16UC1", "32FC1", "yuv422"])
@pytest.mark.parametrize("padding", [0, 1, 13])
def test_native_data_is_viewed_not_copied(encoding, padding):
    message = Message()
    pixels = make(encoding, 4, 6)
    fill_image(message, pixels, encoding, step=pixels[0].nbytes + padding)
    view = to_numpy(message)
    assert np.shares_memory(view, np.frombuffer(message.data, np.uint8))
    view[0, 0] = 0
    assert message.data[0] == 0


def test_bytes_lists_and_arrays_are_accepted_as_data():
    pixels = make("rgb8", 2, 3)
    for data in (pixels.tobytes(), list(pixels.tobytes()), pixels.reshape(-1)):
        message = Message(2, 3, "rgb8", 0, 9, data)
        np.testing.assert_array_equal(to_numpy(message), pixels)


def test_flipped_and_sliced_arrays_are_packed_right():
    pixels = make("rgb8", 6, 8)
    message = Message()
    fill_image(message, pixels[::-1, ::2, ::-1], "rgb8")
    np.testing.assert_array_equal(to_numpy(message), pixels[::-1, ::2, ::-1])


def test_known_bytes_of_big_endian_depth():
    message = Message(1, 2, "16UC1", 1, 4, b"\x01\x02\x00\x05")
    np.testing.assert_array_equal(to_numpy(message), [[0x0102, 5]])


@pytest.mark.parametrize("target", ["rgb8", "bgr8", "rgba8", "bgra8", "mono8"])
@pytest.mark.parametrize("source", ["rgb8", "bgr8", "rgba8", "bgra8"])
def test_colour_conversions_agree_with_opencv(source, target):
    cv2 = pytest.importorskip("cv2")
    names = {"rgb8": "RGB", "bgr8": "BGR", "rgba8": "RGBA", "bgra8": "BGRA", "mono8": "GRAY"}
    pixels = make(source, 8, 10, seed=3)
    result = convert(pixels, source, target)
    if source == target:
        assert result is pixels
        return
    code = getattr(cv2, f"COLOR_{names[source]}2{names[target]}")
    expected = cv2.cvtColor(pixels, code).astype(int)
    assert np.abs(result.astype(int) - expected).max() <= (1 if target == "mono8" else 0)


@pytest.mark.parametrize(
    ("encoding", "code"),
    [("yuv422", "UYVY"), ("uyvy", "UYVY"), ("yuv422_yuy2", "YUYV"), ("yuyv", "YUYV")],
)
def test_yuv_agrees_with_opencv(encoding, code):
    cv2 = pytest.importorskip("cv2")
    pixels = make(encoding, 8, 10, seed=1)
    message = Message()
    fill_image(message, pixels, encoding, step=23)
    result = to_numpy(message, "rgb8").astype(int)
    legal = np.clip(pixels, 16, 235)
    result = convert(legal, encoding, "rgb8").astype(int)
    expected = cv2.cvtColor(legal, getattr(cv2, f"COLOR_YUV2RGB_{code}")).astype(int)
    assert np.abs(result - expected).max() <= 2


def test_grey_spreads_to_colour_with_opaque_alpha():
    pixels = make("mono8", 2, 2)
    result = convert(pixels, "mono8", "bgra8")
    for channel in range(3):
        np.testing.assert_array_equal(result[:, :, channel], pixels)
    assert (result[:, :, 3] == 255).all()


@pytest.mark.parametrize("encoding", ["16UC1", "mono16", "32FC1"])
def test_depth_where_colour_is_expected_is_refused(encoding):
    message = Message()
    fill_image(message, make(encoding, 2, 2), encoding)
    with pytest.raises(errors.DepthFormatError, match=f"gives {encoding}"):
        to_numpy(message, "rgb8")
    with pytest.raises(errors.DepthFormatError):
        compressed_to_numpy(Compressed("16UC1; compressedDepth png", b""))


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (Message(2, 2, "rgb9", 0, 6, b"0" * 12), "unknown encoding 'rgb9'; known: mono8"),
        (Message(2, 2, "rgb8", 0, 5, b"0" * 12), "step is 5; expected at least 6"),
        (Message(2, 2, "rgb8", 0, 7, b"0" * 12), "12 bytes of data; expected 13"),
    ],
)
def test_messages_that_contradict_themselves_are_refused(message, reason):
    with pytest.raises(errors.ImageMessageError, match=reason):
        to_numpy(message)


@pytest.mark.parametrize(
    ("pixels", "encoding"),
    [
        (np.zeros((2, 2), np.uint8), "rgb8"),
        (np.zeros((2, 2, 3), np.uint16), "rgb8"),
        (np.zeros((2, 2, 1), np.uint8), "mono8"),
    ],
)
def test_arrays_that_contradict_the_encoding_are_refused(pixels, encoding):
    with pytest.raises(errors.ImageMessageError, match="expects uint8"):
        fill_image(Message(), pixels, encoding)


def test_impossible_conversions_are_refused():
    with pytest.raises(errors.ImageMessageError, match="no conversion from bayer_rggb8"):
        convert(make("bayer_rggb8", 2, 2), "bayer_rggb8", "rgb8")
    with pytest.raises(errors.ImageMessageError, match="expected even"):
        convert(make("yuv422", 2, 3), "yuv422", "rgb8")


def test_compressed_messages_decode_and_damage_is_told(jpeg, picture):
    data = array.array("B", jpeg(4))
    pixels = compressed_to_numpy(Compressed("jpeg", data))
    assert np.abs(pixels.astype(int) - picture(4)).mean() < 12
    swapped = compressed_to_numpy(Compressed("bgr8; jpeg compressed bgr8", data), "bgr8")
    np.testing.assert_array_equal(swapped[:, :, ::-1], pixels)
    with pytest.raises(errors.CorruptFrameError):
        compressed_to_numpy(Compressed("jpeg", bytes(data[:-200])))
    with pytest.raises(errors.ImageMessageError, match="neither JPEG nor PNG"):
        compressed_to_numpy(Compressed("webp", b"RIFF"))


def test_png_messages_decode_without_loss(picture):
    from koch_cameras.png import encode_png

    data = encode_png(picture(2))
    np.testing.assert_array_equal(compressed_to_numpy(Compressed("png", data)), picture(2))
    with pytest.raises(errors.CorruptFrameError):
        compressed_to_numpy(Compressed("png", data[:60]))
