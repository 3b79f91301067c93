# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Transforms between links."""

from __future__ import annotations

import math

import pytest
from rosbags.typesys import Stores, get_typestore

from koch_episodes.bag.messages import TRANSFORMS, MessageMaker, revolute_joints
from koch_rig.load import load_rig
from koch_rig.model import published_urdf
from koch_vla.link_tree import LinkTree

URDF = """
<robot name="two"><link name="world"/>
<link name="a/base"/><joint name="mount" type="fixed"><parent link="world"/><child link="a/base"/>
  <origin xyz="1 2 3" rpy="0 0 1.5707963267948966"/></joint>
<link name="a/arm"><inertial><mass value="1"/><inertia ixx="1" iyy="1" izz="1" ixy="0" ixz="0"
  iyz="0"/></inertial></link>
<joint name="turn" type="revolute"><parent link="a/base"/><child link="a/arm"/>
  <origin xyz="0.5 0 0"/><axis xyz="0 0 1"/>
  <limit lower="-3" upper="3" effort="1" velocity="1"/></joint>
<link name="a/tip"/><joint name="tip" type="fixed"><parent link="a/arm"/><child link="a/tip"/>
  <origin xyz="0 0 0.25"/></joint>
</robot>
"""


@pytest.fixture(scope="module")
def tree():
    return LinkTree(URDF)


def test_every_link_has_its_parent(tree):
    assert tree.parents() == {"a/base": "world", "a/arm": "a/base", "a/tip": "a/arm"}
    assert tree.joint_names == ("turn",)
    assert tree.links == ("world", "a/base", "a/arm", "a/tip")


def test_fixed_poses_are_those_of_the_description(tree):
    base, tip = tree.static_poses()
    assert (base.parent, base.child) == ("world", "a/base")
    assert base.xyz == pytest.approx((1, 2, 3))
    assert base.xyzw == pytest.approx((0, 0, math.sqrt(0.5), math.sqrt(0.5)))
    assert (tip.parent, tip.child, tip.xyz) == ("a/arm", "a/tip", pytest.approx((0, 0, 0.25)))


@pytest.mark.parametrize("angle", [0.0, 0.5, -2.0, math.pi])
def test_a_moving_pose_follows_its_joint(tree, angle):
    (pose,) = tree.moving_poses({"turn": angle, "somebody_else": 1.0})
    assert (pose.parent, pose.child) == ("a/base", "a/arm")
    assert pose.xyz == pytest.approx((0.5, 0, 0))
    assert pose.xyzw == pytest.approx((0, 0, math.sin(angle / 2), math.cos(angle / 2)))


@pytest.mark.parametrize("positions", [{}, {"turn": math.nan}, {"turn": math.inf}, {"other": 1.0}])
def test_no_pose_is_invented_for_an_unknown_angle(tree, positions):
    assert tree.moving_poses(positions) == []


def test_bags_of_datasets_hold_the_frames_that_the_graph_publishes(repository):
    """`koch convert --to-bag` works out /tf without Pinocchio, as pip installs it without ROS."""
    rig = load_rig(repository / "config/rig.sim.yaml")
    maker = MessageMaker()
    decode = get_typestore(Stores.ROS2_JAZZY).deserialize_cdr
    for arm in rig.arms:
        urdf = published_urdf(rig, arm)
        tree, joints = LinkTree(urdf), revolute_joints(urdf)
        angles = {name: 0.3 * k - 0.9 for k, name in enumerate(tree.joint_names)}
        message = decode(maker.moving_frames(1_500_000_000, joints, angles), TRANSFORMS)
        found = {each.child_frame_id: each for each in message.transforms}
        wanted = tree.moving_poses(angles)
        assert {pose.child for pose in wanted} == set(found)
        for pose in wanted:
            each = found[pose.child]
            assert each.header.frame_id == pose.parent
            place, turn = each.transform.translation, each.transform.rotation
            assert (place.x, place.y, place.z) == pytest.approx(pose.xyz, abs=1e-9)
            product = sum(
                one * two
                for one, two in zip(pose.xyzw, (turn.x, turn.y, turn.z, turn.w), strict=True)
            )
            assert abs(product) == pytest.approx(1.0, abs=1e-9)
