# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The figures of `koch teleop`'s status line: rates, tracking, what the guard changed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from koch_core.terminal import LinePart

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


def status_line(arms: Mapping[str, ArmFigures], elapsed_s: float) -> list[LinePart]:
    """Make the parts of the line and begin a new count.

    What a narrow terminal keeps longest: complaints, the rates of the arms, the distance.

    Args:
        arms: Figures by arm name.
        elapsed_s: Time since the last line [s].
    """
    parts: list[LinePart] = []
    for name, figures in arms.items():
        begin = "| " if parts else ""
        parts.append(LinePart(f"{begin}{name} {figures.states / elapsed_s:.0f} Hz"))
        if figures.complaint:
            short = figures.complaint.partition(". ")[0]
            parts.append(LinePart(f"! {figures.complaint}", 1, f"! {short[:40]}"))
        if figures.commands:
            joint, distance = tracking_error(figures.goals, figures.positions)
            if joint:
                behind = f"{math.degrees(distance):.1f} deg"
                parts.append(LinePart(f"behind by {behind} ({joint})", 2, behind))
        if figures.guard_changes is not None:
            parts.append(
                LinePart(
                    f"guard changed {figures.guard_changes}", 3, f"guard {figures.guard_changes}"
                )
            )
        if figures.commands:
            parts.append(LinePart(f"commands {figures.commands / elapsed_s:.0f} Hz", 4))
        figures.states = figures.commands = 0
    return parts
