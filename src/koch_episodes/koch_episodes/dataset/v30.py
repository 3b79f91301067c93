# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""LeRobot's dataset format v3.0: several episodes share a file (packages 0.4 to 0.6)."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from koch_core.files import link_or_copy
from koch_episodes.dataset.findings import Report
from koch_episodes.dataset.format import (
    FORMATS,
    DatasetFormat,
    DatasetInfo,
    Episode,
    EpisodeStats,
    NewEpisode,
    VideoPlace,
)
from koch_episodes.dataset.layout import CHUNKS_SIZE, data_files
from koch_episodes.dataset.load import named_file, read_total_stats
from koch_episodes.dataset.stats import Stats
from koch_episodes.dataset.tables import (
    LOCAL,
    read_parquet,
    read_tasks,
    write_episodes,
    write_tasks,
)
from koch_episodes.dataset.video_files import can_join, join
from koch_episodes.errors import DatasetFormatError

_DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
_EPISODES = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_TASKS = "meta/tasks.parquet"
_STATS = "meta/stats.json"
_PLACE = re.compile(r"chunk-(\d+)/file-(\d+)\.\w+$")
_PLACE_KEYS = ("data/chunk_index", "data/file_index")
MB = 1024**2


class V30(DatasetFormat):
    """Shared files; the episode table says where in them an episode is."""

    name = "v3.0"
    data_template = _DATA
    video_template = _VIDEO
    tasks_file = _TASKS
    stats_file = _STATS
    has_totals = True
    has_quantiles = True
    info_keys = ("data_files_size_in_mb", "video_files_size_in_mb")

    def reads(self, codebase_version: str) -> bool:
        """Whether this format reads datasets of a version."""
        return codebase_version.startswith("v3.")

    def info_entries(self, info: DatasetInfo) -> dict[str, Any]:
        """Return the entries of info.json that not all formats have, in order."""
        return dict(zip(self.info_keys, (info.data_mb, info.video_mb), strict=True))

    def episodes(self, root: Path, info: DatasetInfo) -> list[Episode]:
        """Read the episode table."""
        needed = ["episode_index", "dataset_from_index", "dataset_to_index"]
        optional = ["tasks", "length", "outcome"]
        for key in info.video_keys:
            place = ("chunk_index", "file_index", "from_timestamp")
            needed += [f"videos/{key}/{name}" for name in place]
            optional.append(f"videos/{key}/to_timestamp")
        files = _episode_files(root)
        if not files:
            where = root / "meta/episodes"
            raise DatasetFormatError(where, "no parquet files", "the episode table")
        episodes = []
        for row in _rows(files, [*needed, *optional]):
            missing = [name for name in needed if row.get(name) is None]
            if missing:
                got = f"no column(s) {missing}"
                raise DatasetFormatError(files[0], got, "all that are needed")
            episodes.append(_episode(root, info, row))
        return episodes

    def tasks(self, root: Path) -> list[str]:
        """Read the task texts in index order."""
        return read_tasks(root / _TASKS)

    def stats(self, root: Path) -> dict[str, Stats] | None:
        """Read the statistics over all episodes; None where the dataset has none."""
        return read_total_stats(root / _STATS)

    def episode_stats(self, root: Path) -> EpisodeStats:
        """Return a function of the number of an episode: its statistics, empty where none are."""
        tables = [_stats_table(path) for path in _episode_files(root)]
        rows = {
            number: (table, row)
            for table in tables
            for row, number in enumerate(table["episode_index"].to_pylist())
        }
        return lambda index: _row_stats(*rows[index]) if index in rows else {}

    def check_owners(
        self, root: Path, info: DatasetInfo, episodes: Sequence[Episode], owners: npt.NDArray[Any]
    ) -> None:
        """Refuse an episode table that was numbered again while the frames kept their numbers."""
        _check_numbering(root, info, episodes, owners)

    def storage(self, root: Path, info: DatasetInfo) -> V30Storage:
        """Open a folder to write to: an empty one, or a dataset that is continued."""
        return V30Storage(root, info)

    def check_tasks(self, report: Report) -> None:
        """Check that LeRobot finds the texts: row i is task i, the text is the pandas index."""
        table = read_parquet(report.root / _TASKS)
        pandas = json.loads((table.schema.metadata or {}).get(b"pandas", b"{}"))
        if not {"task", "__index_level_0__"} & set(map(str, pandas.get("index_columns", []))):
            report.error(
                _TASKS, "the text is no pandas index; LeRobot would hand out numbers as tasks"
            )
        indices = table["task_index"].to_pylist()
        if indices != list(range(len(indices))):
            report.error(
                _TASKS, f"rows in the order {indices[:9]}; LeRobot takes row i for task i"
            )

    def check_tables(self, report: Report, episodes: list[Episode]) -> None:
        """Check the files that the episode table names; tools that edit datasets follow it."""
        _check_places(report, episodes)


# -- reading ----------------------------------------------------------------------------------


def _episode_files(root: Path) -> list[Path]:
    """List the episode tables as LeRobot does."""
    return sorted((root / "meta/episodes").glob("*/*.parquet"))


def _rows(paths: list[Path], columns: list[str] | None = None) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for path in paths:
        try:
            names = pq.read_schema(path).names
            wanted = [name for name in names if columns is None or name in columns]
            rows.extend(read_parquet(path, columns=wanted).to_pylist())
        except (OSError, pa.ArrowException) as exc:
            raise DatasetFormatError(path, f"unreadable file ({exc})", "a parquet file") from exc
    return rows


def _stats_table(path: Path) -> pa.Table:
    try:
        names = pq.read_schema(path).names
        wanted = [name for name in names if name.startswith("stats/")]
        return read_parquet(path, ["episode_index", *wanted])
    except (OSError, pa.ArrowException) as exc:
        raise DatasetFormatError(path, f"unreadable file ({exc})", "a parquet file") from exc


def _row_stats(table: pa.Table, row: int) -> dict[str, Stats]:
    found: dict[str, Stats] = {}
    for name in table.column_names[1:]:
        key, _, stat = name.removeprefix("stats/").rpartition("/")
        value = table[name][row].as_py()
        if value is not None:
            found.setdefault(key, {})[stat] = np.atleast_1d(np.asarray(value))
    return found


def _episode(root: Path, info: DatasetInfo, row: Mapping[str, Any]) -> Episode:
    start, end = row["dataset_from_index"], row["dataset_to_index"]
    videos = {}
    for key in info.video_keys:
        chunk, file = row[f"videos/{key}/chunk_index"], row[f"videos/{key}/file_index"]
        place = {"video_key": key, "chunk_index": chunk, "file_index": file}
        path = named_file(root, "video_path", info.video_template, _VIDEO, **place)
        from_s = row[f"videos/{key}/from_timestamp"]
        if not math.isfinite(from_s):
            raise DatasetFormatError(
                _episode_files(root)[0],
                f"videos/{key}/from_timestamp {from_s} of episode {row['episode_index']}",
                "seconds",
            )
        to_s = row.get(f"videos/{key}/to_timestamp")
        videos[key] = VideoPlace(
            path, from_s, from_s + (end - start) / info.fps if to_s is None else to_s
        )
    length = row.get("length")
    return Episode(
        row["episode_index"],
        end - start if length is None else length,
        start,
        end,
        tuple(row.get("tasks") or ()),
        videos,
        str(row.get("outcome") or ""),
    )


def _check_numbering(
    root: Path, info: DatasetInfo, episodes: Sequence[Episode], owners: npt.NDArray[Any]
) -> None:
    """Refuse an episode table that was numbered again while the frames kept their numbers.

    It has no hole, some frames belong to no episode of it, and a row's length or place is that of
    another episode, or its images are not those behind the row before. Then they are the other
    episode's too, not those of its number.
    """
    numbers, counts = np.unique(owners, return_counts=True)
    whole = dict(zip(numbers.tolist(), counts.tolist(), strict=True))
    named = [episode.index for episode in episodes]
    if named != list(range(len(named))) or set(whole) <= set(named):
        return
    ends: dict[Path, float] = {}
    for episode in episodes:
        begins = {p.path: p.from_s - ends.get(p.path, 0.0) for p in episode.videos.values()}
        ends |= {place.path: place.to_s for place in episode.videos.values()}
        skips = any(abs(off) > 0.5 / info.fps for off in begins.values())
        part = np.unique(owners[episode.from_index : episode.to_index])
        shown = int(part[0]) if len(part) == 1 else episode.index
        elsewhere = shown != episode.index and episode.length == whole[shown]
        if elsewhere or skips or episode.length != whole.get(episode.index, 0):
            raise DatasetFormatError(
                root / "meta/episodes",
                f"{len(named)} episodes, of which episode {episode.index} has the length or "
                f"place of another, and frames of {len(whole)}",
                "rows and frames with the same numbers",
            )


# -- writing ----------------------------------------------------------------------------------


def _next_file(chunk: int, file: int) -> tuple[int, int]:
    """Return chunk and file index behind the given ones."""
    if file == CHUNKS_SIZE - 1:
        return chunk + 1, 0
    return chunk, file + 1


def _free_place(folder: Path, suffix: str) -> tuple[int, int]:
    """Return the first (chunk, file) behind those that a folder has."""
    places = [
        (int(found[1]), int(found[2]))
        for path in folder.glob(f"*/*.{suffix}")
        if (found := _PLACE.search(path.as_posix()))
    ]
    return _next_file(*max(places)) if places else (0, 0)


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
        name = _VIDEO.format(video_key=self._key, chunk_index=chunk, file_index=file)
        if len(self._paths) == 1:
            link_or_copy(self._paths[0], self._root / name)
        else:
            join(self._paths, self._lengths, self._root / name)
        self._place = _next_file(chunk, file)
        self._paths, self._lengths, self._bytes = [], [], 0


class V30Storage:
    """Several episodes per file; one row group per episode."""

    def __init__(self, root: Path, info: DatasetInfo) -> None:
        self._root = root
        self._data_place = _free_place(root / "data", "parquet")
        self._episodes_place = _free_place(root / "meta/episodes", "parquet")
        self._data: pq.ParquetWriter | None = None
        self._data_file: Path | None = None
        self._data_frames = 0
        self._videos = {
            key: _SharedVideo(root, key, _free_place(root / "videos" / key, "mp4"))
            for key in info.video_keys
        }
        self._rows: list[dict[str, Any]] = []

    def add(self, new: NewEpisode) -> None:
        """Store one episode."""
        info, part = new.info, new.part
        chunk, file = self._write_frames(info, new.table())
        row: dict[str, Any] = {
            "episode_index": new.index,
            "tasks": part.tasks,
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
            name = _DATA.format(chunk_index=chunk, file_index=file)
            self._data_file = self._root / name
            self._data_file.parent.mkdir(parents=True, exist_ok=True)
            self._data = pq.ParquetWriter(
                self._data_file, table.schema, compression="snappy", filesystem=LOCAL
            )
        table = table.cast(self._data.schema)
        self._data.write_table(table, row_group_size=table.num_rows)
        self._data_frames += table.num_rows
        return self._data_place

    def _close_data(self) -> None:
        if self._data is not None:
            self._data.close()
            self._data = None
            self._data_frames = 0
            self._data_place = _next_file(*self._data_place)

    def finish(self, info: DatasetInfo, tasks: list[str]) -> None:
        """Close the frame table, write the pending videos, tasks and episodes."""
        self._close_data()
        for video in self._videos.values():
            video.flush()
        write_tasks(self._root / _TASKS, tasks)
        if self._rows:
            if not self._tells_outcomes():
                for row in self._rows:
                    del row["outcome"]
            write_episodes(self._episodes_path(), self._alike_rows())

    def _alike_rows(self) -> list[dict[str, Any]]:
        """The rows, without the statistics that another row or an older table lacks.

        LeRobot reads all tables as one. Datasets of its first versions have no quantiles, and
        episodes that are cut or added to them do.
        """
        shared = set(self._rows[0]).intersection(*self._rows)
        for path in _episode_files(self._root):
            known = set(pq.read_schema(path).names)
            shared -= {name for name in shared - known if name.startswith("stats/")}
        names = [name for name in self._rows[0] if name in shared]
        return [{name: row[name] for name in names} for row in self._rows]

    def _episodes_path(self) -> Path:
        chunk, file = self._episodes_place
        return self._root / _EPISODES.format(chunk_index=chunk, file_index=file)

    def _tells_outcomes(self) -> bool:
        """Whether the episode tables have a column ``outcome``.

        All have it or none: LeRobot reads them as one table. It passes over a column that it does
        not know, but appends none; so the column is there only where an outcome is known.
        """
        files = _episode_files(self._root)
        if files:
            return all("outcome" in pq.read_schema(path).names for path in files)
        return any(row["outcome"] for row in self._rows)


# -- checking ---------------------------------------------------------------------------------


def _check_places(report: Report, episodes: list[Episode]) -> None:
    files, tables = data_files(report.root), _episode_files(report.root)
    if any(_unreadable(path) for path in [*files, *tables]):
        return  # reported already
    ends, place = [], 0
    for path in files:
        place += pq.read_metadata(path).num_rows
        ends.append((place, path))
    rows: list[dict[str, Any]] = []
    for path in tables:
        names, where = pq.read_schema(path).names, path.relative_to(report.root)
        for key in ("length", "tasks"):
            if key not in names:
                report.warning(where, f"no column {key!r}")
        if not any(name.startswith("stats/") for name in names):
            report.warning(where, "no statistics of the episodes (columns stats/...)")
        if not set(_PLACE_KEYS) <= set(names):
            report.warning(where, "no data/chunk_index and data/file_index")
            return
        rows += read_parquet(path, _PLACE_KEYS).to_pylist()
    for episode, row in zip(episodes, rows, strict=True):
        chunk, file = (row[key] for key in _PLACE_KEYS)
        name = _DATA.format(chunk_index=chunk, file_index=file)
        found = next((path for end, path in ends if episode.from_index < end), None)
        if found is not None and found != report.root / name:
            stands = found.relative_to(report.root).as_posix()
            report.warning(
                f"episode {episode.index}", f"its row names {name}, its frames are in {stands}"
            )


def _unreadable(path: Path) -> bool:
    try:
        pq.read_metadata(path)
    except (OSError, pa.ArrowException):
        return True
    return False


FORMATS.add(V30(), V30.name)
