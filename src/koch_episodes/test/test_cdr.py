# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The quick readers agree with the general deserialiser."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from rosbags.typesys import Stores, get_typestore

from koch_core.errors import DecodeError
from koch_episodes import cdr

STORE = get_typestore(Stores.ROS2_JAZZY)


def header(frame: str) -> Any:
    stamp = STORE.types["builtin_interfaces/msg/Time"](1234, 567)
    return STORE.types["std_msgs/msg/Header"](stamp, frame)


def packed(kind: str, *fields: Any) -> bytes:
    return bytes(STORE.serialize_cdr(STORE.types[kind](*fields), kind))


@pytest.mark.parametrize(
    ("frame", "names"),
    list(
        itertools.product(
            ("", "a", "ab", "abc", "base_link"), ([], ["j"], ["joint", "x", "gripper_1"])
        )
    ),
)
def test_joint_state(frame: str, names: list[str]) -> None:
    count = len(names)
    values = [np.arange(count) + 0.25 * k for k in range(3)]
    data = packed("sensor_msgs/msg/JointState", header(frame), names, *values)
    reader = cdr.JointStateReader()
    for _ in range(2):
        for field, wanted in zip(("position", "velocity", "effort"), values, strict=True):
            found_names, found = reader.read(data, field)
            assert list(found_names) == names
            np.testing.assert_array_equal(found, wanted)
    assert cdr.header_stamp_ns(data) == 1234_000_000_567


def test_joint_names_may_change_in_the_middle() -> None:
    reader = cdr.JointStateReader()
    for names in (["a", "bb"], ["bb", "a"], ["a"], ["a", "bb", "c"]):
        values = np.arange(len(names), dtype=float)
        data = packed("sensor_msgs/msg/JointState", header(""), names, values, values, values)
        assert list(reader.read(data)[0]) == names


@pytest.mark.parametrize("frame", ["", "a", "optical", "camera_1"])
def test_images(frame: str) -> None:
    payload = np.arange(37, dtype=np.uint8)
    data = packed("sensor_msgs/msg/CompressedImage", header(frame), "jpeg", payload)
    assert cdr.compressed_image(data) == payload.tobytes()
    pixels = np.arange(3 * 5 * 4, dtype=np.uint8)
    data = packed("sensor_msgs/msg/Image", header(frame), 5, 4, "rgb8", 0, 12, pixels)
    encoding, height, width, step, found = cdr.image(data)
    assert (encoding, height, width, step) == ("rgb8", 5, 4, 12)
    assert bytes(found) == pixels.tobytes()


def test_every_cut_is_noticed() -> None:
    values = np.arange(3, dtype=float)
    state = packed(
        "sensor_msgs/msg/JointState", header("x"), ["a", "b", "c"], values, values, np.zeros(0)
    )
    image = packed(
        "sensor_msgs/msg/CompressedImage", header("x"), "jpeg", np.arange(40, dtype=np.uint8)
    )
    position_end = state.rindex(values.tobytes(), 0, len(state) - 24) + 24
    for cut in range(16, position_end):
        with pytest.raises(DecodeError):
            cdr.JointStateReader().read(state[:cut])
    for cut in range(16, len(image)):
        with pytest.raises(DecodeError):
            cdr.compressed_image(image[:cut])
