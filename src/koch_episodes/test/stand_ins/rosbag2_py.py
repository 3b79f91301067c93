# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""rosbag2_py's documented interface over the rosbags library: it reads and writes real bags.

Source: ros2/rosbag2, rosbag2_py/rosbag2_py/_reader.pyi, _writer.pyi, _storage.pyi. "acme" is a
storage plug-in that only this installation has: sqlite3 behind a header of its own.
"""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

from rosbags.rosbag2 import Reader, StoragePlugin, Writer

from koch_episodes.bag.definitions import Definitions

ACME = b"ACME"


@dataclass
class StorageOptions:
    uri: str
    storage_id: str = ""


@dataclass
class ConverterOptions:
    input_serialization_format: str = ""
    output_serialization_format: str = ""


@dataclass
class StorageFilter:
    topics: list[str] = field(default_factory=list)


@dataclass
class TopicMetadata:
    id: int
    name: str
    type: str
    serialization_format: str
    offered_qos_profiles: list[object] = field(default_factory=list)
    type_description_hash: str = ""


class SequentialReader:
    def open(self, storage_options: StorageOptions, converter_options: ConverterOptions) -> None:
        folder = Path(storage_options.uri)
        if not (folder / "metadata.yaml").is_file():
            raise RuntimeError("No storage could be initialized from the inputs.")
        text = (folder / "metadata.yaml").read_text()
        self._copy = tempfile.TemporaryDirectory()
        for path in folder.glob("*.acme"):
            data = path.read_bytes()
            if not data.startswith(ACME):
                raise RuntimeError(f"{path} is no acme file")
            (Path(self._copy.name) / f"{path.stem}.db3").write_bytes(data[len(ACME) :])
            text = text.replace(path.name, f"{path.stem}.db3")
            text = text.replace("storage_identifier: acme", "storage_identifier: sqlite3")
            folder = Path(self._copy.name)
        (Path(self._copy.name) / "metadata.yaml").write_text(text)
        self._reader = Reader(folder)
        self._reader.open()
        self.reset_filter()

    def get_all_topics_and_types(self) -> list[TopicMetadata]:
        return [TopicMetadata(c.id, c.topic, c.msgtype, "cdr") for c in self._reader.connections]

    def get_metadata(self) -> SimpleNamespace:
        topics = zip(self.get_all_topics_and_types(), self._reader.connections, strict=True)
        counts = [SimpleNamespace(topic_metadata=t, message_count=c.msgcount) for t, c in topics]
        return SimpleNamespace(topics_with_message_count=counts)

    def set_filter(self, storage_filter: StorageFilter) -> None:
        chosen = [c for c in self._reader.connections if c.topic in storage_filter.topics]
        self._iterate(self._reader.messages(connections=chosen))

    def reset_filter(self) -> None:
        self._iterate(self._reader.messages())

    def _iterate(self, messages) -> None:
        self._messages = messages
        self._next = next(messages, None)

    def has_next(self) -> bool:
        return self._next is not None

    def read_next(self) -> tuple[str, bytes, int]:
        connection, log_ns, data = self._next
        self._next = next(self._messages, None)
        return connection.topic, bytes(data), log_ns


class SequentialWriter:
    def open(self, storage_options: StorageOptions, converter_options: ConverterOptions) -> None:
        self._connections = {}
        try:
            self._writer = Writer(
                Path(storage_options.uri), version=9, storage_plugin=StoragePlugin.MCAP
            )
            self._writer.open()
        except Exception as exc:
            raise RuntimeError(str(exc)) from exc

    def create_topic(self, topic: TopicMetadata) -> None:
        # rosbag2 knows the definitions of all interface packages that are installed.
        found, type_hash = Definitions().topic(topic.name, topic.type)
        self._connections[topic.name] = self._writer.add_connection(
            topic.name, topic.type, msgdef=found.definition, rihs01=type_hash
        )

    def write(self, topic_name: str, message: bytes, time_stamp: int) -> None:
        if topic_name not in self._connections:
            raise RuntimeError(f"Topic {topic_name} has not been created yet!")
        self._writer.write(self._connections[topic_name], time_stamp, message)

    def close(self) -> None:
        self._writer.close()
