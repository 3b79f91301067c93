# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Dataset statistics by LeRobot's definitions, in bounded memory.

Per episode: min, max, mean, population standard deviation, count, and quantiles from a histogram
of 5000 bins. Images: a sample of frames and pixels before they are encoded, per channel, in 0..1;
of these a video loses only colour that changes from pixel to pixel. Over episodes: count-weighted
mean and pooled variance. The quantiles over episodes are those of all values (`exact_quantiles`,
`level_quantiles`), not LeRobot's count-weighted mean of the episodes' quantiles: for a long
episode at rest and a short one that moves, that mean is no quantile at all.

Images are counted by value (256 levels), which is exact; LeRobot sums float32 numbers and is off
by its rounding errors.

Source: LeRobot 0.4 to 0.6, `lerobot/datasets/compute_stats.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from koch_episodes.dataset.layout import FeatureSpec

Array = npt.NDArray[Any]
Stats = dict[str, Array]

QUANTILES: Mapping[str, float] = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
STAT_NAMES = ("min", "max", "mean", "std", "count", *QUANTILES)
LEVELS = "levels"
"""Not one of LeRobot's statistics: how often an image has each of its 256 values, int64, shape
(3, 256). Between a worker and the dataset writer it travels with an episode's statistics, since
the counts of episodes add up and their quantiles do not."""
_BINS = 5000
_SAMPLED_SIDE_PX = 150
_SAMPLE_ABOVE_PX = 300


def sampled_frames(length: int) -> list[int]:
    """Return the frame indices whose images enter the statistics of an episode."""
    least = min(100, length)
    count = max(least, min(int(length**0.75), 10_000))
    return [int(i) for i in np.round(np.linspace(0, length - 1, count)).astype(int)]


def pixel_stride(height: int, width: int) -> int:
    """Return the pixel step in both directions for images of this size."""
    if max(height, width) < _SAMPLE_ABOVE_PX:
        return 1
    return int(max(height, width) / _SAMPLED_SIDE_PX)


def _quantile(counts: Array, edges: Array, target: float) -> float:
    total = np.cumsum(counts)
    place = int(np.searchsorted(total, target))
    if place == 0:
        return float(edges[0])
    if place >= len(total):
        return float(edges[-1])
    before = total[place - 1]
    inside = total[place] - before
    if inside == 0:
        return float(edges[place])
    return float(edges[place] + (target - before) / inside * (edges[place + 1] - edges[place]))


def _quantiles(values: Array, weights: Array | None, low: float, high: float) -> list[float]:
    edges = np.linspace(low - 1e-10, high + 1e-10, _BINS + 1)
    counts, _ = np.histogram(values, bins=edges, weights=weights)
    count = float(len(values) if weights is None else weights.sum())
    return [_quantile(counts, edges, q * count) for q in QUANTILES.values()]


def column_stats(values: Array) -> Stats:
    """Compute the statistics of a numeric feature over one episode.

    Args:
        values: Shape (T,) or (T, N), T >= 1, finite.

    Returns:
        Each of STAT_NAMES, float64 of shape (N,); ``count`` int64 of shape (1,).
    """
    table = np.asarray(values).reshape(len(values), -1)
    exact = table.astype(np.float64)
    mean = exact.mean(axis=0)
    stats: Stats = {
        "min": exact.min(axis=0),
        "max": exact.max(axis=0),
        "mean": mean,
        "std": np.sqrt(np.maximum(0.0, ((exact - mean) ** 2).mean(axis=0))),
        "count": np.array([len(exact)], dtype=np.int64),
    }
    if len(exact) < 2:
        stats.update({name: mean.copy() for name in QUANTILES})
        return stats
    rows = [
        _quantiles(exact[:, i], None, stats["min"][i], stats["max"][i])
        for i in range(exact.shape[1])
    ]
    stats.update({name: np.array([row[k] for row in rows]) for k, name in enumerate(QUANTILES)})
    return stats


def feature_stats(values: Array, shape: tuple[int, ...]) -> Stats:
    """Compute the statistics of a numeric feature over one episode, as `column_stats`.

    Of a feature with several axes they are those of the last axis; the others are more samples,
    and ``count`` counts frames, as LeRobot's do.
    """
    if len(shape) < 2:
        return column_stats(values)
    count = np.array([len(values)], dtype=np.int64)
    return {**column_stats(np.asarray(values).reshape(-1, shape[-1])), "count": count}


def exact_quantiles(values: Array) -> Stats:
    """Compute each of QUANTILES of a numeric feature, from all its values.

    Args:
        values: Shape (T,) or (T, N), T >= 1, finite.

    Returns:
        Quantile name to float64, shape (N,); linear between neighbouring values.
    """
    table = np.asarray(values).reshape(len(values), -1)
    shares = list(QUANTILES.values())
    # Column by column: a whole table in float64 is the largest array of a conversion.
    rows = [np.quantile(table[:, i].astype(np.float64), shares) for i in range(table.shape[1])]
    return {name: np.array([row[k] for row in rows]) for k, name in enumerate(QUANTILES)}


def like(values: Array, stats: Stats) -> Array:
    """Return values (T, ...) as statistics of a feature see them: (M, N) for a mean of N elements.

    Of a feature with several axes LeRobot keeps the last one, and counts the others as samples.
    """
    return values.reshape(-1, max(1, stats["mean"].size))


def level_quantiles(levels: Array) -> Stats:
    """Compute each of QUANTILES of an image feature, (3, 1, 1) in 0..1, from its LEVELS."""
    values = np.arange(256, dtype=np.float64)
    rows = []
    for counts in levels:
        present = np.flatnonzero(counts)
        rows.append(_quantiles(values, counts, float(present[0]), float(present[-1])))
    return {
        name: np.array([row[k] for row in rows]).reshape(3, 1, 1) / 255.0
        for k, name in enumerate(QUANTILES)
    }


class ImageStats:
    """Counts pixel values of an episode's sampled images; 6 KiB whatever the length."""

    def __init__(self) -> None:
        self._counts = np.zeros((3, 256), dtype=np.int64)
        self._images = 0

    def add(self, image: npt.NDArray[np.uint8]) -> None:
        """Count one sampled image: RGB, uint8, shape (H, W, 3), full size."""
        step = pixel_stride(image.shape[0], image.shape[1])
        self.add_pixels(image[::step, ::step])

    def add_pixels(self, pixels: npt.NDArray[np.uint8]) -> None:
        """Count the sampled pixels of one image: RGB, uint8, shape (H, W, 3)."""
        for channel in range(3):
            # In the type that bincount counts in: it would copy once more.
            values = pixels[..., channel].astype(np.intp).ravel()
            self._counts[channel] += np.bincount(values, minlength=256)
        self._images += 1

    def result(self) -> Stats:
        """Return the statistics: each (3, 1, 1) in 0..1, ``count`` of images, and LEVELS."""
        levels = np.arange(256, dtype=np.float64)
        columns: dict[str, list[float]] = {name: [] for name in ("min", "max", "mean", "std")}
        for counts in self._counts:
            present = np.flatnonzero(counts)
            total = counts.sum()
            mean = float((counts * levels).sum() / total)
            columns["min"].append(float(present[0]))
            columns["max"].append(float(present[-1]))
            columns["mean"].append(mean)
            columns["std"].append(float(np.sqrt((counts * (levels - mean) ** 2).sum() / total)))
        stats = {name: np.array(v).reshape(3, 1, 1) / 255.0 for name, v in columns.items()}
        stats["count"] = np.array([self._images], dtype=np.int64)
        return {**stats, **level_quantiles(self._counts), LEVELS: self._counts}


def aggregate(parts: Sequence[Stats]) -> Stats:
    """Merge the statistics of one feature over episodes (or datasets).

    Args:
        parts: At least one; statistics that one of them lacks are left out.
    """
    counts = np.stack([part["count"] for part in parts]).astype(np.float64)
    total = counts.sum(axis=0)
    means = np.stack([part["mean"] for part in parts])
    weight = counts.reshape(counts.shape + (1,) * (means.ndim - counts.ndim))
    mean = (means * weight).sum(axis=0) / total
    spread = np.stack([part["std"] for part in parts]) ** 2 + (means - mean) ** 2
    result: Stats = {
        "min": np.stack([part["min"] for part in parts]).min(axis=0),
        "max": np.stack([part["max"] for part in parts]).max(axis=0),
        "mean": mean,
        "std": np.sqrt((spread * weight).sum(axis=0) / total),
        "count": total.astype(np.int64),
    }
    for name in QUANTILES:
        if all(name in part for part in parts):
            values = np.stack([part[name] for part in parts])
            result[name] = (values * weight).sum(axis=0) / total
    return result


def without_quantiles(stats: Mapping[str, Stats]) -> dict[str, Stats]:
    """Return the statistics that older formats have."""
    return {
        key: {name: value for name, value in values.items() if name not in QUANTILES}
        for key, values in stats.items()
    }


def stats_to_json(stats: Mapping[str, Stats]) -> dict[str, dict[str, Any]]:
    """Return nested lists, as stats.json holds them."""
    return {
        key: {name: value.tolist() for name, value in feature.items()}
        for key, feature in stats.items()
    }


def stats_from_json(raw: Mapping[str, Mapping[str, Any]]) -> dict[str, Stats]:
    """Read nested lists back into arrays.

    Raises:
        ValueError: It is no object of objects.
    """
    if not isinstance(raw, Mapping) or not all(isinstance(v, Mapping) for v in raw.values()):
        raise ValueError("no object of statistics by feature")
    return {
        key: {name: np.atleast_1d(np.asarray(value)) for name, value in feature.items()}
        for key, feature in raw.items()
    }


def expected_shape(spec: FeatureSpec, stat: str) -> tuple[int, ...]:
    """Return the shape LeRobot expects of one statistic of a feature."""
    if stat == "count":
        return (1,)
    if spec.is_image:
        return (spec.shape[-1], 1, 1)
    return spec.shape
