# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Bags of other robots through --map, and bags of many episodes split by their events."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from koch_episodes.convert import ConvertOptions, convert
from koch_episodes.convert.mapping import map_from_yaml
from koch_episodes.dataset import LeRobotDatasetReader, validate_dataset
from koch_episodes.errors import EpisodeError, MappingError, MessageTypeError

WriteBag = Callable[..., Path]
NS = 1_000_000_000
BEGIN = 1_700_000_000 * NS
STORE = get_typestore(Stores.ROS2_HUMBLE)
STORE.register(
    get_types_from_msg(
        "std_msgs/Header header\nstring[] name\nfloat64[] value\n",
        "koch_interfaces/msg/NamedVector",
    )
)
STORE.register(
    get_types_from_msg(
        "std_msgs/Header header\nuint8 kind\nuint32 episode_index\nstring task\nstring outcome\n"
        "string detail\n",
        "koch_interfaces/msg/EpisodeEvent",
    )
)


def new(kind: str, *fields: Any) -> Any:
    return STORE.types[kind](*fields)


def header(stamp_ns: int) -> Any:
    return new(
        "std_msgs/msg/Header",
        new("builtin_interfaces/msg/Time", stamp_ns // NS, stamp_ns % NS),
        "",
    )


def vector3(*values: float) -> Any:
    return new("geometry_msgs/msg/Vector3", *values)


def other_robot(stamp: int, k: int) -> list[tuple[str, str, Any]]:
    """One step of a robot that is not ours; every supported message type once."""
    point = new("geometry_msgs/msg/Point", 0.1 * k, 2.0, 3.0)
    turn = new("geometry_msgs/msg/Quaternion", 0.0, 0.0, 0.0, 1.0)
    layout = new("std_msgs/msg/MultiArrayLayout", [], 0)
    pixels = np.full((20, 32, 3), k % 256, np.uint8)
    empty = np.zeros(0)
    return [
        (
            "/js",
            "sensor_msgs/msg/JointState",
            new(
                "sensor_msgs/msg/JointState",
                header(stamp),
                ["b", "a"],
                np.array([1.0 * k, 2.0 * k]),
                np.array([0.5, 0.25]),
                empty,
            ),
        ),
        (
            "/ee",
            "geometry_msgs/msg/PoseStamped",
            new(
                "geometry_msgs/msg/PoseStamped",
                header(stamp),
                new("geometry_msgs/msg/Pose", point, turn),
            ),
        ),
        (
            "/ft",
            "geometry_msgs/msg/WrenchStamped",
            new(
                "geometry_msgs/msg/WrenchStamped",
                header(stamp),
                new("geometry_msgs/msg/Wrench", vector3(1, 2, 3), vector3(4, 5, 6)),
            ),
        ),
        (
            "/cmd_vel",
            "geometry_msgs/msg/Twist",
            new("geometry_msgs/msg/Twist", vector3(0.1 * k, 0, 0), vector3(0, 0, 0.3)),
        ),
        (
            "/target",
            "std_msgs/msg/Float64MultiArray",
            new("std_msgs/msg/Float64MultiArray", layout, np.array([7.0, 8.0 + k])),
        ),
        (
            "/env",
            "koch_interfaces/msg/NamedVector",
            new(
                "koch_interfaces/msg/NamedVector", header(stamp), ["y", "x"], np.array([1.0, 2.0])
            ),
        ),
        (
            "/cam",
            "sensor_msgs/msg/Image",
            new("sensor_msgs/msg/Image", header(stamp), 20, 32, "bgr8", 0, 96, pixels.reshape(-1)),
        ),
    ]


def write_other(path: Path, storage: StoragePlugin, steps: int = 60) -> Path:
    with Writer(path, version=8, storage_plugin=storage) as writer:
        connections: dict[str, Any] = {}
        for k in range(steps):
            stamp = BEGIN + round(k * NS / 30)
            for topic, kind, message in other_robot(stamp, k):
                if topic not in connections:
                    connections[topic] = writer.add_connection(topic, kind, typestore=STORE)
                writer.write(connections[topic], stamp, STORE.serialize_cdr(message, kind))
    return path


MAP = """
fps: 30
robot_type: other
task: drive
max_age_ms: 100
features:
  observation.state:
    - /js
    - {topic: /js, names: [a], field: velocity, scale: 2.0}
    - /ee
  observation.images.front: {topic: /cam}
  observation.wrench: /ft
  observation.environment_state: {topic: /env, names: [x]}
  action:
    - /cmd_vel
    - /target
"""


@pytest.mark.parametrize("storage", list(StoragePlugin))
def test_every_message_type_of_another_robot(tmp_path: Path, storage: StoragePlugin) -> None:
    bag = write_other(tmp_path / "bag", storage)
    mapping = tmp_path / "map.yaml"
    mapping.write_text(MAP)
    convert([bag], tmp_path / "out", ConvertOptions(map=mapping))
    assert not validate_dataset(tmp_path / "out", decode=True).findings
    reader = LeRobotDatasetReader(tmp_path / "out")
    assert next(iter(reader.features)) == "action"
    assert reader.info.robot_type == "other"
    frame = reader[10]
    np.testing.assert_allclose(
        frame["observation.state"], [10, 20, 0.5, 1.0, 2, 3, 0, 0, 0, 1], rtol=1e-6
    )
    np.testing.assert_allclose(frame["action"], [1.0, 0, 0, 0, 0, 0.3, 7, 18], rtol=1e-6)
    np.testing.assert_allclose(frame["observation.wrench"], [1, 2, 3, 4, 5, 6])
    np.testing.assert_allclose(frame["observation.environment_state"], 2.0)
    assert frame["observation.images.front"].shape == (20, 32, 3)
    assert abs(float(frame["observation.images.front"].mean()) - 10) < 3
    assert reader.features["observation.state"].names == (
        "b.pos",
        "a.pos",
        "a.vel",
        "x",
        "y",
        "z",
        "qx",
        "qy",
        "qz",
        "qw",
    )


def test_shape_of_other_elements_is_refused(tmp_path: Path) -> None:
    bag = write_other(tmp_path / "bag", StoragePlugin.MCAP, 3)
    mapping = tmp_path / "map.yaml"
    topic = "{topic: /target, shape: [4, 2]}"
    mapping.write_text(f"fps: 10\ntask: t\nfeatures: {{observation.state: {topic}}}\n")
    with pytest.raises(MappingError, match=r"shape: got \[4, 2\], expected a shape of the"):
        convert([bag], tmp_path / "out", ConvertOptions(map=mapping))


def test_unknown_type_is_named(tmp_path: Path) -> None:
    bag = write_other(tmp_path / "bag", StoragePlugin.MCAP, 3)
    mapping = tmp_path / "map.yaml"
    mapping.write_text("fps: 10\ntask: t\nfeatures: {action: /clock}\n")
    with Writer(tmp_path / "clock", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        kind = "rosgraph_msgs/msg/Clock"
        writer.add_connection("/clock", kind, typestore=STORE)
    assert bag.exists()
    with pytest.raises(MessageTypeError, match="rosgraph_msgs/msg/Clock, expected one of"):
        convert([tmp_path / "clock"], tmp_path / "out", ConvertOptions(map=mapping))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("features: [", "unreadable file"),
        ("fps: 30\nfeatures: {}", "at least one feature"),
        ("fps: 29.97\nfeatures: {action: /a}", "a whole number"),
        ("fps: 30\nfeatures: {action: a}", "begins with /"),
        ("fps: 30\nfeatures: {action: {topic: /a, nams: [x]}}", "unknown key nams"),
        (
            "fps: 30\nfeatures: {action: {topic: /a, field: torque}}",
            "position, velocity or effort",
        ),
        ("fps: 30\nfeatures: {action: {topic: /a, max_age_ms: 0}}", "a number above 0"),
        ("fps: 30\nfeatures: {a/b: /a}", "without '/'"),
        ("fps: 30\nfeatures: {timestamp: /a}", "none of episode_index"),
        ("fps: 30\nfeatures: {task: /a}", "none of episode_index"),
        ("fps: 30\nfeatures: {.hidden: /a}", "not beginning with a dot"),
        ("fps: 30\nfeatures: {'': /a}", "printable characters"),
        ("fps: 30\nfeatures: {7: /a}", "printable characters"),
        ("fps: 30\nmax_age_ms: .inf\nfeatures: {action: /a}", "at most 1e"),
        ("fps: 30\nfeatures: {action: {topic: /a, offset_ms: 1.0e+30}}", "at most 1e"),
        ("fps: 30\nfeatures: {action: {topic: /a, stamp: now}}", "one of auto, header, receive"),
        (
            "fps: 30\nfeatures: {action: {topic: /a, rule: hold, max_age_ms: 50}}",
            "a value that holds has any age",
        ),
        ("fps: 30\nfeatures: {action: [/b, {topic: /a, rule: last}]}", "newest, next, hold"),
        (
            "fps: 30\nmax_age_ms: 50\nfeatures: {action: {topic: /a, rule: hold}}",
            "all sources hold, at any age",
        ),
        ("fps: 30\nfeatures: {action: {topic: /a, shape: [2, 0]}}", "whole numbers above 0"),
        ("fps: 30\nfeatures: {action: {topic: /a, shape: 6}}", "whole numbers above 0"),
        ("fps: 30\nfeatures: {action: [/b, {topic: /a, shape: [2, 3]}]}", "one source"),
        ("- 1", "an object"),
    ],
)
def test_wrong_map_says_what_is_wrong(tmp_path: Path, text: str, match: str) -> None:
    path = tmp_path / "map.yaml"
    path.write_text(text)
    with pytest.raises(MappingError, match=match):
        map_from_yaml(path, ConvertOptions(map=path))


@pytest.mark.parametrize(
    "idle",
    [
        "{topic: /target, field: velocity}",
        "{topic: /target, field: position}",
        "{topic: /cam, scale: 2}",
        "{topic: /cam, scale: 1}",
        "{topic: /cam, field: position}",
        "{topic: /cam, names: [a]}",
        "{topic: /cam, names: []}",
        "{topic: /cam, shape: [2, 2]}",
    ],
)
def test_key_without_effect_is_refused(tmp_path: Path, idle: str) -> None:
    key = "observation.images.a" if "/cam" in idle else "observation.state"
    bag = write_other(tmp_path / "bag", StoragePlugin.MCAP, 10)
    mapping = tmp_path / "map.yaml"
    mapping.write_text(f"fps: 10\ntask: t\nfeatures: {{{key}: {idle}}}\n")
    with pytest.raises(EpisodeError, match="it has no effect on a"):
        convert([bag], tmp_path / "out", ConvertOptions(map=mapping))


def test_camera_does_not_hold(tmp_path: Path) -> None:
    bag = write_other(tmp_path / "bag", StoragePlugin.MCAP, 10)
    mapping = tmp_path / "map.yaml"
    mapping.write_text(
        "fps: 10\ntask: t\nfeatures: {observation.images.a: {topic: /cam, rule: hold}}\n"
    )
    with pytest.raises(EpisodeError, match=r"rule of /cam.*shows nothing new"):
        convert([bag], tmp_path / "out", ConvertOptions(map=mapping))


@pytest.mark.parametrize("odd", ["", "out of order", "without stamps"])
def test_plain_bag_is_split_by_its_events(tmp_path: Path, odd: str) -> None:
    path = tmp_path / "session"
    events = [
        (0.5, 0, 0, "first", ""),
        (1.5, 1, 0, "", "success"),
        (2.0, 0, 1, "second", ""),
        (3.0, 2, 1, "", ""),
        (3.5, 0, 2, "third", ""),
        (4.2, 1, 2, "", "failure"),
    ]
    kind = "koch_interfaces/msg/EpisodeEvent"
    received = [t for t, *_ in events]
    if odd == "out of order":
        received[1:3] = [2.1, 2.0]
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections: dict[str, Any] = {}
        steps = [
            (BEGIN + round(k * NS / 30), topic, type_, message)
            for k in range(150)
            for topic, type_, message in other_robot(BEGIN + round(k * NS / 30), k)
        ]
        steps += [
            (
                BEGIN + round(at * NS),
                "/episodes/events",
                kind,
                new(
                    kind,
                    header(0 if odd == "without stamps" else BEGIN + round(t * NS)),
                    code,
                    index,
                    task,
                    outcome,
                    "",
                ),
            )
            for at, (t, code, index, task, outcome) in zip(received, events, strict=True)
        ]
        for stamp, topic, type_, message in sorted(steps, key=lambda step: step[0]):
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, type_, typestore=STORE)
            writer.write(connections[topic], stamp, STORE.serialize_cdr(message, type_))
    mapping = tmp_path / "map.yaml"
    mapping.write_text(MAP)
    result = convert([path], tmp_path / "out", ConvertOptions(map=mapping))
    told = "/episodes/events: timed by the recorder's clock" in result.reports[0]["notes"]
    assert told == (odd == "without stamps")
    assert result.reports[0]["damage"] == []
    reader = LeRobotDatasetReader(tmp_path / "out")
    assert [(e.tasks, e.length) for e in reader.episodes] == [(("first",), 31), (("third",), 22)]
    assert reader[0]["observation.state"][0] == 15
    assert abs(float(reader[31]["observation.images.front"].mean()) - 105) < 3
    convert([path], tmp_path / "good", ConvertOptions(map=mapping, outcomes=("success",)))
    assert LeRobotDatasetReader(tmp_path / "good").tasks == ("first",)


def test_recorders_bag_ends_with_its_stop_event(
    write_bag: WriteBag, rig_file: Path, tmp_path: Path
) -> None:
    """What still came while a busy recorder closed its bag belongs to no episode."""
    kind = "koch_interfaces/msg/EpisodeEvent"

    def with_events(messages: list[Any]) -> list[Any]:
        begin = messages[0][3]
        for after_s, code in ((0.0, 0), (1.5, 1)):
            stamp = begin + round(after_s * NS)
            event = new(kind, header(stamp), code, 0, "t", "", "")
            data = bytes(STORE.serialize_cdr(event, kind))
            messages.append(("/episodes/events", kind, stamp, stamp, data))
        return sorted(messages, key=lambda message: message[2])

    bag = write_bag(seconds=2.0, change=with_events)
    convert([bag], tmp_path / "out", ConvertOptions(rig=rig_file))
    last = LeRobotDatasetReader(tmp_path / "out").episodes[-1].length - 1
    assert last / 30 <= 1.5 < (last + 3) / 30
