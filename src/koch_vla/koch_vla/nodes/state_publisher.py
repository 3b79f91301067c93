# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Publishes /tf, /tf_static and robot descriptions where ROS's robot_state_publisher is absent."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from builtin_interfaces.msg import Time
from geometry_msgs.msg import TransformStamped
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from tf2_msgs.msg import TFMessage

from koch_core.options import same_as
from koch_rig.load import load_rig
from koch_rig.model import published_urdf, world_camera_arm
from koch_ros.node import run_node
from koch_ros.parameters import declare, parameter
from koch_ros.polled import PolledGroup, ignore, take_newest
from koch_ros.qos import LATCHED, NEWEST
from koch_ros.shared_options import RIG
from koch_ros.stamps import STEADY_CLOCK
from koch_vla import ghost
from koch_vla.link_tree import LinkPose, LinkTree

TRANSFORMS = QoSProfile(depth=100)  # reliable, as tf2's broadcaster publishes


@dataclass(frozen=True)
class StatePublisherParameters:
    """Parameters of the node."""

    rig: str = same_as(RIG, "")
    publish_frequency: float = parameter(
        30.0, "highest rate of /tf for each arm [Hz]", low=1.0, high=1000.0
    )


class StatePublisher(Node):
    """Turns the joint states of each arm of a rig into transforms.

    Topics:
        /<arm>/joint_states and /policy/ghost/joint_states (in), /tf, /tf_static (latched),
        /<arm>/robot_description (latched), /robot_description (latched; the arm that carries the
        world's cameras). The ghost's frames are those of the arms that a policy commands, behind
        `ghost/`; they appear with its first message and move only while messages come.
    """

    def __init__(self) -> None:
        super().__init__("robot_state_publisher")
        parameters = declare(self, StatePublisherParameters)
        rig = load_rig(parameters.rig)
        self._polled = PolledGroup()
        self._looks: list[Callable[[], None]] = []
        self._transforms = self.create_publisher(TFMessage, "/tf", TRANSFORMS)
        self._static = self.create_publisher(TFMessage, "/tf_static", LATCHED)
        self._latched: list[Publisher[String]] = []
        self._fixed: list[LinkPose] = []
        for arm in rig.arms:
            urdf = published_urdf(rig, arm)
            tree = LinkTree(urdf)
            self._fixed += tree.static_poses()
            self._latch(f"{arm}/robot_description", urdf)
            if arm == world_camera_arm(rig):
                self._latch("robot_description", urdf)
            self._watch(f"{arm}/joint_states", partial(self._publish, tree))
        ghosts = [LinkTree(urdf) for urdf in ghost.ghost_urdfs(rig).values()]
        self._unseen = list(ghosts)
        if ghosts:
            self._watch(ghost.TOPIC, partial(self._publish_ghosts, ghosts))
        self._publish_static()
        self.create_timer(1.0 / parameters.publish_frequency, self._look, clock=STEADY_CLOCK)
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

    def _watch(self, topic: str, publish: Callable[[JointState], None]) -> None:
        """Publish what is new on a topic at each look."""
        subscription = self.create_subscription(
            JointState, topic, ignore, NEWEST, callback_group=self._polled
        )

        def look() -> None:
            state = take_newest(subscription)
            if state is not None:
                publish(state)

        self._looks.append(look)

    def _look(self) -> None:
        for look in self._looks:
            look()

    def _publish(self, tree: LinkTree, state: JointState, prefix: str = "") -> None:
        poses = tree.moving_poses(dict(zip(state.name, state.position, strict=False)))
        if poses:
            poses = [_behind(prefix, pose) for pose in poses]
            self._transforms.publish(TFMessage(transforms=_messages(poses, state.header.stamp)))

    def _publish_ghosts(self, trees: Sequence[LinkTree], state: JointState) -> None:
        """Publish the arms that the policy shows, their fixed frames with the first message."""
        if self._unseen:
            world = LinkPose(
                "world", f"{ghost.PREFIX}world", (0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0)
            )
            self._fixed.append(world)
            for tree in self._unseen:
                self._fixed += [_behind(ghost.PREFIX, pose) for pose in tree.static_poses()]
            self._unseen = []
            self._publish_static()
        for tree in trees:
            self._publish(tree, state, ghost.PREFIX)


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
