# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""LeRobot's dataset format v2.1: files of its own for every episode (package 0.3)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from koch_core.files import link_or_copy, write_atomically
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
from koch_episodes.dataset.layout import INFO
from koch_episodes.dataset.load import json_lines, named_file
from koch_episodes.dataset.stats import (
    Stats,
    aggregate,
    stats_from_json,
    stats_to_json,
    without_quantiles,
)
from koch_episodes.dataset.tables import write_parquet
from koch_episodes.errors import DatasetFormatError

_DATA = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
_VIDEO = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
_TASKS = "meta/tasks.jsonl"
_EPISODES = "meta/episodes.jsonl"
_STATS = "meta/episodes_stats.jsonl"


class V21(DatasetFormat):
    """One table and one mp4 per camera and episode; tables about them as lines of JSON."""

    name = "v2.1"
    data_template = _DATA
    video_template = _VIDEO
    tasks_file = _TASKS
    stats_file = _STATS
    has_totals = False
    has_quantiles = False

    def info_entries(self, info: DatasetInfo) -> dict[str, Any]:
        """Return the entries of info.json that not all formats have, in order."""
        return {
            "total_videos": info.total_episodes * len(info.video_keys),
            "total_chunks": -(-info.total_episodes // max(1, info.chunks_size)),
        }

    def episodes(self, root: Path, info: DatasetInfo) -> list[Episode]:
        """Read the episode table."""
        episodes, start = [], 0
        for row in json_lines(root / _EPISODES, "episode_index", "length"):
            index, length = int(row["episode_index"]), int(row["length"])
            videos = {}
            for key in info.video_keys:
                place = {"video_key": key, **_place(info, index)}
                path = named_file(root, "video_path", info.video_template, _VIDEO, **place)
                videos[key] = VideoPlace(path, 0.0, length / info.fps)
            tasks, outcome = tuple(row.get("tasks", ())), str(row.get("outcome") or "")
            episodes.append(Episode(index, length, start, start + length, tasks, videos, outcome))
            start += length
        return episodes

    def tasks(self, root: Path) -> list[str]:
        """Read the task texts in index order."""
        lines = json_lines(root / _TASKS, "task_index", "task")
        rows = {int(row["task_index"]): row["task"] for row in lines}
        if sorted(rows) != list(range(len(rows))):
            raise DatasetFormatError(root / _TASKS, sorted(rows), f"0..{len(rows) - 1}")
        return [rows[index] for index in range(len(rows))]

    def stats(self, root: Path) -> dict[str, Stats] | None:
        """Work out the statistics over all episodes; None where the dataset has none."""
        path = root / _STATS
        if not path.exists():
            return None
        lines = json_lines(path, "episode_index", "stats")
        parts = [stats_from_json(row["stats"]) for row in lines]
        shared = set(parts[0]).intersection(*parts) if parts else set()
        found = {key: [part[key] for part in parts] for key in parts[0] if key in shared}
        try:
            return {key: aggregate(same) for key, same in found.items()} or None
        except (KeyError, ValueError) as exc:
            raise DatasetFormatError(
                path, f"statistics that differ in kind or shape ({exc})", "all alike"
            ) from exc

    def episode_stats(self, root: Path) -> EpisodeStats:
        """Return a function of the number of an episode: its statistics, empty where none are."""
        path = root / _STATS
        lines = {
            int(row["episode_index"]): json.dumps(row["stats"])  # a tenth of the objects' size
            for row in (json_lines(path, "episode_index", "stats") if path.exists() else ())
        }
        return lambda index: stats_from_json(json.loads(lines.get(index, "{}")))

    def frame_files(
        self, root: Path, info: DatasetInfo, episodes: Sequence[Episode]
    ) -> list[Path]:
        """List the frame tables that hold some episodes."""
        return [
            named_file(root, "data_path", info.data_template, _DATA, **_place(info, episode.index))
            for episode in episodes
        ]

    def storage(self, root: Path, info: DatasetInfo) -> V21Storage:
        """Open a folder to write to: an empty one, or a dataset that is continued."""
        return V21Storage(root)

    def check_info(self, report: Report, info: DatasetInfo, raw: Mapping[str, Any]) -> None:
        """Check the totals that v3.0 does without."""
        for name, count in self.info_entries(info).items():
            if raw.get(name) != count:
                report.warning(INFO, f"{name} is {raw.get(name)}, expected {count}")

    def check_tables(self, report: Report, episodes: list[Episode]) -> None:
        """Check that each episode has one row of statistics; converters to v3.0 go by number."""
        if not (report.root / _STATS).exists():
            return  # reported already
        rows = json_lines(report.root / _STATS, "episode_index")
        found = sorted(int(row["episode_index"]) for row in rows)
        wanted = sorted(episode.index for episode in episodes)
        if found != wanted:
            lacking, extra = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
            report.warning(
                _STATS,
                f"{len(found)} rows for {len(wanted)} episodes; none of {lacking[:9]}, "
                f"some of {extra[:9]}, which do not exist",
            )


def _place(info: DatasetInfo, index: int) -> dict[str, int]:
    return {"episode_chunk": index // max(1, info.chunks_size), "episode_index": index}


class V21Storage:
    """One table and one mp4 per camera and episode."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._episodes: list[dict[str, Any]] = []
        self._stats: list[dict[str, Any]] = []

    def add(self, new: NewEpisode) -> None:
        """Store one episode."""
        part, place = new.part, _place(new.info, new.index)
        path = self._root / _DATA.format(**place)
        write_parquet(path, new.table())
        for key, video in part.videos.items():
            link_or_copy(video, self._root / _VIDEO.format(video_key=key, **place))
        row = {"episode_index": new.index, "tasks": part.tasks, "length": part.length}
        self._episodes.append({**row, "outcome": part.outcome} if part.outcome else row)
        plain = stats_to_json(without_quantiles(new.stats))
        self._stats.append({"episode_index": new.index, "stats": plain})

    def finish(self, info: DatasetInfo, tasks: list[str]) -> None:
        """Write the line-wise JSON tables."""
        rows = [{"task_index": index, "task": task} for index, task in enumerate(tasks)]
        self._write_lines(_TASKS, rows, keep=False)
        self._write_lines(_EPISODES, self._episodes, keep=True)
        self._write_lines(_STATS, self._stats, keep=True)

    def _write_lines(self, name: str, rows: list[dict[str, Any]], *, keep: bool) -> None:
        path = self._root / name
        old = path.read_text(encoding="utf-8") if keep and path.exists() else ""
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        write_atomically(path, old + "".join(lines))


FORMATS.add(V21(), V21.name)
