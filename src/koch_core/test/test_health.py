# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What a stream's stamps and sequence numbers say of it."""

from __future__ import annotations

import math

import pytest

from koch_core.health import LossCounter, StampWindow, StreamStatistics, is_slow

MS = 1_000_000


def test_a_window_holds_its_last_seconds_and_measures_them() -> None:
    window = StampWindow(1.0)
    for k in range(300):  # 100 Hz, then 50 Hz
        window.add(k * 10 * MS if k < 200 else 2_000 * MS + (k - 200) * 20 * MS)
    found = window.statistics()
    assert found.count == 51  # both ends of the second
    assert found.rate_hz == pytest.approx(50.0)
    assert found.max_gap_s == pytest.approx(0.02)
    assert found.jitter_s == pytest.approx(0.0)
    window.clear()
    assert (window.newest_ns, window.statistics().rate_hz) == (None, 0.0)


def test_a_stamp_out_of_order_is_measured_in_its_place() -> None:
    window = StampWindow(1.0)
    for stamp in (0, 20 * MS, 10 * MS, 30 * MS):
        window.add(stamp)
    assert window.statistics().max_gap_s == pytest.approx(0.01)


def test_no_gap_is_measured_across_two_runs_of_the_clock() -> None:
    stamps = [0, 10 * MS, 20 * MS, 5_000 * MS, 5_010 * MS]
    assert StreamStatistics.of(stamps).max_gap_s == pytest.approx(4.98)
    found = StreamStatistics.of(stamps, [0, 0, 0, 1, 1])
    assert found.max_gap_s == pytest.approx(0.01)
    assert found.rate_hz == pytest.approx(100.0)


def test_what_is_missing_is_counted_by_sender() -> None:
    losses = LossCounter()
    counted = [losses.add(n, "a") for n in (1, 2, 5)] + [losses.add(n, "b") for n in (90, 92)]
    assert counted == [0, 0, 2, 0, 1]
    assert losses.add(1, "a") == 0  # it began again
    assert losses.add((1 << 64) - 1, "a") == losses.add(0, "a") == 0  # no number at all
    assert losses.lost == 3


@pytest.mark.parametrize(
    ("rate_hz", "expected_hz", "slow"),
    [(26.9, 30.0, True), (27.0, 30.0, False), (1.0, 0.0, False), (1.0, None, False),
     (math.nan, 30.0, False)],
)  # fmt: skip
def test_a_rate_is_slow_below_nine_tenths(
    rate_hz: float, expected_hz: float | None, slow: bool
) -> None:
    assert is_slow(rate_hz, expected_hz) is slow
