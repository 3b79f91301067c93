# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Driver, teleop and guard under a /clock of another speed: stamps follow it, the bus does not."""

from __future__ import annotations

import threading
import time
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Any

import pytest
from control_msgs.action import FollowJointTrajectory
from rosgraph_msgs.msg import Clock
from trajectory_msgs.msg import JointTrajectoryPoint

from koch_driver.emulator import EmulatedChain, build_chain
from koch_rig.arm_model import KOCH_V1_1

if TYPE_CHECKING:
    from collections.abc import Iterator

    from koch_rig.rig import Rig

pytestmark = pytest.mark.ros
TICK_S = 0.02  # no finer than what other simulators do
START_S = 5000.0
PERIOD_S = 0.01


class FakeClock:
    """Publishes /clock at a speed that tests set."""

    def __init__(self, probe: Any) -> None:
        self.speed = 1.0
        self._value_s = START_S
        self._publisher = probe.create_publisher(Clock, "/clock", 10)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def now_ns(self) -> int:
        return int(self._value_s * 1e9)

    def close(self) -> None:
        self._stop.set()
        self._thread.join(1.0)

    def _run(self) -> None:
        last_s = time.monotonic()
        while not self._stop.wait(TICK_S):
            now_s = time.monotonic()
            self._value_s += self.speed * (now_s - last_s)
            last_s = now_s
            message = Clock()
            sec, nanosec = divmod(self.now_ns(), 1_000_000_000)
            message.clock.sec, message.clock.nanosec = sec, nanosec
            self._publisher.publish(message)


@pytest.fixture(scope="module")
def leader_arm(rig_ros: Rig, prompt: None) -> Iterator[EmulatedChain]:
    pose = [*(0.0,) * 5, -0.7]
    with build_chain(rig_ros, "leader", initial_rad=pose) as chain:
        yield chain


@pytest.fixture(scope="module")
def world(arm, leader_arm, processes, probe_maker) -> Iterator[tuple[Any, FakeClock]]:
    """Probe and clock, with the three nodes running on it."""
    for name, namespace, parameters in (
        ("follower", "follower", {"arm": "follower"}),
        ("leader", "leader", {"arm": "leader"}),
        ("teleop", "follower", {"leader": "leader", "engaged": "false"}),
    ):
        processes.start(name, namespace, use_sim_time="true", **parameters)
    with probe_maker() as probe:
        clock = FakeClock(probe)
        probe.now_ns = clock.now_ns
        assert probe.wait(lambda: len(probe.commands) > 10, 20.0), "the follower does not run"
        assert probe.clutch.wait_for_service(10.0)
        yield probe, clock
        clock.close()


@pytest.fixture(params=[0.5, 3.0], ids=["half", "triple"], scope="module")
def at_speed(world, request) -> tuple[Any, FakeClock, float]:
    """The same nodes at one speed after the other."""
    probe, clock = world
    clock.speed = request.param
    time.sleep(1.3)  # the stampers' line spans fifty ticks
    return probe, clock, request.param


def refused(probe: Any, source: str) -> int:
    return int(probe.diagnostics["follower: guard"][2].get(f"age/{source}", 0))


def test_stamps_follow_the_clock_and_the_bus_its_own_rate(at_speed) -> None:
    probe, _, speed = at_speed
    probe.states.clear()
    probe.commands.clear()
    time.sleep(1.0)
    states, goals = list(probe.states), list(probe.commands)
    assert len(states) <= 120
    for messages in (states, goals):
        stamps = [m.header.stamp.sec + 1e-9 * m.header.stamp.nanosec for m in messages]
        steps = [b - a for a, b in pairwise(stamps)]
        assert min(steps) >= 0.0  # 0: on a busy machine this clock stands still for moments
        assert median(steps) == pytest.approx(speed * PERIOD_S, rel=0.2)
        assert stamps[-1] - stamps[0] == pytest.approx(speed, rel=0.15)


def test_the_follower_follows_its_leader(at_speed, leader_arm: EmulatedChain) -> None:
    probe, _, speed = at_speed
    before = refused(probe, "teleop")
    assert probe.ask("clutch", True).success
    for tick in range(80):
        leader_arm.faults.hold("shoulder_pan", 0.5 * tick / 79 * (1 if speed < 1.0 else -1))
        time.sleep(0.01)
    goal = 0.5 if speed < 1.0 else -0.5
    assert probe.wait(lambda: abs(probe.pose[0] - goal) < 0.05, 3.0)
    assert probe.ask("clutch", False).success
    time.sleep(1.1)  # a report
    assert refused(probe, "teleop") == before
    latency_ms = float(probe.diagnostics["follower: guard"][2]["latency_teleop_p50_ms"])
    assert -50.0 < latency_ms < 60.0 * max(1.0, speed)


def test_ages_are_the_clocks_and_timeouts_are_ours(at_speed, bounds) -> None:
    """A command may be 0.2 s of the clock old; without any the arm holds after 0.3 s of ours."""
    probe, _, _ = at_speed
    pose = probe.pose
    far = [pose[0] - 1.2 if pose[0] > 0.0 else pose[0] + 1.2, *pose[1:]]
    before = refused(probe, "policy")
    for _ in range(15):
        probe.send(far, age=0.5)
        time.sleep(0.03)
    assert probe.pose == pytest.approx(pose, abs=0.03)
    assert probe.wait(lambda: refused(probe, "policy") >= before + 12, 2.5)
    before = refused(probe, "policy")
    begin_s = time.monotonic()
    while time.monotonic() - begin_s < 0.6:
        probe.send(far, age=0.05)
        time.sleep(0.03)
    assert any(probe.commands[-1].velocity)
    ended_s = time.monotonic()
    assert probe.wait(lambda: not any(probe.commands[-1].velocity), 2.0)
    assert 0.2 < time.monotonic() - ended_s < 0.8
    assert abs(probe.pose[0] - far[0]) > 0.3, "it arrived: nothing had to stop it"
    assert refused(probe, "policy") - before <= 3  # of the fifteen, not reported yet
    bounds.check(probe.commands)


def test_a_trajectory_takes_its_time_on_the_clock(at_speed) -> None:
    probe, _, _ = at_speed
    goal = FollowJointTrajectory.Goal()
    goal.trajectory.joint_names = list(KOCH_V1_1.joints[:1])
    away = 0.15 if probe.pose[0] < 0.0 else -0.15
    point = JointTrajectoryPoint(positions=[probe.pose[0] + away])
    point.time_from_start.sec = 1
    goal.trajectory.points.append(point)
    assert probe.follow_client.wait_for_server(5.0)
    probe.commands.clear()
    handle = probe.finish(probe.follow_client.send_goal_async(goal))
    result = probe.finish(handle.get_result_async(), 15.0)
    assert result.result.error_code == FollowJointTrajectory.Result.SUCCESSFUL
    moving = [
        stamp for m, stamp in zip(probe.commands, probe.stamps, strict=False) if any(m.velocity)
    ]
    assert moving[-1] - moving[0] == pytest.approx(1.0, abs=0.4)


def test_a_clock_that_stands_still_stops_no_safety(at_speed) -> None:
    probe, clock, speed = at_speed
    clock.speed = 0.0
    time.sleep(0.3)
    probe.states.clear()
    probe.diagnostics.clear()
    assert probe.wait(lambda: len(probe.states) > 20, 2.0)
    pose = probe.pose
    target = [pose[0] + (0.6 if pose[0] < 0.0 else -0.6), *pose[1:]]
    for _ in range(20):
        probe.send(target)  # all with one stamp
        time.sleep(0.03)
    assert any(probe.commands[-1].velocity)
    assert probe.wait(lambda: not any(probe.commands[-1].velocity), 2.0)
    assert "follower: bus" in probe.diagnostics, "reports come in wall time"
    clock.speed = speed
