# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Bags, disks that fill up, clocks and rigs for the recorder's tests."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from koch_episodes.bag.definitions import Definitions
from koch_episodes.bag.mcap_writer import McapWriter
from koch_episodes.bag.storage import Topic
from koch_episodes.bag.writer import BagWriter
from koch_rig.arm_model import KOCH_V1_1
from koch_rig.load import load_rig
from koch_rig.rig import Rig

NS = 1_000_000_000
START_NS = 1_760_000_000 * NS
JOINTS = "sensor_msgs/msg/JointState"

RIG = """
rig: recorder_test
fps: 30
task: "Default task."
robot_type: koch_follower
arms:
  follower: {{role: follower, port: /dev/null, calibration: {calibration}, rate_hz: 100}}
cameras:
  above: {{source: 0, width: 64, height: 48, fps: 30}}
streams:
  follower/joint_states: {{max_age_ms: 500}}
  follower/joint_command: {{max_age_ms: 500}}
  cameras/above: {{max_age_ms: 500}}
features:
  observation.state: {{stream: follower/joint_states}}
  observation.images.above: {{stream: cameras/above}}
  action: {{stream: follower/joint_command}}
"""


def _joint_state(
    stamp_ns: int, position: float = 0.0, names: tuple[str, ...] = KOCH_V1_1.joints
) -> bytes:
    """A serialised JointState whose joints all stand at one position [rad]."""
    data = struct.pack("<iI", stamp_ns // NS, stamp_ns % NS) + struct.pack("<I", 1) + b"\0"
    data += b"\0" * (-len(data) % 4) + struct.pack("<I", len(names))
    for name in names:
        data += b"\0" * (-len(data) % 4) + struct.pack("<I", len(name) + 1) + name.encode() + b"\0"
    data += b"\0" * (-len(data) % 4) + struct.pack("<I", len(names))
    data += b"\0" * (-len(data) % 8) + struct.pack(f"<{len(names)}d", *[position] * len(names))
    return b"\0\1\0\0" + data + struct.pack("<II", 0, 0)


@pytest.fixture(scope="session")
def joint_state() -> Callable[..., bytes]:
    """Makes serialised JointStates: stamp [ns], position [rad], names."""
    return _joint_state


@pytest.fixture(scope="session")
def joint_topic() -> tuple[Topic, str]:
    """A JointState topic with its definition, and the type's hash."""
    return Definitions().topic("/follower/joint_states", JOINTS)


@pytest.fixture
def fill(joint_topic: tuple[Topic, str]) -> Callable[..., int]:
    """Write joint states at 100 Hz into a bag, flushing every so many messages."""

    def fill_bag(writer: BagWriter, count: int, flush_every: int = 50) -> int:
        topic, type_hash = joint_topic
        number = writer.add_topic(topic, type_hash=type_hash)
        for index in range(count):
            stamp = START_NS + index * NS // 100
            writer.write(number, _joint_state(stamp, index * 1e-3), stamp, stamp, index + 1)
            if index % flush_every == flush_every - 1:
                writer.flush()
        return number

    return fill_bag


class _Quota:
    """A raw file on a disk that has room for so many bytes more."""

    def __init__(self, file: Any, disk: Disk) -> None:
        self._file = file
        self._disk = disk

    def write(self, data: Any) -> int:
        room = min(len(data), self._disk.room)
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        self._disk.room -= room
        return int(self._file.write(data[:room]))

    def truncate(self, size: int) -> int:
        self._disk.room += os.fstat(self._file.fileno()).st_size - size
        return int(self._file.truncate(size))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class Disk:
    """Room left for files of bags; the reserve file gives room back when it is removed."""

    def __init__(self) -> None:
        self.room = 1 << 40


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """A disk whose room a test sets; below it bags meet ENOSPC at the file's write."""
    found = Disk()
    build, release = McapWriter.__init__, BagWriter._release

    def with_quota(self: McapWriter, path: Path, *, existing: bool = False) -> None:
        build(self, path, existing=existing)
        self._file = _Quota(self._file, found)  # type: ignore[assignment]

    def give_back(self: BagWriter) -> None:
        if self._reserve.exists():
            found.room += self._reserve.stat().st_size
        release(self)

    monkeypatch.setattr(McapWriter, "__init__", with_quota)
    monkeypatch.setattr(BagWriter, "_release", give_back)
    return found


@pytest.fixture
def rig_file(tmp_path: Path) -> Path:
    """A rig with one arm and one camera."""
    here = Path(__file__).resolve()
    calibration = next(
        folder / "config/calibration/sim_follower.json"
        for folder in here.parents
        if (folder / "config/calibration/sim_follower.json").is_file()
    )
    path = tmp_path / "rig.yaml"
    path.write_text(RIG.format(calibration=calibration), encoding="utf-8")
    return path


@pytest.fixture
def rig(rig_file: Path) -> Rig:
    """The same, loaded."""
    return load_rig(rig_file)


class ManualClock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> ManualClock:
    """A clock that a test moves."""
    return ManualClock()
