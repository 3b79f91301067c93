# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Room left on the disk, in minutes of recording; a stop before it is full."""

from __future__ import annotations

from collections.abc import Callable

from koch_core.health import Light

_PERIOD_S = 0.5
_SOON_MINUTES = 10.0
_MEGABYTE = 1_000_000


class DiskWatch:
    """Watches free space.

    Args:
        free_bytes: Asks the file system.
        bytes_per_s: What recording takes now.
        reserve_bytes: Below this much room recording stops.
        clock: Seconds.
    """

    def __init__(
        self,
        free_bytes: Callable[[], int],
        bytes_per_s: Callable[[], float],
        reserve_bytes: int,
        clock: Callable[[], float],
    ) -> None:
        self._ask = free_bytes
        self._bytes_per_s = bytes_per_s
        self._reserve = reserve_bytes
        self._clock = clock
        self._asked_s = -_PERIOD_S
        self._free = 0

    @property
    def free_bytes(self) -> int:
        """Free space, at most half a second old."""
        now_s = self._clock()
        if now_s - self._asked_s >= _PERIOD_S:
            self._free, self._asked_s = self._ask(), now_s
        return self._free

    @property
    def minutes_left(self) -> float:
        """Recording time until the reserve is reached, [min]; -1 where the rate is unknown."""
        rate = self._bytes_per_s()
        if rate < 1.0:
            return -1.0
        return max(0.0, (self.free_bytes - self._reserve) / rate / 60.0)

    def problem(self) -> str:
        """Why recording must not go on; empty while there is room."""
        free = self.free_bytes
        if free >= self._reserve:
            return ""
        return (
            f"disk full: {free / _MEGABYTE:.0f} MB free, {self._reserve / _MEGABYTE:.0f} MB are "
            "kept in reserve; free some space or choose another root"
        )

    def light(self) -> tuple[Light, str]:
        """Red when full, amber when it soon will be."""
        if problem := self.problem():
            return Light.RED, problem
        minutes = self.minutes_left
        if 0.0 <= minutes < _SOON_MINUTES:
            return Light.AMBER, f"disk full in {minutes:.1f} min"
        return Light.GREEN, ""
