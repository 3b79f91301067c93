# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Formats of LeRobot datasets, each in one file: where it keeps what, how it is read and written.

`info.json` names the format of a dataset in ``codebase_version``. A format says everything about
itself here, so that reader, writer, validator and converter ask it and never compare names:

    class MyFormat(DatasetFormat): ...

    FORMATS.add(MyFormat(), "v2.0")

and in the metadata of a package of your own

    [project.entry-points."koch_vla.dataset_formats"]
    "v2.0" = "my_package.my_format"
"""

from __future__ import annotations

import abc
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy.typing as npt

from koch_core.registry import Registry
from koch_episodes.dataset.findings import Report
from koch_episodes.dataset.layout import (
    CHUNKS_SIZE,
    INFO,
    FeatureSpec,
    data_files,
    parse_feature,
)
from koch_episodes.dataset.staged import StagedEpisode
from koch_episodes.dataset.stats import Stats
from koch_episodes.errors import DatasetFormatError

if TYPE_CHECKING:
    import pyarrow as pa

Columns = Mapping[str, npt.NDArray[Any]]
EpisodeStats = Callable[[int], dict[str, Stats]]


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

    def table(self) -> pa.Table:
        """Return the rows of the frame table."""
        # Here, because those who only ask which formats there are need no pyarrow.
        from koch_episodes.dataset.tables import frame_table, renumbered

        if self.part.rows is None:
            return frame_table(self.info.features, self.columns)
        return renumbered(self.part.rows, self.info.features, self.columns)


class Storage(Protocol):
    """Puts episodes into files below a folder, behind those that are there."""

    def add(self, new: NewEpisode) -> None:
        """Store one episode."""

    def finish(self, info: DatasetInfo, tasks: list[str]) -> None:
        """Write what is pending and the tables of tasks and episodes."""


class DatasetFormat(abc.ABC):
    """One format, without state.

    Attributes:
        name: ``codebase_version`` of the datasets that it writes.
        data_template: Their ``data_path``, by which LeRobot finds the frame tables.
        video_template: Their ``video_path``.
        tasks_file: Table of the task texts.
        stats_file: Statistics.
        has_totals: Whether `stats_file` holds the statistics over all episodes, which the writer
            works out at the end; else those of each episode, which its storage writes.
        has_quantiles: Whether the statistics include quantiles.
        info_keys: Entries of info.json that only this format has.
    """

    name: str
    data_template: str
    video_template: str
    tasks_file: str
    stats_file: str
    has_totals: bool
    has_quantiles: bool
    info_keys: tuple[str, ...] = ()

    def reads(self, codebase_version: str) -> bool:
        """Whether this format reads datasets of a version."""
        return codebase_version == self.name

    @abc.abstractmethod
    def info_entries(self, info: DatasetInfo) -> dict[str, Any]:
        """Return the entries of info.json that not all formats have, in order."""

    @abc.abstractmethod
    def episodes(self, root: Path, info: DatasetInfo) -> list[Episode]:
        """Read the episode table.

        Raises:
            DatasetFormatError: Missing, unreadable, or lacks a needed column.
        """

    @abc.abstractmethod
    def tasks(self, root: Path) -> list[str]:
        """Read the task texts in index order.

        Raises:
            DatasetFormatError: Missing, unreadable, or the indices have a hole.
        """

    @abc.abstractmethod
    def stats(self, root: Path) -> dict[str, Stats] | None:
        """Read the statistics over all episodes; None where the dataset has none.

        Raises:
            DatasetFormatError: Unreadable.
        """

    def episode_stats(self, root: Path) -> EpisodeStats:
        """Return a function of the number of an episode: its statistics, empty where none are."""
        return lambda index: {}

    def frame_files(
        self, root: Path, info: DatasetInfo, episodes: Sequence[Episode]
    ) -> list[Path]:
        """List the frame tables that hold some episodes; all of them by default."""
        return data_files(root)

    def check_owners(
        self, root: Path, info: DatasetInfo, episodes: Sequence[Episode], owners: npt.NDArray[Any]
    ) -> None:
        """Refuse an episode table that contradicts the frames.

        Args:
            root: Dataset folder.
            info: What it declares.
            episodes: All of the table, in the order of their numbers.
            owners: ``episode_index`` of each frame.

        Raises:
            DatasetFormatError: A number stands for one episode here and for another there.
        """
        return

    @abc.abstractmethod
    def storage(self, root: Path, info: DatasetInfo) -> Storage:
        """Open a folder to write to: an empty one, or a dataset that is continued."""

    def check_info(self, report: Report, info: DatasetInfo, raw: Mapping[str, Any]) -> None:
        """Check the entries of info.json that not all formats have."""
        return

    def check_tasks(self, report: Report) -> None:
        """Check what LeRobot relies on in the task table beyond what `tasks` reads."""
        return

    def check_tables(self, report: Report, episodes: list[Episode]) -> None:
        """Check the tables about episodes against one another and against the files."""
        return


FORMATS: Registry[DatasetFormat] = Registry(
    "dataset format",
    "koch_vla.dataset_formats",
    {"v3.0": "koch_episodes.dataset.v30", "v2.1": "koch_episodes.dataset.v21"},
)


def format_names() -> str:
    """All formats for a message, the newest first."""
    return " or ".join(reversed(FORMATS.names()))


@dataclass(frozen=True)
class DatasetInfo:
    """The contents of info.json.

    Attributes:
        video_template: ``video_path``, by which LeRobot finds the files; read only, new datasets
            have that of their format. None says that there are no videos.
        data_template: ``data_path``, likewise.
    """

    format: DatasetFormat
    fps: int
    features: Mapping[str, FeatureSpec]
    robot_type: str | None = None
    total_episodes: int = 0
    total_frames: int = 0
    total_tasks: int = 0
    chunks_size: int = CHUNKS_SIZE
    data_mb: int = 100
    video_mb: int = 200
    video_template: str | None = ""
    data_template: str = ""

    @property
    def video_keys(self) -> tuple[str, ...]:
        """Features stored as mp4, in order."""
        return tuple(key for key, spec in self.features.items() if spec.is_video)

    def with_totals(self, episodes: int, frames: int, tasks: int) -> DatasetInfo:
        """Return the info with new totals."""
        return replace(self, total_episodes=episodes, total_frames=frames, total_tasks=tasks)

    def to_json(self) -> dict[str, Any]:
        """Return info.json's object, keys in LeRobot's order."""
        return {
            "codebase_version": self.format.name,
            "fps": self.fps,
            "features": {key: spec.to_json() for key, spec in self.features.items()},
            "total_episodes": self.total_episodes,
            "total_frames": self.total_frames,
            "total_tasks": self.total_tasks,
            "chunks_size": self.chunks_size,
            **self.format.info_entries(self),
            "data_path": self.format.data_template,
            "video_path": self.format.video_template if self.video_keys else None,
            "robot_type": self.robot_type,
            "splits": {"train": f"0:{self.total_episodes}"},
        }


def load_info(root: Path) -> DatasetInfo:
    """Read info.json of a dataset of any registered format.

    Raises:
        DatasetFormatError: Not there, not JSON, or something needed is missing.
    """
    path = root / INFO
    raw = _read_info(path)
    kind = _format_of(path, str(raw["codebase_version"]))
    fps = raw["fps"]
    if not isinstance(fps, (int, float)) or fps <= 0 or fps != int(fps):
        raise DatasetFormatError(path, f"fps {fps!r}", "a whole number above 0")
    if not isinstance(raw["features"], dict):
        raise DatasetFormatError(path, f"features: {raw['features']!r}", "an object")
    features = {key: parse_feature(key, entry, path) for key, entry in raw["features"].items()}
    return DatasetInfo(
        kind,
        int(fps),
        features,
        raw.get("robot_type"),
        int(raw.get("total_episodes", 0)),
        int(raw.get("total_frames", 0)),
        int(raw.get("total_tasks", 0)),
        int(raw.get("chunks_size", CHUNKS_SIZE)),
        int(raw.get("data_files_size_in_mb", 100)),
        int(raw.get("video_files_size_in_mb", 200)),
        raw.get("video_path", kind.video_template),
        str(raw.get("data_path", kind.data_template)),
    )


def _read_info(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        raise DatasetFormatError(path, "no such file", "a LeRobot dataset folder") from exc
    except (OSError, ValueError) as exc:
        raise DatasetFormatError(path, f"unreadable file ({exc})", "JSON") from exc
    if not isinstance(raw, dict):
        raise DatasetFormatError(path, type(raw).__name__, "a JSON object")
    missing = [key for key in ("codebase_version", "fps", "features") if key not in raw]
    if missing:
        raise DatasetFormatError(path, f"no {', '.join(missing)}", "all three of them")
    return raw


def _format_of(path: Path, version: str) -> DatasetFormat:
    """Find the format of a version: the one of that name, or one that reads it all the same."""
    named = FORMATS.find(version)
    if named is not None:
        return named
    for other in FORMATS.loaded():
        if other.reads(version):
            return other
    raise DatasetFormatError(path, f"codebase_version {version}", format_names())
