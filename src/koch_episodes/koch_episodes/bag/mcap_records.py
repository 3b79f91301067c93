# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The records of an MCAP file as bytes, for the writer and the repairer.

Source: MCAP format specification, https://mcap.dev/spec
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

MAGIC = b"\x89MCAP0\r\n"
HEADER, FOOTER, SCHEMA, CHANNEL, MESSAGE, CHUNK, MESSAGE_INDEX, CHUNK_INDEX = range(1, 9)
STATISTICS, METADATA, METADATA_INDEX, SUMMARY_OFFSET, DATA_END = 0x0B, 0x0C, 0x0D, 0x0E, 0x0F

HEAD = struct.Struct("<BQ")  # opcode, length of the rest
MESSAGE_HEAD = struct.Struct("<BQHIQQ")  # HEAD, channel, sequence, log time, publish time
MESSAGE_FIELDS = struct.Struct("<HIQQ")
CHUNK_FIELDS = struct.Struct("<QQQI")  # start, end, uncompressed size, crc
FOOTER_FIELDS = struct.Struct("<QQI")
_U16, _U32, _U64 = struct.Struct("<H"), struct.Struct("<I"), struct.Struct("<Q")
_INDEX_ENTRY = struct.Struct("<QQ")

Entries = list[tuple[int, int]]
"""(log time [ns], offset of the message record inside the chunk)."""


class ChunkPlace(NamedTuple):
    """What the chunk index says of one chunk.

    Attributes:
        start_ns: Log time of its earliest message, [ns].
        end_ns: Log time of its latest message, [ns].
        offset: Place of the chunk record in the file.
        length: Length of the chunk record, head included.
        indexes: Channel to place of its message index record.
        index_length: Length of all message index records behind the chunk.
        size: Bytes of the records inside; chunks are not compressed.
    """

    start_ns: int
    end_ns: int
    offset: int
    length: int
    indexes: Mapping[int, int]
    index_length: int
    size: int


def text(value: str) -> bytes:
    """A length-prefixed UTF-8 string."""
    data = value.encode()
    return _U32.pack(len(data)) + data


def pairs(values: Mapping[str, str]) -> bytes:
    """A length-prefixed map of strings."""
    data = b"".join(text(key) + text(value) for key, value in values.items())
    return _U32.pack(len(data)) + data


def record(opcode: int, body: bytes) -> bytes:
    """One record: opcode, length, body."""
    return HEAD.pack(opcode, len(body)) + body


def header(library: str) -> bytes:
    """The file's magic and header record, as rosbag2 writes them."""
    return MAGIC + record(HEADER, text("ros2") + text(library))


def schema(number: int, name: str, form: str, definition: str) -> bytes:
    """A message type and its definition."""
    return record(SCHEMA, _U16.pack(number) + text(name) + text(form) + text(definition))


def channel(
    number: int, schema_number: int, topic: str, encoding: str, metadata: Mapping[str, str]
) -> bytes:
    """A topic."""
    body = _U16.pack(number) + _U16.pack(schema_number) + text(topic) + text(encoding)
    return record(CHANNEL, body + pairs(metadata))


def metadata(name: str, values: Mapping[str, str]) -> bytes:
    """A named map of strings."""
    return record(METADATA, text(name) + pairs(values))


def metadata_index(name: str, offset: int, length: int) -> bytes:
    """Where a metadata record is."""
    return record(METADATA_INDEX, _U64.pack(offset) + _U64.pack(length) + text(name))


def chunk(pieces: Sequence[bytes], start_ns: int, end_ns: int) -> bytes:
    """An uncompressed chunk: images are compressed already, the rest is small."""
    body = b"".join(pieces)
    fields = CHUNK_FIELDS.pack(start_ns, end_ns, len(body), zlib.crc32(body))
    fields += text("") + _U64.pack(len(body))
    return HEAD.pack(CHUNK, len(fields) + len(body)) + fields + body


def message_index(number: int, entries: Entries) -> bytes:
    """Where the messages of one channel stand in a chunk."""
    body = b"".join(_INDEX_ENTRY.pack(*entry) for entry in entries)
    return record(MESSAGE_INDEX, _U16.pack(number) + _U32.pack(len(body)) + body)


def chunk_index(place: ChunkPlace) -> bytes:
    """Where a chunk and its message indexes stand."""
    offsets = b"".join(_U16.pack(k) + _U64.pack(v) for k, v in place.indexes.items())
    body = struct.pack("<QQQQ", place.start_ns, place.end_ns, place.offset, place.length)
    body += _U32.pack(len(offsets)) + offsets + _U64.pack(place.index_length)
    return record(CHUNK_INDEX, body + text("") + _U64.pack(place.size) + _U64.pack(place.size))


def statistics(
    counts: Mapping[int, int], *, schemas: int, metadata: int, chunks: int, start: int, end: int
) -> bytes:
    """Totals of the file."""
    per_channel = b"".join(_U16.pack(k) + _U64.pack(v) for k, v in counts.items())
    fields = struct.pack(
        "<QHIIIIQQ", sum(counts.values()), schemas, len(counts), 0, metadata, chunks, start, end
    )
    return record(STATISTICS, fields + _U32.pack(len(per_channel)) + per_channel)


def ending(groups: Sequence[tuple[int, bytes]], place: int) -> bytes:
    """Data end, summary, summary offsets, footer and magic.

    Args:
        groups: Opcode and joined records of each group of the summary, in order.
        place: Where the data end record will stand in the file.
    """
    data_end = record(DATA_END, _U32.pack(0))
    start = place + len(data_end)
    summary, offsets = b"", b""
    for opcode, group in groups:
        if group:
            fields = bytes([opcode]) + _U64.pack(start + len(summary)) + _U64.pack(len(group))
            offsets += record(SUMMARY_OFFSET, fields)
            summary += group
    offset_start = start + len(summary)
    footer = HEAD.pack(FOOTER, FOOTER_FIELDS.size) + struct.pack("<QQ", start, offset_start)
    crc = zlib.crc32(summary + offsets + footer)
    return data_end + summary + offsets + footer + _U32.pack(crc) + MAGIC
