# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Demonstrations in memory and the windows that training draws from them.

Vectors are small and held whole; images come row by row from a `Frames` source. A window that
reaches over the end of its episode repeats the last row and marks it in `action_is_pad`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from koch_policy.angles import Angles
from koch_policy.configs import ACTION, ACTION_IS_PAD, TASK_EMBEDDING, PolicyConfig
from koch_policy.errors import DatasetError
from koch_rig.action_space import ActionCodec

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]


class Frames(Protocol):
    """Images of one camera by dataset row."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width, 3."""
        ...

    def read(self, rows: IntArray) -> NDArray[np.uint8]:
        """Return RGB images (len(rows), H, W, 3)."""
        ...

    def digest(self, rows: int) -> str:
        """Return a hash that tells the first rows' images from others, by a part of them."""
        ...


@dataclass(frozen=True, eq=False)
class ArrayFrames:
    """Images held in one array, (N, H, W, 3) uint8; a memory map works as well."""

    images: NDArray[np.uint8]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width, 3."""
        _, height, width, channels = self.images.shape
        return (height, width, channels)

    def read(self, rows: IntArray) -> NDArray[np.uint8]:
        """Return RGB images (len(rows), H, W, 3)."""
        return self.images[rows]

    def digest(self, rows: int) -> str:
        """Return a hash of 64 images that lie evenly over the first rows."""
        chosen = np.unique(np.linspace(0, rows - 1, 64).astype(np.int64))
        return hashlib.sha256(np.ascontiguousarray(self.images[chosen]).tobytes()).hexdigest()


@dataclass(frozen=True, eq=False)
class Demonstrations:
    """A dataset as training sees it.

    Attributes:
        name: What error messages call it.
        fps: Rows per second.
        lengths: Rows per episode; the rows of an episode follow each other.
        vectors: {feature: float32 (N, D)} with "action" among them.
        frames: {camera feature: its images}.
        task_index: int64 (N,), index into `tasks`.
        tasks: Task texts.
        names: {vector feature: names of its D elements}.
        angles: {vector feature: {element: period}} that `vectors` holds as sine and cosine; the
            names are those of the angles.
        codec: The space that the policy predicts in; `vectors["action"]` then holds poses, of
            which `Windows` makes the space's vectors. None: joints as they are.
        reference: float32 (N, P), the observed poses that such vectors are seen from.
        joints: Names of the joints that such actions move.
        weights: float32 (N,), how often a window around a row is drawn, relative to the others;
            None: all alike.
        selected: {dataset: numbers of the episodes that `train.episodes` kept}; empty: all.
        robot_type, units, fingerprint, rig: Handed on to the checkpoint; may be empty.
    """

    name: str
    fps: float
    lengths: tuple[int, ...]
    vectors: Mapping[str, FloatArray]
    frames: Mapping[str, Frames] = field(default_factory=dict)
    task_index: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))
    tasks: tuple[str, ...] = ()
    names: Mapping[str, list[str]] = field(default_factory=dict)
    angles: Mapping[str, Angles] = field(default_factory=dict)
    codec: ActionCodec | None = None
    reference: FloatArray | None = None
    joints: tuple[str, ...] = ()
    weights: FloatArray | None = None
    selected: Mapping[str, Sequence[int]] = field(default_factory=dict)
    robot_type: str = ""
    units: str = ""
    fingerprint: str = ""
    rig: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check lengths and values.

        Raises:
            DatasetError: There is no action, lengths differ, or a value is NaN or infinite.
        """
        if ACTION not in self.vectors:
            raise DatasetError(self.name, "has no feature 'action'", "Record with a leader arm.")
        total = sum(self.lengths)
        for key, values in self.vectors.items():
            if len(values) != total:
                raise DatasetError(
                    self.name,
                    f"{key} has {len(values)} rows, the episodes {total}",
                    "Validate it.",
                )
            bad = np.argwhere(~np.isfinite(values))
            if len(bad):
                row, element = (int(n) for n in bad[0])
                episode = int(np.searchsorted(np.cumsum(self.lengths), row, side="right"))
                frame = row - sum(self.lengths[:episode])
                raise DatasetError(
                    self.name,
                    f"{key} holds {len(bad)} value(s) that are NaN or infinite, the first in "
                    f"episode {episode}, frame {frame}, element {element}",
                    "Delete these episodes or convert the bags again.",
                )

    @property
    def starts(self) -> IntArray:
        """First row of each episode, int64 (E,)."""
        return np.concatenate(([0], np.cumsum(self.lengths)[:-1])).astype(np.int64)

    @property
    def action_width(self) -> int:
        """Elements of an action as the policy predicts it."""
        own = self.vectors[ACTION].shape[1]
        return own if self.codec is None else len(self.codec.names)

    def chunks(self, done: IntArray, seen: IntArray) -> FloatArray:
        """Return what is done in rows (B, T), as the policy says it having seen rows (B,)."""
        actions = self.vectors[ACTION][done]
        if self.codec is None or self.reference is None:
            return actions
        return self.codec.relate(actions, self.reference[seen]).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Windows:
    """Observation and action windows around chosen rows of some episodes.

    Raises:
        DatasetError: No episode is as long as the policy's horizon, or none was chosen.
    """

    data: Demonstrations
    config: PolicyConfig
    episodes: Sequence[int]
    task_embeddings: FloatArray | None = None

    def __post_init__(self) -> None:
        """Check that a window without padding exists."""
        if not len(self.episodes):
            raise DatasetError(self.data.name, "no episode to train on", "Record more episodes.")
        longest = max(self.data.lengths[episode] for episode in self.episodes)
        if longest < self.config.horizon_steps:
            raise DatasetError(
                self.data.name,
                f"the longest episode has {longest} frames, a chunk needs "
                f"{self.config.horizon_steps}",
                "Record longer episodes or lower chunk_size (horizon) in the configuration.",
            )

    def rows(self) -> IntArray:
        """Return every row that a window may be drawn around."""
        starts = self.data.starts
        drop = getattr(self.config, "drop_n_last_frames", 0)
        parts = []
        for episode in self.episodes:
            length = self.data.lengths[episode]
            parts.append(starts[episode] + np.arange(max(length - drop, 1)))
        return np.concatenate(parts)

    def batch(self, rows: IntArray) -> dict[str, Tensor]:
        """Return the windows around rows; images stay uint8 (B, [O,] 3, H, W).

        The axis of the observation steps is there where the network has one.
        """
        first, last = self._bounds(rows)
        seen = rows[:, None] + np.asarray(self.config.observation_offsets())  # (B, O)
        seen = np.clip(seen, first, last)
        batch = self.actions(rows)
        history = self.config.has_step_axis
        for key in self.config.input_features:
            if key in self.data.vectors:
                values = self.data.vectors[key][seen]  # (B, O, D)
                batch[key] = torch.from_numpy(values if history else values[:, 0])
            else:
                batch[key] = self._images(key, seen, history=history)
        if self.task_embeddings is not None:
            task = self.data.task_index[rows]
            batch[TASK_EMBEDDING] = torch.from_numpy(self.task_embeddings[task])  # (B, E)
        return batch

    def actions(self, rows: IntArray) -> dict[str, Tensor]:
        """Return the chunks around rows (B, T, A), and bool (B, T), True outside the episode."""
        first, last = self._bounds(rows)
        done = rows[:, None] + np.asarray(self.config.action_offsets())  # (B, T)
        chunks = self.data.chunks(np.clip(done, first, last), rows)
        return {
            ACTION: torch.from_numpy(chunks),
            ACTION_IS_PAD: torch.from_numpy((done < first) | (done > last)),
        }

    def _bounds(self, rows: IntArray) -> tuple[IntArray, IntArray]:
        """Return first and last row of the episodes that rows are in, each (B, 1)."""
        starts = self.data.starts
        episode = np.searchsorted(starts, rows, side="right") - 1
        first = starts[episode][:, None]
        return first, first + np.asarray(self.data.lengths)[episode][:, None] - 1

    def _images(self, key: str, rows: IntArray, *, history: bool) -> Tensor:
        """Return uint8 (B, [O,] 3, H, W); each row is read once."""
        unique, back = np.unique(rows, return_inverse=True)
        images = torch.from_numpy(self.data.frames[key].read(unique))[
            torch.from_numpy(back.reshape(-1))
        ]
        images = images.permute(0, 3, 1, 2)  # (B * O, 3, H, W), channels last in memory
        return images.unflatten(0, rows.shape) if history else images  # type: ignore[no-untyped-call]


def drawn_rows(rows: IntArray, weights: FloatArray | None, seed: int, epoch: int) -> IntArray:
    """Return the rows of one epoch in their order: as many as there are, each by its weight.

    Without weights every row comes once. With weights a row comes its share of times rounded up
    or down (systematic resampling), so that an epoch has no luck beyond that.

    Raises:
        DatasetError: All weights are zero.
    """
    draw = np.random.default_rng([seed, epoch])
    if weights is not None:
        total = float(weights[rows].sum(dtype=np.float64))
        if total <= 0.0:
            raise DatasetError("weights", "are zero for all episodes", "Change train.weights.")
        ends = np.cumsum(weights[rows].astype(np.float64)) / total
        ends[-1] = 1.0
        marks = (np.arange(len(rows)) + draw.uniform()) / len(rows)
        rows = rows[np.searchsorted(ends, marks, side="right").clip(max=len(rows) - 1)]
    return rows[draw.permutation(len(rows))]


def early_weights(data: Demonstrations, rows: IntArray, steps: int, share: float) -> FloatArray:
    """Return how often each row is drawn, (N,), so that a share of the windows begins early.

    Args:
        data: The demonstrations; their own weights count within both parts.
        rows: Which windows there are.
        steps: A row is early among so many first ones of its episode.
        share: The part of all windows that is early, 0 to 1.
    """
    first = np.repeat(data.starts, data.lengths)
    is_early = np.arange(len(first)) - first < steps
    base = np.ones(len(first), np.float32) if data.weights is None else data.weights
    weights = np.zeros(len(first), np.float32)
    for part, fraction in ((is_early, share), (~is_early, 1.0 - share)):
        mine = rows[part[rows]]
        total = float(base[mine].sum(dtype=np.float64))
        if total > 0.0:
            weights[mine] = base[mine] * (fraction / total)
    return weights


def shuffled_batches(
    rows: IntArray,
    batch_size: int,
    seed: int,
    start: int,
    rank: int = 0,
    world: int = 1,
    weights: FloatArray | None = None,
) -> Iterator[IntArray]:
    """Yield the row batches of steps start, start + 1, ... without end.

    The order is a function of seed and step alone, so that a resumed run goes on where it
    stopped. Every epoch is a new permutation; its incomplete last batch is left out unless the
    dataset is smaller than a batch. Each of `world` processes gets its own slice.
    """
    per_epoch = max(len(rows) // batch_size, 1)
    epoch, position = divmod(start, per_epoch)
    while True:
        order = drawn_rows(rows, weights, seed, epoch)
        for index in range(position, per_epoch):
            batch = order[index * batch_size : (index + 1) * batch_size]
            yield batch[rank::world]
        epoch, position = epoch + 1, 0


def split_episodes(count: int, fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Split episode numbers into training and validation, at random by seed.

    At least one episode is held out where the fraction is above zero and there are two.
    """
    held = min(max(round(count * fraction), 1), count - 1) if fraction > 0 and count > 1 else 0
    order = np.random.default_rng([seed, 0xE15]).permutation(count)
    return sorted(order[held:].tolist()), sorted(order[:held].tolist())


def vector_statistics(values: FloatArray) -> dict[str, Tensor]:
    """Return mean, std, min, max, q01, q10, q50, q90 and q99 of (N, D), each float32 (D,)."""
    exact = values.astype(np.float64)
    result = {
        "mean": exact.mean(0),
        "std": exact.std(0),
        "min": exact.min(0),
        "max": exact.max(0),
    }
    for name, fraction in (("q01", 0.01), ("q10", 0.1), ("q50", 0.5), ("q90", 0.9), ("q99", 0.99)):
        result[name] = np.quantile(exact, fraction, axis=0)
    return {name: torch.from_numpy(value).float() for name, value in result.items()}
