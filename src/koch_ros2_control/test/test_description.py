# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The ros2_control tag and the controllers agree with the rig and the driver."""

import dataclasses
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from koch_rig.arm_model import KOCH_V1_1
from koch_rig.load import load_rig
from koch_rig.rig import Role
from koch_ros2_control import (
    ACTIVE_CONTROLLERS,
    LOADED_CONTROLLERS,
    controllers_file,
    robot_description,
)

CONFIG = Path(__file__).resolve().parents[3] / "config"
PLUGIN = "joint_state_topic_hardware_interface/JointStateTopicSystem"


@pytest.fixture(scope="module")
def rig():
    return load_rig(CONFIG / "rig.sim.yaml")


@pytest.fixture(scope="module")
def parameters():
    content = yaml.safe_load(controllers_file().read_text(encoding="utf-8"))
    return {key.removeprefix("/**/"): value["ros__parameters"] for key, value in content.items()}


def system(rig, **where):
    robot = ElementTree.fromstring(robot_description(rig, "follower", **where))
    (tag,) = robot.findall("ros2_control")
    return robot, tag


def test_every_joint_is_commanded_by_position_and_measured(rig):
    robot, tag = system(rig)
    assert [joint.get("name") for joint in tag.findall("joint")] == list(KOCH_V1_1.joints)
    for joint in tag.findall("joint"):
        assert [i.get("name") for i in joint.findall("command_interface")] == ["position"]
        states = [i.get("name") for i in joint.findall("state_interface")]
        assert states == ["position", "velocity", "effort"]
    known = {joint.get("name") for joint in robot.findall("joint")}
    assert set(KOCH_V1_1.joints) <= known


def test_a_joint_prefix_stands_in_description_and_controllers(rig):
    arm = dataclasses.replace(rig.arm("follower"), joint_prefix="follower_")
    rig = dataclasses.replace(rig, arms={**rig.arms, "follower": arm})
    robot, tag = system(rig)
    named = [f"follower_{joint}" for joint in KOCH_V1_1.joints]
    assert [joint.get("name") for joint in tag.findall("joint")] == named
    assert set(named) <= {joint.get("name") for joint in robot.findall("joint")}
    content = yaml.safe_load(controllers_file("follower_").read_text(encoding="utf-8"))
    plain = yaml.safe_load(controllers_file().read_text(encoding="utf-8"))
    for name in (*ACTIVE_CONTROLLERS, *LOADED_CONTROLLERS):
        own, usual = (c[f"/**/{name}"]["ros__parameters"] for c in (content, plain))
        assert own == {**usual, "joints": named}


@pytest.mark.parametrize("namespace", ["/", "/bench"])
def test_the_hardware_speaks_through_the_guard(rig, namespace):
    _, tag = system(rig, namespace=namespace)
    values = {item.get("name"): item.text for item in tag.find("hardware").findall("param")}
    prefix = namespace.rstrip("/")
    assert tag.find("hardware/plugin").text == PLUGIN
    assert values == {
        "joint_commands_topic": f"{prefix}/follower/command/trajectory",
        "joint_states_topic": f"{prefix}/follower/joint_states",
        "trigger_joint_command_threshold": "-1",
    }


def test_no_command_has_a_made_up_first_value(rig):
    _, tag = system(rig)
    assert not list(tag.iter("initial_value"))
    assert not [p for p in tag.iter("param") if p.get("name") == "initial_value"]


def test_controllers_claim_all_joints_and_none_speaks_on_joint_states(parameters):
    types = {
        k: v["type"] for k, v in parameters["controller_manager"].items() if k != "update_rate"
    }
    assert set(types) == {*ACTIVE_CONTROLLERS, *LOADED_CONTROLLERS}
    assert set(parameters) == {"controller_manager", *types}
    for name in types:
        assert parameters[name]["joints"] == list(KOCH_V1_1.joints)
    assert not any("broadcaster" in kind.lower() for kind in types.values())


def test_the_update_rate_is_the_bus_rate(rig, parameters):
    rates = {arm.rate_hz for arm in rig.arms.values() if arm.role is Role.FOLLOWER}
    assert rates == {parameters["controller_manager"]["update_rate"]}


def test_names_leave_the_drivers_actions_alone(parameters):
    assert not {"arm_controller", "gripper_controller"} & set(parameters)
