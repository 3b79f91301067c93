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


def planned(samples, *, look_always):
    """Plan two streams of (number, stamp [ns]); `look_always`: at every sample, needed or not."""
    sources = (Source("/a", max_age_s=0.05), Source("/b", max_age_s=0.02))
    features = [
        MappedFeature("state", sources[:1], Rule.NEWEST),
        MappedFeature("action", sources[1:], Rule.NEXT),
    ]
    planner = Planner(features, FPS, [Window(end_ns=START_NS + 9_000_000_000), Window()])
    if look_always:
        planner._may_decide = lambda number, stamp: True
    for number, stamp_ns in samples:
        planner.push(number, stamp_ns, np.array([float(stamp_ns - START_NS)]))
    plans = planner.finish()
    late = [track.late for track in planner.tracks]
    return (
        late,
        [(gap.at_s, gap.duration_s, gap.why) for plan in plans for gap in plan.gaps],
        [
            (segment.ticks_ns.tolist(), *(column.tolist() for column in segment.columns.values()))
            for plan in plans
            for segment in plan.segments
        ],
    )


@pytest.mark.parametrize("seed", range(12))
def test_samples_that_cannot_decide_a_tick_need_no_look(seed):
    """Dropouts, streams that end early, messages that overtake one another, a clock set back."""
    rng = np.random.default_rng(seed)
    samples = []
    for number in (0, 1):
        stamps = np.arange(0, rng.uniform(8, 14) * 1e9, rng.uniform(0.005, 0.03) * 1e9)
        for _ in range(rng.integers(4)):
            start = rng.uniform(0, 12e9)
            stamps = stamps[(stamps < start) | (stamps > start + rng.uniform(0.01, 3) * 1e9)]
        received = stamps + rng.exponential(rng.uniform(0, 0.2) * 1e9, len(stamps))
        samples += [(r, number, START_NS + int(s)) for r, s in zip(received, stamps, strict=True)]
    if seed % 3 == 0:
        samples += [(r + 20e9, n, s - 5_000_000_000) for r, n, s in samples]
    ordered = [(number, stamp) for _, number, stamp in sorted(samples)]
    found = planned(ordered, look_always=False)
    assert found == planned(ordered, look_always=True)
    assert found[2]
