# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Trajectory and gripper actions, services and process life of the follower, over DDS."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from action_msgs.msg import GoalStatus
from control_msgs.action import FollowJointTrajectory, GripperCommand, ParallelGripperCommand
from control_msgs.msg import JointTolerance
from koch_interfaces.msg import NamedVector
from rclpy.action import ActionClient
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from koch_driver.emulator import EmulatedChain
from koch_rig.arm_model import KOCH_V1_1

if TYPE_CHECKING:
    from collections.abc import Sequence

J = len(KOCH_V1_1.joints)
pytestmark = pytest.mark.ros
ARM = KOCH_V1_1.joints[:5]
Result = FollowJointTrajectory.Result


def goal(
    joints: Sequence[str], *points: tuple[float, Sequence[float]], rest: bool = False
) -> FollowJointTrajectory.Goal:
    made = FollowJointTrajectory.Goal()
    made.trajectory.joint_names = list(joints)
    for seconds, positions in points:
        point = JointTrajectoryPoint(positions=[float(p) for p in positions])
        point.time_from_start.sec = int(seconds)
        point.time_from_start.nanosec = int((seconds % 1.0) * 1e9)
        if rest:
            point.velocities = [0.0] * len(joints)
            point.accelerations = [0.0] * len(joints)
        made.trajectory.points.append(point)
    return made


def start(probe: Any, request: FollowJointTrajectory.Goal, feedback: Any = None) -> Any:
    assert probe.follow_client.wait_for_server(5.0)
    handle = probe.finish(probe.follow_client.send_goal_async(request, feedback))
    assert handle.accepted
    return handle


def end(probe: Any, handle: Any) -> Any:
    return probe.finish(handle.get_result_async(), 15.0)


def near(probe: Any, shift: float) -> list[float]:
    """A pose of the arm's joints so far from the present one that it is surely allowed."""
    shifts = (shift, -0.4 * shift, 0.6 * shift, 0.8 * shift, shift)
    return [p - d if p > 0 else p + d for p, d in zip(probe.pose[:5], shifts, strict=True)]


def test_a_trajectory_is_followed_to_its_end(probe, bounds) -> None:
    target, seen = near(probe, 0.3), []
    handle = start(probe, goal(ARM, (1.0, target), rest=True), lambda m: seen.append(m.feedback))
    result = end(probe, handle)
    assert result.status == GoalStatus.STATUS_SUCCEEDED
    assert result.result.error_code == Result.SUCCESSFUL
    assert probe.pose[:5] == pytest.approx(target, abs=0.03)
    assert len(seen) > 5
    assert list(seen[-1].joint_names) == list(ARM)
    assert max(map(abs, seen[-1].error.positions)) < 0.3
    time.sleep(0.7)  # the end is held
    assert list(probe.commands[-1].position[:5]) == pytest.approx(target, abs=0.01)
    assert bounds.check(probe.commands) > 80


def test_a_subset_in_any_order_moves_only_its_joints(probe) -> None:
    pose = probe.pose
    wanted = [pose[3] + 0.2, pose[0] - 0.2]
    handle = start(probe, goal(["wrist_flex", "shoulder_pan"], (0.6, wanted)))
    assert end(probe, handle).result.error_code == Result.SUCCESSFUL
    # Without a goal tolerance, success means that the time is over: the arm arrives later.
    arrived = pytest.approx([wanted[1], pose[1], pose[2], wanted[0], pose[4], pose[5]], abs=0.04)
    assert probe.wait(lambda: probe.pose == arrived, 2.0), probe.pose
    time.sleep(0.3)
    assert probe.pose == arrived


@pytest.mark.parametrize(
    ("request_", "code", "words"),
    [
        (goal(["elbow"], (1.0, [0.0])), Result.INVALID_JOINTS, "unknown joint elbow"),
        (goal(ARM, (1.0, [0.0] * 4)), Result.INVALID_GOAL, "4 positions, expected 5"),
        (goal(ARM, (1.0, [0.0] * 5), (0.5, [0.0] * 5)), Result.INVALID_GOAL, "strictly increase"),
        (goal(ARM, (1.0, [9.0] * 5)), Result.INVALID_GOAL, "9.0000 rad, expected"),
        (goal(ARM), Result.INVALID_GOAL, "no points"),
    ],
)
def test_a_bad_trajectory_is_aborted_with_code_and_reason(probe, request_, code, words) -> None:
    pose = probe.pose
    result = end(probe, start(probe, request_))
    assert result.status == GoalStatus.STATUS_ABORTED
    assert result.result.error_code == code
    assert words in result.result.error_string
    time.sleep(0.2)
    assert probe.pose == pytest.approx(pose, abs=0.02)


def test_an_old_stamp_is_refused(probe) -> None:
    request = goal(ARM, (1.0, probe.pose[:5]))
    request.trajectory.header.stamp.sec = int(time.time()) - 10
    assert end(probe, start(probe, request)).result.error_code == Result.OLD_HEADER_TIMESTAMP


def test_cancel_brings_the_arm_to_rest(probe, bounds) -> None:
    handle = start(probe, goal(ARM, (3.0, near(probe, 1.0))))
    time.sleep(1.0)
    assert any(probe.commands[-1].velocity)
    probe.finish(handle.cancel_goal_async())
    assert end(probe, handle).status == GoalStatus.STATUS_CANCELED
    assert probe.wait(lambda: not any(probe.commands[-1].velocity), 2.0)
    bounds.check(probe.commands)


def test_a_newer_trajectory_preempts(probe, bounds) -> None:
    first = start(probe, goal(ARM, (3.0, near(probe, 1.0))))
    time.sleep(0.7)
    target = near(probe, 0.1)
    second = start(probe, goal(ARM, (1.0, target)))
    preempted = end(probe, first)
    assert preempted.status == GoalStatus.STATUS_ABORTED
    assert "preempted" in preempted.result.error_string
    assert end(probe, second).result.error_code == Result.SUCCESSFUL
    assert probe.pose[:5] == pytest.approx(target, abs=0.04)
    bounds.check(probe.commands)


def test_a_blocked_joint_violates_the_path_tolerance(probe, arm: EmulatedChain) -> None:
    arm.faults.hold("elbow_flex", probe.pose[2])
    request = goal(["elbow_flex"], (1.0, [near(probe, 0.8)[2]]))
    request.path_tolerance = [JointTolerance(name="elbow_flex", position=0.2)]
    result = end(probe, start(probe, request))
    arm.faults.hold("elbow_flex", None)
    assert result.result.error_code == Result.PATH_TOLERANCE_VIOLATED
    assert "elbow_flex" in result.result.error_string


def test_teleop_takes_over_from_a_trajectory(probe, bounds) -> None:
    handle = start(probe, goal(ARM, (3.0, near(probe, 0.5))))
    time.sleep(0.5)
    probe.send(probe.pose, source="teleop")
    result = end(probe, handle)
    assert "teleop took over" in result.result.error_string
    bounds.check(probe.commands)


def test_the_gripper_reaches_its_goal_or_refuses_it(probe) -> None:
    assert probe.grip_client.wait_for_server(5.0)
    for position, status in (
        (-1.0, GoalStatus.STATUS_SUCCEEDED),
        (2.0, GoalStatus.STATUS_ABORTED),
    ):
        request = GripperCommand.Goal()
        request.command.position = position
        handle = probe.finish(probe.grip_client.send_goal_async(request))
        result = end(probe, handle)
        assert result.status == status
        assert result.result.reached_goal == (status == GoalStatus.STATUS_SUCCEEDED)
    assert probe.pose[5] == pytest.approx(-1.0, abs=0.05)


def test_a_gripper_that_holds_something_is_stalled(probe, arm: EmulatedChain) -> None:
    arm.faults.hold("gripper", -0.8)
    request = GripperCommand.Goal()
    request.command.position = -0.4
    request.command.max_effort = 0.2
    result = end(probe, probe.finish(probe.grip_client.send_goal_async(request)))
    assert result.status == GoalStatus.STATUS_SUCCEEDED
    assert (result.result.stalled, result.result.reached_goal) == (True, False)
    assert probe.commands[-1].position[5] == pytest.approx(-0.4, abs=0.01)  # keeps pressing
    arm.faults.hold("gripper", None)


def test_the_result_says_what_the_guard_changed_on_the_way(probe, bounds) -> None:
    probe.go("shoulder_pan", 0.0)
    result = end(probe, start(probe, goal(ARM[:1], (1.2, [0.4]), rest=True))).result
    assert (result.error_code, result.error_string) == (Result.SUCCESSFUL, "")
    request = goal(ARM[:1], (0.1, [-0.6]))
    request.path_tolerance = [JointTolerance(name="shoulder_pan", position=-1.0)]
    result = end(probe, start(probe, request)).result
    assert result.error_code == Result.SUCCESSFUL
    assert "the guard changed the way: " in result.error_string
    assert "shoulder_pan" in result.error_string
    bounds.check(probe.commands)


@pytest.mark.parametrize(("joints", "positions"), [(ARM[:1], [0.5]), (ARM[2:4], [0.3, -0.2])])
def test_the_topic_moves_the_arm_as_an_action_does(probe, bounds, joints, positions) -> None:
    writer = probe.create_publisher(JointTrajectory, "arm_controller/joint_trajectory", 1)

    def there() -> bool:
        now = dict(zip(KOCH_V1_1.joints, probe.pose, strict=True))
        return all(abs(now[j] - p) < 0.04 for j, p in zip(joints, positions, strict=True))

    for _ in range(8):  # the first ones may come before the two have found each other
        writer.publish(goal(joints, (0.5, positions)).trajectory)
        if probe.wait(there, 1.0):
            break
    assert there()
    probe.destroy_publisher(writer)
    bounds.check(probe.commands)


def test_two_publishers_of_trajectories_move_nothing(probe) -> None:
    probe.go("shoulder_pan", 0.0)
    writers = [
        probe.create_publisher(JointTrajectory, "arm_controller/joint_trajectory", 1)
        for _ in range(2)
    ]
    assert probe.wait(lambda: all(w.get_subscription_count() for w in writers), 10.0)
    for writer in writers:  # empty ones move nothing, and show that both are heard
        for _ in range(20):
            writer.publish(JointTrajectory())
            time.sleep(0.02)
    pose = probe.pose

    def warned() -> bool:
        level, text, _ = probe.diagnostics["follower: guard"]
        return level == b"\x01" and "joint_trajectory" in text

    for sent in range(60):  # diagnostics come once a second
        for writer, angle in zip(writers, (-1.0, 1.0), strict=True):
            writer.publish(goal(ARM[:1], (0.5, [angle])).trajectory)
        time.sleep(0.05)
        if sent >= 20 and warned():
            break
    assert probe.pose == pytest.approx(pose, abs=0.05)
    assert warned(), probe.diagnostics["follower: guard"]
    for writer in writers:
        probe.destroy_publisher(writer)


@pytest.mark.parametrize("names", [[], ["gripper"]])
def test_the_parallel_gripper_action_moves_the_gripper(probe, names: list[str]) -> None:
    client = ActionClient(probe, ParallelGripperCommand, "parallel_gripper_controller/gripper_cmd")
    assert client.wait_for_server(5.0)
    request = ParallelGripperCommand.Goal()
    request.command.name, request.command.position = names, [-0.9 if names else -0.6]
    result = end(probe, probe.finish(client.send_goal_async(request)))
    assert result.status == GoalStatus.STATUS_SUCCEEDED
    assert result.result.reached_goal
    assert list(result.result.state.name) == ["gripper"]
    assert result.result.state.position[0] == pytest.approx(request.command.position[0], abs=0.05)
    request.command.name = ["jaw"]
    assert end(probe, probe.finish(client.send_goal_async(request))).status == (
        GoalStatus.STATUS_ABORTED
    )
    client.destroy()


def test_stop_holds_until_resume(probe, bounds) -> None:
    handle = start(probe, goal(ARM, (3.0, near(probe, 1.0))))
    time.sleep(0.7)
    assert probe.ask("stop").success
    assert "stopped" in end(probe, handle).result.error_string
    assert probe.wait(lambda: not any(probe.commands[-1].velocity), 2.0)
    assert "stopped" in end(probe, start(probe, goal(ARM, (1.0, [0.0] * 5)))).result.error_string
    assert not probe.ask("home").success
    assert probe.ask("resume").success
    bounds.check(probe.commands)


def test_of_forty_trajectories_at_once_each_has_an_end_and_one_is_followed(probe, bounds) -> None:
    target = near(probe, 0.2)
    assert probe.follow_client.wait_for_server(5.0)
    sent = [probe.follow_client.send_goal_async(goal(ARM, (1.0, target))) for _ in range(40)]
    assert probe.wait(lambda: all(f.done() for f in sent), 8.0), sum(f.done() for f in sent)
    ends = [f.result().get_result_async() for f in sent]
    assert probe.wait(lambda: all(f.done() for f in ends), 8.0), sum(f.done() for f in ends)
    results = [f.result().result for f in ends]
    followed = [r for r in results if r.error_code == Result.SUCCESSFUL]
    assert len(followed) == 1
    assert all("preempted" in r.error_string for r in results if r not in followed)
    assert probe.pose[:5] == pytest.approx(target, abs=0.04)
    bounds.check(probe.commands)


def test_home_moves_to_the_home_pose(probe, bounds) -> None:
    assert probe.ask("home").success
    assert probe.wait(lambda: probe.pose == pytest.approx(KOCH_V1_1.home_rad, abs=0.06), 6.0)
    bounds.check(probe.commands)


def test_without_torque_nothing_is_commanded(probe) -> None:
    assert probe.ask("torque", False).success
    time.sleep(0.1)
    probe.commands.clear()
    states = len(probe.states)
    probe.send([0.3] * J)
    assert probe.wait(lambda: len(probe.states) > states + 20)
    assert not probe.commands
    assert (
        "torque is off"
        in end(probe, start(probe, goal(ARM, (1.0, [0.0] * 5)))).result.error_string
    )
    assert probe.ask("torque", True).success
    assert probe.wait(lambda: probe.commands)
    assert probe.commands[0].position == pytest.approx(probe.pose, abs=0.02)


def test_a_policys_commands_tell_when_they_were_decided_and_written(probe) -> None:
    traces: list[NamedVector] = []
    listener = probe.create_subscription(NamedVector, "command_trace", traces.append, 100)
    assert probe.wait(listener.get_publisher_count, 10.0)
    probe.drive(lambda _: probe.pose, 0.5, source="teleop")
    time.sleep(1.0)  # teleop's source timeout is over
    assert not traces
    probe.drive(lambda _: probe.pose, 1.0)
    assert probe.wait(lambda: len(traces) > 10, 2.0)
    probe.destroy_subscription(listener)
    for trace in traces:
        said = dict(zip(trace.name, trace.value, strict=True))
        assert 0.0 < said["guard"] < said["bus"] < 0.5
        assert trace.header.frame_id == "policy"


def test_both_nodes_of_the_process_keep_their_names(probe) -> None:
    names = set(probe.get_node_names_and_namespaces())
    assert {("driver", "/follower"), ("arm_controller", "/follower")} <= names


def test_diagnostics_name_what_the_issue_asks(probe) -> None:
    assert probe.wait(lambda: len(probe.diagnostics) >= 8, 4.0)
    bus = probe.diagnostics["follower: bus"][2]
    assert {
        "bus_retries",
        "bus_crc_errors",
        "cycle_p50_ms",
        "cycle_p99_ms",
        "missed_cycles",
    } <= set(bus)
    motor = probe.diagnostics["follower: motor wrist_roll"][2]
    assert float(motor["temperature_c"]) > 10.0
    assert float(motor["voltage_v"]) == pytest.approx(5.0, abs=0.5)
    assert motor["hardware_error"] == "none"


def test_a_wrong_configuration_ends_with_code_two(processes) -> None:
    process = processes.start("follower", "follower", arm="leader")
    assert process.wait(15.0) == 2
    assert "a follower of" in process.stderr.read()


@pytest.mark.slow
def test_an_absent_port_is_waited_for_and_sigterm_ends_cleanly(processes, probe) -> None:
    process = processes.start("leader", "leader", arm="leader")  # nobody emulates it now
    name = "leader: bus"
    probe.diagnostics.pop(name, None)
    assert probe.wait(lambda: probe.diagnostics.get(name, (b"\x00",))[0] == b"\x02", 15.0)
    assert process.poll() is None
    process.terminate()
    assert process.wait(5.0) == 0
