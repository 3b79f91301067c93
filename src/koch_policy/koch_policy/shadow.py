# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""How far a policy's actions are from what was really commanded, live or offline."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from koch_core.errors import DecodeError
from koch_core.stream import StreamBuffer
from koch_episodes.decode import joint_vector
from koch_policy.configs import ACTION
from koch_rig.action_layout import ActionLayout, commanded_arm
from koch_rig.rig import Rig

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


class CommandedActions:
    """What was really commanded: one stream of `NamedValues` per arm.

    The action of a tick is each arm's first command at or after it, as in the converter.

    Args:
        layout: Which arms, in which order.
        buffers: Arm to what its stream brings.
    """

    def __init__(self, layout: ActionLayout, buffers: Mapping[str, StreamBuffer]) -> None:
        self.layout = layout
        self.buffers = dict(buffers)
        self.max_age_ns = max(buffer.max_age_ns for buffer in buffers.values())

    @classmethod
    def of_rig(cls, rig: Rig, layout: ActionLayout) -> CommandedActions:
        """The streams that the dataset calls `action`; an arm without one has its commands."""
        streams = {arm: f"{arm}/joint_command" for arm in layout.arms}
        for feature in rig.features.values():
            if feature.key.split(".")[0] == ACTION:
                own = {commanded_arm(rig, name): name for name in feature.streams}
                streams |= {arm: name for arm, name in own.items() if arm in streams}
        found = {arm: rig.streams[name] for arm, name in streams.items()}
        return cls(
            layout,
            {
                arm: StreamBuffer(stream.name, 256, stream.max_age_s, stream.offset_s)
                for arm, stream in found.items()
            },
        )

    def at(self, tick_ns: int) -> NDArray[np.float64] | None:
        """The action of a tick [rad], (A,); None where an arm has none.

        Raises:
            DecodeError: A command does not name the arm's joints.
        """
        found = {}
        for part in self.layout.parts:
            buffer = self.buffers[part.arm]
            sample = buffer.first_from(tick_ns)
            if sample is None or sample.stamp_ns - tick_ns > buffer.max_age_ns:
                return None
            found[part.arm] = joint_vector(sample.value.names, sample.value.values, part.names)
        return self.layout.join(found)


class ShadowMeter:
    """Compares each predicted action with the human's at the same tick, known a little later.

    Safe between threads.

    Args:
        actions: What was really commanded.
    """

    def __init__(self, actions: CommandedActions) -> None:
        self._actions = actions
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
                try:
                    human = self._actions.at(tick_ns)
                except DecodeError:
                    human = None
                if human is None:
                    self.unmatched += 1
                else:
                    self._errors.append(action - human)

    def summary(self, newest: int | None = None) -> ErrorSummary:
        """Errors so far, or of the newest ticks only."""
        with self._lock:
            errors = list(self._errors)
        names = self._actions.layout.names
        return summarize(np.array(errors[-newest:] if newest else errors), names)
