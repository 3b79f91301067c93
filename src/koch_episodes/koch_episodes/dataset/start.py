# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Where a dataset writer starts: from nothing, or behind an existing dataset."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from koch_episodes.dataset import layout
from koch_episodes.dataset.layout import CHUNKS_SIZE, DatasetInfo, Version, load_info, next_file
from koch_episodes.dataset.stats import Stats, stats_from_json
from koch_episodes.dataset.tables import read_tasks
from koch_episodes.errors import DatasetFormatError, DatasetWriteError

_PLACE = re.compile(r"chunk-(\d+)/file-(\d+)\.\w+$")


@dataclass(frozen=True, eq=False)
class Start:
    """State behind the last episode.

    Attributes:
        info: Totals, features and sizes so far.
        tasks: Known task texts in index order.
        stats: Statistics so far.
        data: First free (chunk, file) of the frame tables.
        episodes: First free (chunk, file) of the episode tables.
        videos: First free (chunk, file) of each camera.
    """

    info: DatasetInfo
    tasks: tuple[str, ...] = ()
    stats: Mapping[str, Stats] = field(default_factory=dict)
    data: tuple[int, int] = (0, 0)
    episodes: tuple[int, int] = (0, 0)
    videos: Mapping[str, tuple[int, int]] = field(default_factory=dict)


def _free(folder: Path, suffix: str) -> tuple[int, int]:
    places = [
        (int(found[1]), int(found[2]))
        for path in folder.glob(f"*/*.{suffix}")
        if (found := _PLACE.search(path.as_posix()))
    ]
    return next_file(*max(places)) if places else (0, 0)


def start_of(root: Path, wanted: DatasetInfo) -> Start:
    """Read where to continue an existing dataset.

    Raises:
        DatasetFormatError: The dataset cannot be read.
        DatasetWriteError: It does not fit what is to be appended.
    """
    info = load_info(root)
    for name, got, expected in (
        ("layout", wanted.version.value, info.version.value),
        ("fps", wanted.fps, info.fps),
        ("robot_type", wanted.robot_type, info.robot_type),
        ("chunks_size", CHUNKS_SIZE, info.chunks_size),
    ):
        if got != expected:
            raise DatasetWriteError(f"{root} (append), {name}", got, f"{expected} as it has")
    usual = layout.video_template(info.version)
    if info.video_keys and info.video_template != usual:
        raise DatasetWriteError(f"{root} (append), video_path", usual, f"{info.video_template}")
    for key in {**info.features, **wanted.features}:
        new, old = wanted.features.get(key), info.features.get(key)
        if new is None or old is None or new != old:
            raise DatasetWriteError(f"{root} (append), feature {key}", new, f"{old} as it has")
    if info.version is Version.V21:
        lines = (root / layout.V21_TASKS).read_text(encoding="utf-8").splitlines()
        return Start(info, tuple(json.loads(line)["task"] for line in lines))
    try:
        raw = json.loads((root / layout.STATS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise DatasetFormatError(root / layout.STATS, f"({exc})", "statistics") from exc
    return Start(
        replace(info, features=dict(info.features)),
        tuple(read_tasks(root / layout.TASKS)),
        stats_from_json(raw),
        _free(root / "data", "parquet"),
        _free(root / "meta/episodes", "parquet"),
        {key: _free(root / "videos" / key, "mp4") for key in info.video_keys},
    )
