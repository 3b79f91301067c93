# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What an MCAP file without an index holds, up to its last whole record.

Only for files of our own writer: uncompressed chunks, schemas and channels outside them, message
indexes behind each chunk. `koch_episodes.bag.reader` reads what others left unfinished.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

from koch_episodes.bag import mcap_records as records
from koch_episodes.errors import BagError

_LARGEST = 1 << 30
_END_OF_DATA = frozenset(
    {records.DATA_END, records.FOOTER, records.STATISTICS, records.SUMMARY_OFFSET}
)


class TornMessage(NamedTuple):
    """A message of the last, incomplete chunk."""

    channel: int
    sequence: int
    log_ns: int
    publish_ns: int
    data: bytes


@dataclass
class Scan:
    """Content of an unfinished file, in the form in which `McapWriter.adopt` takes it.

    Attributes:
        place: Behind the last whole record; what follows is torn.
        size: Size of the file.
        schemas: Type name to (number, record).
        channels: Channel number to record.
        topics: Channel number to (topic name, type name, metadata).
        chunks: Places of the whole chunks.
        metadata: Metadata index records.
        counts: Messages per channel in whole chunks.
        custom: The recorder's strings, later records over earlier ones.
        torn: Messages saved from the torn end.
        bad_chunks: Chunks whose checksum differs; they are left out of the index.
    """

    place: int = 0
    size: int = 0
    schemas: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    channels: dict[int, bytes] = field(default_factory=dict)
    topics: dict[int, tuple[str, str, dict[str, str]]] = field(default_factory=dict)
    chunks: list[records.ChunkPlace] = field(default_factory=list)
    metadata: list[bytes] = field(default_factory=list)
    counts: dict[int, int] = field(default_factory=dict)
    custom: dict[str, str] = field(default_factory=dict)
    torn: list[TornMessage] = field(default_factory=list)
    bad_chunks: int = 0


def scan(path: Path, custom_name: str) -> Scan:
    """Read a file from the front as far as it is whole.

    Args:
        path: The file.
        custom_name: Name of the metadata records to collect.

    Raises:
        BagError: It is no MCAP file.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        if file.read(len(records.MAGIC)) != records.MAGIC:
            raise BagError(path, "does not begin like MCAP", "Nothing can be saved from it.")
        file.seek(0, 2)
        result = Scan(place=len(records.MAGIC), size=file.tell())
        file.seek(result.place)
        names: dict[int, str] = {}
        try:
            while _take_record(file, result, names, custom_name):
                pass
        except (struct.error, ValueError, UnicodeDecodeError):
            file.seek(result.place)  # what follows cannot be understood: torn
    return result


def _take_record(file: BinaryIO, found: Scan, names: dict[int, str], custom_name: str) -> bool:
    """Take one record; False at the end of what is whole."""
    start = found.place
    head = file.read(records.HEAD.size)
    if len(head) < records.HEAD.size:
        return False
    opcode, size = records.HEAD.unpack(head)
    end = start + records.HEAD.size + size
    if opcode in _END_OF_DATA or opcode == 0 or size > _LARGEST:
        return False
    body = file.read(size)
    if end > found.size:
        if opcode == records.CHUNK:
            found.torn = list(_torn_messages(body, found))
        return False
    if opcode == records.SCHEMA:
        _take_schema(head + body, body, found, names)
    elif opcode == records.CHANNEL:
        _take_channel(head + body, body, found, names)
    elif opcode == records.METADATA:
        _take_metadata(body, found, start, custom_name)
    elif opcode == records.CHUNK:
        return _take_chunk(file, body, found, start)
    found.place = end
    return True


class _Cursor:
    """Reads the fields of a record one after the other."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.place = 0

    def number(self, form: str) -> int:
        value = struct.unpack_from(form, self.data, self.place)[0]
        self.place += struct.calcsize(form)
        return int(value)

    def block(self) -> bytes:
        size = self.number("<I")
        if self.place + size > len(self.data):
            raise ValueError("a field runs past its record")
        self.place += size
        return self.data[self.place - size : self.place]

    def pairs(self) -> dict[str, str]:
        inner, result = _Cursor(self.block()), {}
        while inner.place < len(inner.data):
            key = inner.block().decode()
            result[key] = inner.block().decode()
        return result


def _take_schema(whole: bytes, body: bytes, found: Scan, names: dict[int, str]) -> None:
    cursor = _Cursor(body)
    number, name = cursor.number("<H"), cursor.block().decode()
    names[number] = name
    found.schemas[name] = (number, whole)


def _take_channel(whole: bytes, body: bytes, found: Scan, names: dict[int, str]) -> None:
    cursor = _Cursor(body)
    number, schema = cursor.number("<H"), cursor.number("<H")
    topic, _ = cursor.block().decode(), cursor.block()
    found.channels[number] = whole
    found.topics[number] = (topic, names.get(schema, ""), cursor.pairs())
    found.counts.setdefault(number, 0)


def _take_metadata(body: bytes, found: Scan, start: int, custom_name: str) -> None:
    cursor = _Cursor(body)
    name = cursor.block().decode()
    values = cursor.pairs()
    if name == custom_name:
        found.custom.update(values)
    length = records.HEAD.size + len(body)
    found.metadata.append(records.metadata_index(name, start, length))


def _take_chunk(file: BinaryIO, body: bytes, found: Scan, start: int) -> bool:
    """Take a whole chunk and the message indexes behind it; False where those are torn."""
    start_ns, end_ns, size, crc = records.CHUNK_FIELDS.unpack_from(body)
    content, compression = _content(body)
    end = start + records.HEAD.size + len(body)
    found.place = end
    if compression or len(content) != size or (crc and zlib.crc32(content) != crc):
        found.bad_chunks += 1
        return True
    entries: dict[int, records.Entries] = {}
    for message, offset in _messages(content):
        if message.channel in found.channels:
            entries.setdefault(message.channel, []).append((message.log_ns, offset))
    indexes, tail = {}, b""
    for number, rows in entries.items():
        indexes[number] = end + len(tail)
        tail += records.message_index(number, rows)
    if file.read(len(tail)) != tail:  # ours always stand there, in this order
        found.torn = list(_torn_messages(body, found))
        found.place = start
        return False
    for number, rows in entries.items():
        found.counts[number] += len(rows)
    found.chunks.append(
        records.ChunkPlace(start_ns, end_ns, start, end - start, indexes, len(tail), size)
    )
    found.place = end + len(tail)
    return True


def _content(body: bytes) -> tuple[bytes, bytes]:
    cursor = _Cursor(body)
    cursor.place = records.CHUNK_FIELDS.size
    compression = cursor.block()
    cursor.number("<Q")
    return body[cursor.place :], compression


def _messages(content: bytes) -> Iterator[tuple[TornMessage, int]]:
    """Yield the whole messages of a run of records, with their places in it."""
    place, end = 0, len(content)
    while place + records.HEAD.size <= end:
        opcode, size = records.HEAD.unpack_from(content, place)
        start = place + records.HEAD.size
        if start + size > end:
            return
        if opcode == records.MESSAGE:
            channel, sequence, log_ns, publish_ns = records.MESSAGE_FIELDS.unpack_from(
                content, start
            )
            data = content[start + records.MESSAGE_FIELDS.size : start + size]
            yield TornMessage(channel, sequence, log_ns, publish_ns, data), place
        elif opcode == 0:
            return
        place = start + size


def _torn_messages(body: bytes, found: Scan) -> Iterator[TornMessage]:
    """Save the whole messages of a chunk whose end is missing."""
    if len(body) < records.CHUNK_FIELDS.size + 12:
        return
    content, compression = _content(body)
    if compression:
        return
    for message, _ in _messages(content):
        if message.channel in found.channels:
            yield message
