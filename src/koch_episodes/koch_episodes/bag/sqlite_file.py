# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Reading one sqlite3 file of a bag, damaged ones as far as they go."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

from koch_episodes.bag.storage import RawMessage, Topic, custom_data
from koch_episodes.errors import BagError

_FURTHEST_SKIP = 1 << 20


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
        self.topics: dict[str, Topic] = {}
        self.custom: dict[str, str] = {}
        self._numbers: dict[int, str] = {}
        try:
            self._base = sqlite3.connect(self._uri(), uri=True)
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
            rows = self._base.execute(
                "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions"
            )
            definitions = {row[0]: (row[1], row[2]) for row in rows}
        for number, name, kind, form in self._base.execute(
            "SELECT id, name, type, serialization_format FROM topics"
        ):
            self._numbers[number] = name
            if form == "cdr" and name not in self.topics:
                encoding, text = definitions.get(kind, ("", ""))
                self.topics[name] = Topic(name, kind, text, encoding)
        if "metadata" in tables:
            for (text,) in self._base.execute("SELECT metadata FROM metadata ORDER BY id"):
                self._read_custom(text)

    def _read_custom(self, text: str) -> None:
        found = custom_data(text)
        if found is None:
            self._note(f"{self._path.name}: stored metadata is broken")
        self.custom.update(found or {})

    def messages(self, topics: frozenset[str]) -> Iterator[RawMessage]:
        """Yield the messages of some topics in time order; behind a damage in row order."""
        wanted = [number for number, name in self._numbers.items() if name in topics]
        marks = ",".join("?" * len(wanted))
        last = 0
        query = (
            "SELECT id, topic_id, timestamp, data FROM messages "
            f"WHERE topic_id IN ({marks}) ORDER BY timestamp"
        )
        try:
            for row, number, stamp, data in self._base.execute(query, wanted):
                last = max(last, row)
                yield RawMessage(self._numbers[number], stamp, bytes(data))
            return
        except (sqlite3.Error, OverflowError) as exc:
            self._note(f"{self._path.name}: damaged ({exc}); reading on row by row")
        yield from self._rows_from(last + 1, wanted)

    def _rows_from(self, row: int, wanted: list[int]) -> Iterator[RawMessage]:
        skip = 1
        marks = ",".join("?" * len(wanted))
        query = (
            "SELECT id, topic_id, timestamp, data FROM messages "
            f"WHERE id >= ? AND topic_id IN ({marks}) ORDER BY id"
        )
        while skip < _FURTHEST_SKIP:
            try:
                for found, number, stamp, data in self._base.execute(query, [row, *wanted]):
                    row, skip = found + 1, 1
                    yield RawMessage(self._numbers[number], stamp, bytes(data))
                return
            except (sqlite3.Error, OverflowError):
                row, skip = row + skip, skip * 2

    def close(self) -> None:
        """Close the file and remove the copy, if there is one."""
        self._base.close()
        if self._copy is not None:
            self._copy.cleanup()
