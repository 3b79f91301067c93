# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The joint order of a Koch arm: the one constant that everything else refers to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from koch_rig.errors import JointNamesError

JOINT_NAMES: tuple[str, ...] = (
    "shoulder_pan",
    "shoulder_lift",
    "elbow_flex",
    "wrist_flex",
    "wrist_roll",
    "gripper",
)
"""LeRobot's names, base to tip; the motor ids of an arm are 1 to 6 in this order."""

JOINT_COUNT = len(JOINT_NAMES)

ARM_JOINT_NAMES = JOINT_NAMES[:-1]
"""The five joints that move the hand; the gripper is not among them."""

GRIPPER = JOINT_NAMES[-1]

FULL_TURN_JOINTS = ("shoulder_pan", "wrist_roll")
"""Joints whose range LeRobot's calibration fixes at 0..4095 instead of recording it."""

HOME_POSE_RAD: tuple[float, ...] = (0.0, -0.3, -0.9, -1.3, 0.0, -0.9)
"""Where the arm waits between tasks [rad]: folded, hand over the table, gripper open."""

REST_POSE_RAD: tuple[float, ...] = (0.0, 0.5, 1.2, 0.0, 0.0, 0.0)
"""Where the torque may go [rad]: the arm lies near the table and falls nowhere."""

T = TypeVar("T")


def in_joint_order(names: Sequence[str], values: Sequence[T], *, where: str) -> list[T]:
    """Sort values into JOINT_NAMES order by name.

    Args:
        names: Joint names in the sender's order.
        values: One value per name.
        where: What is being read; opens the error message.

    Raises:
        JointNamesError: A joint is missing, unknown or named twice, or the lengths differ.
    """
    by_name: Mapping[str, T] = dict(zip(names, values, strict=False))
    if len(names) != JOINT_COUNT or len(values) != JOINT_COUNT or set(by_name) != set(JOINT_NAMES):
        missing = [name for name in JOINT_NAMES if name not in by_name]
        unknown = [name for name in names if name not in JOINT_NAMES]
        twice = [f"{name} (twice)" for name in set(names) if list(names).count(name) > 1]
        raise JointNamesError(where, missing=missing, unknown=unknown + sorted(twice))
    return [by_name[name] for name in JOINT_NAMES]
