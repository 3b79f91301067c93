# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The part of the rig file that the guard obeys: `limits`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

from koch_rig.model import urdf_limits
from koch_rig.rig import Arm, Limits, Role, WorkspaceBox
from koch_rig.section import IN_METRES, Section, vector3

_MAX_SPEED = 12.0  # rad/s; the fastest follower servo turns 10.8 rad/s without load
_MAX_ACCELERATION = 200.0  # rad/s^2


def read_limits(section: Section, arms: Mapping[str, Arm]) -> Limits:
    """What the guard lets through."""
    limits = Limits(
        max_speed=section.number(
            "max_speed",
            unit="rad/s",
            low=0.01,
            high=_MAX_SPEED,
            default=3.0,
            hint="That looks like degrees per second: multiply by pi/180 = 0.01745.",
        ),
        max_acceleration=section.number(
            "max_acceleration",
            unit="rad/s^2",
            low=0.1,
            high=_MAX_ACCELERATION,
            default=20.0,
            hint="That looks like degrees per second squared: multiply by 0.01745.",
        ),
        table_z=section.number("table_z", unit="m", low=-2, high=2, default=None, hint=IN_METRES),
        workspace=_workspace(section),
        joints=_joint_limits(section.section("joints", optional=True), _urdf_ranges(arms)),
        command_timeout_s=section.number(
            "command_timeout_s",
            unit="s",
            low=0.02,
            high=5,
            default=0.3,
            hint="That looks like milliseconds: write seconds.",
        ),
        max_command_age_s=section.number(
            "max_command_age_ms",
            unit="ms",
            low=1,
            high=5000,
            default=200.0,
            hint="Below 1 it looks like seconds: write milliseconds.",
        )
        / 1000.0,
    )
    section.refuse_unknown()
    return limits


def _workspace(section: Section) -> WorkspaceBox | None:
    """The box for the TCP, where it stands in the file."""
    entry = section.section("workspace", optional=True)
    if not section.has("workspace"):
        return None
    low = entry.vector("min", unit="m", limit=5.0, hint=IN_METRES)
    high = entry.vector("max", unit="m", limit=5.0, hint=IN_METRES)
    entry.refuse_unknown()
    if any(a >= b for a, b in zip(low, high, strict=True)):
        expected = f"each above its min {list(low)} [m]"
        raise entry.error(entry.path_of("max"), list(high), expected)
    return WorkspaceBox(min=vector3(low), max=vector3(high))


def _urdf_ranges(arms: Mapping[str, Arm]) -> Mapping[str, tuple[float, float]]:
    """Ranges of the followers' joints; where two models share a name, what both can reach.

    A rig of leaders alone takes its arms' models as followers: nobody moves, whatever they are.
    """
    followers = [arm for arm in arms.values() if arm.role is Role.FOLLOWER] or arms.values()
    ranges: dict[str, tuple[float, float]] = {}
    for model in dict.fromkeys(arm.model for arm in followers):
        role = Role.FOLLOWER if Role.FOLLOWER in model.motors else Role.LEADER
        for joint, limit in urdf_limits(role, model).items():
            low, high = ranges.get(joint, (-math.inf, math.inf))
            ranges[joint] = (max(low, limit.lower), min(high, limit.upper))
    return ranges


def _joint_limits(
    section: Section, ranges: Mapping[str, tuple[float, float]]
) -> Mapping[str, tuple[float, float]]:
    """The URDF's limits, narrowed where the file says so."""
    result: dict[str, tuple[float, float]] = {}
    for joint, (low, high) in ranges.items():
        if section.has(joint):
            key = section.path_of(joint)
            pair = section.vector(
                joint,
                unit="rad",
                length=2,
                limit=2 * math.pi,
                hint="That looks like degrees: multiply by pi/180 = 0.01745.",
            )
            if not low <= pair[0] < pair[1] <= high:
                expected = f"[low, high] within the URDF's [{low:g}, {high:g}] [rad]"
                raise section.error(key, list(pair), expected)
            low, high = pair
        else:
            section.any_of(joint, default=None)
        result[joint] = (low, high)
    section.refuse_unknown()
    return MappingProxyType(result)
