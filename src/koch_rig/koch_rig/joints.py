# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The joint order of a Koch arm: the one constant that everything else refers to."""

from __future__ import annotations

import functools
from collections.abc import Sequence

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


def prefixed_joints(prefix: str) -> tuple[str, ...]:
    """The six joints as topics and description name them, `prefix` being the arm's."""
    return tuple(f"{prefix}{joint}" for joint in JOINT_NAMES)


def plain_joints(names: Sequence[str], prefix: str | None = None) -> tuple[str, ...]:
    """Joints of a message without the prefix that stands before all of them.

    Args:
        names: As the message has them, in any order; some joints may be absent.
        prefix: The arm's `joint_prefix`; None takes whatever prefix the message has.

    Returns:
        The names in the same order. They stay as they are where not every one is the prefix and a
        joint of JOINT_NAMES.
    """
    return _plain_joints(tuple(names), prefix)


@functools.lru_cache(maxsize=64)  # every message of an arm has the same names
def _plain_joints(names: tuple[str, ...], prefix: str | None) -> tuple[str, ...]:
    if prefix is None:
        joint = next((joint for joint in JOINT_NAMES if names and names[0].endswith(joint)), "")
        prefix = names[0].removesuffix(joint) if joint else ""
    known = set(prefixed_joints(prefix))
    return tuple(name.removeprefix(prefix) for name in names) if known >= set(names) else names
