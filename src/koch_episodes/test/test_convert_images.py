# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Images of other people's cameras: every kind is converted, or refused with its reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from koch_episodes.convert import ConvertOptions, convert
from koch_episodes.dataset import Codec, LeRobotDatasetReader, validate_dataset
from koch_episodes.errors import EpisodeError

STORE = get_typestore(Stores.ROS2_HUMBLE)
NS = 1_000_000_000
BEGIN = 1_700_000_000 * NS
CAMERA = "observation.images.front"
COMPRESSED, RAW = "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/Image"
MAP = f"fps: 30\ntask: look\nfeatures:\n  {CAMERA}: /camera\n"
Image = Callable[[int], tuple[Any, ...]]


def scene(number: int, height: int = 48, width: int = 64) -> np.ndarray[Any, Any]:
    """A smooth RGB image that tells its number."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([columns * 2 + number, rows * 3, (rows + columns)], -1).astype(np.uint8)


def write(folder: Path, kind: str, image: Image) -> Path:
    """Write one second of a camera; `image` gives a message's fields behind the header."""
    time, header = STORE.types["builtin_interfaces/msg/Time"], STORE.types["std_msgs/msg/Header"]
    with Writer(folder / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection("/camera", kind, typestore=STORE)
        for number in range(30):
            stamp = BEGIN + round(number * NS / 30)
            fields = image(number)
            message = STORE.types[kind](header(time(stamp // NS, stamp % NS), ""), *fields)
            writer.write(connection, stamp, STORE.serialize_cdr(message, kind))
    (folder / "map.yaml").write_text(MAP)
    return folder / "bag"


def raw(encoding: str, pixels: np.ndarray[Any, Any]) -> tuple[Any, ...]:
    height, width = pixels.shape[:2]
    data = np.ascontiguousarray(pixels).reshape(-1).view(np.uint8)
    return height, width, encoding, 0, data.size // height, data


def encoded(suffix: str, image: np.ndarray[Any, Any]) -> tuple[Any, ...]:
    return "", cv2.imencode(suffix, image[..., ::-1])[1].reshape(-1)


def read(bag: Path, codec: Codec = Codec.H264) -> LeRobotDatasetReader:
    out = bag.parent / "out"
    convert([bag], out, ConvertOptions(map=bag.parent / "map.yaml", codec=codec))
    assert validate_dataset(out, decode=True).ok
    return LeRobotDatasetReader(out)


def uyvy(number: int) -> tuple[Any, ...]:
    height, width = 48, 64
    yuv = cv2.cvtColor(scene(number, height, width), cv2.COLOR_RGB2YUV)
    pixels = np.empty((height, width, 2), np.uint8)
    pixels[..., 1] = 16 + yuv[..., 0] * (219 / 255)
    chroma = 128 + (yuv[..., 1:].astype(float) - 128) * (224 / 255)
    pixels[:, 0::2, 0], pixels[:, 1::2, 0] = chroma[:, 0::2, 0], chroma[:, 0::2, 1]
    return raw("yuv422", pixels)


@pytest.mark.parametrize(
    ("kind", "image"),
    [
        (COMPRESSED, lambda k: encoded(".png", scene(k))),
        (COMPRESSED, lambda k: encoded(".png" if k % 2 else ".jpg", scene(k))),
        (RAW, lambda k: raw("bgr8", scene(k)[..., ::-1])),
        (RAW, uyvy),
    ],
    ids=["png", "png and jpeg", "bgr8", "yuv422"],
)
def test_image_comes_out_as_it_went_in(tmp_path: Path, kind: str, image: Image) -> None:
    reader = read(write(tmp_path, kind, image))
    assert len(reader) == 30
    for number in (0, 1, 29):
        off = np.abs(reader.image(CAMERA, number).astype(int) - scene(number))
        assert off.mean() < 6.0


@pytest.mark.parametrize(
    ("kind", "image", "codec", "why"),
    [
        (RAW, lambda k: raw("16UC1", scene(k)[..., :1].astype("<u2")), Codec.H264, "'16UC1'"),
        (RAW, lambda k: raw("rgb8", scene(k, 48, 63)), Codec.H264, "63x48 px, h264 and av1"),
        (COMPRESSED, lambda k: encoded(".png", scene(k)), Codec.COPY, "a PNG, which --vcodec"),
        (RAW, lambda k: raw("rgb8", scene(k)), Codec.COPY, "/camera holds raw images"),
    ],
    ids=["depth", "odd size", "png copied", "raw copied"],
)
def test_image_that_cannot_be_stored_is_refused_with_the_reason(
    tmp_path: Path, kind: str, image: Image, codec: Codec, why: str
) -> None:
    bag = write(tmp_path, kind, image)
    with pytest.raises(EpisodeError, match=why):
        read(bag, codec)
