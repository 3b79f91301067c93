# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Ticks of one episode fall on the same times, whichever bag they are taken from."""

import pytest

from koch_episodes.convert.events import Window

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
