# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Writing one MCAP file so that a dying process loses at most what it has not flushed.

Schemas, channels and metadata stand outside the chunks and are on the file at once; messages are
gathered into a chunk that `flush` writes whole. Everything flushed is readable without an index.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from koch_episodes.bag import mcap_records as records
from koch_episodes.bag.storage import Topic

LIBRARY = "koch_episodes 0.1.0"
_PREFIX = records.MESSAGE_FIELDS.size
_RECORD_PREFIX = records.MESSAGE_HEAD.size


class McapWriter:
    """Writes topics, messages and metadata into one file. Not thread safe.

    Args:
        path: File to write.
        existing: Continue an unfinished file whose content `adopt` describes.

    Raises:
        OSError: The file exists already, or cannot be created.
    """

    def __init__(self, path: Path, *, existing: bool = False) -> None:
        self._file: BinaryIO = path.open("r+b" if existing else "xb", buffering=0)
        self._place = 0
        self._schemas: dict[str, tuple[int, bytes]] = {}
        self._channels: dict[int, bytes] = {}
        self._chunks: list[records.ChunkPlace] = []
        self._metadata: list[bytes] = []
        self.counts: dict[int, int] = {}
        self.start_ns = 0
        self.end_ns = 0
        self._reset_chunk()
        if not existing:
            self._append(records.header(LIBRARY))

    def _reset_chunk(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0
        self._entries: dict[int, records.Entries] = {}
        self._chunk_start_ns = self._chunk_end_ns = 0

    @property
    def size(self) -> int:
        """Bytes on the file."""
        return self._place

    @property
    def pending(self) -> int:
        """Bytes that the next flush writes."""
        return self._size

    @property
    def count(self) -> int:
        """Messages written, pending ones included."""
        return sum(self.counts.values())

    def adopt(
        self,
        place: int,
        schemas: Mapping[str, tuple[int, bytes]],
        channels: Mapping[int, bytes],
        chunks: list[records.ChunkPlace],
        metadata: list[bytes],
        counts: Mapping[int, int],
    ) -> None:
        """Continue behind `place`, cutting off what follows; the rest describes what precedes."""
        self._file.truncate(place)
        self._file.seek(place)
        self._place = place
        self._schemas, self._channels = dict(schemas), dict(channels)
        self._chunks, self._metadata = list(chunks), list(metadata)
        self.counts = {number: counts.get(number, 0) for number in channels}
        filled = [chunk for chunk in chunks if chunk.indexes]
        if filled:
            self.start_ns = min(chunk.start_ns for chunk in filled)
            self.end_ns = max(chunk.end_ns for chunk in filled)

    def _append(self, data: bytes) -> int:
        """Write all of it, or nothing: after an error the file ends where it ended before."""
        start, view = self._place, memoryview(data)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError:
            self._file.seek(start)
            self._file.truncate(start)
            raise
        self._place = start + len(data)
        return start

    def add_topic(self, topic: Topic, *, type_hash: str, qos: str) -> int:
        """Describe a topic and return its channel number.

        Args:
            topic: Name, type and definition.
            type_hash: RIHS01 hash of the type, empty where unknown.
            qos: Offered QoS profiles as YAML, as rosbag2 stores them.

        Raises:
            OSError: It cannot be written.
        """
        data = b""
        if topic.type not in self._schemas:
            number = len(self._schemas) + 1
            data = records.schema(number, topic.type, topic.form or "ros2msg", topic.definition)
        schema_number = self._schemas[topic.type][0] if not data else len(self._schemas) + 1
        number = len(self._channels) + 1
        values = {"offered_qos_profiles": qos, "topic_type_hash": type_hash}
        channel = records.channel(number, schema_number, topic.name, "cdr", values)
        self._append(data + channel)
        if data:
            self._schemas[topic.type] = (schema_number, data)
        self._channels[number] = channel
        self.counts[number] = 0
        return number

    def add_metadata(self, name: str, values: Mapping[str, str]) -> None:
        """Write named strings; a later record of the same name and key wins.

        Raises:
            OSError: They cannot be written.
        """
        data = records.metadata(name, values)
        place = self._append(data)
        self._metadata.append(records.metadata_index(name, place, len(data)))

    def add_message(
        self, channel: int, data: bytes, log_ns: int, publish_ns: int, sequence: int = 0
    ) -> None:
        """Gather one message for the next flush."""
        head = records.MESSAGE_HEAD.pack(
            records.MESSAGE,
            _PREFIX + len(data),
            channel,
            sequence & 0xFFFFFFFF,
            log_ns,
            publish_ns,
        )
        if not self._pieces:
            self._chunk_start_ns = self._chunk_end_ns = log_ns
        elif log_ns > self._chunk_end_ns:
            self._chunk_end_ns = log_ns
        elif log_ns < self._chunk_start_ns:
            self._chunk_start_ns = log_ns
        self._entries.setdefault(channel, []).append((log_ns, self._size))
        self._pieces.append(head)
        self._pieces.append(data)
        self._size += _RECORD_PREFIX + len(data)
        self.counts[channel] += 1

    def flush(self) -> None:
        """Hand the gathered messages to the operating system; kill -9 cannot take them back.

        Raises:
            OSError: They cannot be written (disk full); they stay gathered, the file is as before.
        """
        if not self._pieces:
            return
        chunk = records.chunk(self._pieces, self._chunk_start_ns, self._chunk_end_ns)
        indexes: dict[int, int] = {}
        tail = b""
        for number, entries in self._entries.items():
            indexes[number] = self._place + len(chunk) + len(tail)
            tail += records.message_index(number, entries)
        offset = self._append(chunk + tail)
        self._chunks.append(
            records.ChunkPlace(
                self._chunk_start_ns,
                self._chunk_end_ns,
                offset,
                len(chunk),
                indexes,
                len(tail),
                self._size,
            )
        )
        first = len(self._chunks) == 1
        self.start_ns = self._chunk_start_ns if first else min(self.start_ns, self._chunk_start_ns)
        self.end_ns = max(self.end_ns, self._chunk_end_ns)
        self._reset_chunk()

    def drop_pending(self) -> int:
        """Forget the gathered messages (there is no room for them); returns how many."""
        lost = 0
        for number, entries in self._entries.items():
            self.counts[number] -= len(entries)
            lost += len(entries)
        self._reset_chunk()
        return lost

    def sync(self) -> None:
        """Bring what was flushed onto the disk itself; may take long."""
        os.fdatasync(self._file.fileno())

    def finish(self) -> None:
        """Flush, write index and footer, and close.

        Raises:
            OSError: The disk is full; the file is as before and `finish` may be tried again.
        """
        self.flush()
        groups = [
            (records.SCHEMA, b"".join(data for _, data in self._schemas.values())),
            (records.CHANNEL, b"".join(self._channels.values())),
            (records.STATISTICS, self._statistics()),
            (records.CHUNK_INDEX, b"".join(records.chunk_index(place) for place in self._chunks)),
            (records.METADATA_INDEX, b"".join(self._metadata)),
        ]
        self._append(records.ending(groups, self._place))
        self.sync()
        self.close()

    def _statistics(self) -> bytes:
        return records.statistics(
            self.counts,
            schemas=len(self._schemas),
            metadata=len(self._metadata),
            chunks=len(self._chunks),
            start=self.start_ns,
            end=self.end_ns,
        )

    def close(self) -> None:
        """Close without finishing; harmless when closed."""
        self._file.close()
