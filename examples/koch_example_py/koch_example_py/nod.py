# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Nods with the wrist of a follower, through the action that MoveIt uses.

python nod.py --ros-args -r __ns:=/follower
"""

import sys

import rclpy
from control_msgs.action import FollowJointTrajectory
from rclpy.action import ActionClient
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectoryPoint

JOINT = "wrist_flex"
NOD_RAD = 0.3
BEAT_S = 0.8


class Nod(Node):
    """Waits for the measured pose, then asks the driver for a trajectory from there."""

    def __init__(self) -> None:
        super().__init__("nod")
        self.angle: float | None = None
        self.create_subscription(JointState, "joint_states", self._read, qos_profile_sensor_data)
        # Relative, so that the arm is chosen by the namespace of this node.
        self.client = ActionClient(
            self, FollowJointTrajectory, "arm_controller/follow_joint_trajectory"
        )

    def _read(self, message: JointState) -> None:
        # By name, never by place.
        self.angle = dict(zip(message.name, message.position, strict=True))[JOINT]

    def goal(self, start: float) -> FollowJointTrajectory.Goal:
        """Down, up, and back; the joints that are not named hold."""
        goal = FollowJointTrajectory.Goal()
        goal.trajectory.joint_names = [JOINT]
        for beat, offset in enumerate((NOD_RAD, -NOD_RAD, 0.0), start=1):
            point = JointTrajectoryPoint(positions=[start + offset], velocities=[0.0])
            point.time_from_start = Duration(seconds=beat * BEAT_S).to_msg()
            goal.trajectory.points.append(point)
        return goal


def main() -> int:
    """Nod once; the exit code says whether the arm did."""
    rclpy.init()
    node = Nod()
    while node.angle is None:
        rclpy.spin_once(node, timeout_sec=1.0)
    start = node.angle
    node.client.wait_for_server()
    sent = node.client.send_goal_async(node.goal(start))
    rclpy.spin_until_future_complete(node, sent)
    if not sent.result().accepted:
        node.get_logger().error("the driver refused the goal; its log says why")
        return 1
    answer = sent.result().get_result_async()
    rclpy.spin_until_future_complete(node, answer)
    result = answer.result().result
    if result.error_code != FollowJointTrajectory.Result.SUCCESSFUL:
        node.get_logger().error(f"not done: {result.error_string}")
        return 1
    node.get_logger().info(f"arrived: {JOINT} is {abs(node.angle - start):.2f} rad from its goal")
    return 0


if __name__ == "__main__":
    sys.exit(main())
