# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""metadata.yaml of a bag, version 9 as ROS 2 Jazzy and later write it.

Source: rosbag2_storage/include/rosbag2_storage/yaml.hpp.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from koch_episodes.bag.qos import OfferedQos, plain
from koch_episodes.bag.storage import Topic
from koch_episodes.errors import BagError
from koch_rig.yaml_source import SAFE_LOADER

VERSION = 9
FILE_NAME = "metadata.yaml"


@dataclass(frozen=True)
class TopicRecord:
    """A topic of a bag.

    Attributes:
        topic: Name and type.
        type_hash: RIHS01 hash or empty.
        qos: Profiles that its publishers offered.
        count: Number of messages.
    """

    topic: Topic
    type_hash: str
    qos: tuple[OfferedQos, ...]
    count: int


def information(
    file_name: str,
    topics: Sequence[TopicRecord],
    custom: Mapping[str, str],
    *,
    start_ns: int,
    end_ns: int,
) -> dict[str, object]:
    """The content of ``rosbag2_bagfile_information``."""
    total = sum(topic.count for topic in topics)
    duration = {"nanoseconds": max(0, end_ns - start_ns)}
    start = {"nanoseconds_since_epoch": start_ns}
    return {
        "version": VERSION,
        "storage_identifier": "mcap",
        "duration": duration,
        "starting_time": start,
        "message_count": total,
        "topics_with_message_count": [
            {
                "topic_metadata": {
                    "name": item.topic.name,
                    "type": item.topic.type,
                    "serialization_format": "cdr",
                    "offered_qos_profiles": plain(item.qos),
                    "type_description_hash": item.type_hash,
                },
                "message_count": item.count,
            }
            for item in topics
        ],
        "compression_format": "",
        "compression_mode": "",
        "relative_file_paths": [file_name],
        "files": [
            {
                "path": file_name,
                "starting_time": dict(start),
                "duration": dict(duration),
                "message_count": total,
            }
        ],
        "custom_data": dict(custom),
        "ros_distro": os.environ.get("ROS_DISTRO", "rolling"),
    }


def dump(value: object) -> str:
    """YAML text, keys in the order given; no anchors as long as no value is used twice."""
    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=1 << 20)
    return text


def read_information(folder: Path) -> dict[str, Any]:
    """Read ``rosbag2_bagfile_information`` of a whole bag; ``custom_data`` is a new dict.

    Raises:
        BagError: The metadata cannot be understood.
        OSError: They cannot be read.
    """
    try:
        raw = yaml.load((folder / FILE_NAME).read_text(encoding="utf-8"), Loader=SAFE_LOADER)
        found: dict[str, Any] = raw["rosbag2_bagfile_information"]
        return {**found, "custom_data": dict(found.get("custom_data") or {})}
    except (ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as exc:
        raise BagError(folder, "has unreadable metadata", "Look into it by hand.") from exc


def add_custom(folder: Path, values: Mapping[str, str]) -> None:
    """Set custom data of a whole bag, in its metadata.yaml.

    Raises:
        BagError: The metadata cannot be read.
        OSError: They cannot be written.
    """
    found = read_information(folder)
    found["custom_data"].update(values)
    write(folder, found)


def write(folder: Path, info: Mapping[str, object]) -> None:
    """Write metadata.yaml at once: by another name first.

    Raises:
        OSError: It cannot be written.
    """
    path, other = folder / FILE_NAME, folder / f".{FILE_NAME}"
    with other.open("w", encoding="utf-8") as file:
        file.write(dump({"rosbag2_bagfile_information": dict(info)}))
        file.flush()
        os.fsync(file.fileno())
    other.replace(path)
