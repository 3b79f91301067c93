# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Which measured angles a joint can have: the one rule by which readings are doubted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import pi

# Faster than a hand flicks a leader's wrist, or any of these servos turns under load.
FASTEST_RAD_S = 20.0
_SLACK_RAD = 0.5
# However long a joint was not seen: half a turn on the nearest way is the other way round.
_HALF_TURN_RAD = pi


@dataclass(frozen=True)
class Implausible:
    """What of a measurement cannot be, by joint index; angles in [rad].

    Attributes:
        jumps: The angle before and the one that cannot follow it in so short a time.
        outside: Angles half a turn outside the joint's range.
        elapsed_s: Time since the measurement before, in [s].
    """

    jumps: dict[int, tuple[float, float]]
    outside: dict[int, float]
    elapsed_s: float

    @property
    def angles(self) -> dict[int, float]:
        """The refused angles."""
        return self.outside | {index: after for index, (_, after) in self.jumps.items()}


class Plausibility:
    """Doubts measurements of one arm. What it refuses leaves no trace in it.

    Args:
        lower: Smallest angles in [rad].
        upper: Greatest angles in [rad].
        fastest_rad_s: Speed that no joint exceeds; inf in a world whose time may run fast.
    """

    def __init__(
        self, lower: Sequence[float], upper: Sequence[float], fastest_rad_s: float = FASTEST_RAD_S
    ) -> None:
        self._low = [value - _HALF_TURN_RAD for value in lower]
        self._high = [value + _HALF_TURN_RAD for value in upper]
        self._fastest_rad_s = fastest_rad_s
        self._last: tuple[float, Sequence[float]] | None = None

    def forget(self) -> None:
        """Compare the next measurement with none: turns were counted again."""
        self._last = None

    def doubt(self, positions: Sequence[float], now_s: float) -> Implausible | None:
        """Judge a measurement; None when it can be, and is the one to compare the next with.

        Args:
            positions: Finite joint angles in [rad].
            now_s: Its monotonic time; an earlier one than before counts as the same.
        """
        outside = {
            index: value
            for index, value in enumerate(positions)
            if not self._low[index] <= value <= self._high[index]
        }
        jumps, elapsed_s = {}, 0.0
        if self._last is not None:
            then_s, before = self._last
            elapsed_s = max(0.0, now_s - then_s)
            far = min(_SLACK_RAD + self._fastest_rad_s * max(elapsed_s, 1e-9), _HALF_TURN_RAD)
            jumps = {
                index: (a, b)
                for index, (a, b) in enumerate(zip(before, positions, strict=True))
                if abs(b - a) > far
            }
        if jumps or outside:
            outside = {index: angle for index, angle in outside.items() if index not in jumps}
            return Implausible(jumps, outside, elapsed_s)
        self._last = now_s, positions
        return None
