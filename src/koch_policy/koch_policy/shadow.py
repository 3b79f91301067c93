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

from koch_core.errors import DecodeError
from koch_core.stream import StreamBuffer

_KEPT = 20_000


@dataclass(frozen=True, eq=False)
class ErrorSummary:
    """Absolute action errors per element of the action.

    Attributes:
        count: Number of compared ticks.
        mean, p95, largest: float64 (A,); zeros when nothing was compared.
        names: Of the elements.
        unit: "rad", or what a recording's values are in.
    """

    count: int
    mean: NDArray[np.float64]
    p95: NDArray[np.float64]
    largest: NDArray[np.float64]
    names: tuple[str, ...]
    unit: str = "rad"

    def __str__(self) -> str:
        """One line for a person; angles in degrees."""
        if not self.count:
            return "no action was compared"
        factor, unit = shown_unit(self.unit)
        digits = 1 if self.unit == "rad" else 3
        parts = [
            f"{name} {factor * mean:.{digits}f} ({factor * p95:.{digits}f})"
            for name, mean, p95 in zip(self.names, self.mean, self.p95, strict=True)
        ]
        return f"mean (p95) error in {unit} over {self.count} ticks: " + ", ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON; keys carry the unit where it is rad."""
        suffix = "_rad" if self.unit == "rad" else ""
        rows = {
            name: {f"mean{suffix}": float(a), f"p95{suffix}": float(b), f"max{suffix}": float(c)}
            for name, a, b, c in zip(self.names, self.mean, self.p95, self.largest, strict=True)
        }
        return {"count": self.count, "unit": self.unit, "joints": rows}


def shown_unit(unit: str) -> tuple[float, str]:
    """Return factor and name of the unit in which values are shown: degrees for rad."""
    return (float(np.degrees(1.0)), "degrees") if unit == "rad" else (1.0, unit)


def summarize(
    errors: NDArray[np.float64], names: tuple[str, ...], unit: str = "rad"
) -> ErrorSummary:
    """Summarise absolute errors (N, A)."""
    if not len(errors):
        zero = np.zeros(len(names))
        return ErrorSummary(0, zero, zero, zero, names, unit)
    sizes = np.abs(errors)
    p95 = np.quantile(sizes, 0.95, axis=0)
    return ErrorSummary(len(sizes), sizes.mean(axis=0), p95, sizes.max(axis=0), names, unit)


class ShadowMeter:
    """Compares each predicted action with the human's at the same tick.

    The human's action of a tick is the first command at or after it, as in the converter, so it
    is known a little later. Safe between threads.

    Args:
        actions: Stream of what was really commanded.
        decode: Its samples to joint angles [rad], (J,).
        joints: Their names.
    """

    def __init__(
        self,
        actions: StreamBuffer,
        decode: Callable[[Any], NDArray[np.float64]],
        joints: tuple[str, ...],
    ) -> None:
        self._actions = actions
        self._joints = joints
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
        return summarize(np.array(errors[-newest:] if newest else errors), self._joints)
