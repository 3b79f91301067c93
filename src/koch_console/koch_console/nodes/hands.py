# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The pad's words as speeds for the followers' jog nodes, whose goals the guard judges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from geometry_msgs.msg import TwistStamped
from sensor_msgs.msg import JointState

from koch_console.commands import PadWord
from koch_rig.rig import Arm, Rig, Role
from koch_ros.qos import COMMAND

if TYPE_CHECKING:
    from rclpy.node import Node

# Full speed of the pad; the jog node goes no faster than its own limits.
_LINEAR, _ANGULAR, _GRIPPER = 0.10, 0.8, 1.2  # [m/s], [rad/s], [rad/s]
_JOG_NODE = "teleop"
_NO_JOG = "No jog node runs for {arm}: koch up --jog."


class _Hand:
    """The topics of one follower's jog node."""

    def __init__(self, node: Node, arm: Arm) -> None:
        self._node = node
        self._gripper = arm.topic_joints[-1]
        self._twist = node.create_publisher(TwistStamped, f"{arm.name}/teleop/twist", COMMAND)
        speeds = f"{arm.name}/teleop/joint_speeds"
        self._speeds = node.create_publisher(JointState, speeds, COMMAND)

    @property
    def is_heard(self) -> bool:
        """Whether a jog node listens; others may listen in."""
        if not self._twist.get_subscription_count():
            return False
        readers = self._node.get_subscriptions_info_by_topic(self._twist.topic_name)
        return any(reader.node_name == _JOG_NODE for reader in readers)

    def move(self, shares: Mapping[str, float]) -> None:
        """Ask for speeds now; for rest where no share is given."""
        x, y, z, pitch, roll, gripper = (
            shares.get(axis, 0.0) for axis in ("x", "y", "z", "pitch", "roll", "gripper")
        )
        stamp = self._node.get_clock().now().to_msg()
        twist = TwistStamped()
        twist.header.stamp = stamp
        linear, angular = twist.twist.linear, twist.twist.angular
        linear.x, linear.y, linear.z = x * _LINEAR, y * _LINEAR, z * _LINEAR
        angular.x, angular.y = roll * _ANGULAR, pitch * _ANGULAR
        speeds = JointState(name=[self._gripper], velocity=[gripper * _GRIPPER])
        speeds.header.stamp = stamp
        self._twist.publish(twist)
        self._speeds.publish(speeds)


class Hands:
    """The hands of a rig's followers.

    Args:
        node: Owns the publishers.
        rig: Its arms.
    """

    def __init__(self, node: Node, rig: Rig) -> None:
        followers = (arm for arm in rig.arms.values() if arm.role is Role.FOLLOWER)
        self._hands = {arm.name: _Hand(node, arm) for arm in followers}

    def listen(self) -> Mapping[str, bool]:
        """Whether a jog node listens, by follower."""
        return {name: hand.is_heard for name, hand in self._hands.items()}

    def move(self, word: PadWord) -> str:
        """Pass a word on; why not, empty where it was done."""
        hand = self._hands.get(word.arm)
        if hand is None:
            return f"{word.arm!r:.60} is no follower of this rig."
        if word.shares and not hand.is_heard:
            return _NO_JOG.format(arm=word.arm)
        hand.move(word.shares)
        return ""
