# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The node graph: what a rig and options make of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from koch_rig.load import load_rig
from koch_ros.shared_topics import SHARED_TOPICS
from koch_vla.errors import (
    GraphError,
    NotSimulatedError,
    ParameterFileError,
    UnknownNodeError,
)
from koch_vla.executables import ros_arguments
from koch_vla.graph import GraphOptions, NodeSpec, build_graph, start_order
from koch_vla.preflight import check_files
from koch_vla.settings import Setting, parse_setting

FIRST_ORDER = "simulation: {physics: first_order, seed: 3}"
MUJOCO = "simulation: {physics: mujoco, seed: 3}"
REAL = [
    "/robot_state_publisher",
    "/follower/driver",
    "/leader/driver",
    "/cameras/above",
    "/cameras/wrist",
    "/follower/teleop",
]


@pytest.fixture
def rig(write_rig):
    return load_rig(write_rig())


@pytest.fixture
def simulated(write_rig):
    return load_rig(write_rig(MUJOCO))


def by_name(nodes):
    return {node.full_name: node for node in nodes}


def test_a_real_rig_has_a_node_for_each_arm_camera_and_leader(rig):
    nodes = by_name(build_graph(rig))
    assert sorted(nodes) == sorted(REAL)
    assert nodes["/follower/driver"].executable == "follower"
    assert nodes["/leader/driver"].executable == "leader"
    assert nodes["/leader/driver"].parameters == {"rig": str(rig.path), "arm": "leader"}
    assert nodes["/follower/teleop"].parameters["leader"] == "leader"
    assert nodes["/cameras/wrist"].parameters["camera"] == "wrist"


def test_first_order_physics_start_the_emulator_and_mujoco_the_world(write_rig):
    rig = load_rig(write_rig(FIRST_ORDER))
    emulator = by_name(build_graph(rig))["/emulator"]
    assert emulator.arguments == ("--rig", str(rig.path))
    rig = load_rig(write_rig(MUJOCO))
    world = by_name(build_graph(rig, GraphOptions(expert=True)))["/world"]
    assert world.parameters == {"rig": str(rig.path), "seed": 3, "speed": 1.0, "expert": True}


def test_drivers_and_cameras_start_after_the_world(simulated):
    order = [node.full_name for node in build_graph(simulated)]
    for name in ("/follower/driver", "/leader/driver", "/cameras/above"):
        assert order.index("/world") < order.index(name)
    assert order.index("/leader/driver") < order.index("/follower/teleop")


def test_a_world_that_runs_elsewhere_is_not_started(simulated):
    assert "/world" not in by_name(build_graph(simulated, GraphOptions(sim=False)))


def test_other_speeds_put_all_nodes_but_the_world_on_its_clock(simulated):
    nodes = build_graph(simulated, GraphOptions(speed=4.0))
    for node in nodes:
        assert node.parameters.get("use_sim_time", False) is (node.name != "world")
    assert by_name(nodes)["/world"].parameters["speed"] == 4.0
    assert not any("use_sim_time" in node.parameters for node in build_graph(simulated))


def test_recorder_policy_and_viewer_come_when_asked(rig):
    options = GraphOptions(
        record=True, record_root="/data", policy="/ckpt", rviz=True, shadow=True
    )
    nodes = by_name(build_graph(rig, options))
    assert nodes["/recorder"].parameters == {"rig": str(rig.path), "root": "/data"}
    assert nodes["/policy"].parameters["checkpoint"] == "/ckpt"
    assert nodes["/policy"].parameters["shadow"] is True
    assert nodes["/rviz2"].respawn is False
    assert "/follower/teleop" not in by_name(build_graph(rig, GraphOptions(teleop=False)))


def test_the_ros_state_publisher_gets_one_node_for_each_arm(rig):
    nodes = by_name(build_graph(rig, GraphOptions(ros_state_publisher=True)))
    assert "/robot_state_publisher" not in nodes
    follower = nodes["/follower/robot_state_publisher"]
    assert follower.package == "robot_state_publisher"
    assert "follower/gripper_link" in follower.parameters["robot_description"]
    assert follower.remappings == (("robot_description", "/robot_description"),)
    assert nodes["/leader/robot_state_publisher"].remappings == ()
    assert "/policy/ghost/robot_state_publisher" not in nodes


def test_the_ros_state_publisher_of_the_ghost_comes_with_the_policy(rig):
    options = GraphOptions(ros_state_publisher=True, policy="/somewhere")
    nodes = by_name(build_graph(rig, options))
    ghost = nodes["/policy/ghost/robot_state_publisher"]
    follower = nodes["/follower/robot_state_publisher"]
    assert ghost.parameters["robot_description"] == follower.parameters["robot_description"]
    assert ghost.parameters["frame_prefix"] == "ghost/"
    assert nodes["/policy/ghost_world"].arguments[-1] == "ghost/world"


def test_each_arm_of_a_policy_of_two_has_a_ghost(repository):
    rig = load_rig(repository / "config" / "rig.two_arms.yaml")
    nodes = by_name(build_graph(rig, GraphOptions(ros_state_publisher=True, policy="/somewhere")))
    for arm in ("left", "right"):
        ghost = nodes[f"/policy/ghost/{arm}/robot_state_publisher"]
        assert ghost.remappings == (("joint_states", "/policy/ghost/joint_states"),)
        described = ghost.parameters["robot_description"]
        assert f'name="{arm}_wrist_roll"' in described
        assert f'"{arm}/gripper_link"' in described


@pytest.mark.parametrize(
    ("only", "kept"),
    [
        ("leader", ["/leader/driver"]),
        ("koch_cameras", ["/cameras/above", "/cameras/wrist"]),
        ("cameras", ["/cameras/above", "/cameras/wrist"]),
        ("/follower/driver", ["/follower/driver"]),
        ("driver", ["/follower/driver", "/leader/driver"]),
        ("above,teleop", ["/cameras/above", "/follower/teleop"]),
    ],
)
def test_only_keeps_what_its_names_stand_for(rig, only, kept):
    nodes = build_graph(rig, GraphOptions(only=tuple(only.split(","))))
    assert sorted(node.full_name for node in nodes) == kept


def test_the_console_is_there_when_it_is_asked_for(rig):
    assert "/console" not in by_name(build_graph(rig, GraphOptions()))
    node = by_name(build_graph(rig, GraphOptions(console=True, record_root="/episodes")))[
        "/console"
    ]
    assert (node.package, node.executable) == ("koch_console", "console")
    assert node.parameters == {"rig": str(rig.path), "root": "/episodes"}


def test_a_wrong_only_lists_the_choices(rig):
    with pytest.raises(UnknownNodeError, match=r"--only gripper.*cameras/above"):
        build_graph(rig, GraphOptions(only=("gripper",)))


def test_a_setting_reaches_the_nodes_that_it_names(rig):
    settings = tuple(
        parse_setting(text)
        for text in (
            "driver.allow_drift=true",
            "/follower/driver.on_exit=rest",
            "teleop.threshold=0.5",
            "teleop.threshold=0.6",
            "follower/driver.home_pose=[0.0, -0.5, 0.5, 0.0, 0.0, 0.0]",
        )
    )
    nodes = by_name(build_graph(rig, GraphOptions(settings=settings)))
    follower, leader = nodes["/follower/driver"].parameters, nodes["/leader/driver"].parameters
    assert follower["allow_drift"] is leader["allow_drift"] is True
    assert follower["on_exit"] == "rest"
    assert follower["home_pose"] == (0.0, -0.5, 0.5, 0.0, 0.0, 0.0)
    assert follower["arm"] == "follower"
    assert "on_exit" not in leader
    assert nodes["/follower/teleop"].parameters["threshold"] == 0.6


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("on_exit=rest", "such as follower/driver"),
        ("driver.on_exit", "such as follower/driver"),
        ("driver.on_exit=", "a number, a text"),
        ("driver.on_exit={a: b}", "a number, a text"),
        ("driver.on_exit=[", "in YAML"),
        ("driver.move_speed=.nan", "a number"),
        ("driver.home_pose=[[0.0]]", "a list of them"),
    ],
)
def test_a_setting_that_cannot_be_read_is_refused(text, said):
    with pytest.raises(GraphError, match=rf"--set .*{said}"):
        parse_setting(text)


def test_a_setting_for_no_node_lists_the_choices(rig):
    with pytest.raises(UnknownNodeError, match=r"--set arm: no node.*follower/driver"):
        build_graph(rig, GraphOptions(settings=(parse_setting("arm.on_exit=rest"),)))


def test_servos_in_real_time_have_no_other_speed(write_rig):
    rig = load_rig(write_rig(FIRST_ORDER))
    with pytest.raises(GraphError, match=r"--speed 0.5: .*real time.*physics: mujoco"):
        build_graph(rig, GraphOptions(speed=0.5))


@pytest.mark.parametrize("options", [{"sim": True}, {"expert": True}, {"speed": 2.0}])
def test_simulation_options_need_a_simulated_rig(rig, options):
    with pytest.raises(NotSimulatedError, match=r"rig\.sim\.yaml"):
        build_graph(rig, GraphOptions(**options))


@pytest.mark.parametrize("speed", [0.0, -1.0, float("nan"), float("inf")])
def test_a_senseless_speed_is_refused(speed):
    with pytest.raises(GraphError, match="speed"):
        GraphOptions(speed=speed)


def test_nodes_that_need_each_other_are_refused():
    a = NodeSpec("p", "a", "a", needs=("/b",))
    b = NodeSpec("p", "b", "b", needs=("/a",))
    with pytest.raises(GraphError, match="/a, /b"):
        start_order([a, b])


def test_two_nodes_of_one_name_are_refused():
    with pytest.raises(GraphError, match="/a"):
        start_order([NodeSpec("p", "x", "a"), NodeSpec("p", "y", "a")])


def test_parameters_of_a_node_cannot_be_changed():
    given = {"rig": "a"}
    node = NodeSpec("p", "x", "a", parameters=given)
    given["rig"] = "b"
    assert node.parameters["rig"] == "a"
    with pytest.raises(TypeError):
        node.parameters["rig"] = "c"


def test_every_simulated_file_of_the_repository_makes_a_graph(repository):
    for name in ("rig.yaml", "rig.sim.yaml", "rig.emulated.yaml"):
        nodes = build_graph(load_rig(repository / "config" / name))
        assert {"/follower/driver", "/leader/driver"} <= set(by_name(nodes))


def test_a_namespace_moves_the_whole_rig(rig):
    plain = {node.full_name: node for node in build_graph(rig, GraphOptions(rviz=True))}
    moved = {n.full_name: n for n in build_graph(rig, GraphOptions(rviz=True, namespace="/a/b/"))}
    assert set(moved) == {f"/a/b{name}" for name in plain}
    for name, node in plain.items():
        other = moved[f"/a/b{name}"]
        assert other.parameters == node.parameters
        assert other.needs == tuple(f"/a/b{need}" for need in node.needs)
        topics = dict(other.remappings)
        assert all(topics[topic] == f"/a/b{topic}" for topic in SHARED_TOPICS)
        assert all(to.startswith("/a/b/") for to in topics.values())


def test_two_namespaces_share_no_name(rig):
    left, right = (build_graph(rig, GraphOptions(namespace=name)) for name in ("left", "right"))
    assert not {node.full_name for node in left} & {node.full_name for node in right}


def test_only_and_settings_know_the_names_of_the_rig_in_a_namespace(rig):
    setting = Setting("follower/driver", "on_exit", "rest")
    nodes = build_graph(
        rig, GraphOptions(namespace="left", only=("follower/driver",), settings=(setting,))
    )
    assert [node.full_name for node in nodes] == ["/left/follower/driver"]
    assert nodes[0].parameters["on_exit"] == "rest"


@pytest.mark.parametrize("name", ["1st", "a b", "a//b", "a-b", "~"])
def test_a_namespace_that_ros_would_refuse_is_refused_first(name):
    with pytest.raises(GraphError, match="namespace"):
        GraphOptions(namespace=name)


def test_ros2_control_runs_a_manager_for_each_follower(simulated):
    options = GraphOptions(ros2_control=True, ros_state_publisher=True, namespace="bench")
    nodes = by_name(build_graph(simulated, options))
    manager = nodes["/bench/follower/controller_manager"]
    assert manager.needs == ("/bench/follower/driver",)
    assert dict(manager.remappings)["robot_description"] == "/bench/robot_description"
    urdf = nodes["/bench/follower/robot_state_publisher"].parameters["robot_description"]
    assert ">/bench/follower/command/trajectory<" in urdf
    assert (
        "ros2_control"
        not in nodes["/bench/leader/robot_state_publisher"].parameters["robot_description"]
    )
    for name in ("active", "loaded"):
        spawner = nodes[f"/bench/follower/spawner_{name}"]
        assert spawner.needs == ("/bench/follower/controller_manager",)


def test_ros2_control_needs_a_ros_installation():
    with pytest.raises(GraphError, match="robot_state_publisher"):
        GraphOptions(ros2_control=True)


def test_every_node_reads_the_parameter_file_last_and_logs_at_the_level(rig):
    options = GraphOptions(params_file="/tmp/mine.yaml", log_level="error")
    for node in build_graph(rig, options):
        words = ros_arguments(node, Path("/tmp/own.yaml"))
        files = [words[i + 1] for i, word in enumerate(words) if word == "--params-file"]
        assert files == ["/tmp/own.yaml", "/tmp/mine.yaml"]
        assert words[-2:] == ["--log-level", "error"]


def test_an_unknown_log_level_is_refused():
    with pytest.raises(GraphError, match="debug, info, warn, error, fatal"):
        GraphOptions(log_level="loud")


PARAMETERS = "{ros__parameters: {on_exit: rest}}"


@pytest.mark.parametrize("key", ["/follower/driver", "follower/driver", "/**", "/**/driver"])
def test_a_parameter_file_may_name_nodes_as_ros_does(rig, tmp_path, key):
    path = tmp_path / "mine.yaml"
    path.write_text(f"{key}: {PARAMETERS}")
    check_parameters(path, rig)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"/folower/driver: {PARAMETERS}", "/folower/driver names none of"),
        ("/follower/driver: {on_exit: rest}", "/follower/driver has no ros__parameters"),
        ("- 1", "holds no mapping"),
        ("a: [", "cannot be read"),
        (None, "cannot be read"),
    ],
)
def test_a_parameter_file_that_would_set_nothing_is_refused(rig, tmp_path, text, words):
    path = tmp_path / "mine.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ParameterFileError, match=words):
        check_parameters(path, rig)


def check_parameters(path, rig):
    """Check the file against the nodes alone: the test's rig has no calibration files."""
    nodes = [node for node in build_graph(rig) if node.package == "koch_driver"]
    unread = [replace(node, parameters={}) for node in nodes]
    check_files(rig, unread, str(path))
