# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""How old a sample may be that the bridge hands out: 0.5 s, or what the rig allows beyond."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from koch_rig.arm_model import KOCH_V1_1
from koch_rig.load import load_rig
from koch_vla.bridge import Refused

pytestmark = pytest.mark.ros

NS = 1_000_000_000
MAX_AGE = "follower/joint_states: {max_age_ms: 50}"
Say = Callable[[float], None]


@pytest.fixture
def bridged(calibrated: Callable[[], Path]) -> Iterator[Callable[[str], tuple[object, Say]]]:
    """A bridge for a rig whose stream of states is so, and what publishes a state so old, [s]."""
    from sensor_msgs.msg import JointState

    from koch_ros.qos import STATE
    from koch_vla.nodes.bridge import GraphRobot

    robots: list[GraphRobot] = []

    def start(stream: str) -> tuple[GraphRobot, Say]:
        path = calibrated()
        path.write_text(path.read_text().replace(MAX_AGE, stream))
        robot = GraphRobot(load_rig(path))
        robots.append(robot)
        node = robot._session.node  # beside its own subscriptions: one process, one executor
        publisher = node.create_publisher(JointState, "follower/joint_states", STATE)

        def say(age_s: float) -> None:
            stamp_ns = time.time_ns() - round(age_s * NS)
            message = JointState(name=list(KOCH_V1_1.joints), position=[0.0] * 6)
            message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, NS)
            heard = dict(robot._newest)
            assert robot._session.spin_until(lambda: publisher.get_subscription_count() > 0, 5.0)
            publisher.publish(message)
            assert robot._session.spin_until(lambda: robot._newest != heard, 5.0)

        return robot, say

    yield start
    for robot in robots:
        robot.close()


def test_nothing_yet_is_said(bridged) -> None:
    robot, _ = bridged(MAX_AGE)
    with pytest.raises(Refused, match="follower/joint_states: nothing yet"):
        robot.observe()


def test_half_a_second_is_allowed_where_the_rig_allows_less(bridged) -> None:
    robot, say = bridged(MAX_AGE)
    say(0.1)
    assert np.isfinite(robot.observe()["state"]).all()
    say(1.0)
    with pytest.raises(Refused, match=r"nothing for 1\.\d s, by its stamp; 0\.5 s are allowed"):
        robot.observe()
    say(0.0)
    robot.observe()
    time.sleep(0.7)  # nothing more comes
    with pytest.raises(Refused, match=r"nothing for 0\.\d s, by its stamp; 0\.5 s are allowed"):
        robot.observe()


def test_the_rig_may_allow_more(bridged) -> None:
    robot, say = bridged("follower/joint_states: {max_age_ms: 3000}")
    say(1.0)
    robot.observe()
    say(4.0)
    with pytest.raises(Refused, match=r"nothing for 4\.\d s, by its stamp; 3 s are allowed"):
        robot.observe()


def test_the_offset_of_a_stream_counts(bridged) -> None:
    """A stream that says when it was sent, a second late, is as old as what it shows."""
    robot, say = bridged("follower/joint_states: {max_age_ms: 50, offset_ms: -1000}")
    say(0.0)
    with pytest.raises(Refused, match=r"nothing for 1\.\d s"):
        robot.observe()


def test_a_stamp_in_the_future_is_refused(bridged) -> None:
    robot, say = bridged(MAX_AGE)
    say(-0.2)
    robot.observe()
    say(-5.0)
    with pytest.raises(Refused, match=r"stamped [45]\.\d s in the future. Do both computers'"):
        robot.observe()
