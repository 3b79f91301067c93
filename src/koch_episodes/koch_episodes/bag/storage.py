# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What the storage formats of a bag have in common."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import yaml

from koch_rig.yaml_source import SAFE_LOADER


class RawMessage(NamedTuple):
    """One serialised message.

    Attributes:
        topic: Topic name.
        log_ns: When the recorder received it, [ns].
        data: CDR bytes.
    """

    topic: str
    log_ns: int
    data: bytes


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


class StorageFile(Protocol):
    """One file of a bag.

    Attributes:
        topics: Topic name to description.
        custom: The recorder's custom data.
        foreign: Topics that are not read, name to encoding: ROS 1's, JSON, Protobuf.
    """

    topics: dict[str, Topic]
    custom: dict[str, str]
    foreign: dict[str, str]

    def messages(self, topics: frozenset[str]) -> Iterator[RawMessage]:
        """Yield the messages of some topics in time order."""
        ...

    def close(self) -> None:
        """Close the file."""
