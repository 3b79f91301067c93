# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Ticks of one episode fall on the same times, whichever bag they are taken from."""

import numpy as np
import pytest

from koch_episodes.convert.events import Window
from koch_episodes.convert.mapping import MappedFeature, Source
from koch_episodes.convert.plan import Planner
from koch_episodes.frame import Rule

START_NS = 1_700_000_000_123_456_789
FPS = 30


def test_without_a_start_event_the_first_sample_begins():
    assert Window().first_tick(START_NS, FPS) == START_NS


def test_a_window_does_not_begin_before_its_start():
    assert Window(start_ns=START_NS).first_tick(START_NS - 5, FPS) == START_NS


def test_streams_that_live_at_the_start_begin_with_it():
    window = Window(start_ns=START_NS, grid_ns=START_NS)
    assert window.first_tick(START_NS - 5, FPS) == START_NS


@pytest.mark.parametrize("late_ns", [1, 10_000_000, 33_333_333])
def test_late_streams_begin_at_the_next_tick(late_ns):
    tick = Window(grid_ns=START_NS).first_tick(START_NS + late_ns, FPS)
    assert tick == START_NS + 33_333_333


def test_a_stream_that_begins_on_a_tick_loses_none():
    assert Window(grid_ns=START_NS).first_tick(START_NS + 1_000_000_000, FPS) == (
        START_NS + 1_000_000_000
    )


@pytest.mark.parametrize("lost", [30, 31, 32])
def test_a_gap_at_one_tick_leaves_out_that_tick_alone(lost):
    """The times of ticks are rounded; the search for the next one must not trip over that."""
    source = Source("/a", max_age_s=0.02)
    planner = Planner([MappedFeature("state", (source,), Rule.NEWEST)], FPS, [Window()])
    tick_ns = START_NS + round(lost * 1e9 / FPS)
    for stamp_ns in range(START_NS, START_NS + 2_000_000_000, 10_000_000):
        if not -30_000_000 < stamp_ns - tick_ns <= 10_000_000:
            planner.push(0, stamp_ns, np.zeros(1))
    (plan,) = planner.finish()
    assert [segment.length for segment in plan.segments] == [lost, 60 - lost - 1]
