# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Reading one MCAP file, finished or cut off at any byte, a chunk at a time.

A finished file is read through its chunk index: a broken chunk costs that chunk. An unfinished one
is read from the front until it ends, the part of the last chunk that is there included.

Source: MCAP format specification, sections Records and Summary Section.
"""

from __future__ import annotations

import heapq
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from koch_episodes.bag.storage import RawMessage, Topic, custom_data
from koch_episodes.errors import BagError

MAGIC = b"\x89MCAP0\r\n"
_SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _CHUNK_INDEX, _METADATA = 3, 4, 5, 6, 8, 12
_HEAD = struct.Struct("<BQ")
_MESSAGE_HEAD = struct.Struct("<HIQQ")
_CHUNK_HEAD = struct.Struct("<QQQI")
_U16, _U32, _U64 = struct.Struct("<H"), struct.Struct("<I"), struct.Struct("<Q")
_LARGEST_CHUNK = 1 << 30


class _ChunkPlace(NamedTuple):
    start_ns: int
    end_ns: int
    offset: int
    channels: frozenset[int]


class _Fields:
    """A cursor over the fields of one record."""

    def __init__(self, data: bytes | memoryview) -> None:
        self.data = bytes(data)
        self.place = 0

    def number(self, kind: struct.Struct) -> int:
        value = kind.unpack_from(self.data, self.place)[0]
        self.place += kind.size
        return int(value)

    def block(self) -> bytes:
        size = self.number(_U32)
        if self.place + size > len(self.data):
            raise ValueError("field runs past its record")
        self.place += size
        return self.data[self.place - size : self.place]

    def text(self) -> str:
        return self.block().decode("utf-8", "replace")

    def pairs(self) -> dict[str, str]:
        inner = _Fields(self.block())
        result = {}
        while inner.place < len(inner.data):
            key = inner.text()
            result[key] = inner.text()
        return result


class McapFile:
    """Topics, custom data and messages of one MCAP file.

    Args:
        path: The file.
        note: Called with a line for every damage found.

    Raises:
        BagError: Not an MCAP file at all.
    """

    def __init__(self, path: Path, note: Callable[[str], None]) -> None:
        self._path = path
        self._note = note
        self._schemas: dict[int, tuple[str, str, str]] = {}
        self._channels: dict[int, str] = {}
        self.topics: dict[str, Topic] = {}
        self.custom: dict[str, str] = {}
        try:
            self._file: BinaryIO = path.open("rb")
            self._size = os.fstat(self._file.fileno()).st_size
            magic = self._file.read(len(MAGIC))
        except OSError as exc:
            raise BagError(path, f"cannot be opened ({exc})", "Check the file.") from exc
        if magic != MAGIC:
            self._file.close()
            raise BagError(path, f"does not begin like MCAP (got {magic!r})", "Skip it.")
        self._chunks = self._read_summary()
        if self._chunks is None:
            note(f"{path.name}: not finished; read as far as it goes")
            for _ in self._scan(None):
                pass  # collects the topics

    def _read_summary(self) -> list[_ChunkPlace] | None:
        """Read the summary section; None where the file has none that is usable."""
        tail = 8 + 8 + 4 + len(MAGIC)
        if self._size < tail + len(MAGIC):
            return None
        self._file.seek(self._size - tail)
        end = self._file.read(tail)
        start = _U64.unpack_from(end)[0]
        if end[-len(MAGIC) :] != MAGIC or not len(MAGIC) <= start < self._size:
            return None
        self._file.seek(start)
        summary = self._file.read(self._size - start)
        chunks: list[_ChunkPlace] = []
        metadata: list[int] = []
        try:
            for kind, body in _records(summary[: -len(MAGIC)]):
                if kind == _CHUNK_INDEX:
                    chunks.append(_chunk_place(body))
                elif kind == 13:  # metadata index: offset, length, name
                    metadata.append(_U64.unpack_from(body)[0])
                else:
                    self._learn(kind, body)
            self._read_metadata(metadata)
        except (struct.error, ValueError):
            return None
        if not chunks or not self._channels:
            return None  # written without chunks, or without an index
        return sorted(chunks)

    def _read_metadata(self, offsets: list[int]) -> None:
        for offset in offsets:
            if offset + _HEAD.size > self._size:
                raise ValueError("index leads behind the end")
            self._file.seek(offset)
            kind, size = _HEAD.unpack(self._file.read(_HEAD.size))
            if kind == _METADATA and size < self._size:
                self._learn(kind, self._file.read(size))

    def _learn(self, kind: int, body: bytes | memoryview) -> None:
        if kind == _SCHEMA:
            fields = _Fields(body)
            number = fields.number(_U16)
            self._schemas[number] = (fields.text(), fields.text(), fields.text())
        elif kind == _CHANNEL:
            fields = _Fields(body)
            number, schema = fields.number(_U16), fields.number(_U16)
            name, encoding = fields.text(), fields.text()
            message_type, form, definition = self._schemas.get(schema, ("", "", ""))
            self._channels[number] = name
            if encoding in ("cdr", "") and name not in self.topics:
                self.topics[name] = Topic(name, message_type, definition, form)
        elif kind == _METADATA:
            fields = _Fields(body)
            name, values = fields.text(), fields.pairs()
            if name == "rosbag2" and "serialized_metadata" in values:
                found = custom_data(values["serialized_metadata"])
                if found is None:
                    self._note(f"{self._path.name}: stored metadata is broken")
                self.custom.update(found or {})
            elif name == "koch":
                self.custom.update(values)

    def messages(self, topics: frozenset[str]) -> Iterator[RawMessage]:
        """Yield the messages of some topics in log time order (unfinished: in file order)."""
        if self._chunks is None:
            yield from self._scan(topics)
            return
        wanted = {number for number, name in self._channels.items() if name in topics}
        heap: list[tuple[int, int, RawMessage]] = []
        order = 0
        for place in self._chunks:
            if place.channels and not place.channels & wanted:
                continue
            while heap and heap[0][0] < place.start_ns:
                yield heapq.heappop(heap)[2]
            body = self._chunk_at(place.offset)
            for message in self._open_chunk(body, whole=True, topics=topics):
                heapq.heappush(heap, (message.log_ns, order, message))
                order += 1
        while heap:
            yield heapq.heappop(heap)[2]

    def _chunk_at(self, offset: int) -> bytes:
        """Read the body of a chunk; empty where the index leads to something else."""
        if offset + _HEAD.size > self._size:
            return b""
        self._file.seek(offset)
        kind, size = _HEAD.unpack(self._file.read(_HEAD.size))
        return self._file.read(size) if kind == _CHUNK and size < self._size else b""

    def _scan(self, topics: frozenset[str] | None) -> Iterator[RawMessage]:
        """Read from the front; None for topics: only learn what there is."""
        self._file.seek(len(MAGIC))
        while True:
            head = self._file.read(_HEAD.size)
            if len(head) < _HEAD.size or head[:1] == b"\x89":
                return
            kind, size = _HEAD.unpack(head)
            left = self._size - self._file.tell()
            if kind == 0 or (kind > 127 and size > left):
                return
            body = self._file.read(min(size, left))
            if kind == _CHUNK:
                yield from self._open_chunk(body, whole=size <= left, topics=topics)
            elif size <= left:
                try:
                    yield from self._take(kind, body, topics)
                except (struct.error, ValueError) as exc:
                    self._note(f"{self._path.name}: broken record skipped ({exc})")

    def _open_chunk(
        self, body: bytes, *, whole: bool, topics: frozenset[str] | None
    ) -> Iterator[RawMessage]:
        try:
            records = self._unpack(body, whole)
        except (struct.error, ValueError) as exc:
            self._note(f"{self._path.name}: broken chunk skipped ({exc})")
            return
        try:
            for kind, record in _records(records):
                yield from self._take(kind, record, topics)
        except (struct.error, ValueError):
            if whole:
                self._note(f"{self._path.name}: chunk with broken records, rest of it skipped")

    def _unpack(self, body: bytes, whole: bool) -> bytes:
        _, _, size, crc = _CHUNK_HEAD.unpack_from(body)
        length = _U32.unpack_from(body, _CHUNK_HEAD.size)[0]
        place = _CHUNK_HEAD.size + 4
        method = body[place : place + length].decode("ascii", "replace")
        packed = body[place + length + 8 :]
        if size > _LARGEST_CHUNK:
            raise ValueError(f"chunk of {size} bytes")
        data = _decompress(method, packed, size)
        if whole and crc and zlib.crc32(data) != crc:
            raise ValueError("checksum differs")
        return data

    def _take(
        self, kind: int, body: bytes | memoryview, topics: frozenset[str] | None
    ) -> Iterator[RawMessage]:
        if kind != _MESSAGE:
            self._learn(kind, body)
        elif topics is not None:
            channel, _, log_ns, _ = _MESSAGE_HEAD.unpack_from(body)
            name = self._channels.get(channel)
            if name in topics:
                yield RawMessage(name, log_ns, bytes(body[_MESSAGE_HEAD.size :]))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _records(data: bytes) -> Iterator[tuple[int, memoryview]]:
    """Split a run of records; raises ValueError where the last one is cut off."""
    view, place, end = memoryview(data), 0, len(data)
    while place + _HEAD.size <= end:
        kind, size = _HEAD.unpack_from(view, place)
        place += _HEAD.size
        if place + size > end:
            raise ValueError("record cut off")
        yield kind, view[place : place + size]
        place += size


def _chunk_place(body: memoryview) -> _ChunkPlace:
    start_ns, end_ns, offset, _ = struct.unpack_from("<QQQQ", body)
    size = _U32.unpack_from(body, 32)[0]
    channels = frozenset(
        struct.unpack_from("<H", body, 36 + place)[0] for place in range(0, size, 10)
    )
    return _ChunkPlace(start_ns, end_ns, offset, channels)


def _decompress(method: str, packed: bytes, size: int) -> bytes:
    """Unpack a chunk, or the beginning of one that is cut off."""
    if method == "":
        return packed[:size]
    if method == "zstd":
        import zstandard

        try:
            return bytes(zstandard.ZstdDecompressor().decompressobj().decompress(packed))
        except zstandard.ZstdError as exc:
            raise ValueError(str(exc)) from exc
    if method == "lz4":
        import lz4.frame

        try:
            return bytes(lz4.frame.LZ4FrameDecompressor().decompress(packed, size))
        except RuntimeError as exc:
            raise ValueError(str(exc)) from exc
    raise ValueError(f"unknown compression {method!r}")
