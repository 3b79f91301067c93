# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Reading the tables of a LeRobot dataset, v3.0 and v2.1, into one form."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from koch_episodes.dataset import layout
from koch_episodes.dataset.layout import DatasetInfo, Version
from koch_episodes.dataset.stats import Stats, aggregate, stats_from_json
from koch_episodes.dataset.tables import read_parquet, read_tasks
from koch_episodes.errors import DatasetFormatError

# What pyarrow, json and arithmetic raise on files that were tampered with.
MALFORMED = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    IndexError,
    OverflowError,
    pa.ArrowException,
)


@dataclass(frozen=True)
class VideoPlace:
    """Where an episode's images of one camera are.

    Attributes:
        path: mp4 file.
        from_s: Start of the episode in that file, [s].
        to_s: End of the episode in that file, [s].
    """

    path: Path
    from_s: float
    to_s: float


@dataclass(frozen=True)
class Episode:
    """One row of the episode table.

    Attributes:
        index: Episode index.
        length: Count of frames.
        from_index: Global index of the first frame.
        to_index: Global index behind the last frame.
        tasks: Distinct task texts.
        videos: Camera key to place.
        outcome: ``success``, ``failure``, a word of the user's; empty where it is not known.
    """

    index: int
    length: int
    from_index: int
    to_index: int
    tasks: tuple[str, ...]
    videos: Mapping[str, VideoPlace]
    outcome: str = ""


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


def episode_files(root: Path) -> list[Path]:
    """List the v3.0 episode tables as LeRobot does."""
    return sorted((root / "meta/episodes").glob("*/*.parquet"))


def data_files(root: Path) -> list[Path]:
    """List the frame tables as LeRobot does."""
    return sorted((root / "data").glob("*/*.parquet"))


def load_episodes(root: Path, info: DatasetInfo) -> list[Episode]:
    """Read the episode table.

    Raises:
        DatasetFormatError: Missing, unreadable, or lacks a needed column.
    """
    if info.version is Version.V21:
        return _load_episodes_v21(root, info)
    needed = ["episode_index", "dataset_from_index", "dataset_to_index"]
    for key in info.video_keys:
        needed += [
            f"videos/{key}/{name}" for name in ("chunk_index", "file_index", "from_timestamp")
        ]
    optional = [
        "tasks",
        "length",
        "outcome",
        *(f"videos/{key}/to_timestamp" for key in info.video_keys),
    ]
    files = episode_files(root)
    if not files:
        raise DatasetFormatError(root / "meta/episodes", "no parquet files", "the episode table")
    episodes = []
    for row in _rows(files, [*needed, *optional]):
        missing = [name for name in needed if row.get(name) is None]
        if missing:
            raise DatasetFormatError(files[0], f"no column(s) {missing}", "all that are needed")
        episodes.append(_episode(root, info, row))
    return episodes


def _episode(root: Path, info: DatasetInfo, row: Mapping[str, Any]) -> Episode:
    start, end = row["dataset_from_index"], row["dataset_to_index"]
    videos = {}
    for key in info.video_keys:
        path = _video_file(
            root,
            info,
            video_key=key,
            chunk_index=row[f"videos/{key}/chunk_index"],
            file_index=row[f"videos/{key}/file_index"],
        )
        from_s = row[f"videos/{key}/from_timestamp"]
        if not math.isfinite(from_s):
            raise DatasetFormatError(
                episode_files(root)[0],
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


def _named_file(root: Path, key: str, template: str | None, usual: str, **place: Any) -> Path:
    """Return the file that a template of info.json names, which is where LeRobot looks."""
    try:
        return root / str(template).format(**place)
    except (KeyError, IndexError, ValueError) as exc:
        raise DatasetFormatError(root / layout.INFO, f"{key} {template!r}", usual) from exc


def _video_file(root: Path, info: DatasetInfo, **place: Any) -> Path:
    usual = layout.video_template(info.version)
    return _named_file(root, "video_path", info.video_template, usual, **place)


def json_lines(path: Path, *keys: str) -> list[dict[str, Any]]:
    """Read one JSON object per line.

    Raises:
        DatasetFormatError: Unreadable, or one of the keys is missing in a line.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # JSON keeps U+2028 and its like
        rows = [json.loads(line) for line in lines if line.strip()]
    except (OSError, ValueError) as exc:
        raise DatasetFormatError(path, f"unreadable file ({exc})", "JSON lines") from exc
    for number, row in enumerate(rows):
        lacking = [key for key in keys if not isinstance(row, dict) or key not in row]
        if lacking:
            raise DatasetFormatError(path, f"line {number + 1} without {lacking}", "all of them")
    return rows


def _load_episodes_v21(root: Path, info: DatasetInfo) -> list[Episode]:
    episodes, start = [], 0
    for row in json_lines(root / layout.V21_EPISODES, "episode_index", "length"):
        index, length = int(row["episode_index"]), int(row["length"])
        chunk = index // max(1, info.chunks_size)
        paths = {
            key: _video_file(root, info, video_key=key, episode_chunk=chunk, episode_index=index)
            for key in info.video_keys
        }
        videos = {key: VideoPlace(path, 0.0, length / info.fps) for key, path in paths.items()}
        tasks, outcome = tuple(row.get("tasks", ())), str(row.get("outcome") or "")
        episodes.append(Episode(index, length, start, start + length, tasks, videos, outcome))
        start += length
    return episodes


def load_tasks(root: Path, info: DatasetInfo) -> list[str]:
    """Read the task texts in index order."""
    if info.version is Version.V30:
        return read_tasks(root / layout.TASKS)
    rows = {
        int(row["task_index"]): row["task"]
        for row in json_lines(root / layout.V21_TASKS, "task_index", "task")
    }
    if sorted(rows) != list(range(len(rows))):
        raise DatasetFormatError(root / layout.V21_TASKS, sorted(rows), f"0..{len(rows) - 1}")
    return [rows[index] for index in range(len(rows))]


def load_stats(root: Path, info: DatasetInfo) -> dict[str, Stats] | None:
    """Read the statistics over all episodes; None where the dataset has none."""
    if info.version is Version.V30:
        path = root / layout.STATS
        if not path.exists():
            return None
        try:
            return stats_from_json(json.loads(path.read_text(encoding="utf-8")))
        except ValueError as exc:
            raise DatasetFormatError(path, f"({exc})", "JSON") from exc
    path = root / layout.V21_STATS
    if not path.exists():
        return None
    parts = [stats_from_json(row["stats"]) for row in json_lines(path, "episode_index", "stats")]
    shared = set(parts[0]).intersection(*parts) if parts else set()
    found = {key: [part[key] for part in parts] for key in parts[0] if key in shared}
    try:
        return {key: aggregate(same) for key, same in found.items()} or None
    except (KeyError, ValueError) as exc:
        raise DatasetFormatError(
            path, f"statistics that differ in kind or shape ({exc})", "all alike"
        ) from exc


def column_array(column: pa.ChunkedArray, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Turn a frame table column into an array of shape (T,) for scalars, (T, *shape) else."""
    array = column.combine_chunks()
    count = len(array)
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        sizes = pc.unique(pc.list_value_length(array)).to_pylist()
        if len(sizes) > 1:
            raise ValueError(f"rows of {', '.join(map(str, sizes))} elements")
    while (
        pa.types.is_list(array.type)
        or pa.types.is_fixed_size_list(array.type)
        or (pa.types.is_large_list(array.type))
    ):
        array = array.flatten()
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        return np.array(array.to_pylist(), dtype=object)
    values: npt.NDArray[Any] = array.to_numpy(zero_copy_only=False)
    return values if shape == (1,) else values.reshape(count, *shape)


@dataclass(frozen=True, eq=False)
class Rows:
    """The frames of a dataset, each with the episode that it says it belongs to.

    Attributes:
        episodes: In the order of their numbers; from_index and to_index count in `columns`.
        columns: Feature key to values over all frames of these episodes.
        files: The frame tables they were read from, in order.
        places: Place of each frame in those tables, one after the other; int64, shape (N,).
    """

    episodes: tuple[Episode, ...]
    columns: dict[str, npt.NDArray[Any]]
    files: tuple[Path, ...]
    places: npt.NDArray[np.int64]


def load_rows(root: Path, info: DatasetInfo, outcomes: Sequence[str] = ()) -> Rows:
    """Read the episodes and their frames; with `outcomes`, only those that ended so.

    A frame belongs to the episode that its own ``episode_index`` names, and an episode is as long
    as it has frames, whatever the episode table says of places and lengths: people and tools that
    edit datasets take a line out of one file and forget another. What no episode claims is left
    out.

    Raises:
        DatasetFormatError: As `load_episodes` and `load_columns`; or an episode has no frames,
            some of them twice or not all; or the episodes were numbered anew, their frames not.
    """
    every = listed = sorted(load_episodes(root, info), key=lambda episode: episode.index)
    if outcomes:
        told = sorted({episode.outcome or "(none)" for episode in listed})
        listed = [episode for episode in listed if episode.outcome in outcomes]
        if not listed:
            got = f"episodes that ended as {', '.join(told)}"
            raise DatasetFormatError(root, got, f"some that ended as {', '.join(outcomes)}")
    files = data_files(root)
    if info.version is Version.V21:
        files = [_v21_data_file(root, info, episode.index) for episode in listed]
    columns = load_columns(root, info, files)
    owners, steps = columns["episode_index"], columns["frame_index"]
    if info.version is Version.V30:
        _check_numbering(root, info, every, owners)
    order = np.argsort(owners, kind="stable")
    numbers = [episode.index for episode in listed]
    begins = np.searchsorted(owners[order], numbers, side="left")
    ends = np.searchsorted(owners[order], numbers, side="right")
    episodes: list[Episode] = []
    parts = [np.empty(0, np.int64)]
    start = 0
    for episode, begin, end in zip(listed, begins.tolist(), ends.tolist(), strict=True):
        part = order[begin:end]
        length = len(part)
        if episodes and episodes[-1].index == episode.index:
            raise DatasetFormatError(root, f"episode {episode.index} twice", "each once")
        if not length or not np.array_equal(steps[part], np.arange(length)):
            shown = ", ".join(map(str, steps[part][:6]))
            raise DatasetFormatError(
                root,
                f"{length} rows of episode {episode.index} (frame_index {shown or 'none'}, ...)",
                "its frames 0, 1, 2, ..., each once and in order",
            )
        videos = {
            key: replace(place, to_s=place.from_s + length / info.fps)
            for key, place in episode.videos.items()
        }
        found = replace(
            episode, length=length, from_index=start, to_index=start + length, videos=videos
        )
        episodes.append(found)
        parts.append(part)
        start += length
    places = np.concatenate(parts)
    if not np.array_equal(places, np.arange(len(owners))):
        columns = {key: values[places] for key, values in columns.items()}
    return Rows(tuple(episodes), columns, tuple(files), places)


def _check_numbering(
    root: Path, info: DatasetInfo, episodes: Sequence[Episode], owners: npt.NDArray[Any]
) -> None:
    """Refuse an episode table that was numbered anew while the frames kept their numbers.

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


def _v21_data_file(root: Path, info: DatasetInfo, index: int) -> Path:
    place = {"episode_chunk": index // max(1, info.chunks_size), "episode_index": index}
    usual = DatasetInfo.data_template
    return _named_file(root, "data_path", info.data_template, usual, **place)


def load_columns(
    root: Path, info: DatasetInfo, files: Sequence[Path] | None = None
) -> dict[str, npt.NDArray[Any]]:
    """Read all columns that are not images.

    Args:
        root: Dataset folder.
        info: What it declares.
        files: Frame tables to read; None: all there are.

    Raises:
        DatasetFormatError: No tables, an unreadable one, or a declared column is missing.
    """
    files = data_files(root) if files is None else files
    if not files:
        raise DatasetFormatError(root / "data", "no parquet files", "the frame tables")
    keys = [key for key, spec in info.features.items() if not spec.is_image]
    pieces: dict[str, list[npt.NDArray[Any]]] = {key: [] for key in keys}
    for path in files:
        try:
            present = pq.read_schema(path).names
            missing = [key for key in keys if key not in present]
            if missing:
                raise DatasetFormatError(path, f"no column(s) {missing}", "all declared features")
            table = read_parquet(path, columns=keys)
        except (OSError, pa.ArrowException) as exc:
            raise DatasetFormatError(path, f"({exc})", f"the columns {keys}") from exc
        for key in keys:
            try:
                pieces[key].append(column_array(table[key], info.features[key].shape))
            except ValueError as exc:
                raise DatasetFormatError(
                    path, f"column {key!r}: {exc}", f"shape {info.features[key].shape}"
                ) from exc
    return {key: np.concatenate(parts) for key, parts in pieces.items()}
