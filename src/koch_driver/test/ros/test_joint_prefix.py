# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""An arm with a `joint_prefix`: topics and actions name its joints with it, or plainly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from control_msgs.action import FollowJointTrajectory
from control_msgs.msg import JointTolerance
from trajectory_msgs.msg import JointTrajectoryPoint

from koch_rig.arm_model import KOCH_V1_1

pytestmark = [pytest.mark.ros, pytest.mark.timing]
CONFIG = Path(__file__).resolve().parents[4] / "config"
NAMED = [f"follower_{joint}" for joint in KOCH_V1_1.joints]


@pytest.fixture(scope="module")
def probe(arm, processes, probe_maker, tmp_path_factory) -> Any:
    text = (CONFIG / "rig.emulated.yaml").read_text(encoding="utf-8")
    text = text.replace("calibration: ", f"calibration: {CONFIG}/")
    text = text.replace("role: follower", "role: follower\n    joint_prefix: follower_")
    rig = tmp_path_factory.mktemp("prefix") / "rig.yaml"
    rig.write_text(text, encoding="utf-8")
    processes.start("follower", "follower", arm="follower", rig=str(rig))
    with probe_maker() as node:
        assert node.wait(lambda: len(node.commands) > 10, 15.0), "the follower does not run"
        assert node.wait(lambda: node.ask("resume").success)
        yield node


def test_states_and_commands_carry_it(probe) -> None:
    assert list(probe.states[-1].name) == list(probe.commands[-1].name) == NAMED


@pytest.mark.parametrize("names", [NAMED, list(KOCH_V1_1.joints), NAMED[::-1]])
def test_a_command_is_matched_by_either_name(probe, names) -> None:
    target = list(probe.pose)
    target[0] += 0.2 if target[0] < 0.0 else -0.2
    sent = target[::-1] if names[0].endswith("gripper") else target
    for _ in range(60):
        probe.send(sent, names=names)
        if probe.wait(lambda: abs(probe.pose[0] - target[0]) < 0.03, 0.033):
            return
    raise AssertionError(f"at {probe.pose}, not at {target}")


def test_joints_of_another_arm_are_refused(probe) -> None:
    pose = probe.pose
    for _ in range(30):
        probe.send([0.5, *pose[1:]], names=[f"leader_{joint}" for joint in KOCH_V1_1.joints])
        probe.wait(lambda: False, 0.033)
    assert probe.pose == pytest.approx(pose, abs=0.03)
    said = " ".join(message for _, message, _ in probe.diagnostics.values())
    assert probe.wait(lambda: "leader_shoulder_pan" in str(probe.diagnostics), 3.0), said


def test_a_trajectory_is_matched_by_its_names(probe) -> None:
    names = [f"follower_{joint}" for joint in KOCH_V1_1.arm_joints]
    goal, seen = FollowJointTrajectory.Goal(), []
    goal.trajectory.joint_names = names
    target = [probe.pose[0] / 2, *probe.pose[1:5]]
    goal.trajectory.points = [JointTrajectoryPoint(positions=target)]
    goal.trajectory.points[0].time_from_start.sec = 1
    goal.path_tolerance = [JointTolerance(name=names[0], position=0.5)]
    assert probe.follow_client.wait_for_server(5.0)
    handle = probe.finish(probe.follow_client.send_goal_async(goal, lambda m: seen.append(m)))
    result = probe.finish(handle.get_result_async()).result
    assert result.error_code == FollowJointTrajectory.Result.SUCCESSFUL, result.error_string
    assert list(seen[-1].feedback.joint_names) == names
