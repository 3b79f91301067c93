# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The joint order of a Koch arm: the one constant that everything else refers to."""

from __future__ import annotations

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
