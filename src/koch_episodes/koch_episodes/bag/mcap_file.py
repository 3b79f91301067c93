# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Reading one MCAP file, finished or cut off at any byte, a chunk at a time.

A finished file is read through its chunk index: a broken chunk costs that chunk. An unfinished one
is read from the front until it ends, the part of the last chunk that is there included.

Source: MCAP format specification, sections Records and Summary Section.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from koch_episodes.bag.order import DISORDER_NS, clock_was_set_back
from koch_episodes.bag.storage import STORAGES, RawMessage, Topic, TopicTypes, custom_data
from koch_episodes.errors import BagError

MAGIC = b"\x89MCAP0\r\n"
_SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _MESSAGE_INDEX, _CHUNK_INDEX = 3, 4, 5, 6, 7, 8
_STATISTICS, _METADATA, _METADATA_INDEX = 11, 12, 13
_HEAD = struct.Struct("<BQ")
# MCAP's times are unsigned. Read as signed ones, those above 2^63 (a negative time, rolled over)
# become what they were before, and fit into an int64 like all others.
_MESSAGE_HEAD = struct.Struct("<HIqq")
_CHUNK_HEAD = struct.Struct("<QQQI")
_U16, _U32, _U64 = struct.Struct("<H"), struct.Struct("<I"), struct.Struct("<Q")
_LARGEST_CHUNK = 1 << 30
_LOG_NS = attrgetter("log_ns")


class _ChunkPlace(NamedTuple):
    start_ns: int
    end_ns: int
    offset: int
    length: int
    index_length: int
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


@STORAGES.register("mcap")
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
        self._channels: dict[int, Topic] = {}
        self._counts: Counter[int] = Counter()  # channel to messages, where known
        self._scanned: dict[str, array[int]] = {}
        self.custom: dict[str, str] = {}
        self.foreign: dict[str, str] = {}
        self._buffer = bytearray()
        self._checked: set[int] = set()  # offsets of chunks whose checksum was right
        try:
            self._file: io.BufferedReader = path.open("rb")
            self._size = os.fstat(self._file.fileno()).st_size
            magic = self._file.read(len(MAGIC))
        except OSError as exc:
            raise BagError(path, f"cannot be opened ({exc})", "Check the file.") from exc
        if magic != MAGIC:
            self._file.close()
            raise BagError(path, f"does not begin like MCAP (got {magic!r})", "Skip it.")
        self._chunks = self._read_summary()
        if self._chunks is None:
            if not self._is_finished():
                note(f"{path.name}: not finished; read as far as it goes")
            for _ in self._scan(None):
                pass  # collects channels, counts and log times
        self.types = TopicTypes()
        for number, topic in self._channels.items():
            if topic.name not in self.foreign:
                self.types.add(topic, self._counts[number])

    def _is_finished(self) -> bool:
        """Tell whether the file has its end; a finished one may still have no index."""
        if self._size < 2 * len(MAGIC):
            return False
        self._file.seek(self._size - len(MAGIC))
        return self._file.read(len(MAGIC)) == MAGIC

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
            for kind, body in _records(memoryview(summary)[: -len(MAGIC)]):
                if kind == _CHUNK_INDEX:
                    chunks.append(_chunk_place(body))
                elif kind == _METADATA_INDEX:  # offset, length, name
                    metadata.append(_U64.unpack_from(body)[0])
                else:
                    self._learn(kind, body)
            self._read_metadata(metadata)
            if any(p.offset + p.length + p.index_length > self._size for p in chunks):
                raise ValueError("index leads behind the end")
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
            self._channels[number] = Topic(name, message_type, definition, form)
            if encoding not in ("cdr", ""):
                self.foreign[name] = encoding
        elif kind == _STATISTICS:
            # Behind 42 bytes of totals and a length: channel and count, 10 bytes each.
            self._counts.update(dict(struct.iter_unpack("<HQ", body[46:])))
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
        """Yield the messages of some topics in log time order.

        Without an index, or where the clock was set back: in the order of the file.
        """
        if self._chunks is None:
            yield from self._in_order(self._scan(topics))
            return
        wanted = {number for number, topic in self._channels.items() if topic.name in topics}
        if self._is_set_back:
            for place in sorted(self._chunks, key=attrgetter("offset")):
                if not place.channels or place.channels & wanted:
                    yield from self._chunk_at(place.offset, topics)
            return
        waiting: list[RawMessage] = []
        for place in self._chunks:
            if place.channels and not place.channels & wanted:
                continue
            done = bisect_left(waiting, place.start_ns, key=_LOG_NS)
            yield from waiting[:done]
            waiting = waiting[done:] + self._chunk_at(place.offset, topics)
            waiting.sort(key=_LOG_NS)
        yield from waiting

    @cached_property
    def _is_set_back(self) -> bool:
        return clock_was_set_back(self.log_times().values())

    def log_times(self) -> dict[str, npt.NDArray[np.int64]]:
        """Topic to the log times of its messages in the order of the file, [ns].

        From the message index behind each chunk; a chunk without one counts for nothing.
        """
        if self._chunks is None:
            return {name: np.array(times, np.int64) for name, times in self._scanned.items()}
        found: dict[str, list[npt.NDArray[np.int64]]] = {}
        for place in sorted(self._chunks, key=attrgetter("offset")):
            self._file.seek(place.offset + place.length)
            for channel, times in _message_index(self._file.read(place.index_length)):
                if channel in self._channels:
                    found.setdefault(self._channels[channel].name, []).append(times)
        return {name: np.concatenate(times) for name, times in found.items()}

    def _in_order(self, messages: Iterator[RawMessage]) -> Iterator[RawMessage]:
        """Note messages far out of order: without an index they cannot be put into it."""
        newest = 0
        for message in messages:
            if message.log_ns < newest - DISORDER_NS and not self._is_set_back:
                self._note(
                    f"{self._path.name}: messages are not in the order of time, and there is no "
                    "index; 'mcap sort' writes a file that has both"
                )
            newest = max(newest, message.log_ns)
            yield message

    def _chunk_at(self, offset: int, topics: frozenset[str]) -> list[RawMessage]:
        """Read a chunk's messages; none where the index leads to something else."""
        if offset + _HEAD.size > self._size:
            return []
        self._file.seek(offset)
        kind, size = _HEAD.unpack(self._file.read(_HEAD.size))
        body = self._read(size) if kind == _CHUNK and size < self._size else memoryview(b"")
        return self._open_chunk(body, offset, whole=True, topics=topics)

    def _read(self, size: int) -> memoryview:
        """Read up to `size` bytes, valid until the next call.

        All chunks share one buffer: getting fresh memory for each costs as much as reading it.
        """
        if size > len(self._buffer):
            self._buffer = bytearray(size)
        view = memoryview(self._buffer)[:size]
        return view[: self._file.readinto(view)]

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
            place = self._file.tell() - _HEAD.size
            body = self._read(min(size, left))
            if kind == _CHUNK:
                yield from self._open_chunk(body, place, whole=size <= left, topics=topics)
            elif size <= left:
                try:
                    message = self._take(kind, body, topics)
                except (struct.error, ValueError) as exc:
                    self._note(f"{self._path.name}: broken record skipped ({exc})")
                    continue
                if message is not None:
                    yield message

    def _open_chunk(
        self, body: memoryview, offset: int, *, whole: bool, topics: frozenset[str] | None
    ) -> list[RawMessage]:
        try:
            records = self._unpack(body, offset, whole)
        except (struct.error, ValueError) as exc:
            self._note(f"{self._path.name}: broken chunk skipped ({exc})")
            return []
        messages: list[RawMessage] = []
        try:
            for kind, record in _records(records):
                message = self._take(kind, record, topics)
                if message is not None:
                    messages.append(message)
        except (struct.error, ValueError):
            if whole:
                self._note(f"{self._path.name}: chunk with broken records, rest of it skipped")
        return messages

    def _unpack(self, body: memoryview, offset: int, whole: bool) -> memoryview:
        """Return a chunk's records; its checksum is compared at the first reading."""
        _, _, size, crc = _CHUNK_HEAD.unpack_from(body)
        length = _U32.unpack_from(body, _CHUNK_HEAD.size)[0]
        place = _CHUNK_HEAD.size + 4
        method = bytes(body[place : place + length]).decode("ascii", "replace")
        packed = body[place + length + 8 :]
        if size > _LARGEST_CHUNK:
            raise ValueError(f"chunk of {size} bytes")
        data = _decompress(method, packed, size)
        if whole and crc and offset not in self._checked:
            if zlib.crc32(data) != crc:
                raise ValueError("checksum differs")
            self._checked.add(offset)
        return data

    def _take(
        self, kind: int, body: memoryview, topics: frozenset[str] | None
    ) -> RawMessage | None:
        """Return the message of a wanted topic; learn from the other records."""
        if kind != _MESSAGE:
            self._learn(kind, body)
            return None
        channel, _, log_ns, _ = _MESSAGE_HEAD.unpack_from(body)
        topic = self._channels.get(channel)
        if topic is None:
            return None
        if topics is None:
            self._counts[channel] += 1
            self._scanned.setdefault(topic.name, array("q")).append(log_ns)
        elif topic.name in topics:
            return RawMessage(topic.name, log_ns, bytes(body[_MESSAGE_HEAD.size :]), topic.type)
        return None

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _records(view: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Split a run of records; raises ValueError where the last one is cut off."""
    place, end = 0, len(view)
    while place + _HEAD.size <= end:
        kind, size = _HEAD.unpack_from(view, place)
        place += _HEAD.size
        if place + size > end:
            raise ValueError("record cut off")
        yield kind, view[place : place + size]
        place += size


def _chunk_place(body: memoryview) -> _ChunkPlace:
    start_ns, end_ns, offset, length = struct.unpack_from("<qqQQ", body)
    size = _U32.unpack_from(body, 32)[0]
    channels = frozenset(
        struct.unpack_from("<H", body, 36 + place)[0] for place in range(0, size, 10)
    )
    index_length = _U64.unpack_from(body, 36 + size)[0]
    return _ChunkPlace(start_ns, end_ns, offset, length, index_length, channels)


def _message_index(data: bytes) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """Yield channel and log times of each index of a chunk, in the order of the chunk."""
    try:
        for kind, body in _records(memoryview(data)):
            if kind != _MESSAGE_INDEX:
                return
            size = _U32.unpack_from(body, 2)[0]
            rows = np.frombuffer(body[6 : 6 + size], np.int64).reshape(-1, 2)
            yield _U16.unpack_from(body)[0], rows[np.argsort(rows[:, 1], kind="stable"), 0]
    except (struct.error, ValueError):
        return  # damaged; what is in it was a help only


def _decompress(method: str, packed: memoryview, size: int) -> memoryview:
    """Unpack a chunk, or the beginning of one that is cut off."""
    if method == "":
        return packed[:size]
    if method == "zstd":
        import zstandard

        try:
            return memoryview(zstandard.ZstdDecompressor().decompressobj().decompress(packed))
        except zstandard.ZstdError as exc:
            raise ValueError(str(exc)) from exc
    if method == "lz4":
        import lz4.frame

        try:
            return memoryview(lz4.frame.LZ4FrameDecompressor().decompress(packed, size))
        except RuntimeError as exc:
            raise ValueError(str(exc)) from exc
    raise ValueError(f"unknown compression {method!r}")
