# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""StreamBuffer: order, bounds, offset."""

from __future__ import annotations

import random

import pytest

from koch_core.stream import StreamBuffer

MS = 1_000_000


def filled(stamps: list[int], capacity: int = 100, offset_s: float = 0.0) -> StreamBuffer:
    buffer = StreamBuffer("arm", capacity, 0.1, offset_s)
    for stamp in stamps:
        buffer.push(stamp, stamp)
    return buffer


def test_newest_at_takes_the_tick_itself() -> None:
    buffer = filled([10, 20, 30])
    sample = buffer.newest_at(20)
    assert sample is not None
    assert sample.stamp_ns == 20
    assert buffer.newest_at(9) is None


def test_first_from_takes_the_tick_itself() -> None:
    buffer = filled([10, 20, 30])
    sample = buffer.first_from(20)
    assert sample is not None
    assert sample.stamp_ns == 20
    assert buffer.first_from(31) is None


def test_any_arrival_order_gives_the_same_answers() -> None:
    stamps = list(range(0, 500, 5))
    shuffled = stamps[:]
    random.Random(4).shuffle(shuffled)
    one, other = filled(stamps), filled(shuffled)
    for tick in range(-3, 510):
        for look in ("newest_at", "first_from"):
            left, right = getattr(one, look)(tick), getattr(other, look)(tick)
            assert (left and left.value) == (right and right.value)


def test_full_buffer_loses_its_oldest() -> None:
    buffer = filled(list(range(10)), capacity=3)
    assert len(buffer) == 3
    assert buffer.newest_at(6) is None
    assert buffer.newest_at(7) is not None


def test_late_sample_does_not_push_out_a_newer_one() -> None:
    buffer = filled([10, 20, 30, 5], capacity=3)
    sample = buffer.first_from(0)
    assert sample is not None
    assert sample.stamp_ns == 10


def test_same_stamp_replaces() -> None:
    buffer = StreamBuffer("arm", 5, 0.1)
    buffer.push(10, "first")
    buffer.push(10, "second")
    sample = buffer.newest()
    assert len(buffer) == 1
    assert sample is not None
    assert sample.value == "second"


def test_offset_is_added_to_the_stamp() -> None:
    buffer = filled([100 * MS], offset_s=-0.04)
    sample = buffer.newest()
    assert sample is not None
    assert sample.stamp_ns == 60 * MS


def test_discard_keeps_what_the_tick_needs() -> None:
    buffer = filled([10, 20, 30])
    buffer.discard_before(25)
    sample = buffer.newest_at(25)
    assert sample is not None
    assert sample.stamp_ns == 20
    assert buffer.newest_at(19) is None


def test_remove_forgets_exactly_one() -> None:
    buffer = filled([10, 20])
    assert buffer.remove(20)
    assert not buffer.remove(20)
    sample = buffer.newest_at(25)
    assert sample is not None
    assert sample.stamp_ns == 10


@pytest.mark.parametrize(("capacity", "age"), [(0, 1.0), (1, 0.0), (1, float("nan"))])
def test_senseless_bounds_are_refused(capacity: int, age: float) -> None:
    with pytest.raises(ValueError, match="stream arm"):
        StreamBuffer("arm", capacity, age)
