# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The joints, and the public names of the package."""

from __future__ import annotations

import koch_rig
from koch_rig.arm_model import KOCH_V1_1
from koch_rig.joints import joint_of, plain_joints
from koch_rig.model import urdf_limits
from koch_rig.rig import Role


def test_home_and_rest_lie_within_the_limits() -> None:
    limits = urdf_limits(Role.FOLLOWER)
    for pose in (KOCH_V1_1.home_rad, KOCH_V1_1.rest_rad):
        for name, angle in zip(KOCH_V1_1.joints, pose, strict=True):
            assert limits[name].lower <= angle <= limits[name].upper, name


def test_a_prefix_is_taken_away_where_all_names_have_it() -> None:
    assert plain_joints(["left_gripper", "left_wrist_roll"]) == ("gripper", "wrist_roll")
    assert plain_joints(["left_gripper"], "left_") == ("gripper",)
    assert (
        plain_joints(KOCH_V1_1.joints)
        == plain_joints(KOCH_V1_1.joints, "left_")
        == KOCH_V1_1.joints
    )
    for other in (
        ["left_gripper", "right_gripper"],
        ["left_gripper", "left_wheel"],
        ["wheel"],
        [],
    ):
        assert plain_joints(other) == tuple(other)
    assert plain_joints(["right_gripper"], "left_") == ("right_gripper",)


def test_an_element_is_named_after_a_joint_with_or_without_an_arm() -> None:
    for element in ("gripper", "left_gripper", "far_left_gripper"):
        found = joint_of(element)
        assert found is not None
        assert found[1] == found[0].gripper == "gripper"
    for other in ("wheel", "notgripper", "gripper_left", ""):
        assert joint_of(other) is None


def test_every_public_name_exists() -> None:
    for name in koch_rig.__all__:
        assert getattr(koch_rig, name) is not None
