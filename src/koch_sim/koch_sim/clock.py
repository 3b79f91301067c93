# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The world's time: paced against the wall clock, stamped as the nodes expect it."""

from __future__ import annotations

import time
from collections.abc import Callable

#: A world that fell behind by more lets go of the lost time instead of racing after it, [s].
MAX_LAG_S = 0.05


class WorldClock:
    """Says how far physics should have come, and what time it is in the world.

    At speed 1 the world's time is the machine's: stamps are ``time.time_ns()``, as hardware's
    are. At any other speed stamps are simulated nanoseconds, which go out on /clock.
    """

    def __init__(self, speed: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Start at simulated time zero.

        Args:
            speed: Simulated seconds per second, > 0.
            monotonic: Clock to pace against, [s].
        """
        self.speed = speed
        self.lost_s = 0.0
        self._monotonic = monotonic
        self._start = monotonic()

    @property
    def is_simulated(self) -> bool:
        """Whether nodes must follow /clock."""
        return self.speed != 1.0

    def due_s(self, simulated_s: float) -> float:
        """Return how much physics is due, [s]; negative while physics is ahead."""
        lag = (self._monotonic() - self._start) * self.speed - simulated_s
        if lag > MAX_LAG_S * max(1.0, self.speed):
            self.lost_s += lag
            self._start += lag / self.speed
            lag = 0.0
        return lag

    def stamp_ns(self, simulated_s: float) -> int:
        """Return the time in the world, [ns]."""
        return round(simulated_s * 1e9) if self.is_simulated else time.time_ns()
