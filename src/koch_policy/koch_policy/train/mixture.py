# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Several datasets as one, some episodes of them, and how often each frame is drawn."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from koch_policy.errors import ConfigError, DatasetError
from koch_policy.train.data import Demonstrations, FloatArray, Frames, IntArray


def named_dataset(text: str) -> tuple[Path, float]:
    """Read DIR or DIR:WEIGHT.

    Raises:
        ConfigError: The weight is no positive number.
    """
    folder, colon, weight = text.rpartition(":")
    if not colon or Path(text).exists():
        return Path(text), 1.0
    try:
        value = float(weight)
    except ValueError:
        value = 0.0
    if not 0.0 < value < float("inf"):
        raise ConfigError("--dataset", "weight", weight, "a number above zero, as in DIR:2")
    return Path(folder), value


@dataclass(frozen=True, eq=False)
class PickedFrames:
    """Rows of one camera, from one or several sources.

    Attributes:
        sources: The images.
        source: int64 (N,): which of them a row is in.
        row: int64 (N,): and where.
    """

    sources: Sequence[Frames]
    source: IntArray
    row: IntArray

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width, 3."""
        return self.sources[0].shape

    def read(self, rows: IntArray) -> NDArray[np.uint8]:
        """Return RGB images (len(rows), H, W, 3)."""
        images = np.empty((len(rows), *self.shape), np.uint8)
        for index, frames in enumerate(self.sources):
            mine = np.flatnonzero(self.source[rows] == index)
            if len(mine):
                images[mine] = frames.read(self.row[rows[mine]])
        return images

    def digest(self, rows: int) -> str:
        """Return a hash of the sources' digests and of which rows these are."""
        digest = hashlib.sha256(self.source[:rows].tobytes() + self.row[:rows].tobytes())
        for index, frames in enumerate(self.sources):
            mine = self.row[:rows][self.source[:rows] == index]
            if len(mine):
                digest.update(frames.digest(int(mine.max()) + 1).encode())
        return digest.hexdigest()


def joined(parts: Sequence[Demonstrations], weights: Sequence[float]) -> Demonstrations:
    """Put datasets one after the other; one set of statistics is then measured on all of them.

    Args:
        parts: The datasets; fingerprint and rig are the first one's.
        weights: A window of a dataset is drawn so many times as often as one of weight 1.

    Raises:
        DatasetError: Rate, units, features, names or image sizes differ.
    """
    first = parts[0]
    if len(parts) == 1 and weights[0] == 1.0:
        return first
    for other in parts[1:]:
        _require_same(first, other)
    tasks = tuple(dict.fromkeys(task for part in parts for task in part.tasks))
    counts = [sum(part.lengths) for part in parts]
    source = np.repeat(np.arange(len(parts)), counts)
    row = np.concatenate([np.arange(count) for count in counts])
    drawn = [
        weight * (np.ones(count, np.float32) if part.weights is None else part.weights)
        for part, weight, count in zip(parts, weights, counts, strict=True)
    ]
    return replace(
        first,
        name=" + ".join(part.name for part in parts),
        lengths=tuple(length for part in parts for length in part.lengths),
        vectors={key: np.concatenate([p.vectors[key] for p in parts]) for key in first.vectors},
        frames={
            key: PickedFrames([part.frames[key] for part in parts], source, row)
            for key in first.frames
        },
        task_index=np.concatenate([with_tasks(part, tasks).task_index for part in parts]),
        tasks=tasks,
        reference=None
        if first.reference is None
        else np.concatenate([p.reference for p in parts if p.reference is not None]),
        weights=np.concatenate(drawn).astype(np.float32),
        selected={name: numbers for part in parts for name, numbers in part.selected.items()},
    )


def picked(data: Demonstrations, episodes: Sequence[int]) -> Demonstrations:
    """Keep some episodes, in the dataset's order; all where none is named.

    Raises:
        DatasetError: There is no such episode.
    """
    if not episodes:
        return data
    chosen = sorted(set(episodes))
    if chosen[0] < 0 or chosen[-1] >= len(data.lengths):
        raise DatasetError(
            data.name,
            f"has no episode {chosen[0] if chosen[0] < 0 else chosen[-1]} (train.episodes)",
            f"It has 0 to {len(data.lengths) - 1}.",
        )
    starts = data.starts
    rows = np.concatenate([starts[n] + np.arange(data.lengths[n]) for n in chosen])
    return replace(
        data,
        lengths=tuple(data.lengths[n] for n in chosen),
        vectors={key: values[rows] for key, values in data.vectors.items()},
        reference=None if data.reference is None else data.reference[rows],
        frames={
            key: PickedFrames([frames], np.zeros(len(rows), np.int64), rows)
            for key, frames in data.frames.items()
        },
        task_index=data.task_index[rows] if len(data.task_index) else data.task_index,
        weights=None if data.weights is None else data.weights[rows],
        selected={data.name: chosen},
    )


def with_tasks(data: Demonstrations, tasks: Sequence[str]) -> Demonstrations:
    """Number the tasks as in a list, which those that it lacks are added to."""
    order = tuple(dict.fromkeys([*tasks, *data.tasks]))
    places = np.array([order.index(task) for task in data.tasks], np.int64)
    index = places[data.task_index] if len(data.tasks) else data.task_index
    return replace(data, tasks=order, task_index=index)


def column_weights(
    columns: Mapping[str, Any], factors: Mapping[str, float], where: str
) -> FloatArray | None:
    """Return how often each row is drawn, (N,); None where no column decides.

    A row whose column is 1 (true) is drawn `factor` times as often as one where it is 0, and in
    between where it is in between.

    Raises:
        DatasetError: A column holds something else than 0 to 1.
    """
    weights: FloatArray | None = None
    for name, factor in factors.items():
        values = np.asarray(columns[name], np.float32)
        values = values.reshape(len(values), -1)
        if values.shape[1] != 1 or not ((values >= 0.0) & (values <= 1.0)).all():
            raise DatasetError(
                where,
                f"{name} holds {values.shape[1]} element(s) from {values.min()} to {values.max()}",
                "train.weights wants one value of 0 to 1 (or true and false) per frame.",
            )
        mine = 1.0 + (factor - 1.0) * values[:, 0]
        weights = mine if weights is None else weights * mine
    return weights


def _require_same(first: Demonstrations, other: Demonstrations) -> None:
    """Refuse to join what one normaliser and one network cannot both mean."""
    both = {
        "frames per second": (first.fps, other.fps),
        "units": (first.units, other.units),
        "vectors": (_widths(first), _widths(other)),
        "names": (dict(first.names), dict(other.names)),
        "cameras": (_sizes(first), _sizes(other)),
    }
    for what, (ours, theirs) in both.items():
        if ours != theirs:
            raise DatasetError(
                other.name,
                f"cannot be joined to {first.name}: {what} are {theirs}, there {ours}",
                "Convert both with the same rig, or choose with train.inputs, train.image_size.",
            )


def _widths(data: Demonstrations) -> dict[str, int]:
    return {key: values.shape[1] for key, values in data.vectors.items()}


def _sizes(data: Demonstrations) -> dict[str, tuple[int, int, int]]:
    return {key: frames.shape for key, frames in data.frames.items()}
