# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The jog node: teleoperation without a leader, by speeds of the hand."""

from __future__ import annotations

import math
import sys
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import TwistStamped
from koch_interfaces.msg import GuardStatus
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool

from koch_driver.arm.jog import Jog, JogLimits, JogSpeed
from koch_driver.guard import workspace_from_rig
from koch_driver.nodes.arm_setup import ArmSetup
from koch_driver.nodes.messages import joint_state
from koch_driver.nodes.parameters import JogParameters
from koch_rig.joints import plain_joints
from koch_rig.kinematics import Kinematics
from koch_rig.rig import Role
from koch_ros.diagnostics import diagnostic_status
from koch_ros.node import run_node
from koch_ros.parameters import declare
from koch_ros.qos import COMMAND, DIAGNOSTICS, LATCHED, NEWEST, SERVICES
from koch_ros.stamps import STEADY_CLOCK

#: The deadman: without a word for so long the hand comes to rest [s].
DEADMAN_S = 0.3
_PERIOD_S = 1.0 / 30.0
#: A goal or a pose that is older than this says nothing of where the arm is now [s].
_FRESH_S = 0.3


class JogNode(Node):
    """Publishes `command/teleop` from the first word on `~/twist` or `~/joint_speeds`.

    It stands in the place of a leader's teleop node: source, priority and the service `~/clutch`
    (the enable switch) are the same, so that guard, recorder and policies treat it alike. A word
    counts for `DEADMAN_S`; then the pose is held, and the arm stays the human's until the switch
    is opened, as with a leader.

    All callbacks run in the executor's single thread.
    """

    def __init__(self) -> None:
        super().__init__("teleop")
        settings = declare(self, JogParameters)
        setup = ArmSetup.load(settings.rig, settings.arm, Role.FOLLOWER)
        self._arm = setup.arm
        limits = setup.guard_limits(simulated_time=False)
        self._jog = Jog(
            Kinematics.for_arm(model=self._arm.model),
            limits.lower,
            limits.upper,
            JogLimits(
                settings.linear_speed, settings.angular_speed, settings.gripper_speed
            ),
            workspace_from_rig(setup.rig.limits, self._arm),
        )  # fmt: skip
        self._engaged = settings.engaged
        self._message = "" if settings.engaged else "the enable switch is open"
        self._still = ""  # why the arm obeys no one
        self._stop_count: int | None = None
        self._wanted = JogSpeed()
        self._heard_s = float("-inf")
        self._goal: tuple[float, tuple[float, ...]] | None = None
        self._pose: tuple[float, tuple[float, ...]] | None = None
        self._drives = False
        self._border, self._told_of = "", JogSpeed()
        self._sent = 0
        self._listen()
        self._commands = self.create_publisher(JointState, "command/teleop", COMMAND)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", DIAGNOSTICS)
        self.create_service(SetBool, "~/clutch", self._on_enable, qos_profile=SERVICES)
        self.create_timer(_PERIOD_S, self._step, clock=STEADY_CLOCK)
        self.create_timer(1.0, self._report, clock=STEADY_CLOCK)

    def _listen(self) -> None:
        self.create_subscription(TwistStamped, "~/twist", self._on_twist, NEWEST)
        self.create_subscription(JointState, "~/joint_speeds", self._on_speeds, NEWEST)
        self.create_subscription(JointState, "joint_states", self._on_pose, NEWEST)
        self.create_subscription(JointState, "joint_command", self._on_goal, NEWEST)
        self.create_subscription(GuardStatus, "guard_status", self._on_guard, LATCHED)

    # -- what is heard --------------------------------------------------------------------------

    def _on_twist(self, message: TwistStamped) -> None:
        """Linear [m/s] in base_link; angular [rad/s]: x the hand's roll, y its pitch."""
        linear, angular = message.twist.linear, message.twist.angular
        self._ask(
            linear=(linear.x, linear.y, linear.z), roll=float(angular.x), pitch=float(angular.y)
        )

    def _on_speeds(self, message: JointState) -> None:
        """The gripper's speed [rad/s], above zero it opens; other joints have the twist."""
        names = plain_joints(message.name, joints=self._arm.model.joints)
        speeds = dict(zip(names, message.velocity, strict=False))
        if self._arm.model.gripper in speeds:
            self._ask(gripper=float(speeds[self._arm.model.gripper]))

    def _ask(self, **changes: Any) -> None:
        """Take in a part of what is asked for; the rest is forgotten when it is too old."""
        now_s = time.monotonic()
        before = self._wanted if now_s - self._heard_s <= DEADMAN_S else JogSpeed()
        wanted = JogSpeed(**{**vars(before), **changes})
        if all(map(math.isfinite, (*wanted.linear, wanted.pitch, wanted.roll, wanted.gripper))):
            self._wanted, self._heard_s = wanted, now_s

    def _on_pose(self, message: JointState) -> None:
        self._pose = self._angles(message) or self._pose

    def _on_goal(self, message: JointState) -> None:
        self._goal = self._angles(message) or self._goal

    def _angles(self, message: JointState) -> tuple[float, tuple[float, ...]] | None:
        joints = self._arm.model.joints
        known = dict(
            zip(plain_joints(message.name, joints=joints), message.position, strict=False)
        )
        if not all(joint in known for joint in joints):
            return None
        return time.monotonic(), tuple(known[joint] for joint in joints)

    def _on_guard(self, message: GuardStatus) -> None:
        """A stop or a release opens the switch, also where a resume followed at once."""
        stopped = self._stop_count not in (None, message.stop_count)
        self._stop_count = message.stop_count
        if message.mode in (GuardStatus.DISCONNECTED, GuardStatus.WAITING):
            self._drives = False  # the next word begins where the arm is then
        still = message.mode in (GuardStatus.STOPPED, GuardStatus.OFF)
        self._still = message.reason or "the arm is stopped" if still else ""
        if (self._still or stopped) and self._engaged:
            self._engaged, self._drives = False, False
            self._message = f"the enable switch was opened: {self._still or 'the arm was stopped'}"
            self.get_logger().warning(f"{self._message}; close it to drive again")

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        if request.data and self._still:
            response.success, response.message = False, f"{self._still}; lift that first"
            return response
        self._engaged = bool(request.data)
        self._message = "" if self._engaged else "the enable switch is open"
        self._drives = False
        self._heard_s = float("-inf")  # what was asked before does not count
        response.success, response.message = True, self._message or "the hand may be moved"
        return response

    # -- what is commanded ----------------------------------------------------------------------

    def _step(self) -> None:
        """Move on for a period, or say nothing."""
        now_s = time.monotonic()
        wanted = self._wanted if now_s - self._heard_s <= DEADMAN_S else JogSpeed()
        if not self._engaged or (wanted == JogSpeed() and not self._drives):
            return
        pose = self._fresh(self._pose, now_s)
        if not self._drives:
            # The goal, not the pose: an arm that sags a little would sag more with each start.
            begin = self._fresh(self._goal, now_s) or pose
            if begin is None:
                return
            self._jog.start(begin)
            self._drives = True
        goal = self._jog.step(wanted, pose, _PERIOD_S)
        stamp = self.get_clock().now().to_msg()
        self._commands.publish(joint_state(stamp, self._arm.topic_joints, goal))
        self._sent += 1
        self._tell_border(wanted)

    @staticmethod
    def _fresh(
        heard: tuple[float, tuple[float, ...]] | None, now_s: float
    ) -> tuple[float, ...] | None:
        return heard[1] if heard is not None and now_s - heard[0] <= _FRESH_S else None

    def _tell_border(self, wanted: JogSpeed) -> None:
        """Say once why the hand goes no further that way."""
        self._border = self._jog.border
        if self._border and not wanted.goes_as(self._told_of):
            self._told_of = wanted
            self.get_logger().info(f"the hand goes no further: {self._border}")
        elif wanted != JogSpeed() and not wanted.goes_as(self._told_of):
            self._told_of = JogSpeed()

    def _report(self) -> None:
        values = {"engaged": self._engaged, "commands": self._sent}
        level, text = DiagnosticStatus.OK, self._message or self._border or "waits for a word"
        if self._fresh(self._pose, time.monotonic()) is None:
            level, text = DiagnosticStatus.WARN, f"no joint states of {self._arm.name}"
        message = DiagnosticArray()
        message.header.stamp = self.get_clock().now().to_msg()
        name = f"teleop: {self._arm.name}"
        message.status = [diagnostic_status(name, "", level, text, values)]
        self._diagnostics.publish(message)


def main() -> int:
    """Entry point."""
    return run_node(JogNode)


if __name__ == "__main__":
    sys.exit(main())
