# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The guard's rules, each a function of plain numbers that reports what it changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from math import isfinite
from typing import NamedTuple

from koch_driver.guard.workspace import Workspace

_CHANGED_RAD = 1e-9


class Rule(Enum):
    """Why the guard did not grant what was asked."""

    SOURCE = "source"  # the sender is not one of the configured sources
    NAMES = "names"  # a joint is missing, unknown or named twice
    FINITE = "finite"  # a position is not a finite number
    AGE = "age"  # the stamp is too old, in the future or not a number
    SENDER = "sender"  # more than one publisher sends for the source
    PRIORITY = "priority"  # another source drives
    POSITION = "position"  # outside the joint's limits
    LEAD = "lead"  # too far ahead of where the joint really is
    WORKSPACE = "workspace"  # the TCP would leave the room or meet the table
    SPEED = "speed"  # faster than the speed bound
    ACCELERATION = "acceleration"  # harder than the acceleration bound
    SOFT_START = "soft_start"  # blending from the measured pose
    TIMEOUT = "timeout"  # no command in time: holding
    STOP = "stop"  # stopped until resumed
    MEASURED = "measured"  # no usable measurement: no goal


class Intervention(NamedTuple):
    """One thing the guard changed or refused.

    Attributes:
        rule: The rule that acted.
        joint: Joint name, or the source's name where the rule concerns the whole command.
        requested: What was asked (rad; rad/s; s for AGE), NaN where it is no single number.
        granted: What came instead, None when the whole command was refused.
    """

    rule: Rule
    joint: str
    requested: float
    granted: float | None


NAN = float("nan")


def check_names(names: Sequence[str], count: int, joints: Sequence[str]) -> list[Intervention]:
    """Refuse a command that does not name each joint exactly once with one position each.

    Args:
        names: Joint names of the command, any order.
        count: Number of positions that came with them.
        joints: The joints that must be named.

    Returns:
        One refusal per missing, unknown or repeated joint; empty when complete.
    """
    given = list(names)
    wrong = [joint for joint in joints if given.count(joint) != 1]
    wrong += [str(name) for name in dict.fromkeys(given) if name not in joints]
    if not wrong and count != len(given):
        wrong = list(given)
    return [Intervention(Rule.NAMES, name, NAN, None) for name in wrong]


def check_finite(positions: Mapping[str, float]) -> list[Intervention]:
    """Refuse a command with a position that is NaN or infinite, by joint."""
    return [
        Intervention(Rule.FINITE, joint, value, None)
        for joint, value in positions.items()
        if not isfinite(value)
    ]


def check_age(
    source: str, age_s: float, max_age_s: float, max_future_s: float
) -> list[Intervention]:
    """Refuse a command whose stamp is older than `max_age_s` or is in the future.

    Clocks of one machine agree; `max_future_s` only forgives rounding and scheduling.
    """
    if -max_future_s <= age_s <= max_age_s:
        return []
    return [Intervention(Rule.AGE, source, age_s, None)]


def limit_positions(
    target: list[float],
    lower: Sequence[float],
    upper: Sequence[float],
    joints: Sequence[str],
    report: list[Intervention],
) -> None:
    """Clip a target into the joint limits, in place."""
    for index, value in enumerate(target):
        if value < lower[index]:
            target[index] = lower[index]
        elif value > upper[index]:
            target[index] = upper[index]
        else:
            continue
        report.append(Intervention(Rule.POSITION, joints[index], value, target[index]))


def limit_lead(
    target: list[float],
    measured: Sequence[float],
    lead: Sequence[float],
    joints: Sequence[str],
    report: list[Intervention],
) -> None:
    """Keep a target near the measured pose, in place, so that a blocked arm does not wind up.

    Args:
        target: Angles in [rad], length J.
        measured: Measured angles in [rad], length J.
        lead: Greatest distance in [rad] per joint; inf exempts a joint (the gripper must press).
        joints: Names of the joints.
        report: Receives what was changed.
    """
    for index, value in enumerate(target):
        ahead = value - measured[index]
        bound = lead[index]
        if ahead > bound:
            target[index] = measured[index] + bound
        elif ahead < -bound:
            target[index] = measured[index] - bound
        else:
            continue
        report.append(Intervention(Rule.LEAD, joints[index], value, target[index]))


def limit_workspace(
    target: list[float],
    workspace: Workspace,
    spare_m: float,
    joints: Sequence[str],
    report: list[Intervention],
) -> None:
    """Move a target whose TCP is outside the room to the nearest pose inside, in place."""
    granted = workspace.project(target, spare_m)
    for index, value in enumerate(granted):
        if abs(value - target[index]) > _CHANGED_RAD:
            report.append(Intervention(Rule.WORKSPACE, joints[index], target[index], value))
            target[index] = value


def blend_fraction(elapsed_s: float, duration_s: float) -> float:
    """Share of the command in a soft start: 0 at its begin, 1 at its end, smooth at both.

    The quintic smoothstep has no speed and no acceleration at either end.
    """
    if elapsed_s >= duration_s:
        return 1.0
    if elapsed_s <= 0.0:
        return 0.0
    x = elapsed_s / duration_s
    return x * x * x * (10.0 + x * (6.0 * x - 15.0))


def blend(
    start: Sequence[float],
    target: list[float],
    fraction: float,
    joints: Sequence[str],
    report: list[Intervention],
) -> None:
    """Mix a target with the pose at which the soft start began, in place."""
    if fraction >= 1.0:
        return
    for index, value in enumerate(target):
        granted = start[index] + fraction * (value - start[index])
        if abs(granted - value) > _CHANGED_RAD:
            report.append(Intervention(Rule.SOFT_START, joints[index], value, granted))
        target[index] = granted
