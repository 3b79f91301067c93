# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What the storage formats of a bag have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import yaml

from koch_core.registry import Registry
from koch_rig.yaml_source import SAFE_LOADER

#: Messages that say where in a bag episodes begin and end.
EVENTS_TYPE = "koch_interfaces/msg/EpisodeEvent"

OpenStorage = Callable[[Path, Callable[[str], None]], "StorageFile"]


class RawMessage(NamedTuple):
    """One serialised message.

    Attributes:
        topic: Topic name.
        log_ns: When the recorder received it, [ns]; below zero where it wrote more than 2^63.
        data: CDR bytes.
        type: ROS type, empty where unknown: a topic may have changed it on the way.
    """

    topic: str
    log_ns: int
    data: bytes
    type: str = ""


@dataclass(frozen=True)
class Topic:
    """A topic as the bag describes it.

    Attributes:
        name: Topic name.
        type: ROS type, ``pkg/msg/Name``.
        definition: Message definition text, empty where the bag has none.
        form: ``ros2msg``, ``ros2idl`` or empty.
    """

    name: str
    type: str
    definition: str = ""
    form: str = ""


def custom_data(text: str) -> dict[str, str] | None:
    """Read the custom data from a bag's metadata (YAML text); None where it is no such text."""
    try:
        raw = yaml.load(text, Loader=SAFE_LOADER)
        raw = raw.get("rosbag2_bagfile_information", raw)
        return {str(key): str(value) for key, value in (raw.get("custom_data") or {}).items()}
    except (yaml.YAMLError, AttributeError, ValueError):
        return None


class TopicTypes:
    """Which types the messages of each topic have; most messages decide.

    A driver that was started again with other settings may go on with another type.
    """

    def __init__(self) -> None:
        self._counts: dict[str, dict[str, int]] = {}
        self._described: dict[tuple[str, str], Topic] = {}

    def add(self, topic: Topic, count: int = 0) -> None:
        """Note a topic as a file describes it, and how many messages it has of this type."""
        counts = self._counts.setdefault(topic.name, {})
        counts[topic.type] = counts.get(topic.type, 0) + count
        self._described.setdefault((topic.name, topic.type), topic)

    def update(self, other: TopicTypes) -> None:
        """Add what another file says."""
        for (name, kind), topic in other._described.items():
            self.add(topic, other._counts[name][kind])

    @property
    def topics(self) -> dict[str, Topic]:
        """Topic name to description, of the type that most messages have; of equals the first."""
        return {
            name: self._described[name, max(counts, key=lambda kind: counts[kind])]
            for name, counts in self._counts.items()
        }


#: How files of a bag are opened, by the storage identifier of metadata.yaml. A file or folder and
#: a function that notes damage make a `StorageFile`.
STORAGES: Registry[OpenStorage] = Registry(
    "bag storage",
    "koch_vla.bag_storages",
    {"mcap": "koch_episodes.bag.mcap_file", "sqlite3": "koch_episodes.bag.sqlite_file"},
)


class StorageFile(Protocol):
    """One file of a bag.

    Attributes:
        types: Topics with their types.
        custom: The recorder's custom data.
        foreign: Topics that are not read, name to encoding: ROS 1's, JSON, Protobuf.
    """

    types: TopicTypes
    custom: dict[str, str]
    foreign: dict[str, str]

    def messages(self, topics: frozenset[str]) -> Iterator[RawMessage]:
        """Yield the messages of some topics in time order, each reading in the same.

        Where the clock was set back while the file was written, the order of the file is the
        order of time.
        """
        ...

    def log_times(self) -> dict[str, npt.NDArray[np.int64]]:
        """Topic to the log times of its messages in the order of the file, [ns]."""
        ...

    def close(self) -> None:
        """Close the file."""
