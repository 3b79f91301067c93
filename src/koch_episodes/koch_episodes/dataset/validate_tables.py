# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The validator's rules about what tables say of one another: tasks, places, types, statistics."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from koch_episodes.dataset import layout
from koch_episodes.dataset.findings import Report
from koch_episodes.dataset.format import DatasetInfo, Episode
from koch_episodes.dataset.layout import FeatureSpec, data_files
from koch_episodes.dataset.stats import Stats
from koch_episodes.decode import quaternions

Columns = Mapping[str, npt.NDArray[Any]]


def check_declarations(report: Report, info: DatasetInfo) -> None:
    """Check what info.json says of itself: types, names, templates, splits."""
    for key, spec in info.features.items():
        if spec.is_numeric:
            _check_numeric(report, key, spec)
    if info.video_keys and info.video_template is None:
        report.error(layout.INFO, "video_path is null, but there are videos")
    if info.chunks_size < 1:
        report.error(layout.INFO, f"chunks_size is {info.chunks_size}, expected 1 or more")
    raw = json.loads((report.root / layout.INFO).read_text(encoding="utf-8"))
    splits = raw.get("splits")
    if splits is not None and splits != {"train": f"0:{info.total_episodes}"}:
        report.warning(layout.INFO, f"splits {splits}, LeRobot writes 0:{info.total_episodes}")
    info.format.check_info(report, info, raw)


def _check_numeric(report: Report, key: str, spec: FeatureSpec) -> None:
    if _number(spec.dtype) is None:
        report.error(layout.INFO, f"feature {key!r} has dtype {spec.dtype!r}, no number's name")
    if spec.names is not None and len(spec.shape) == 1 and len(spec.names) != spec.shape[0]:
        report.warning(
            layout.INFO, f"feature {key!r} has {len(spec.names)} names, shape {list(spec.shape)}"
        )


def check_stored_types(report: Report, info: DatasetInfo) -> None:
    """Check that every declared column is there and that its numbers are of the declared kind."""
    for path in data_files(report.root):
        try:
            schema, where = pq.read_schema(path), path.relative_to(report.root)
        except (OSError, pa.ArrowException):
            continue  # reported already
        for key, spec in info.features.items():
            if spec.is_video:
                continue
            if key not in schema.names:
                report.error(where, f"no column {key!r}, which info.json declares")
            elif spec.is_numeric:
                kind, wanted = _element(schema.field(key).type), _number(spec.dtype)
                if kind is None or wanted is None or kind == wanted:
                    continue
                add = report.warning if kind.kind == wanted.kind else report.error
                add(where, f"column {key!r} holds {kind}, declared is {wanted}")


def _number(name: Any) -> np.dtype[Any] | None:
    try:
        kind: np.dtype[Any] = np.dtype(name)
        return kind
    except TypeError:
        return None


def _element(kind: pa.DataType) -> np.dtype[Any] | None:
    while hasattr(kind, "value_type"):
        kind = kind.value_type
    try:
        return _number(kind.to_pandas_dtype())
    except NotImplementedError:
        return None


def check_tasks(report: Report, info: DatasetInfo, tasks: list[str]) -> None:
    """Check the task table: each text once, and what LeRobot relies on in this format."""
    info.format.check_tasks(report)
    if len(set(tasks)) < len(tasks):
        report.warning(info.format.tasks_file, "two tasks have the same text")


def check_task_texts(
    report: Report, episodes: list[Episode], columns: Columns, tasks: list[str]
) -> None:
    """Check that an episode's row names the tasks that its frames carry."""
    for episode in episodes:
        numbers = np.unique(columns["task_index"][episode.from_index : episode.to_index])
        if len(numbers) and (numbers[0] < 0 or numbers[-1] >= len(tasks)):
            continue  # reported already
        carried = {tasks[int(number)] for number in numbers}
        if episode.tasks and set(episode.tasks) != carried:
            report.warning(
                f"episode {episode.index}",
                f"its row names the tasks {sorted(episode.tasks)}, its frames {sorted(carried)}",
            )


def check_quaternions(
    report: Report, info: DatasetInfo, episodes: list[Episode], columns: Columns
) -> None:
    """Check that no quaternion changes its sign between two frames; that is no motion."""
    for key, spec in info.features.items():
        for places in quaternions(spec.names or ()) if key in columns else ():
            values = columns[key].reshape(len(columns[key]), -1)[:, places].astype(np.float64)
            is_turn = np.abs(np.linalg.norm(values, axis=1) - 1.0) < 0.1  # no difference of two
            # Flipped and hardly turned: a step of 90 degrees or more is no quaternion's.
            is_flip = np.sum(values[1:] * values[:-1], axis=1) < -0.7
            flips = np.flatnonzero(is_flip & is_turn[1:] & is_turn[:-1])
            for episode in episodes:
                inside = (flips >= episode.from_index) & (flips < episode.to_index - 1)
                if inside.any():
                    frame = int(flips[inside][0]) - episode.from_index
                    names = [(spec.names or ())[place] for place in places]
                    report.warning(
                        f"episode {episode.index}",
                        f"{key!r} {names} changes its sign {int(inside.sum())} time(s), first "
                        f"behind frame {frame}; q and -q are the same turn, a policy takes it "
                        "for a motion",
                    )


def check_stat_values(
    report: Report, where: str, key: str, stats: Stats, values: npt.NDArray[Any] | None
) -> None:
    """Check one feature's statistics against one another and against its column.

    Args:
        report: Where findings go.
        where: File of the statistics.
        key: Feature.
        stats: Its statistics.
        values: Its column, or None.
    """
    found = {name: np.asarray(value, np.float64) for name, value in stats.items()}
    low, high = found.get("min"), found.get("max")  # LeRobot's of a bool feature are bool
    mean, std = found.get("mean"), found.get("std")
    if std is not None and (std < 0).any():
        report.error(where, f"{key!r} std is negative")
    if low is None or high is None or mean is None:
        return
    count = int(np.ravel(stats["count"])[0]) if "count" in stats else 0
    slack = 1e-4 * np.maximum(1e-3, high - low) + _summed_off(
        np.maximum(abs(low), abs(high)), count
    )
    if (low > high).any() or (mean < low - slack).any() or (mean > high + slack).any():
        report.error(where, f"{key!r} min, mean and max are not in this order")
        return
    if values is None or values.dtype.kind not in "fiu" or not len(values) or values.ndim > 2:
        return
    table = values.reshape(len(values), -1).astype(np.float64)
    for name, got, real in (("min", low, table.min(axis=0)), ("max", high, table.max(axis=0))):
        off = np.abs(got.reshape(-1) - real)
        if (off > slack.reshape(-1) + 1e-5 * np.abs(real)).any():
            worst = int(off.argmax())
            report.warning(
                where,
                f"{key!r} {name} is {float(got.reshape(-1)[worst]):g}, the data have "
                f"{float(real[worst]):g} (element {worst})",
            )
    if count != len(table) and "count" in stats:
        report.warning(where, f"{key!r} count is {count}, there are {len(table)} frames")


def _summed_off(size: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.float64]:
    """How far a mean that was summed up in float32 may be off, as LeRobot's are.

    Each of `count` additions rounds by half a unit of the sum, always to the same side where all
    values are alike: of a joint that never moved the mean lies outside of min and max.
    """
    rounding = float(np.finfo(np.float32).eps) / 2
    return np.asarray(size * min(1e-2, rounding * max(100, count)), dtype=np.float64)
