# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The beginning of a grid: images are as young as they can be when a tick begins."""

from __future__ import annotations

import numpy as np
import pytest

from koch_policy.chunks import Grid
from koch_policy.execution.phase import Passage, Passages, aligned_origin

NS = 1_000_000_000
T0 = 1_760_000_000 * NS


def _camera(
    phase_s: float, delay_s: float = 0.012, jitter_s: float = 0.002, hz: float = 30.0
) -> tuple[Passages, list[tuple[int, int]]]:
    draw, passages, rows = np.random.default_rng(1), Passages(), []
    for k in range(200):
        stamp = T0 + round((phase_s + k / hz) * NS)
        taken = stamp + round((delay_s + jitter_s * draw.random()) * NS)
        rows.append((stamp, taken))
        if k < 100:
            passages.add(Passage(stamp, stamp, taken, taken))
    return passages, rows


def _ages_s(grid: Grid, rows: list[tuple[int, int]]) -> list[float]:
    """Of the newest image that is there at each tick."""
    first = grid.tick_at(rows[100][1]) + 1
    ticks = [grid.time_ns(first + k) for k in range(90)]
    return [(t - max(s for s, taken in rows if taken <= t)) / NS for t in ticks]


@pytest.mark.parametrize("phase_s", [0.0, 0.004, 0.017, 0.0333])
def test_images_have_just_arrived_when_a_tick_begins(phase_s: float) -> None:
    passages, rows = _camera(phase_s)
    now = rows[99][1] + 5_000_000
    grid = Grid(aligned_origin([passages], now, 30.0), 30.0)
    assert now - NS / 30.0 <= grid.origin_ns <= now
    ages = _ages_s(grid, rows)
    assert np.quantile(ages, 0.95) < 0.018
    unlucky = Grid(grid.origin_ns - 4_000_000, 30.0)
    assert np.quantile(_ages_s(unlucky, rows), 0.5) > 0.035


def test_of_two_cameras_the_older_image_counts() -> None:
    one, rows_one = _camera(0.0)
    two, rows_two = _camera(0.010)
    now = rows_one[99][1]
    grid = Grid(aligned_origin([one, two], now, 30.0), 30.0)
    worst = np.maximum(_ages_s(grid, rows_one), _ages_s(grid, rows_two))
    assert np.quantile(worst, 0.9) < 0.028


def test_a_camera_that_keeps_no_distance_to_the_grid_does_not_count() -> None:
    odd, rows = _camera(0.0, hz=23.0)
    assert aligned_origin([odd], rows[99][1], 30.0) == rows[99][1]


def test_without_images_a_run_begins_at_once() -> None:
    assert aligned_origin([], T0, 30.0) == T0
    assert aligned_origin([Passages()], T0, 30.0) == T0


def test_a_passage_is_found_by_its_stamp() -> None:
    passages, rows = _camera(0.0)
    found = passages.find(rows[99][0])
    assert found is not None
    assert found.taken_ns == rows[99][1]
    assert passages.find(1) is None
