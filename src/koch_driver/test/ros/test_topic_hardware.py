# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What ros2_control's topic hardware sends drives the follower, within the guard's bounds.

ros2_control is on no Python registry. The node here speaks as its JointStateTopicSystem does:
states with sensor-data QoS, commands for all joints with the time of sending, reliable with depth
1, in every cycle (threshold -1), NaN until a controller has claimed the joints.
Source: ros-controls/topic_based_hardware_interfaces, joint_state_topic_hardware_interface.cpp.
"""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING

import pytest
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import JointState

from koch_rig.arm_model import KOCH_V1_1

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

pytestmark = [pytest.mark.ros, pytest.mark.slow, pytest.mark.timing]
RATE_HZ = 100.0


class TopicHardware(Node):
    """The hardware and a controller that follows a path in time, in one thread."""

    def __init__(self, context: Context) -> None:
        super().__init__("controller_manager", namespace="/follower", context=context)
        self.measured: dict[str, float] = {}
        self.path: Callable[[float], Sequence[float]] | None = None
        self._begin_s = 0.0
        self._publisher = self.create_publisher(
            JointState, "command/trajectory", QoSProfile(depth=1)
        )
        self.create_subscription(JointState, "joint_states", self._read, qos_profile_sensor_data)
        self.create_timer(1.0 / RATE_HZ, self._write)

    @property
    def pose(self) -> list[float]:
        return [self.measured[name] for name in KOCH_V1_1.joints]

    def follow(self, path: Callable[[float], Sequence[float]]) -> None:
        """Activate a controller with a path of the seconds from now."""
        self._begin_s, self.path = time.monotonic(), path

    def _read(self, message: JointState) -> None:
        self.measured = dict(zip(message.name, message.position, strict=True))

    def _write(self) -> None:
        path = self.path
        unclaimed = [math.nan] * len(KOCH_V1_1.joints)
        goal = unclaimed if path is None else list(path(time.monotonic() - self._begin_s))
        message = JointState(name=list(KOCH_V1_1.joints), position=goal)
        message.header.stamp = self.get_clock().now().to_msg()
        self._publisher.publish(message)


@pytest.fixture
def hardware(probe) -> Iterator[TopicHardware]:
    context = Context()
    context.init(args=[])
    node = TopicHardware(context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    assert probe.wait(lambda: node.measured)
    yield node
    executor.shutdown()
    thread.join(2.0)
    node.destroy_node()
    context.try_shutdown()


def ramp(start: Sequence[float], end: Sequence[float], seconds: float):
    """A straight path between two poses, as a trajectory with two points gives."""

    def at(elapsed: float) -> list[float]:
        share = min(max(elapsed / seconds, 0.0), 1.0)
        return [a + share * (b - a) for a, b in zip(start, end, strict=True)]

    return at


def test_unclaimed_joints_move_nothing(probe, hardware):
    before = probe.pose
    time.sleep(1.0)  # a hundred commands of NaN
    assert max(abs(a - b) for a, b in zip(probe.pose, before, strict=True)) < 0.02


@pytest.mark.parametrize("joint", ["shoulder_pan", "wrist_flex", "gripper"])
def test_a_trajectory_arrives_within_the_bounds(probe, hardware, bounds, joint):
    start = hardware.pose
    goal = list(start)
    index = KOCH_V1_1.joints.index(joint)
    goal[index] += 0.4 if start[index] < -0.5 else -0.4  # both lie within every joint's limits
    hardware.follow(ramp(start, goal, 1.0))
    assert probe.wait(lambda: abs(probe.pose[index] - goal[index]) < 0.03, 5.0), probe.pose
    assert bounds.check(probe.commands) > 50


def test_a_jump_is_made_smooth(probe, hardware, bounds):
    start = hardware.pose
    goal = [start[0] + 0.8, *start[1:]]
    hardware.follow(lambda elapsed: start if elapsed < 0.5 else goal)
    assert probe.wait(lambda: abs(probe.pose[0] - goal[0]) < 0.03, 5.0), probe.pose
    assert bounds.check(probe.commands) > 50
