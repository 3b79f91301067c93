# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The six motors of a Koch v1.1 follower and leader."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from koch_driver.control_table import XL330_M077, XL330_M288, XL430_W250, ServoModel
from koch_rig.joints import JOINT_NAMES
from koch_rig.rig import Role

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class MotorSpec:
    """What should sit at one place of the chain."""

    id: int
    joint: str
    model: ServoModel


def _chain(models: Sequence[ServoModel]) -> tuple[MotorSpec, ...]:
    named = zip(JOINT_NAMES, models, strict=True)
    return tuple(MotorSpec(i, joint, model) for i, (joint, model) in enumerate(named, start=1))


FOLLOWER_MOTORS: tuple[MotorSpec, ...] = _chain([XL430_W250] * 2 + [XL330_M288] * 4)
LEADER_MOTORS: tuple[MotorSpec, ...] = _chain([XL330_M077] * 6)


def motors_for(role: Role) -> tuple[MotorSpec, ...]:
    """Motors of an arm by its role, in joint order."""
    return FOLLOWER_MOTORS if role is Role.FOLLOWER else LEADER_MOTORS
