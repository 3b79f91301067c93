# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A process that publishes the streams of the recorder's test rig.

`no-camera` leaves the camera out, `best-effort` changes the reliability of the arm.
"""

from __future__ import annotations

import array
import contextlib
import sys
import time

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, JointState
from std_msgs.msg import String

from koch_rig.arm_model import KOCH_V1_1


def main(arguments: list[str]) -> None:
    """Publish until a signal comes."""
    rclpy.init()
    node = rclpy.create_node("test_publisher")
    qos = QoSProfile(depth=5)
    if "best-effort" in arguments:
        qos.reliability = ReliabilityPolicy.BEST_EFFORT
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    names = ("/follower/joint_states", "/follower/joint_command")
    arms = [node.create_publisher(JointState, name, qos) for name in names]
    camera = "/cameras/above"
    raw = node.create_publisher(CompressedImage, f"{camera}/image_raw/compressed", 5)
    info = node.create_publisher(CameraInfo, f"{camera}/camera_info", 5)
    description = node.create_publisher(String, "/robot_description", latched)
    description.publish(String(data="<robot/>"))
    image = array.array("B", b"\xff\xd8" + bytes(20_000) + b"\xff\xd9")
    zeros = array.array("d", [0.0] * len(KOCH_V1_1.joints))
    due = time.monotonic()
    for count in range(1 << 30):
        due += 0.01
        time.sleep(max(0.0, due - time.monotonic()))
        stamp = node.get_clock().now().to_msg()
        state = JointState(name=list(KOCH_V1_1.joints), position=zeros)
        state.header.stamp = stamp
        for publisher in arms:
            publisher.publish(state)
        if count % 3 == 0 and "no-camera" not in arguments:
            message = CompressedImage(format="jpeg", data=image)
            message.header.stamp = stamp
            raw.publish(message)
            info.publish(CameraInfo(header=message.header))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException, RuntimeError):
        main(sys.argv[1:])
