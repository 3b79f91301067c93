# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The MoveIt configuration agrees with robot, rig and driver."""

from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from koch_moveit_config.collision_matrix import sample
from koch_moveit_config.parameters import (
    CONFIG,
    move_group_parameters,
    read_yaml,
    semantic_description,
)
from koch_rig.arm_model import KOCH_V1_1
from koch_rig.load import load_rig
from koch_rig.model import JOINT_LIMITS, robot_urdf

RIGS = sorted((Path(__file__).parents[3] / "config").glob("rig*.yaml"))


@pytest.fixture(scope="module")
def urdf():
    rig = load_rig(RIGS[0].with_name("rig.sim.yaml"))
    return robot_urdf(rig, "follower")


@pytest.fixture(scope="module")
def srdf():
    return ElementTree.fromstring(semantic_description("follower"))


def test_srdf_names_only_links_and_joints_of_the_urdf(urdf, srdf):
    robot = ElementTree.fromstring(urdf)
    links = {link.get("name") for link in robot.iter("link")}
    joints = {joint.get("name") for joint in robot.iter("joint")}
    for chain in srdf.iter("chain"):
        assert {chain.get("base_link"), chain.get("tip_link")} <= links
    for pair in srdf.iter("disable_collisions"):
        assert {pair.get("link1"), pair.get("link2")} <= links
    assert {joint.get("name") for joint in srdf.iter("joint")} <= joints
    assert {e.get("parent_link") for e in srdf.iter("end_effector")} <= links


def test_named_poses_are_complete_within_limits_and_the_shared_ones(srdf):
    poses = {}
    for state in srdf.iter("group_state"):
        values = {j.get("name"): float(j.get("value")) for j in state.iter("joint")}
        joints = KOCH_V1_1.arm_joints if state.get("group") == "arm" else (KOCH_V1_1.gripper,)
        assert tuple(values) == tuple(joints)
        for name, value in values.items():
            assert JOINT_LIMITS[name].lower <= value <= JOINT_LIMITS[name].upper
        poses[state.get("name")] = tuple(values.values())
    assert poses["home"] == KOCH_V1_1.home_rad[:-1]
    assert poses["rest"] == KOCH_V1_1.rest_rad[:-1]


def test_collision_matrix_is_what_sampling_gives(urdf, srdf):
    written = {
        (pair.get("link1"), pair.get("link2")): pair.get("reason")
        for pair in srdf.iter("disable_collisions")
    }
    assert written == {pair: reason.value for pair, reason in sample(urdf).items()}


def test_sampling_would_notice_a_pair_that_can_touch(urdf):
    assert ("follower/base_link", "follower/gripper_link") not in sample(urdf, samples=5000)


@pytest.mark.parametrize("path", RIGS, ids=lambda path: path.name)
def test_limits_are_the_guards(path):
    limits = load_rig(path).limits
    written = read_yaml("joint_limits.yaml")["joint_limits"]
    assert tuple(written) == KOCH_V1_1.joints
    for limit in written.values():
        assert limit["max_velocity"] == limits.max_speed
        assert limit["max_acceleration"] == limits.max_acceleration


def test_controllers_cover_every_joint_once():
    manager = read_yaml("moveit_controllers.yaml")["moveit_simple_controller_manager"]
    joints = [j for name in manager["controller_names"] for j in manager[name]["joints"]]
    assert tuple(joints) == KOCH_V1_1.joints


def test_a_joint_prefix_stands_wherever_a_joint_is_named(tmp_path):
    text = RIGS[0].with_name("rig.sim.yaml").read_text(encoding="utf-8")
    for name in ("calibration", "intrinsics"):
        text = text.replace(f"{name}: ", f"{name}: {RIGS[0].parent}/")
    text = text.replace("role: follower", "role: follower\n    joint_prefix: follower_")
    path = tmp_path / "rig.yaml"
    path.write_text(text, encoding="utf-8")
    _, parameters = move_group_parameters(str(path))
    named = {f"follower_{joint}" for joint in KOCH_V1_1.joints}
    urdf = ElementTree.fromstring(parameters["robot_description"])
    moving = {joint.get("name") for joint in urdf.iter("joint") if joint.get("type") != "fixed"}
    srdf = ElementTree.fromstring(parameters["robot_description_semantic"])
    manager = parameters["moveit_simple_controller_manager"]
    driven = {j for name in manager["controller_names"] for j in manager[name]["joints"]}
    limited = set(parameters["robot_description_planning"]["joint_limits"])
    assert moving == driven == limited == named
    assert {joint.get("name") for joint in srdf.iter("joint")} == named


def test_all_files_parse_and_parameters_are_complete():
    for path in CONFIG.glob("*.yaml"):
        assert yaml.safe_load(path.read_text()), path.name
    arm, parameters = move_group_parameters()
    assert arm == "follower"
    for pipeline in parameters["planning_pipelines"]:
        assert parameters[pipeline]["planning_plugins"]
    assert parameters["robot_description"].startswith("<?xml")
