# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Counters and latency histogram of the bus."""

from __future__ import annotations

from dataclasses import dataclass, field

_BIN_S = 5e-5
_BINS = 1000  # up to 50 ms; the last bin collects everything above


class LatencyHistogram:
    """Fixed-bin histogram of durations: bins of 50 us up to 50 ms."""

    def __init__(self) -> None:
        self.counts = [0] * _BINS
        self.count = 0
        self.maximum_s = 0.0

    def add(self, duration_s: float) -> None:
        """Count one duration in [s]."""
        k = int(duration_s / _BIN_S)
        self.counts[k if k < _BINS else _BINS - 1] += 1
        self.count += 1
        if duration_s > self.maximum_s:
            self.maximum_s = duration_s

    def quantile(self, fraction: float) -> float:
        """Upper edge in [s] of the bin that holds the quantile; 0.0 while empty."""
        if self.count == 0:
            return 0.0
        wanted = fraction * self.count
        seen = 0
        for k, n in enumerate(self.counts):
            seen += n
            if seen >= wanted and n:
                return min((k + 1) * _BIN_S, self.maximum_s)
        return self.maximum_s

    def copy(self) -> LatencyHistogram:
        """Independent copy."""
        other = LatencyHistogram()
        other.counts = list(self.counts)
        other.count = self.count
        other.maximum_s = self.maximum_s
        return other


@dataclass
class BusStatistics:
    """What happened on the bus since the last reset. Counted by the thread that owns the bus."""

    cycles: int = 0  # state reads asked for
    failed_cycles: int = 0  # state reads that ended without all motors
    retries: int = 0  # repeated packets
    timeouts: int = 0  # attempts that ended without all answers
    crc_errors: int = 0
    bad_packets: int = 0  # noise, truncated or unexpected packets
    late_packets: int = 0  # answers that came after their time-out
    per_motor_missing: dict[int, int] = field(default_factory=dict)
    latency: LatencyHistogram = field(default_factory=LatencyHistogram)

    def snapshot(self) -> BusStatistics:
        """Independent copy, safe to hand to another thread."""
        values = dict(vars(self))
        values["per_motor_missing"] = dict(self.per_motor_missing)
        values["latency"] = self.latency.copy()
        return BusStatistics(**values)

    def reset(self) -> None:
        """Start counting from zero."""
        self.__init__()  # type: ignore[misc]
