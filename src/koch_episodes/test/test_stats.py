# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Statistics follow LeRobot's definitions; the reference here is written down independently."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from koch_episodes.dataset.stats import (
    ImageStats,
    aggregate,
    column_stats,
    pixel_stride,
    sampled_frames,
)

QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}


def reference(values: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """LeRobot's definition on a (samples, N) float64 table."""
    result = {
        "min": values.min(0),
        "max": values.max(0),
        "mean": values.mean(0),
        "std": np.sqrt(np.maximum(0, (values**2).mean(0) - values.mean(0) ** 2)),
    }
    for name, q in QUANTILES.items():
        row = []
        for column in values.T:
            edges = np.linspace(column.min() - 1e-10, column.max() + 1e-10, 5001)
            cumulative = np.cumsum(np.histogram(column, edges)[0])
            place = int(np.searchsorted(cumulative, q * len(column)))
            if place == 0:
                row.append(edges[0])
                continue
            inside = cumulative[place] - cumulative[place - 1]
            share = (q * len(column) - cumulative[place - 1]) / inside if inside else 0.0
            row.append(edges[place] + share * (edges[place + 1] - edges[place]))
        result[name] = np.array(row)
    return result


@pytest.mark.parametrize("length", [2, 3, 17, 450, 3000])
def test_columns_match_the_definition(length: int) -> None:
    values = np.random.default_rng(length).normal(3, 20, (length, 4)).astype(np.float32)
    values[:, 2] = 7.0
    found, wanted = column_stats(values), reference(values.astype(np.float64))
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, atol=1e-6, rtol=0, err_msg=name)
    assert found["count"].tolist() == [length]


def test_single_frame_has_quantiles_equal_to_its_value() -> None:
    found = column_stats(np.array([[1.0, -2.0]]))
    assert found["q01"].tolist() == found["q99"].tolist() == [1.0, -2.0]
    assert found["std"].tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("length", "count"), [(1, 1), (60, 60), (450, 100), (1000, 177), (5000, 594), (20000, 1681)]
)
def test_sampling_of_frames(length: int, count: int) -> None:
    frames = sampled_frames(length)
    assert len(frames) == len(set(frames)) == count
    assert frames[0] == 0
    assert frames[-1] == length - 1


@pytest.mark.parametrize(
    ("size", "step"),
    [((480, 640), 4), ((224, 224), 1), ((299, 100), 1), ((300, 100), 2), ((1080, 1920), 12)],
)
def test_stride(size: tuple[int, int], step: int) -> None:
    assert pixel_stride(*size) == step


def test_images_match_the_definition() -> None:
    generator = np.random.default_rng(5)
    images = generator.integers(3, 250, (7, 480, 640, 3)).astype(np.uint8)
    counted = ImageStats()
    for image in images:
        counted.add(image)
    found = counted.result()
    pixels = images[:, ::4, ::4].reshape(-1, 3).astype(np.float64)
    for name, value in reference(pixels).items():
        assert found[name].shape == (3, 1, 1)
        np.testing.assert_allclose(found[name].ravel(), value / 255, atol=1e-6, rtol=0)
    assert found["count"].tolist() == [7]


def test_aggregate_equals_the_whole_for_moments() -> None:
    values = np.random.default_rng(9).normal(size=(300, 3))
    parts = [column_stats(values[:50]), column_stats(values[50:120]), column_stats(values[120:])]
    merged, whole = aggregate(parts), column_stats(values)
    for name in ("min", "max", "mean", "std"):
        np.testing.assert_allclose(merged[name], whole[name], atol=1e-12)
    assert merged["count"].tolist() == [300]
    weights = np.array([50, 70, 180]) / 300
    wanted = sum(w * part["q10"] for w, part in zip(weights, parts, strict=True))
    np.testing.assert_allclose(merged["q10"], wanted, atol=1e-12)
