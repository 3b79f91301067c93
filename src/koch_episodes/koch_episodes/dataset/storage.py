# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Where a writer's episodes go: shared files (v3.0) or one set of files per episode (v2.1)."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from koch_core.files import write_atomically
from koch_episodes.dataset import layout
from koch_episodes.dataset.append import AppendState
from koch_episodes.dataset.layout import MB, DatasetInfo, Version, next_file
from koch_episodes.dataset.staged import StagedEpisode
from koch_episodes.dataset.stats import QUANTILES, Stats, stats_to_json
from koch_episodes.dataset.tables import (
    LOCAL,
    frame_schema,
    frame_table,
    write_episodes,
    write_parquet,
    write_tasks,
)
from koch_episodes.dataset.video_files import can_join, join

Columns = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, eq=False)
class NewEpisode:
    """An episode on its way into a dataset's files.

    Attributes:
        info: The dataset's info.json.
        index: The episode's number.
        first_index: Number of its first frame in the whole dataset.
        columns: Feature key to values, shape (T,) or (T, N), LeRobot's own columns included.
        part: Task, length and videos.
        stats: Of every feature.
    """

    info: DatasetInfo
    index: int
    first_index: int
    columns: Columns
    part: StagedEpisode
    stats: Mapping[str, Stats]


class Storage(Protocol):
    """Puts episodes into files below a folder."""

    def __init__(self, root: Path, start: AppendState) -> None: ...

    def add(self, new: NewEpisode) -> None:
        """Store one episode."""

    def finish(self, info: DatasetInfo, tasks: list[str]) -> None:
        """Write what is pending and the tables of tasks and episodes."""


def _place(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)


# Joining writes everything once more. Files of this size are big enough to keep their number down.
_JOINED_MB = 32


class _SharedVideo:
    """One camera's mp4 files; several episodes per file, joined once, without re-encoding."""

    def __init__(self, root: Path, key: str, place: tuple[int, int]) -> None:
        self._root = root
        self._key = key
        self._place = place
        self._paths: list[Path] = []
        self._lengths: list[int] = []
        self._bytes = 0

    def add(self, path: Path, length: int, info: DatasetInfo) -> tuple[tuple[int, int], float]:
        """Queue an episode; returns its (chunk, file) and its start in that file, [s]."""
        size = path.stat().st_size
        full = self._bytes + size >= min(_JOINED_MB, info.video_mb) * MB
        if self._paths and (full or not can_join(self._paths[0], path)):
            self.flush()
        start_s = sum(self._lengths) / info.fps
        self._paths.append(path)
        self._lengths.append(length)
        self._bytes += size
        return self._place, start_s

    def flush(self) -> None:
        """Write the file of the queued episodes and go on to the next file."""
        if not self._paths:
            return
        chunk, file = self._place
        name = layout.video_path(Version.V30, self._key, episode=0, chunk=chunk, file=file)
        if len(self._paths) == 1:
            _place(self._paths[0], self._root / name)
        else:
            join(self._paths, self._lengths, self._root / name)
        self._place = next_file(chunk, file)
        self._paths, self._lengths, self._bytes = [], [], 0


class V30Storage:
    """Several episodes per file; one row group per episode."""

    def __init__(self, root: Path, start: AppendState) -> None:
        self._root = root
        self._data_place = start.data
        self._episodes_place = start.episodes
        self._data: pq.ParquetWriter | None = None
        self._data_file: Path | None = None
        self._data_frames = 0
        self._videos = {
            key: _SharedVideo(root, key, start.videos.get(key, (0, 0)))
            for key in start.info.video_keys
        }
        self._rows: list[dict[str, Any]] = []

    def add(self, new: NewEpisode) -> None:
        """Store one episode."""
        info, part = new.info, new.part
        chunk, file = self._write_frames(info, frame_table(info.features, new.columns))
        row: dict[str, Any] = {
            "episode_index": new.index,
            "tasks": [part.task],
            "length": part.length,
            "outcome": part.outcome,
            "data/chunk_index": chunk,
            "data/file_index": file,
            "dataset_from_index": new.first_index,
            "dataset_to_index": new.first_index + part.length,
        }
        for key, video in self._videos.items():
            (chunk, file), start_s = video.add(part.videos[key], part.length, info)
            row[f"videos/{key}/chunk_index"] = chunk
            row[f"videos/{key}/file_index"] = file
            row[f"videos/{key}/from_timestamp"] = start_s
            row[f"videos/{key}/to_timestamp"] = start_s + part.length / info.fps
        for key, values in new.stats.items():
            for name, value in values.items():
                row[f"stats/{key}/{name}"] = value
        row["meta/episodes/chunk_index"], row["meta/episodes/file_index"] = self._episodes_place
        self._rows.append(row)

    def _write_frames(self, info: DatasetInfo, table: pa.Table) -> tuple[int, int]:
        if self._data is not None and self._data_file is not None:
            size = self._data_file.stat().st_size
            expected = size + size / max(1, self._data_frames) * table.num_rows
            if expected >= info.data_mb * MB:
                self._close_data()
        if self._data is None:
            chunk, file = self._data_place
            name = layout.data_path(Version.V30, episode=0, chunk=chunk, file=file)
            self._data_file = self._root / name
            self._data_file.parent.mkdir(parents=True, exist_ok=True)
            schema = frame_schema(info.features)
            self._data = pq.ParquetWriter(
                self._data_file, schema, compression="snappy", filesystem=LOCAL
            )
        self._data.write_table(table, row_group_size=table.num_rows)
        self._data_frames += table.num_rows
        return self._data_place

    def _close_data(self) -> None:
        if self._data is not None:
            self._data.close()
            self._data = None
            self._data_frames = 0
            self._data_place = next_file(*self._data_place)

    def finish(self, info: DatasetInfo, tasks: list[str]) -> None:
        """Close the frame table, write the pending videos, tasks and episodes."""
        self._close_data()
        for video in self._videos.values():
            video.flush()
        write_tasks(self._root / layout.TASKS, tasks)
        if self._rows:
            if not self._tells_outcomes():
                for row in self._rows:
                    del row["outcome"]
            write_episodes(self._root / layout.episodes_path(*self._episodes_place), self._rows)

    def _tells_outcomes(self) -> bool:
        """Whether the episode tables have a column ``outcome``.

        All have it or none: LeRobot reads them as one table. It passes over a column that it does
        not know, but appends none; so the column is there only where an outcome is known.
        """
        files = sorted((self._root / "meta/episodes").glob("*/*.parquet"))
        if files:
            return all("outcome" in pq.read_schema(path).names for path in files)
        return any(row["outcome"] for row in self._rows)


class V21Storage:
    """One table and one mp4 per camera and episode."""

    def __init__(self, root: Path, start: AppendState) -> None:
        self._root = root
        self._episodes: list[dict[str, Any]] = []
        self._stats: list[dict[str, Any]] = []

    def add(self, new: NewEpisode) -> None:
        """Store one episode."""
        part = new.part
        place = {"episode": new.index, "chunk": 0, "file": 0}
        path = self._root / layout.data_path(Version.V21, **place)
        write_parquet(path, frame_table(new.info.features, new.columns))
        for key, video in part.videos.items():
            _place(video, self._root / layout.video_path(Version.V21, key, **place))
        row = {"episode_index": new.index, "tasks": [part.task], "length": part.length}
        self._episodes.append({**row, "outcome": part.outcome} if part.outcome else row)
        plain = {
            key: {name: value for name, value in values.items() if name not in QUANTILES}
            for key, values in new.stats.items()
        }
        self._stats.append({"episode_index": new.index, "stats": stats_to_json(plain)})

    def finish(self, info: DatasetInfo, tasks: list[str]) -> None:
        """Write the line-wise JSON tables."""
        rows = [{"task_index": index, "task": task} for index, task in enumerate(tasks)]
        self._write_lines(layout.V21_TASKS, rows, keep=False)
        self._write_lines(layout.V21_EPISODES, self._episodes, keep=True)
        self._write_lines(layout.V21_STATS, self._stats, keep=True)

    def _write_lines(self, name: str, rows: list[dict[str, Any]], *, keep: bool) -> None:
        path = self._root / name
        old = path.read_text(encoding="utf-8") if keep and path.exists() else ""
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        write_atomically(path, old + "".join(lines))
