# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The guard as a message: what it says, what it remembers beyond its process, whom it obeys."""

from __future__ import annotations

import math
import signal
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import rclpy
from koch_interfaces.msg import GuardRefusal, GuardStatus, GuardStop
from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool

from koch_driver.emulator import EmulatedChain, build_chain
from koch_driver.nodes.arm_setup import ArmSetup
from koch_rig.arm_model import KOCH_V1_1, Role
from koch_rig.units import Units
from koch_ros.qos import COMMAND, LATCHED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from koch_rig.rig import Rig

J = len(KOCH_V1_1.joints)
pytestmark = [pytest.mark.ros, pytest.mark.timing]


class Said:
    """The guard's words with the time of their arrival."""

    def __init__(self, node: Any) -> None:
        self.words: list[tuple[float, GuardStatus]] = []
        node.create_subscription(GuardStatus, "guard_status", self._take, LATCHED)

    def _take(self, message: GuardStatus) -> None:
        self.words.append((time.monotonic(), message))

    @property
    def last(self) -> GuardStatus:
        return self.words[-1][1]

    def refusal(self, source: str, reason: int) -> GuardRefusal | None:
        found = [r for r in self.last.refusals if (r.source, r.reason) == (source, reason)]
        return found[0] if found else None


@pytest.fixture(scope="module")
def said(session_probe: Any) -> Said:
    words = Said(session_probe)
    assert session_probe.wait(lambda: words.words)
    return words


@pytest.fixture
def other(session_probe: Any) -> Iterator[Any]:
    """Somebody else in the domain."""
    node = rclpy.create_node("other_student", namespace="/elsewhere")
    yield node
    node.destroy_node()


def test_a_stop_is_heard_at_once_and_counts_where_a_resume_follows(probe, said) -> None:
    before, begin = said.last.stop_count, time.monotonic()
    assert probe.ask("stop").success
    assert probe.ask("resume").success
    assert probe.wait(lambda: said.last.stop_count == before + 1, 0.3)
    stopped = [at for at, m in said.words if at > begin and m.stop_count == before + 1]
    assert stopped[0] - begin < 0.2
    assert probe.wait(lambda: said.last.mode == GuardStatus.HOLDING)


def test_the_one_who_drives_is_named(probe, said) -> None:
    pose = probe.pose
    for source in ("policy", "teleop"):
        probe.drive(lambda t: [pose[0] + 0.1 * t, *pose[1:]], 0.6, source=source)
        assert any(m.source == source and m.mode == GuardStatus.BLENDING for _, m in said.words)
        assert probe.wait(lambda: said.last.source == "")


def test_the_held_end_of_a_motion_drives_nobody_away(probe, said) -> None:
    begin = time.monotonic()
    assert probe.ask("home").success
    assert probe.wait(lambda: any(m.source == "trajectory" for at, m in said.words if at > begin))
    assert probe.wait(lambda: said.last.mode == GuardStatus.HOLDING, 8.0)
    time.sleep(0.6)
    assert (said.last.mode, said.last.source) == (GuardStatus.HOLDING, "")
    pose = probe.pose
    probe.drive(lambda t: pose, 0.5)
    assert said.last.source == "policy"


def test_stop_and_released_torque_survive_a_killed_driver(
    probe, said, processes, arm: EmulatedChain
) -> None:
    def respawn() -> None:
        processes.running[-1].kill()
        processes.running[-1].wait(5.0)
        states = len(probe.states)
        processes.start("follower", "follower", arm="follower")
        assert probe.wait(lambda: len(probe.states) > states + 10, 15.0)

    assert probe.ask("stop").success
    respawn()
    assert probe.wait(lambda: said.last.mode == GuardStatus.STOPPED)
    assert [stop.cause for stop in said.last.stops] == [GuardStop.REQUEST]
    pose = probe.pose
    probe.drive(lambda t: [pose[0] + 0.4, *pose[1:]], 0.5)
    assert probe.pose == pytest.approx(pose, abs=0.02)
    assert probe.ask("resume").success
    assert probe.ask("torque", False).success
    count = said.last.stop_count
    respawn()
    assert probe.wait(lambda: said.last.mode == GuardStatus.OFF)
    assert "torque service" in said.last.reason
    assert said.last.stop_count >= count
    assert not any(arm.servo(i).get("Torque_Enable") for i in range(1, 7))
    assert probe.ask("torque", True).success
    assert probe.wait(lambda: said.last.mode == GuardStatus.HOLDING)


@pytest.mark.parametrize(("source", "joint"), [("teleop", 0), ("policy", 2)])
def test_of_two_senders_neither_is_obeyed_until_one_has_gone(
    probe, said, bounds, other, source: str, joint: int
) -> None:
    home = probe.pose
    far = list(home)
    far[joint] += 0.8
    second = other.create_publisher(JointState, f"/follower/command/{source}", COMMAND)
    probe.drive(lambda t: home, 0.5, source=source)
    begin = time.monotonic()

    def both(t: float) -> list[float]:
        message = JointState(name=list(KOCH_V1_1.joints), position=far)
        message.header.stamp = other.get_clock().now().to_msg()
        second.publish(message)
        return home

    probe.drive(both, 1.5, source=source)
    assert probe.pose == pytest.approx(home, abs=0.05)
    refusal = said.refusal(source, GuardRefusal.SENDER)
    assert refusal is not None
    assert refusal.senders == ["/elsewhere/other_student", "/follower/probe"]
    named = [at for at, m in said.words if at > begin and any(
        r.source == source and "/elsewhere/other_student" in r.senders for r in m.refusals
    )]  # fmt: skip
    assert named[0] - begin < 1.0
    level, text, _ = probe.diagnostics["follower: guard"]
    assert level == b"\x01"
    assert "/elsewhere/other_student" in text
    other.destroy_publisher(second)
    goal = [home[0] - math.copysign(0.2, home[0]), *home[1:]]
    probe.drive_to(goal, source=source)
    assert probe.pose == pytest.approx(goal, abs=0.05)
    bounds.check(probe.commands)


def test_a_refused_command_names_reason_and_sender(probe, said) -> None:
    for names, positions, age, reason, word in (
        (KOCH_V1_1.joints[:1], [0.1], 0.0, GuardRefusal.NAMES, "gripper"),
        (KOCH_V1_1.joints, [math.nan] * J, 0.0, GuardRefusal.FINITE, "shoulder_pan is nan"),
        (KOCH_V1_1.joints, [0.0] * J, time.time(), GuardRefusal.AGE, "no stamp"),
    ):
        probe.send(positions, names=names, age=age, source="teleop")
        assert probe.wait(lambda r=reason: said.refusal("teleop", r), 1.0)
        found = said.refusal("teleop", reason)
        assert word in found.text
        assert list(found.senders) == ["/follower/probe"]


@pytest.mark.parametrize("askers", [1, 8])
@pytest.mark.parametrize("wishes", [(True,), (True, False), (False,)])
def test_of_many_requests_at_once_none_is_lost(
    probe, said, askers: int, wishes: tuple[bool, ...]
) -> None:
    """More than the ten that a service keeps by default, and quickly."""
    clients = [probe.create_client(SetBool, "torque") for _ in range(askers)]
    assert all(client.wait_for_service(5.0) for client in clients)
    futures = [
        clients[k % askers].call_async(SetBool.Request(data=wishes[k % len(wishes)]))
        for k in range(40)
    ]
    assert probe.wait(lambda: all(f.done() for f in futures), 8.0), (
        f"{sum(f.done() for f in futures)} of 40 answered"
    )
    assert all(f.result().success for f in futures), {f.result().message for f in futures}
    assert said.last.torque is wishes[-1] or probe.wait(lambda: said.last.torque is wishes[-1])
    for client in clients:
        probe.destroy_client(client)
    assert probe.ask("torque", True).success


@pytest.mark.slow
@pytest.mark.parametrize("opened_by", ["a person", "a stop"])
def test_an_open_enable_switch_survives_a_killed_teleop(
    probe, said, processes, rig_ros: Rig, opened_by: str
) -> None:
    """Anyone who opened it may have laid the leader down."""
    name = "teleop: leader to follower"

    def again(number: signal.Signals) -> None:
        processes.running[-1].send_signal(number)
        processes.running[-1].wait(8.0)
        probe.diagnostics.pop(name, None)
        processes.start("teleop", "follower", leader="leader")
        assert probe.wait(lambda: name in probe.diagnostics, 20.0)

    with build_chain(rig_ros, "leader"):
        processes.start("leader", "leader", arm="leader")
        processes.start("teleop", "follower", leader="leader")
        leader = processes.running[-2]
        assert probe.wait(lambda: said.last.source == "teleop", 20.0)
        again(signal.SIGKILL)
        assert probe.wait(lambda: said.last.source == "teleop", 5.0), "nobody had opened it"
        if opened_by == "a person":
            assert probe.ask("clutch", False).success
        else:
            assert probe.ask("stop").success
            assert probe.ask("resume").success
        assert probe.wait(lambda: said.last.source == "")
        for _ in range(2):
            again(signal.SIGKILL)
            assert "stays open" in probe.diagnostics[name][1]
            begin = time.monotonic()
            time.sleep(1.0)
            assert not any(m.source for at, m in said.words if at > begin)
        again(signal.SIGTERM)
        assert probe.wait(lambda: said.last.source == "teleop", 5.0), "ended on purpose"
        for process in (processes.running[-1], leader):
            process.terminate()
            assert process.wait(8.0) == 0


@pytest.mark.slow
def test_one_decides_the_hand_over_between_leader_and_follower(
    probe, said, processes, rig_ros: Rig
) -> None:
    back = probe.create_client(SetBool, "/leader/drive_back")

    def drive_back(on: bool) -> Any:
        assert back.wait_for_service(15.0)
        return probe.finish(back.call_async(SetBool.Request(data=on)))

    with build_chain(rig_ros, "leader", initial_rad=[0.3, 0.0, 0.0, 0.0, 0.0, -0.7]) as leader:
        processes.start("leader", "leader", arm="leader")
        processes.start("teleop", "follower", leader="leader")
        assert probe.wait(lambda: said.last.source == "teleop", 20.0)
        assert probe.wait(lambda: "human drives" in drive_back(True).message, 2.0)
        assert not any(leader.servo(i).get("Torque_Enable") for i in range(1, 6))
        assert probe.ask("stop").success
        assert probe.ask("resume").success  # so quickly that only the count tells
        assert probe.wait(lambda: said.last.source == "", 2.0)
        time.sleep(1.0)
        assert said.last.source == "", "teleop drives on after a stop"
        assert drive_back(True).success
        assert probe.wait(lambda: leader.servo(1).get("Torque_Enable") == 1, 2.0)
        time.sleep(0.3)
        refused = probe.ask("clutch", True)
        assert not refused.success
        assert "driven back" in refused.message
        assert drive_back(False).success
        assert probe.wait(lambda: probe.ask("clutch", True).success, 2.0)
        assert probe.wait(lambda: said.last.source == "teleop", 3.0)
        assert probe.ask("clutch", False).success
        for process in processes.running[-2:]:
            process.terminate()
            assert process.wait(8.0) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "pose",
    # Far from where a leader lies: it has a way to go before it is where the follower is.
    [[0.8, -0.6, -0.4, -1.0, 0.9, -0.6], [-1.4, -0.9, 0.9, 0.5, -1.8, -0.1]],
)
def test_a_squeezed_trigger_takes_over_from_a_policy_without_a_jump(
    probe, said, processes, bounds, rig_ros: Rig, pose: list[float]
) -> None:
    units = ArmSetup.load(str(rig_ros.path), "leader", Role.LEADER).units
    squeezed = float(units.to_rad(Units.LEROBOT, [0.0] * (J - 1) + [3.0])[-1])
    with build_chain(rig_ros, "leader", initial_rad=[-0.6, 0.1, 0.2, 0.0, 0.0, -0.7]) as leader:
        processes.start("leader", "leader", arm="leader")
        words = {"leader": "leader", "engaged": "false", "follow_policy": "true"}
        processes.start("teleop", "follower", **words)
        follows = lambda: leader.servo(1).get("Torque_Enable") == 1  # noqa: E731
        probe.drive(lambda _: pose, 30.0, until=follows)
        assert follows()
        probe.drive(lambda _: pose, 4.0)
        first = len(probe.commands)
        probe.drive(lambda _: pose, 0.5)
        leader.hold("gripper", squeezed)
        probe.drive(lambda _: pose, 6.0, until=lambda: said.last.source == "teleop")
        assert said.last.source == "teleop"
        assert not follows()
        probe.drive(lambda _: pose, 1.5)  # a policy that does not notice has no say
        assert said.last.source == "teleop"
        goals = np.array([message.position for message in probe.commands[first:]])
        assert np.ptp(goals[:, :-1], axis=0).max() < 0.05
        assert bounds.check(probe.commands[first:]) > 100
        leader.hold("gripper", None)
        assert probe.ask("clutch", False).success
        probe.drive(lambda _: pose, 6.0, until=follows)
        assert follows(), "the policy goes on, and the leader follows again"
        for process in processes.running[-2:]:
            process.terminate()
            assert process.wait(8.0) == 0
