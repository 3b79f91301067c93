# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A dataset that is edited: its episodes one at a time, as they are stored."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from koch_episodes.dataset.format import DatasetInfo, Episode, load_info
from koch_episodes.dataset.layout import INFO, KOCH, FeatureSpec, read_json
from koch_episodes.dataset.load import MALFORMED, load_rows
from koch_episodes.dataset.selection import EpisodeField, dataset_fields
from koch_episodes.dataset.stats import Stats
from koch_episodes.errors import DatasetFormatError

_OPEN_ROW_GROUPS = 2
_INDEX_KEYS = ("episode_index", "frame_index", "task_index")


class StoredRows:
    """Rows of frame tables by their places, with the columns as they are stored.

    Parquet is read a row group at a time; LeRobot's writers and ours make one for an episode.

    Args:
        files: Frame tables in order.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._groups: list[tuple[Path, int]] = []
        counts = []
        for path in files:
            metadata = pq.read_metadata(path)
            for group in range(metadata.num_row_groups):
                self._groups.append((path, group))
                counts.append(metadata.row_group(group).num_rows)
        self._ends = np.cumsum(counts)
        self._file: tuple[Path, pq.ParquetFile] | None = None
        self._open: OrderedDict[tuple[int, tuple[str, ...]], pa.Table] = OrderedDict()

    def take(self, places: npt.NDArray[np.int64], columns: Sequence[str]) -> pa.Table:
        """Return the rows at some places, counted over all tables."""
        numbers = np.searchsorted(self._ends, places, side="right")
        parts = []
        for number in dict.fromkeys(numbers.tolist()):
            begin = int(self._ends[number - 1]) if number else 0
            inside = places[numbers == number] - begin
            parts.append(self._group(number, tuple(columns)).take(pa.array(inside)))
        return pa.concat_tables(parts)

    def _group(self, number: int, columns: tuple[str, ...]) -> pa.Table:
        found = self._open.pop((number, columns), None)
        if found is None:
            path, group = self._groups[number]
            if self._file is None or self._file[0] != path:  # opening takes 5 ms
                self._file = (path, pq.ParquetFile(path))
            found = self._file[1].read_row_group(group, columns=list(columns))
            found = found.select(list(columns))
        self._open[number, columns] = found
        while len(self._open) > _OPEN_ROW_GROUPS:
            self._open.popitem(last=False)
        return found


class SourceDataset:
    """A dataset to take episodes from. Numbers of frames are held in memory, nothing else is.

    Args:
        root: Dataset folder.

    Raises:
        DatasetFormatError: The folder is no readable dataset.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        try:
            self.info: DatasetInfo = load_info(root)
            self.tasks = tuple(self.info.format.tasks(root))
            rows = load_rows(root, self.info, keys=_INDEX_KEYS)
            self._stats = self.info.format.episode_stats(root)
            self._stored = StoredRows(rows.files)
        except MALFORMED as exc:
            got = f"malformed files ({type(exc).__name__}: {exc})"
            raise DatasetFormatError(root, got, "a LeRobot dataset") from exc
        self.koch = read_koch(root)
        self.episodes = rows.episodes
        self._places = rows.places
        self._task_index = rows.columns["task_index"].astype(np.int64)
        bad = self._task_index[(self._task_index < 0) | (self._task_index >= len(self.tasks))]
        if len(bad):
            expected = f"0 to {len(self.tasks) - 1}, its tasks"
            raise DatasetFormatError(root, f"task_index {bad[0]}", expected)

    @property
    def features(self) -> Mapping[str, FeatureSpec]:
        """Features as info.json declares them."""
        return self.info.features

    @property
    def numbers(self) -> tuple[int, ...]:
        """Numbers of the episodes; edited datasets have holes."""
        return tuple(episode.index for episode in self.episodes)

    @property
    def seconds(self) -> float:
        """Length of all episodes, [s]."""
        return sum(episode.length for episode in self.episodes) / self.info.fps

    def rows(self, episode: Episode, columns: Sequence[str]) -> pa.Table:
        """Return the frames of an episode, columns as they are stored."""
        try:
            return self._stored.take(self._places[episode.from_index : episode.to_index], columns)
        except MALFORMED as exc:
            where = f"{self.root}, episode {episode.index}"
            raise DatasetFormatError(where, f"unreadable frames ({exc})", "its columns") from exc

    def tasks_of(self, episode: Episode) -> list[str]:
        """Return the task text of each frame."""
        part = self._task_index[episode.from_index : episode.to_index]
        return [self.tasks[number] for number in part.tolist()]

    def fields(self) -> dict[str, EpisodeField]:
        """What an expression can ask of the episodes, in their order."""
        return dataset_fields(self.root, self.info, self.episodes, self.tasks, self._column)

    def _column(self, key: str) -> npt.NDArray[Any]:
        """All values of a column; only the numbers of episodes, frames and tasks are in memory."""
        if key == "task_index":
            return self._task_index
        return load_rows(self.root, self.info, keys=(*_INDEX_KEYS, key)).columns[key]

    def stats(self, episode: Episode) -> dict[str, Stats]:
        """Return the stored statistics of an episode; empty where there are none."""
        try:
            return self._stats(episode.index)
        except MALFORMED:  # they are worked out again
            return {}

    @property
    def foreign_info(self) -> dict[str, Any]:
        """Entries of info.json that are not ours nor LeRobot's."""
        known = self.info.to_json()
        return {k: v for k, v in read_json(self.root / INFO).items() if k not in known}


def read_koch(root: Path) -> dict[str, Any]:
    """Read what the converter wrote about a dataset; empty where another program made it.

    Raises:
        DatasetFormatError: It cannot be read. What it says of units would get lost in an edit.
    """
    path = root / KOCH
    found: dict[str, Any] = read_json(path) if path.exists() else {}
    return found
