# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Joints are matched by name, never by index."""

from __future__ import annotations

import pytest

import koch_rig
from koch_rig.errors import JointNamesError
from koch_rig.joints import JOINT_NAMES, in_joint_order


def test_values_are_sorted_by_name() -> None:
    names = list(reversed(JOINT_NAMES))
    assert in_joint_order(names, [6, 5, 4, 3, 2, 1], where="test") == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (list(JOINT_NAMES[:-1]), "missing gripper"),
        ([*JOINT_NAMES[:-1], "claw"], "missing gripper; unknown claw"),
        ([*JOINT_NAMES, "gripper"], r"unknown gripper \(twice\)"),
        ([*JOINT_NAMES, "extra"], "unknown extra"),
        ([], "missing shoulder_pan"),
    ],
)
def test_wrong_names_are_named(names: list[str], message: str) -> None:
    with pytest.raises(JointNamesError, match=message):
        in_joint_order(names, [0.0] * len(names), where="/follower/joint_states")


def test_too_few_values_are_refused() -> None:
    with pytest.raises(JointNamesError, match="/joint_states"):
        in_joint_order(JOINT_NAMES, [0.0] * 5, where="/joint_states")


def test_every_public_name_exists() -> None:
    for name in koch_rig.__all__:
        assert getattr(koch_rig, name) is not None
