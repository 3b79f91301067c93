# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Checks a LeRobot dataset against every rule its loader relies on; for datasets of anyone."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from koch_core.errors import KochError
from koch_episodes.dataset import layout
from koch_episodes.dataset.findings import Report
from koch_episodes.dataset.format import DatasetInfo, Episode, load_info
from koch_episodes.dataset.layout import DEFAULT_FEATURES, data_files
from koch_episodes.dataset.load import MALFORMED, load_columns
from koch_episodes.dataset.stats import QUANTILES, STAT_NAMES, expected_shape
from koch_episodes.dataset.validate_tables import (
    check_declarations,
    check_quaternions,
    check_stat_values,
    check_stored_types,
    check_task_texts,
    check_tasks,
)
from koch_episodes.dataset.validate_video import check_videos
from koch_episodes.decode import named_twice

TOLERANCE_S = 1e-4

Columns = Mapping[str, npt.NDArray[Any]]


def validate_dataset(root: Path | str, *, videos: bool = True, decode: bool = False) -> Report:
    """Check a dataset folder.

    Args:
        root: Dataset folder.
        videos: Also read every video file (without decoding).
        decode: Also decode the first and last frame of every episode.

    Returns:
        Everything that was found, each kind once; never raises for a bad dataset.
    """
    report = Report(Path(root))
    _check(report, videos=videos, decode=decode)
    report.fold()
    return report


def _check(report: Report, *, videos: bool, decode: bool) -> None:
    info = _try(report, lambda: load_info(report.root))
    if info is None:
        return
    _try(report, lambda: _check_info(report, info))
    _try(report, lambda: check_declarations(report, info))
    _try(report, lambda: _check_footers(report))
    _try(report, lambda: check_stored_types(report, info))
    tasks = _try(report, lambda: info.format.tasks(report.root))
    episodes = _try(report, lambda: info.format.episodes(report.root, info))
    columns = _try(report, lambda: load_columns(report.root, info))
    stats = _try(report, lambda: info.format.stats(report.root) or {})
    if tasks is not None:
        _try(report, lambda: check_tasks(report, info, tasks))
    if columns is not None:
        _try(report, lambda: _check_schema(report, info))
        _try(report, lambda: _check_columns(report, info, columns, tasks))
    if episodes is not None:
        _try(report, lambda: _check_totals(report, info, episodes, tasks))
        if columns is not None:
            _try(report, lambda: _check_rows(report, info, episodes, columns))
            _try(report, lambda: check_quaternions(report, info, episodes, columns))
            if tasks is not None and "task_index" in columns:
                _try(report, lambda: check_task_texts(report, episodes, columns, tasks))
        _try(report, lambda: info.format.check_tables(report, episodes))
        if videos:
            _try(report, lambda: check_videos(report, info, episodes, decode=decode))
    if stats is not None:
        _try(report, lambda: _check_stats(report, info, stats, columns or {}))


def _try(report: Report, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except KochError as exc:
        report.error(report.root.name, str(exc))
    except MALFORMED as exc:
        report.error(report.root.name, f"malformed: {type(exc).__name__}: {exc}")
    return None


def _check_info(report: Report, info: DatasetInfo) -> None:
    raw = json.loads((report.root / layout.INFO).read_text(encoding="utf-8"))
    wanted = [
        "total_episodes",
        "total_frames",
        "total_tasks",
        "chunks_size",
        "data_path",
        "video_path",
        "robot_type",
        "splits",
        *info.format.info_keys,
    ]
    for name in wanted:
        if name not in raw:
            add = report.error if name == "total_tasks" else report.warning
            add(layout.INFO, f"no {name}")
    for key, spec in info.features.items():
        if not spec.is_image and (twice := named_twice(spec.names or ())):
            report.warning(layout.INFO, f"feature {key!r} names {twice!r} twice")
        if "/" in key:
            report.error(layout.INFO, f"feature name {key!r} contains '/'")
        if not spec.shape:
            report.error(layout.INFO, f"feature {key!r} has shape []; scalars are [1]")
        if spec.is_image and (len(spec.shape) != 3 or spec.names is None):
            report.warning(
                layout.INFO,
                f"camera {key!r}: shape {list(spec.shape)}, names "
                f"{spec.names}; policies expect (H, W, 3) with axis names",
            )
    for key, spec in DEFAULT_FEATURES.items():
        if key not in info.features:
            report.error(layout.INFO, f"feature {key!r} is not declared")
        elif info.features[key].shape != spec.shape:
            report.error(
                layout.INFO,
                f"feature {key!r} has shape {list(info.features[key].shape)}, expected [1]",
            )


def _check_footers(report: Report) -> None:
    files = [*data_files(report.root), *sorted((report.root / "meta").rglob("*.parquet"))]
    for path in files:
        try:
            pq.read_metadata(path)
        except (OSError, pa.ArrowException) as exc:
            report.error(
                path.relative_to(report.root),
                f"no readable parquet footer ({exc}); the file was not closed",
            )


def _check_schema(report: Report, info: DatasetInfo) -> None:
    declared = {key for key, spec in info.features.items() if not spec.is_video}
    for path in data_files(report.root):
        schema = pq.read_schema(path)
        where = path.relative_to(report.root)
        for name in schema.names:
            if name not in declared:
                report.error(
                    where, f"column {name!r} is not a declared feature; LeRobot refuses the file"
                )
        for key in declared & set(schema.names):
            kind, spec = schema.field(key).type, info.features[key]
            nested = pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind)
            if spec.is_numeric and (spec.shape == (1,)) == nested:
                report.error(
                    where,
                    f"column {key!r} is {kind}, feature shape "
                    f"{list(spec.shape)} (shape [1] is a plain number)",
                )


def _check_columns(
    report: Report, info: DatasetInfo, columns: Columns, tasks: list[str] | None
) -> None:
    for key, values in columns.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            report.error(
                key, f"{np.count_nonzero(~np.isfinite(values))} values are NaN or infinite"
            )
    if tasks is not None and "task_index" in columns and len(columns["task_index"]):
        top = int(columns["task_index"].max())
        if top >= len(tasks) or int(columns["task_index"].min()) < 0:
            report.error("task_index", f"reaches {top}, but there are {len(tasks)} tasks")


def _check_totals(
    report: Report, info: DatasetInfo, episodes: list[Episode], tasks: list[str] | None
) -> None:
    frames = sum(episode.length for episode in episodes)
    found = {"total_episodes": len(episodes), "total_frames": frames}
    if tasks is not None:
        found["total_tasks"] = len(tasks)
    for name, count in found.items():
        if getattr(info, name) != count:
            report.error(layout.INFO, f"{name} is {getattr(info, name)}, found {count}")
    if not episodes:
        report.error("episodes", "there are none")
    position = 0
    for row, episode in enumerate(episodes):
        where = f"episode {row}"
        if episode.index != row:
            report.error(where, f"its row says episode_index {episode.index}")
        if episode.from_index != position:
            report.error(where, f"starts at row {episode.from_index}, expected {position}")
        if episode.to_index - episode.from_index != episode.length or episode.length < 1:
            report.error(
                where, f"length {episode.length}, rows {episode.from_index}..{episode.to_index}"
            )
        if not episode.tasks:
            report.warning(where, "names no task")
        position = episode.to_index


def _check_rows(
    report: Report, info: DatasetInfo, episodes: list[Episode], columns: Columns
) -> None:
    if not set(DEFAULT_FEATURES) <= set(columns):
        return
    count = len(columns["index"])
    if count != info.total_frames:
        report.error("data", f"{count} rows, info.json says {info.total_frames}")
    if not np.array_equal(columns["index"], np.arange(count)):
        report.error(
            "index", "is not 0, 1, 2, ... over the whole dataset; windows would be padding only"
        )
    for episode in episodes:
        rows = slice(episode.from_index, episode.to_index)
        where = f"episode {episode.index}"
        steps = np.arange(episode.length)
        if not np.array_equal(columns["frame_index"][rows], steps):
            report.error(where, "frame_index is not 0, 1, 2, ...")
        if not (columns["episode_index"][rows] == episode.index).all():
            report.error(where, "rows carry another episode_index")
        times = columns["timestamp"][rows].astype(np.float64)
        if len(times) == len(steps) and len(times):
            worst = float(np.abs(times - steps / info.fps).max())
            # float32 itself is coarser than the tolerance beyond 1000 s.
            allowed = max(TOLERANCE_S, float(np.spacing(np.float32(times[-1]))))
            if worst > allowed:
                report.error(where, f"timestamps are up to {worst:.6f} s off frame_index / fps")


def _check_stats(
    report: Report, info: DatasetInfo, stats: Mapping[str, Any], columns: Columns
) -> None:
    where = info.format.stats_file
    if not stats:
        report.warning(where, "missing; loading works, training does not")
        return
    for key, spec in info.features.items():
        if spec.dtype in ("string", "language"):
            continue
        if key not in stats:
            report.warning(where, f"no statistics of {key!r}")
            continue
        sound = True
        for name in STAT_NAMES:
            if name not in stats[key]:
                if name not in QUANTILES or info.format.has_quantiles:
                    report.warning(where, f"{key!r} has no {name}")
                continue
            got, wanted = stats[key][name].shape, expected_shape(spec, name)
            # Of features with several axes LeRobot keeps the last one.
            fits = got in (wanted, wanted[-1:]) if not spec.is_image else got == wanted
            sound &= fits
            if not fits:
                report.error(
                    where, f"{key!r} {name} has shape {list(got)}, expected {list(wanted)}"
                )
            elif not np.isfinite(stats[key][name]).all():
                report.error(where, f"{key!r} {name} is not finite")
        if not sound:
            continue
        check_stat_values(report, where, key, stats[key], columns.get(key))
        low, high = stats[key].get("min"), stats[key].get("max")
        if (
            spec.is_image
            and not spec.is_depth  # in their own unit
            and high is not None
            and low is not None
            and (high.max() > 1.0 + 1e-6 or low.min() < -1e-6)
        ):
            report.error(where, f"{key!r} statistics are not in 0..1")
