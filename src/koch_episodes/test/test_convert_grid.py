# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Ticks of one episode fall on the same times, whichever bag they are taken from."""

from collections import Counter

import numpy as np
import pytest

from koch_core.frame import TIE_NS, SampleRule
from koch_episodes.convert.events import Window
from koch_episodes.convert.mapping import FeatureSource, MappedFeature
from koch_episodes.convert.options import StampFrom
from koch_episodes.convert.plan import plan_bag
from koch_episodes.convert.survey import SurveyedStream

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


def stream(source, stamps_ns, runs=0):
    """Samples as a bag has them; their number tells them apart."""
    stamps = np.array(stamps_ns, dtype=np.int64)
    numbers = np.arange(len(stamps))
    run = np.zeros(len(stamps), np.int64) + runs
    return SurveyedStream(
        source, numbers, stamps, stamps, numbers, run, StampFrom.HEADER, Counter()
    )


@pytest.mark.parametrize("lost", [30, 31, 32])
def test_a_gap_at_one_tick_leaves_out_that_tick_alone(lost):
    """The times of ticks are rounded; the search for the next one must not trip over that."""
    source = FeatureSource("/a", max_age_s=0.02)
    tick_ns = START_NS + round(lost * 1e9 / FPS)
    stamps = [
        stamp_ns
        for stamp_ns in range(START_NS, START_NS + 2_000_000_000, 10_000_000)
        if not -30_000_000 < stamp_ns - tick_ns <= 10_000_000
    ]
    features = [MappedFeature("state", (source,))]
    (plan,) = plan_bag(features, FPS, [stream(source, stamps)], [Window()], 1).windows
    assert [segment.length for segment in plan.segments] == [lost, 60 - lost - 1]


@pytest.mark.parametrize("rule", [SampleRule.NEXT, SampleRule.NEWEST, SampleRule.HOLD])
@pytest.mark.parametrize("off_ns", [-240, -1, 0, 1, 240])
def test_a_stamp_on_the_ticks_own_grid_is_that_ticks(rule, off_ns):
    """Rounded down, or kept as seconds in a double: a tie at a nanosecond is a tie."""
    source = FeatureSource("/a", max_age_s=0.2, rule=rule)
    first = FeatureSource("/b", max_age_s=0.2)
    ticks = [START_NS + round(k * 1e9 / FPS) for k in range(60)]
    stamps = [ticks[0], *(tick + off_ns for tick in ticks[1:])]
    features = [MappedFeature("a", (source,)), MappedFeature("b", (first,))]
    streams = [stream(source, stamps), stream(first, ticks)]
    (plan,) = plan_bag(features, FPS, streams, [Window()], 1).windows
    (segment,) = plan.segments
    assert segment.numbers["a/0"].tolist() == list(range(60))


def planned(samples, windows):
    """Plan two streams of (number, stamp [ns]); the second holds commands."""
    sources = (
        FeatureSource("/a", max_age_s=0.05),
        FeatureSource("/b", max_age_s=0.02, rule=SampleRule.NEXT),
    )
    features = [MappedFeature("state", sources[:1]), MappedFeature("action", sources[1:])]
    streams = [
        stream(source, [stamp for each, stamp in samples if each == number])
        for number, source in enumerate(sources)
    ]
    return streams, plan_bag(features, FPS, streams, windows, 1).windows


@pytest.mark.parametrize("seed", range(12))
def test_frames_are_those_of_the_rule_at_every_tick(seed):
    """Dropouts, streams that end early, messages that overtake one another."""
    rng = np.random.default_rng(seed)
    samples = []
    for number in (0, 1):
        stamps = np.arange(0, rng.uniform(8, 14) * 1e9, rng.uniform(0.005, 0.03) * 1e9)
        for _ in range(rng.integers(4)):
            start = rng.uniform(0, 12e9)
            stamps = stamps[(stamps < start) | (stamps > start + rng.uniform(0.01, 3) * 1e9)]
        received = stamps + rng.exponential(rng.uniform(0, 0.2) * 1e9, len(stamps))
        samples += [(r, number, START_NS + int(s)) for r, s in zip(received, stamps, strict=True)]
    ordered = [(number, stamp) for _, number, stamp in sorted(samples)]
    windows = [Window(end_ns=START_NS + 6_000_000_000), Window(start_ns=START_NS + 6_500_000_000)]
    streams, plans = planned(ordered, windows)
    found = {}
    for plan in plans:
        for part in plan.segments:
            assert np.all(np.abs(np.diff(part.ticks_ns) - 1e9 / FPS) <= 1)  # contiguous
            found |= {
                tick: (part.stamps_ns["state/0"][k], part.stamps_ns["action/0"][k])
                for k, tick in enumerate(part.ticks_ns.tolist())
            }
    state, command = (np.sort(each.stamps) for each in streams)
    assert len(found) > 10
    for tick, (seen, given) in found.items():
        assert seen == state[state <= tick + TIE_NS].max() >= tick - 50_000_000
        assert given == command[command >= tick - TIE_NS].min() <= tick + 20_000_000
