# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The figures of `koch teleop`'s status line: rates, tracking, what the guard changed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

QUIET_LEVELS = (0, 3)  # diagnostic_msgs: OK, STALE


@dataclass
class ArmFigures:
    """What has been heard of one arm since the last line.

    Attributes:
        states: Joint states since the last line.
        positions: Newest joint positions by name [rad].
        commands: Goals sent to the motors since the last line.
        goals: Newest goals by joint name [rad].
        guard_changes: Changes of commands by the guard, summed over its rules; None unknown.
        complaint: Newest warning or error of its driver, empty for none.
    """

    states: int = 0
    positions: dict[str, float] = field(default_factory=dict)
    commands: int = 0
    goals: dict[str, float] = field(default_factory=dict)
    guard_changes: int | None = None
    complaint: str = ""

    def take_status(self, kind: str, level: int, message: str) -> None:
        """Take one diagnostic status of this arm, to show; `kind` is its name behind the arm's."""
        if level not in QUIET_LEVELS:
            self.complaint = f"{kind}: {message}"
        elif self.complaint.startswith(f"{kind}:"):
            self.complaint = ""


def tracking_error(
    goals: Mapping[str, float], positions: Mapping[str, float]
) -> tuple[str, float]:
    """Return the joint that is farthest from its goal and its distance [rad]."""
    distances = {name: abs(goals[name] - positions[name]) for name in goals if name in positions}
    worst = max(distances, key=lambda name: distances[name], default="")
    return worst, distances.get(worst, math.nan)


def status_line(arms: Mapping[str, ArmFigures], elapsed_s: float) -> str:
    """Write the line and begin a new count.

    Args:
        arms: Figures by arm name.
        elapsed_s: Time since the last line [s].
    """
    parts = []
    for name, figures in arms.items():
        words = [f"{name} {figures.states / elapsed_s:.0f} Hz"]
        if figures.commands:
            words.append(f"commands {figures.commands / elapsed_s:.0f} Hz")
            joint, distance = tracking_error(figures.goals, figures.positions)
            if joint:
                words.append(f"behind by {math.degrees(distance):.1f} deg ({joint})")
        if figures.guard_changes is not None:
            words.append(f"guard changed {figures.guard_changes}")
        if figures.complaint:
            words.append(f"! {figures.complaint}")
        parts.append(", ".join(words))
        figures.states = figures.commands = 0
    return "  |  ".join(parts)
