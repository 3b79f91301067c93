# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Counters and the latency histogram."""

from __future__ import annotations

import pytest

from koch_driver.bus.statistics import BusStatistics, LatencyHistogram


def test_quantiles_of_a_known_sample() -> None:
    histogram = LatencyHistogram()
    for k in range(100):
        histogram.add(k * 1e-4)  # 0 .. 9.9 ms
    assert histogram.quantile(0.5) == pytest.approx(0.005, abs=2e-4)
    assert histogram.quantile(0.99) == pytest.approx(0.0099, abs=2e-4)
    assert histogram.maximum_s == pytest.approx(0.0099)


def test_empty_and_overflowing_histogram() -> None:
    histogram = LatencyHistogram()
    assert histogram.quantile(0.5) == 0.0
    histogram.add(3.0)
    assert histogram.quantile(0.5) == 3.0 or histogram.quantile(0.5) == pytest.approx(0.05)
    assert histogram.maximum_s == 3.0


def test_snapshot_is_independent() -> None:
    statistics = BusStatistics()
    statistics.per_motor_missing[3] = 1
    copy = statistics.snapshot()
    statistics.cycles += 5
    statistics.per_motor_missing[3] = 9
    statistics.latency.add(0.001)
    assert (copy.cycles, copy.per_motor_missing, copy.latency.count) == (0, {3: 1}, 0)
    statistics.reset()
    assert statistics.cycles == 0
    assert statistics.per_motor_missing == {}
