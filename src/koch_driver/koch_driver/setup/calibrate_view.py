# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What a person sees during calibration: live range bars and the drawn zero pose."""

from __future__ import annotations

from typing import TYPE_CHECKING

from koch_core.terminal import clip
from koch_driver.bus.control_table import TICKS_PER_TURN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from koch_driver.setup.calibrate import JointRange

BAR_WIDTH, SHORTEST_BAR = 48, 8
_FIGURES = 47  # columns beside the bar

MIDDLE_POSE = """\
Step 1, the middle pose. Torque is off: hold the arm.
Bring every joint to about the middle of its range of motion: upper arm leaning a little
forward, forearm forward, hand level, gripper (or trigger) half open.
Press w there: that writes the homing offsets into the servos (q ends)."""

RANGE_STEP = """\
Step 2, the ranges. Move shoulder_lift, elbow_flex, wrist_flex and gripper one after the other
from one end to the other. shoulder_pan and wrist_roll are full-turn joints and need nothing.
Press w when every bar has stopped growing: that writes the limits into the servos."""

# The URDF's zero pose; all angles are 0 in it.
ZERO_POSE = r"""
Step 3, the zero pose. Bring the arm into this pose, seen from its left side:

        elbow
          o=========o====>    forearm level, straight ahead; hand in line with it;
          |       wrist       gripper closed, its fingers' plane upright
          |
          |  upper arm upright
          |
          o  shoulder
     =====+=====
        base                  shoulder_pan: the arm points straight ahead of the base

A book corner helps with the right angle. Press ENTER there (s skips, q ends)."""


def bar_width(columns: int) -> int:
    """How long a bar may be in a terminal of so many columns."""
    return max(SHORTEST_BAR, min(BAR_WIDTH, columns - 1 - _FIGURES))


def bar(row: JointRange, width: int = BAR_WIDTH) -> str:
    """One joint's line: name, bounds, a bar over one turn, a mark at the present position."""
    cells = ["."] * width
    first, last = (_cell(t, width) for t in (row.low, row.high))
    for k in range(first, last + 1):
        cells[k] = "="
    cells[_cell(row.position, width)] = "#"
    state = "ok" if row.moved else "move it"
    if not row.recorded:
        state = "full turn"
    return (
        f"{row.joint:<14}{row.low:>6} [{''.join(cells)}] {row.high:<6}{row.position:>6}  {state}"
    )


def bars(rows: Sequence[JointRange], columns: int) -> list[str]:
    """All lines of the range step."""
    width = bar_width(columns)
    head = f"{'joint':<14}{'min':>6} {'0 .. 4095':^{width + 2}} {'max':<6}{'now':>6}"
    return [clip(line, columns - 1) for line in (head, *(bar(row, width) for row in rows))]


def _cell(ticks: int, width: int) -> int:
    return min(width - 1, max(0, ticks * width // TICKS_PER_TURN))
