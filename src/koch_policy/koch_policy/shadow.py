# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""How far a policy's actions are from what was really commanded, live or offline."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from koch_episodes.errors import DecodeError
from koch_episodes.stream import StreamBuffer
from koch_rig.joints import JOINT_COUNT, JOINT_NAMES

_KEPT = 20_000


@dataclass(frozen=True, eq=False)
class ErrorSummary:
    """Absolute action errors per joint, in JOINT_NAMES order, [rad].

    Attributes:
        count: Number of compared ticks.
        mean, p95, largest: float64 (6,); zeros when nothing was compared.
    """

    count: int
    mean: NDArray[np.float64]
    p95: NDArray[np.float64]
    largest: NDArray[np.float64]

    def __str__(self) -> str:
        """One line for a person, in degrees."""
        if not self.count:
            return "no action was compared"
        parts = [
            f"{joint} {np.degrees(mean):.1f} ({np.degrees(p95):.1f})"
            for joint, mean, p95 in zip(JOINT_NAMES, self.mean, self.p95, strict=True)
        ]
        return f"mean (p95) error in degrees over {self.count} ticks: " + ", ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON."""
        rows = {
            joint: {"mean_rad": float(a), "p95_rad": float(b), "max_rad": float(c)}
            for joint, a, b, c in zip(JOINT_NAMES, self.mean, self.p95, self.largest, strict=True)
        }
        return {"count": self.count, "joints": rows}


def summarize(errors: NDArray[np.float64]) -> ErrorSummary:
    """Summarise absolute errors (N, 6) in [rad]."""
    if not len(errors):
        zero = np.zeros(JOINT_COUNT)
        return ErrorSummary(0, zero, zero, zero)
    sizes = np.abs(errors)
    return ErrorSummary(
        len(sizes), sizes.mean(axis=0), np.quantile(sizes, 0.95, axis=0), sizes.max(axis=0)
    )


class ShadowMeter:
    """Compares each predicted action with the human's at the same tick.

    The human's action of a tick is the first command at or after it, as in the converter, so it
    is known a little later. Safe between threads.

    Args:
        actions: Stream of what was really commanded.
        decode: Its samples to joint angles [rad], (6,).
    """

    def __init__(
        self, actions: StreamBuffer, decode: Callable[[Any], NDArray[np.float64]]
    ) -> None:
        self._actions = actions
        self._decode = decode
        self._pending: deque[tuple[int, NDArray[np.float64]]] = deque()
        self._errors: deque[NDArray[np.float64]] = deque(maxlen=_KEPT)
        self._lock = threading.Lock()
        self.unmatched = 0

    def predicted(self, tick_ns: int, action: NDArray[np.float64]) -> None:
        """The policy would command this at this tick [rad]."""
        with self._lock:
            self._pending.append((tick_ns, np.array(action)))

    def settle(self, now_ns: int) -> None:
        """Compare what can be compared by now."""
        with self._lock:
            while self._pending and self._pending[0][0] + self._actions.max_age_ns <= now_ns:
                tick_ns, action = self._pending.popleft()
                sample = self._actions.first_from(tick_ns)
                if sample is None or sample.stamp_ns - tick_ns > self._actions.max_age_ns:
                    self.unmatched += 1
                    continue
                try:
                    self._errors.append(action - self._decode(sample.value))
                except DecodeError:
                    self.unmatched += 1

    def summary(self, newest: int | None = None) -> ErrorSummary:
        """Errors so far, or of the newest ticks only."""
        with self._lock:
            errors = list(self._errors)
        return summarize(np.array(errors[-newest:] if newest else errors))
