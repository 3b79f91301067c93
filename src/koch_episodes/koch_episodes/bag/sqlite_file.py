# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Reading one sqlite3 file of a bag, damaged ones as far as they go."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from koch_episodes.bag.order import clock_was_set_back
from koch_episodes.bag.storage import STORAGES, RawMessage, Topic, TopicTypes, custom_data
from koch_episodes.errors import BagError

_FURTHEST_SKIP = 1 << 20
_COUNTS = "SELECT topic_id, COUNT(*) FROM messages GROUP BY topic_id"
_TIMES = "SELECT topic_id, timestamp FROM messages ORDER BY id"


@STORAGES.register("sqlite3")
class SqliteFile:
    """Topics, custom data and messages of one ``.db3`` file.

    Args:
        path: The file; never changed. A write-ahead log beside it (recorder killed) is applied to
            a copy.
        note: Called with a line for every damage found.

    Raises:
        BagError: Not a rosbag2 database at all.
    """

    def __init__(self, path: Path, note: Callable[[str], None]) -> None:
        self._path = path
        self._note = note
        self._copy: tempfile.TemporaryDirectory[str] | None = None
        self.types = TopicTypes()
        self.custom: dict[str, str] = {}
        self.foreign: dict[str, str] = {}
        self._topics: dict[int, Topic] = {}  # row number to topic
        try:
            self._base = sqlite3.connect(self._uri(), uri=True)
            self._base.text_factory = lambda raw: raw.decode("utf-8", "replace")
            # Nothing is written: this lets SQLite read a file shorter than its header says.
            self._base.execute("PRAGMA writable_schema=ON")
            self._read_topics()
        except sqlite3.Error as exc:
            raise BagError(path, f"is no readable rosbag2 database ({exc})", "Skip it.") from exc

    def _uri(self) -> str:
        log = self._path.with_name(self._path.name + "-wal")
        if not log.exists() or not log.stat().st_size:
            return f"file:{quote(str(self._path))}?mode=ro&immutable=1"
        self._copy = tempfile.TemporaryDirectory(prefix="koch_bag_")
        place = Path(self._copy.name)
        for file in (self._path, log):
            shutil.copyfile(file, place / file.name)
        self._note(f"{self._path.name}: write-ahead log applied to a copy")
        return f"file:{quote(str(place / self._path.name))}"

    def _read_topics(self) -> None:
        tables = {row[0] for row in self._base.execute("SELECT name FROM sqlite_master")}
        definitions: dict[str, tuple[str, str]] = {}
        if "message_definitions" in tables:
            rows = self._rows(
                "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions"
            )
            definitions = {str(row[0]): (str(row[1]), str(row[2])) for row in rows}
        for number, name, kind, form in self._base.execute(
            "SELECT id, name, type, serialization_format FROM topics"
        ):
            if not isinstance(number, int) or not isinstance(name, str):
                continue
            kind = str(kind)
            encoding, text = definitions.get(kind, ("", ""))
            self._topics[number] = Topic(name, kind, text, encoding)
            if form != "cdr":
                self.foreign[name] = str(form)
        several = len(self._topics) > len({topic.name for topic in self._topics.values()})
        counts = dict(self._rows(_COUNTS)) if several else {}
        for number, topic in self._topics.items():
            if topic.name not in self.foreign:
                self.types.add(topic, counts.get(number, 0))
        if "metadata" in tables:
            for (text,) in self._rows("SELECT metadata FROM metadata ORDER BY id"):
                self._read_custom(str(text))

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        """Return the rows of a table that is not needed, as far as they can be read."""
        rows: list[tuple[Any, ...]] = []
        try:
            rows.extend(self._base.execute(query))
        except sqlite3.Error as exc:
            self._note(f"{self._path.name}: a table is damaged ({exc})")
        return rows

    def _read_custom(self, text: str) -> None:
        found = custom_data(text)
        if found is None:
            self._note(f"{self._path.name}: stored metadata is broken")
        self.custom.update(found or {})

    def messages(self, topics: frozenset[str]) -> Iterator[RawMessage]:
        """Yield the messages of some topics in time order.

        Of a damaged file, and where the clock was set back, in the order of the rows.
        """
        if self._is_cut_off():
            # Not through the index, that ends elsewhere: each reading gives the same messages.
            self._note(f"{self._path.name}: cut off; read as far as it goes")
            yield from self._rows_from(0, topics)
            return
        if self._is_set_back:
            yield from self._rows_from(0, topics)
            return
        wanted = [number for number, topic in self._topics.items() if topic.name in topics]
        marks = ",".join("?" * len(wanted))
        last, newest = 0, -(1 << 63)
        query = (
            "SELECT id, topic_id, timestamp, data FROM messages "
            f"WHERE topic_id IN ({marks}) ORDER BY timestamp"
        )
        try:
            for row in self._base.execute(query, wanted):
                if not isinstance(row[0], int) or not isinstance(row[2], int) or row[2] < newest:
                    raise sqlite3.DatabaseError("its rows are not in order")
                last, newest = max(last, row[0]), row[2]
                yield from self._message(row, topics)
            return
        except (sqlite3.Error, OverflowError) as exc:
            self._note(f"{self._path.name}: damaged ({exc}); reading on row by row")
        yield from self._rows_from(last + 1, topics)

    def _message(self, row: Sequence[Any], topics: frozenset[str]) -> Iterator[RawMessage]:
        """Yield the message of a row, unless damage has made something else of it."""
        _, number, stamp, data = row
        topic = self._topics.get(number)
        if topic is None or topic.name not in topics:
            return
        if isinstance(stamp, int) and isinstance(data, bytes):
            yield RawMessage(topic.name, stamp, data, topic.type)

    @cached_property
    def _is_set_back(self) -> bool:
        return clock_was_set_back(self.log_times().values())

    def log_times(self) -> dict[str, npt.NDArray[np.int64]]:
        """Topic to the log times of its messages in the order of the rows, [ns]."""
        found: dict[int, array[int]] = {number: array("q") for number in self._topics}
        try:
            for number, stamp in self._base.execute(_TIMES):
                if number in found and isinstance(stamp, int):
                    found[number].append(stamp)
        except (sqlite3.Error, OverflowError):
            return {}  # `messages` says what is damaged
        times: dict[str, list[npt.NDArray[np.int64]]] = {}
        for number, stamps in found.items():
            if stamps:
                times.setdefault(self._topics[number].name, []).append(np.array(stamps, np.int64))
        return {name: np.concatenate(parts) for name, parts in times.items()}

    def _is_cut_off(self) -> bool:
        """Tell whether the file has fewer pages than its header says."""
        if self._copy is not None:
            return False  # the log held the rest
        with self._path.open("rb") as file:
            head = file.read(32)
        page = int.from_bytes(head[16:18], "big")
        pages = int.from_bytes(head[28:32], "big")
        return self._path.stat().st_size < pages * (65536 if page == 1 else page)

    def _rows_from(self, row: int, topics: frozenset[str]) -> Iterator[RawMessage]:
        skip = 1
        query = "SELECT id, topic_id, timestamp, data FROM messages WHERE id >= ? ORDER BY id"
        while skip < _FURTHEST_SKIP:
            try:
                for found in self._base.execute(query, [row]):
                    if not isinstance(found[0], int) or found[0] < row:
                        raise sqlite3.DatabaseError("its rows are not in order")
                    row, skip = found[0] + 1, 1
                    yield from self._message(found, topics)
                return
            except (sqlite3.Error, OverflowError):
                row, skip = row + skip, skip * 2

    def close(self) -> None:
        """Close the file and remove the copy, if there is one."""
        self._base.close()
        if self._copy is not None:
            self._copy.cleanup()
