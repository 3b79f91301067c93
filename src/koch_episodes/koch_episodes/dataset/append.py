# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Where a dataset writer starts: from nothing, or behind an existing dataset."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from koch_episodes.dataset.format import DatasetInfo, load_info
from koch_episodes.dataset.layout import CHUNKS_SIZE, KOCH_LEVELS, Codec, data_files
from koch_episodes.dataset.load import MALFORMED
from koch_episodes.dataset.stats import Stats, pixel_stride
from koch_episodes.dataset.video_files import probe
from koch_episodes.errors import DatasetFormatError, DatasetWriteError


@dataclass(frozen=True, eq=False)
class AppendState:
    """State behind the last episode.

    Attributes:
        info: Totals, features and sizes so far.
        tasks: Known task texts in index order.
        stats: Statistics so far.
        levels: Counts of pixel values behind the statistics of cameras, where they are known.
    """

    info: DatasetInfo
    tasks: tuple[str, ...] = ()
    stats: Mapping[str, Stats] = field(default_factory=dict)
    levels: Mapping[str, npt.NDArray[np.int64]] = field(default_factory=dict)


def _levels(
    root: Path, info: DatasetInfo, stats: Mapping[str, Stats]
) -> dict[str, npt.NDArray[np.int64]]:
    """Read the counts of pixel values that an earlier conversion left beside the statistics.

    Another program may have added episodes since: only counts of all images are of use.
    """
    path = root / KOCH_LEVELS
    raw = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    found = {key: np.asarray(raw[key], np.int64) for key in info.video_keys if key in raw}
    whole = {}
    for key, levels in found.items():
        height, width = info.features[key].shape[:2]
        step = pixel_stride(height, width)
        pixels = -(-height // step) * -(-width // step) * int(stats[key]["count"][0])
        if levels.shape == (3, 256) and (levels.sum(axis=1) == pixels).all():
            whole[key] = levels
    return whole


# As info.json and FFmpeg call what `Codec` names.
_CODEC_NAMES = {Codec.H264: "h264", Codec.AV1: "av1", Codec.COPY: "mjpeg"}


def _check_codec(root: Path, info: DatasetInfo, wanted: Codec) -> None:
    """Refuse images of another codec: info.json names one for all, and tools go by it."""
    for key in info.video_keys:
        declared = (info.features[key].info or {}).get("video.codec")
        files = sorted((root / "videos").glob(f"{key}/*/*.mp4"))
        files += sorted((root / "videos").glob(f"*/{key}/*.mp4"))
        found = probe(files[0]).codec if files else declared
        name = _CODEC_NAMES[wanted]
        for codec in {found, declared} - {None, name}:
            raise DatasetWriteError(f"{root} (append), codec of {key}", name, f"{codec} as it has")


def append_state(root: Path, wanted: DatasetInfo, codec: Codec | None = None) -> AppendState:
    """Read where to continue an existing dataset.

    Args:
        root: Dataset folder.
        wanted: Features, rate and format of what is to be appended.
        codec: Of its videos; None where it is not known yet.

    Raises:
        DatasetFormatError: The dataset cannot be read, or its tables contradict one another.
        DatasetWriteError: It does not fit what is to be appended.
    """
    try:
        info = load_info(root)
        _check_fits(root, info, wanted)
        if codec is not None:
            _check_codec(root, info, codec)
        _check_whole(root, info)
        return _state(root, info)
    except MALFORMED as exc:
        got = f"malformed files ({type(exc).__name__}: {exc})"
        raise DatasetFormatError(root, got, "a LeRobot dataset") from exc


def _check_fits(root: Path, info: DatasetInfo, wanted: DatasetInfo) -> None:
    for name, got, expected in (
        ("layout", wanted.format.name, info.format.name),
        ("fps", wanted.fps, info.fps),
        ("robot_type", wanted.robot_type, info.robot_type),
        ("chunks_size", CHUNKS_SIZE, info.chunks_size),
    ):
        if got != expected:
            raise DatasetWriteError(f"{root} (append), {name}", got, f"{expected} as it has")
    usual = info.format.video_template
    if info.video_keys and info.video_template != usual:
        raise DatasetWriteError(f"{root} (append), video_path", usual, f"{info.video_template}")
    for key in {**info.features, **wanted.features}:
        new, old = wanted.features.get(key), info.features.get(key)
        if new is None or old is None or new != old:
            raise DatasetWriteError(f"{root} (append), feature {key}", new, f"{old} as it has")


def _check_whole(root: Path, info: DatasetInfo) -> None:
    """Refuse a dataset that lacks frames: what is put behind it would be numbered wrongly."""
    frames = sum(episode.length for episode in info.format.episodes(root, info))
    rows = sum(pq.read_metadata(path).num_rows for path in data_files(root))
    for where, count in (("meta/episodes", frames), ("data", rows)):
        if count != info.total_frames:
            got = f"{count} frames"
            raise DatasetFormatError(root / where, got, f"{info.total_frames}, as info.json says")


def _state(root: Path, info: DatasetInfo) -> AppendState:
    tasks = tuple(info.format.tasks(root))
    if not info.format.has_totals:
        return AppendState(info, tasks)
    stats = info.format.stats(root)
    if stats is None:
        raise DatasetFormatError(root / info.format.stats_file, "no such file", "statistics")
    return AppendState(info, tasks, stats, _levels(root, info, stats))
