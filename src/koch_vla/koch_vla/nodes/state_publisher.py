# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Publishes /tf, /tf_static and robot descriptions where ROS's robot_state_publisher is absent."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from builtin_interfaces.msg import Time
from geometry_msgs.msg import TransformStamped
from rcl_interfaces import msg as rcl_messages
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from tf2_msgs.msg import TFMessage

from koch_driver.nodes.qos import LATCHED, STATE_NEWEST
from koch_driver.nodes.run import run_node
from koch_rig.load import load_rig
from koch_rig.model import robot_urdf, world_camera_arm
from koch_rig.parameters import declare, described
from koch_vla.link_tree import LinkPose, LinkTree

GHOST = "ghost/"
TRANSFORMS = QoSProfile(depth=100)  # reliable, as tf2's broadcaster publishes


@dataclass(frozen=True)
class StatePublisherParameters:
    """Parameters of the node."""

    rig: str = described("", "path of the rig file", required=True)
    publish_frequency: float = described(
        30.0, "highest rate of /tf for each arm [Hz]", low=1.0, high=1000.0
    )


class StatePublisher(Node):
    """Turns the joint states of each arm of a rig into transforms.

    Topics:
        /<arm>/joint_states and /policy/ghost/joint_states (in), /tf, /tf_static (latched),
        /<arm>/robot_description (latched), /robot_description (latched; the arm that carries the
        world's cameras). The ghost's frames are the follower's behind `ghost/`; they appear with
        its first message and move only while messages come.
    """

    def __init__(self) -> None:
        super().__init__("robot_state_publisher")
        parameters = declare(self, StatePublisherParameters, rcl_messages)
        rig = load_rig(parameters.rig)
        self._period_ns = int(1e9 / parameters.publish_frequency)
        self._transforms = self.create_publisher(TFMessage, "/tf", TRANSFORMS)
        self._static = self.create_publisher(TFMessage, "/tf_static", LATCHED)
        self._latched: list[Publisher[String]] = []
        self._last_ns: dict[str, int] = {}
        self._fixed: list[LinkPose] = []
        for arm in rig.arms:
            urdf = robot_urdf(rig, arm)
            tree = LinkTree(urdf)
            self._fixed += tree.static_poses()
            self._latch(f"{arm}/robot_description", urdf)
            if arm == world_camera_arm(rig):
                self._latch("robot_description", urdf)
            hear = self._on_state(arm, tree)
            self.create_subscription(
                JointState, f"{arm}/joint_states", hear, STATE_NEWEST, raw=True
            )
            if arm == world_camera_arm(rig):
                hear = self._on_ghost(tree)
                topic = "policy/ghost/joint_states"
                self.create_subscription(JointState, topic, hear, STATE_NEWEST, raw=True)
        self._publish_static()
        count = len(self._fixed)
        self.get_logger().info(f"{count} fixed frames; waiting for {', '.join(rig.arms)}")

    def _publish_static(self) -> None:
        """Latch all fixed frames: late listeners get the last message only."""
        stamp = self.get_clock().now().to_msg()
        self._static.publish(TFMessage(transforms=_messages(self._fixed, stamp)))

    def _latch(self, topic: str, text: str) -> None:
        publisher = self.create_publisher(String, topic, LATCHED)
        publisher.publish(String(data=text))
        self._latched.append(publisher)

    def _on_state(self, source: str, tree: LinkTree, prefix: str = "") -> Callable[[bytes], None]:
        """Make the callback of one arm; most messages are dropped before they are parsed."""

        def publish(data: bytes) -> None:
            now_ns = self.get_clock().now().nanoseconds
            # A little early is on time; a clock that jumped back starts anew.
            if 0 <= now_ns - self._last_ns.get(source, -(10**18)) < 0.95 * self._period_ns:
                return
            state = deserialize_message(data, JointState)
            poses = tree.moving_poses(dict(zip(state.name, state.position, strict=False)))
            if poses:
                self._last_ns[source] = now_ns
                poses = [_behind(prefix, pose) for pose in poses]
                self._transforms.publish(
                    TFMessage(transforms=_messages(poses, state.header.stamp))
                )

        return publish

    def _on_ghost(self, tree: LinkTree) -> Callable[[bytes], None]:
        """Make the callback of the arm that the policy shows."""
        publish = self._on_state(GHOST, tree, GHOST)

        def appear(data: bytes) -> None:
            if GHOST not in self._last_ns:
                world = LinkPose("world", f"{GHOST}world", (0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))
                self._fixed += [world, *(_behind(GHOST, pose) for pose in tree.static_poses())]
                self._last_ns[GHOST] = 0
                self._publish_static()
            publish(data)

        return appear


def _behind(prefix: str, pose: LinkPose) -> LinkPose:
    """Put a prefix before both frames of a pose."""
    if not prefix:
        return pose
    return replace(pose, parent=prefix + pose.parent, child=prefix + pose.child)


def _messages(poses: Iterable[LinkPose], stamp: Time) -> list[TransformStamped]:
    return [_message(pose, stamp) for pose in poses]


def _message(pose: LinkPose, stamp: Time) -> TransformStamped:
    message = TransformStamped()
    message.header.stamp = stamp
    message.header.frame_id = pose.parent
    message.child_frame_id = pose.child
    place, turn = message.transform.translation, message.transform.rotation
    place.x, place.y, place.z = pose.xyz
    turn.x, turn.y, turn.z, turn.w = pose.xyzw
    return message


def main() -> int:
    """Entry point."""
    return run_node(StatePublisher, realtime=False)


if __name__ == "__main__":
    sys.exit(main())
