# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Where the files of a LeRobot dataset lie, and what info.json says.

Source: LeRobot's dataset format v3.0 (packages 0.4 to 0.6) and v2.1 (package 0.3).
"""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from koch_episodes.errors import DatasetFormatError

MB = 1024**2
CHUNKS_SIZE = 1000


class Version(enum.Enum):
    """On-disk layouts."""

    V30 = "v3.0"
    V21 = "v2.1"


class Codec(enum.Enum):
    """How images are stored."""

    H264 = "h264"
    AV1 = "av1"
    COPY = "copy"  # the camera's own MJPEG packets


@dataclass(frozen=True)
class FeatureSpec:
    """One feature of info.json.

    Attributes:
        dtype: NumPy dtype name, ``string``, ``image`` or ``video``.
        shape: Per-frame shape; scalars are (1,), images (H, W, 3).
        names: One name per element, the axes of an image, or None.
        info: Video facts of a camera feature.
        channels_first: Whether info.json declares an image as (3, H, W). openpi's converter and
            others do; LeRobot takes both for the same, and so the order here is always H, W, 3.
    """

    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...] | None = None
    info: Mapping[str, Any] | None = field(default=None, compare=False)
    channels_first: bool = field(default=False, compare=False)

    @property
    def is_video(self) -> bool:
        """Whether the feature lives in mp4 files."""
        return self.dtype == "video"

    @property
    def is_image(self) -> bool:
        """Whether the feature is a camera image, in mp4 or parquet."""
        return self.dtype in ("video", "image")

    @property
    def is_numeric(self) -> bool:
        """Whether the feature is a column of numbers."""
        return self.dtype not in ("video", "image", "string", "language")

    def to_json(self) -> dict[str, Any]:
        """Return the info.json entry, a foreign order of axes as it was."""
        shape, names = list(self.shape), None if self.names is None else list(self.names)
        if self.channels_first:
            shape = [shape[-1], *shape[:-1]]
            names = [names[-1], *names[:-1]] if names else names
        entry: dict[str, Any] = {"dtype": self.dtype, "shape": shape, "names": names}
        if self.info is not None:
            entry["info"] = dict(self.info)
        return entry


DEFAULT_FEATURES: Mapping[str, FeatureSpec] = {
    "timestamp": FeatureSpec("float32", (1,)),
    "frame_index": FeatureSpec("int64", (1,)),
    "episode_index": FeatureSpec("int64", (1,)),
    "index": FeatureSpec("int64", (1,)),
    "task_index": FeatureSpec("int64", (1,)),
}

_V30_DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_V30_VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
_V30_EPISODES = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_V21_DATA = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
_V21_VIDEO = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"

INFO = "meta/info.json"
STATS = "meta/stats.json"
TASKS = "meta/tasks.parquet"
V21_TASKS = "meta/tasks.jsonl"
V21_EPISODES = "meta/episodes.jsonl"
V21_STATS = "meta/episodes_stats.jsonl"
KOCH = "meta/koch.json"
REPORT = "meta/koch_report.json"
KOCH_LEVELS = "meta/koch_levels.json"  # counts of pixel values by camera, for a later --append


def data_path(version: Version, *, episode: int, chunk: int, file: int) -> str:
    """Return the frame table's path: by chunk and file (v3.0) or by episode (v2.1)."""
    if version is Version.V30:
        return _V30_DATA.format(chunk_index=chunk, file_index=file)
    return _V21_DATA.format(episode_chunk=episode // CHUNKS_SIZE, episode_index=episode)


def video_path(version: Version, key: str, *, episode: int, chunk: int, file: int) -> str:
    """Return the mp4's path: by chunk and file (v3.0) or by episode (v2.1)."""
    if version is Version.V30:
        return _V30_VIDEO.format(video_key=key, chunk_index=chunk, file_index=file)
    return _V21_VIDEO.format(
        video_key=key, episode_chunk=episode // CHUNKS_SIZE, episode_index=episode
    )


def episodes_path(chunk: int, file: int) -> str:
    """Return the path of a v3.0 episode table."""
    return _V30_EPISODES.format(chunk_index=chunk, file_index=file)


def next_file(chunk: int, file: int) -> tuple[int, int]:
    """Return chunk and file index behind the given ones."""
    if file == CHUNKS_SIZE - 1:
        return chunk + 1, 0
    return chunk, file + 1


def video_template(version: Version) -> str:
    """Return the `video_path` that this layout's datasets usually have."""
    return _V30_VIDEO if version is Version.V30 else _V21_VIDEO


@dataclass(frozen=True)
class DatasetInfo:
    """The contents of info.json.

    Attributes:
        video_template: ``video_path``, by which LeRobot finds the files; read only, new datasets
            have that of their layout.
        data_template: ``data_path``, likewise; of use in v2.1 only.
    """

    version: Version
    fps: int
    features: Mapping[str, FeatureSpec]
    robot_type: str | None = None
    total_episodes: int = 0
    total_frames: int = 0
    total_tasks: int = 0
    chunks_size: int = CHUNKS_SIZE
    data_mb: int = 100
    video_mb: int = 200
    video_template: str | None = _V30_VIDEO
    data_template: str = _V21_DATA

    @property
    def video_keys(self) -> tuple[str, ...]:
        """Features stored as mp4, in order."""
        return tuple(key for key, spec in self.features.items() if spec.is_video)

    def with_totals(self, episodes: int, frames: int, tasks: int) -> DatasetInfo:
        """Return the info with new totals."""
        return replace(self, total_episodes=episodes, total_frames=frames, total_tasks=tasks)

    def to_json(self) -> dict[str, Any]:
        """Return info.json's object, keys in LeRobot's order."""
        v30 = self.version is Version.V30
        videos = self.video_keys
        result: dict[str, Any] = {
            "codebase_version": self.version.value,
            "fps": self.fps,
            "features": {key: spec.to_json() for key, spec in self.features.items()},
            "total_episodes": self.total_episodes,
            "total_frames": self.total_frames,
            "total_tasks": self.total_tasks,
            "chunks_size": self.chunks_size,
        }
        if v30:
            result["data_files_size_in_mb"] = self.data_mb
            result["video_files_size_in_mb"] = self.video_mb
        else:
            result["total_videos"] = self.total_episodes * len(videos)
            result["total_chunks"] = -(-self.total_episodes // self.chunks_size)
        result["data_path"] = _V30_DATA if v30 else _V21_DATA
        result["video_path"] = (_V30_VIDEO if v30 else _V21_VIDEO) if videos else None
        result["robot_type"] = self.robot_type
        result["splits"] = {"train": f"0:{self.total_episodes}"}
        return result


def _names(value: Any) -> tuple[str, ...] | None:
    """Flatten the forms `names` takes in datasets of all ages."""
    if isinstance(value, Mapping):
        flat = [name for part in value.values() for name in (_names(part) or ())]
        return tuple(flat) or None
    if isinstance(value, list):
        return tuple(str(name) for name in value)
    return None


def parse_feature(key: str, entry: Any, where: Path) -> FeatureSpec:
    """Read one feature entry.

    Raises:
        DatasetFormatError: dtype or shape is missing or of the wrong kind.
    """
    if not isinstance(entry, Mapping) or not isinstance(entry.get("dtype"), str):
        raise DatasetFormatError(where, f"feature {key!r}: {entry!r}", "an object with a dtype")
    shape = entry.get("shape")
    if not isinstance(shape, list) or not all(isinstance(n, int) for n in shape):
        raise DatasetFormatError(where, f"feature {key!r}: shape {shape!r}", "a list of integers")
    info, names = entry.get("info") or entry.get("video_info"), _names(entry.get("names"))
    spec = FeatureSpec(entry["dtype"], tuple(shape), names, info)
    if not spec.is_image or not _channels_first(spec):
        return spec
    names = (*names[1:], names[0]) if names else names
    return replace(spec, shape=(*shape[1:], shape[0]), names=names, channels_first=True)


def _channels_first(spec: FeatureSpec) -> bool:
    """Tell whether an image is declared as (3, H, W): its names decide, without them its sizes."""
    if len(spec.shape) != 3:
        return False
    if spec.names is not None and len(spec.names) == 3:
        named = [name in ("channel", "channels", "c") for name in spec.names]
        if any(named):
            return named[0]
    channels = (1, 3, 4)
    return spec.shape[0] in channels and spec.shape[2] not in channels


def load_info(root: Path) -> DatasetInfo:
    """Read info.json of a v3.x or v2.1 dataset.

    Raises:
        DatasetFormatError: Not there, not JSON, or something needed is missing.
    """
    path = root / INFO
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
    text = str(raw["codebase_version"])
    if text.startswith("v3."):
        version = Version.V30
    elif text == "v2.1":
        version = Version.V21
    else:
        raise DatasetFormatError(path, f"codebase_version {text}", "v3.0 or v2.1")
    fps = raw["fps"]
    if not isinstance(fps, (int, float)) or fps <= 0 or fps != int(fps):
        raise DatasetFormatError(path, f"fps {fps!r}", "a whole number above 0")
    if not isinstance(raw["features"], dict):
        raise DatasetFormatError(path, f"features: {raw['features']!r}", "an object")
    features = {key: parse_feature(key, entry, path) for key, entry in raw["features"].items()}
    return DatasetInfo(
        version,
        int(fps),
        features,
        raw.get("robot_type"),
        int(raw.get("total_episodes", 0)),
        int(raw.get("total_frames", 0)),
        int(raw.get("total_tasks", 0)),
        int(raw.get("chunks_size", CHUNKS_SIZE)),
        int(raw.get("data_files_size_in_mb", 100)),
        int(raw.get("video_files_size_in_mb", 200)),
        raw.get("video_path", video_template(version)),
        str(raw.get("data_path", _V21_DATA)),
    )
