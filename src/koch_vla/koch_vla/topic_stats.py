# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Intervals and losses of a topic over hours."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

# Upper edges of the histogram, in nominal intervals.
EDGES = (0.5, 0.9, 1.1, 1.5, 2.0, 3.0, 5.0, 10.0)


@dataclass
class TopicStats:
    """Intervals between acquisition stamps, and messages that did not come.

    Attributes:
        name: Topic.
        rate_hz: Nominal.
        lost: Messages published and not heard, by publication sequence number.
        restarts: Times at which the numbers began again: another process publishes.
    """

    name: str
    rate_hz: float
    lost: int = 0
    restarts: int = 0
    messages: int = 0
    _gaps_ms: list[float] = field(default_factory=list)
    _stamp_ns: int = 0
    _sequence: int = 0

    def add(self, stamp_ns: int, sequence: int) -> None:
        """Take in one message."""
        if self._sequence and sequence > self._sequence:
            self.lost += sequence - self._sequence - 1
        elif self._sequence:
            self.restarts += 1
        if self.messages:
            self._gaps_ms.append((stamp_ns - self._stamp_ns) / 1e6)
        self._sequence, self._stamp_ns = sequence, stamp_ns
        self.messages += 1

    def summary(self) -> dict[str, Any]:
        """Figures for the table; intervals in [ms]."""
        gaps_ms = np.array(self._gaps_ms.copy())  # the listening thread appends meanwhile
        if not len(gaps_ms):
            return {"topic": self.name, "messages": self.messages}
        edges = np.array([0.0, *EDGES, np.inf]) * 1e3 / self.rate_hz
        counts, _ = np.histogram(gaps_ms, edges)
        return {
            "topic": self.name,
            "messages": self.messages,
            "lost": self.lost,
            "median_ms": round(float(np.median(gaps_ms)), 2),
            "p99_ms": round(float(np.percentile(gaps_ms, 99)), 2),
            "p999_ms": round(float(np.percentile(gaps_ms, 99.9)), 2),
            "max_ms": round(float(gaps_ms.max()), 1),
            "histogram": counts.tolist(),
        }
