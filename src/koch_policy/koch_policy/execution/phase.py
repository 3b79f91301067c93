# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""When to tick, so that images are fresh: just after they have arrived.

Ticks and cameras keep the same rate but not the same phase. By chance an image waits a whole
period for its tick. A run that begins at the right moment has every image when it is needed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

_NS = 1_000_000_000
_KEPT = 90
_ENOUGH = 10
_IN_TIME = 0.95  # of the images are there when their tick begins
_SPARE_NS = 1_500_000


class Passage(NamedTuple):
    """A sample on its way to the policy; times in the clock of the stamps.

    Attributes:
        stamp_ns: When it was acquired, [ns].
        sent_ns: When it was published, [ns].
        heard_ns: When the middleware had it here, [ns].
        taken_ns: When it was ready for an observation, [ns].
    """

    stamp_ns: int
    sent_ns: int
    heard_ns: int
    taken_ns: int


class Passages:
    """The newest samples of one stream on their way. One thread adds, others read."""

    def __init__(self) -> None:
        self._newest: deque[Passage] = deque(maxlen=_KEPT)

    def add(self, passage: Passage) -> None:
        """Note a sample."""
        self._newest.append(passage)

    def find(self, stamp_ns: int) -> Passage | None:
        """The sample of a stamp, None where it is not known any more."""
        found = (passage for passage in reversed(tuple(self._newest)))
        return next((passage for passage in found if passage.stamp_ns == stamp_ns), None)

    def ready_ns(self, rate_hz: float) -> tuple[int, float] | None:
        """A moment at which a sample has just arrived, [ns], and its usual age then, [s].

        None for a stream whose samples keep no distance to a grid of this rate: there is no best
        moment.
        """
        known = list(self._newest)
        if len(known) < _ENOUGH:
            return None
        step_ns = _NS / rate_hz
        last = known[-1].stamp_ns
        stamps = np.array([passage.stamp_ns - last for passage in known], dtype=float)
        delays = np.array([passage.taken_ns - passage.stamp_ns for passage in known], dtype=float)
        phases = (stamps + step_ns / 2) % step_ns - step_ns / 2
        if np.ptp(np.quantile(phases, [0.1, 0.9])) > step_ns / 4:
            return None
        arrival = float(np.quantile(phases + delays, _IN_TIME)) + _SPARE_NS
        return last + round(arrival), (arrival - float(np.median(phases))) / _NS


def aligned_origin(streams: Iterable[Passages], now_ns: int, rate_hz: float) -> int:
    """The beginning of a grid, at most a step before now, on which images are youngest.

    Of several streams the one counts whose phase leaves the oldest of all images youngest.

    Args:
        streams: Of images.
        now_ns: Now.
        rate_hz: Of the ticks.
    """
    step_ns = _NS / rate_hz
    ready = [found for stream in streams if (found := stream.ready_ns(rate_hz)) is not None]
    if not ready:
        return now_ns

    def worst_age_ns(moment_ns: int) -> float:
        return max(((moment_ns - at) % step_ns) + age_s * _NS for at, age_s in ready)

    best = min((moment for moment, _ in ready), key=worst_age_ns)
    return now_ns - round((now_ns - best) % step_ns)
