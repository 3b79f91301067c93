# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Bags and images for the tests of koch_episodes."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from koch_rig.arm_model import KOCH_V1_1

J = len(KOCH_V1_1.joints)

NS = 1_000_000_000
START_NS = 1_760_000_000 * NS
HEIGHT, WIDTH = 48, 64

RIG = """
rig: test_rig
fps: 30
task: "Pick up the block."
arms:
  follower: {role: follower, port: /dev/null, calibration: follower.json}
  leader: {role: leader, drives: follower, port: /dev/null, calibration: leader.json}
cameras:
  above: {source: 0, width: 64, height: 48, fps: 30}
streams:
  follower/joint_states: {max_age_ms: 50}
  cameras/above: {max_age_ms: 80}
features:
  observation.state: {stream: follower/joint_states}
  observation.images.above: {stream: cameras/above}
  action: {stream: follower/joint_command}
"""

CALIBRATION = {
    name: {
        "id": number + 1,
        "drive_mode": 0,
        "homing_offset": 0,
        "range_min": 0 if name in ("shoulder_pan", "wrist_roll") else 1000,
        "range_max": 4095 if name in ("shoulder_pan", "wrist_roll") else 3000,
    }
    for number, name in enumerate(KOCH_V1_1.joints)
}

EPISODE_EVENT = """uint8 START=0
uint8 STOP=1
uint8 DISCARD=2
std_msgs/Header header
uint8 kind
uint32 episode_index
string task
string outcome
string detail
"""
STREAM_STATE = """std_msgs/Header header
string stream
bool usable
builtin_interfaces/Time since
string reason
"""
NAMED_VECTOR = "std_msgs/Header header\nstring[] name\nfloat64[] value\n"


def make_store() -> Any:
    """A typestore with the suite's own messages."""
    store = get_typestore(Stores.ROS2_JAZZY)
    store.register(get_types_from_msg(EPISODE_EVENT, "koch_interfaces/msg/EpisodeEvent"))
    store.register(get_types_from_msg(NAMED_VECTOR, "koch_interfaces/msg/NamedVector"))
    store.register(get_types_from_msg(STREAM_STATE, "koch_interfaces/msg/StreamState"))
    return store


STORE = make_store()


def header(stamp_ns: int) -> Any:
    stamp = STORE.types["builtin_interfaces/msg/Time"](stamp_ns // NS, stamp_ns % NS)
    return STORE.types["std_msgs/msg/Header"](stamp, "")


def joint_state(
    stamp_ns: int, positions: Sequence[float], names: Sequence[str] = KOCH_V1_1.joints
) -> Any:
    empty = np.zeros(0)
    return STORE.types["sensor_msgs/msg/JointState"](
        header(stamp_ns), list(names), np.array(positions, dtype=np.float64), empty, empty
    )


@pytest.fixture
def stream_state() -> Callable[..., Any]:
    """A StreamState: when it was said, since when it holds [ns], and why not usable or ""."""

    def make(said_ns: int, since_ns: int, reason: str) -> Any:
        time = STORE.types["builtin_interfaces/msg/Time"](since_ns // NS, since_ns % NS)
        kind = STORE.types["koch_interfaces/msg/StreamState"]
        return kind(header(said_ns), "cameras/above", not reason, time, reason)

    return make


@pytest.fixture
def episode_event() -> Callable[..., Any]:
    """An EpisodeEvent: stamp [ns], kind, episode index and outcome."""

    def make(stamp_ns: int, kind: int, index: int = 0, outcome: str = "") -> Any:
        event = STORE.types["koch_interfaces/msg/EpisodeEvent"]
        return event(header(stamp_ns), kind, index, "Do it.", outcome, "")

    return make


def compressed(stamp_ns: int, jpeg: bytes) -> Any:
    return STORE.types["sensor_msgs/msg/CompressedImage"](
        header(stamp_ns), "jpeg", np.frombuffer(jpeg, np.uint8)
    )


def scene(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray[Any, Any]:
    """An image that tells its number: brightness of the left half, a moving bar on the right."""
    rows, columns = np.mgrid[0:height, 0:width]
    image = np.stack([(columns * 3 + number) % 200, rows * 4 % 256, (rows + columns) % 256], -1)
    image[:, : width // 2] = 16 + (number * 7) % 224
    return image.astype(np.uint8)


def jpeg_of(number: int, height: int = HEIGHT, width: int = WIDTH) -> bytes:
    data: bytes = simplejpeg.encode_jpeg(
        scene(number, height, width), quality=92, colorsubsampling="422"
    )
    return data


Message = tuple[str, str, int, int, Any]  # topic, type, log time, stamp, message


@pytest.fixture
def named_vector() -> Callable[..., Message]:
    """A message of a bag: topic, stamp [ns], names and values."""

    def make(topic: str, stamp_ns: int, names: list[str], values: list[float]) -> Message:
        kind = "koch_interfaces/msg/NamedVector"
        message = STORE.types[kind](header(stamp_ns), names, np.array(values))
        return topic, kind, stamp_ns + 1_000_000, stamp_ns, message

    return make


@dataclass
class BagSpec:
    """A recorded episode to be written; change it before `write`."""

    seconds: float = 2.0
    camera_hz: float = 30.0
    joint_hz: float = 100.0
    start_ns: int = START_NS
    leader: bool = False
    custom: dict[str, str] = field(default_factory=dict)
    change: Callable[[list[Message]], list[Message]] | None = None

    def messages(self) -> list[Message]:
        """All messages in log time order (5 ms after their stamp; images 30 ms)."""
        found: list[Message] = []
        for k in range(int(self.seconds * self.joint_hz)):
            stamp = self.start_ns + round(k * NS / self.joint_hz)
            angles = joint_angles(stamp - self.start_ns)
            found.append(
                (
                    "/follower/joint_states",
                    "sensor_msgs/msg/JointState",
                    stamp + 5_000_000,
                    stamp,
                    joint_state(stamp, angles),
                )
            )
            sent = stamp + 2_000_000
            found.append(
                (
                    "/follower/joint_command",
                    "sensor_msgs/msg/JointState",
                    sent + 1_000_000,
                    sent,
                    joint_state(sent, angles + 0.01),
                )
            )
            if self.leader:
                found.append(
                    (
                        "/leader/joint_states",
                        "sensor_msgs/msg/JointState",
                        stamp + 5_000_000,
                        stamp,
                        joint_state(stamp, angles + 0.02),
                    )
                )
        for k in range(int(self.seconds * self.camera_hz)):
            stamp = self.start_ns + round(k * NS / self.camera_hz) + 1_000_000
            found.append(
                (
                    "/cameras/above/image_raw/compressed",
                    "sensor_msgs/msg/CompressedImage",
                    stamp + 30_000_000,
                    stamp,
                    compressed(stamp, jpeg_of(k)),
                )
            )
        found.sort(key=lambda message: message[2])
        return self.change(found) if self.change else found

    def write(
        self,
        path: Path,
        storage: StoragePlugin = StoragePlugin.MCAP,
        compression: CompressionMode = CompressionMode.NONE,
    ) -> Path:
        """Write the bag folder."""
        writer = Writer(path, version=9, storage_plugin=storage)
        writer.set_compression(compression, CompressionFormat.ZSTD)
        for key, value in self.custom.items():
            writer.set_custom_data(key, value)
        connections: dict[str, Any] = {}
        with writer:
            for topic, kind, log_ns, _, message in self.messages():
                if topic not in connections:
                    connections[topic] = writer.add_connection(topic, kind, typestore=STORE)
                data = (
                    message
                    if isinstance(message, bytes)
                    else bytes(STORE.serialize_cdr(message, kind))
                )
                writer.write(connections[topic], log_ns, data)
        return path


def joint_angles(elapsed_ns: int) -> np.ndarray[Any, Any]:
    """A smooth motion inside the test calibration's ranges, [rad]."""
    phase = elapsed_ns / NS + np.arange(J)
    return 0.5 * np.sin(phase)


@pytest.fixture
def rig_file(tmp_path: Path) -> Path:
    """A rig with calibrations, in its own folder."""
    folder = tmp_path / "rig"
    folder.mkdir()
    for arm in ("follower", "leader"):
        (folder / f"{arm}.json").write_text(json.dumps(CALIBRATION))
    path = folder / "rig.yaml"
    path.write_text(RIG)
    return path


def recorder_data(index: int = 0, **more: str) -> dict[str, str]:
    """Custom data as the recorder leaves it."""
    text = json.dumps(CALIBRATION)
    return {
        "koch.rig": RIG,
        "koch.task": "Pick up the block.",
        "koch.index": str(index),
        "koch.outcome": "success",
        "koch.calibration.follower": text,
        "koch.calibration.leader": text,
        **more,
    }


@pytest.fixture
def recorder_custom() -> Callable[..., dict[str, str]]:
    """Makes custom data of a bag with another number, task or outcome."""
    return recorder_data


@pytest.fixture
def lerobot(lerobot_python: str, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Run a script with arguments in LeRobot's environment; returns the JSON of its last line."""

    def run(script: str, *arguments: str) -> dict[str, Any]:
        done = subprocess.run(
            [lerobot_python, "-c", script, *arguments],
            capture_output=True,
            text=True,
            env={
                **{k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
                "HF_HUB_OFFLINE": "1",
                "HF_HOME": str(tmp_path / "hf"),
            },
        )
        assert done.returncode == 0, done.stderr[-2000:]
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    return run


@pytest.fixture
def write_bag(tmp_path: Path) -> Callable[..., Path]:
    """Write a bag made by the recorder: keyword arguments of BagSpec, and `name`.

    Each begins later than the one before: bags with the same messages are one recording.
    """
    starts = itertools.count(START_NS, 1000 * NS)

    def write(name: str = "episode_000000", **spec: Any) -> Path:
        spec.setdefault("start_ns", next(starts))
        storage = spec.pop("storage", StoragePlugin.MCAP)
        compression = spec.pop("compression", CompressionMode.NONE)
        spec.setdefault("custom", recorder_data())
        return BagSpec(**spec).write(tmp_path / name, storage, compression)

    return write


def custom(values: Mapping[str, str]) -> dict[str, str]:
    return dict(values)
