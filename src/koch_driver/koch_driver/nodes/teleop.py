# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The teleop node: the leader's pose becomes the follower's command while a human drives."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterable, Mapping

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces import msg as rcl_messages
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool

from koch_driver.nodes.arm_setup import ArmSetup
from koch_driver.nodes.diagnostics import status
from koch_driver.nodes.messages import STEADY_CLOCK, RosStamper, joint_state
from koch_driver.nodes.names import sibling
from koch_driver.nodes.parameters import TeleopParameters
from koch_driver.nodes.qos import COMMAND, DIAGNOSTICS, STATE_NEWEST
from koch_driver.nodes.run import run_node
from koch_driver.schedule import quantile
from koch_driver.teleop_map import Engagement, PoseMap, engage
from koch_rig.joints import JOINT_NAMES
from koch_rig.load import load_rig
from koch_rig.parameters import ParameterError, declare
from koch_rig.polled import PolledGroup, ignore, take_newest
from koch_rig.rig import Role

_SILENT_S = 0.5


class TeleopNode(Node):
    """Publishes `command/teleop` with the leader's stamp; service `~/clutch` (SetBool).

    All callbacks run in the executor's single thread.
    """

    def __init__(self) -> None:
        super().__init__("teleop")
        self._settings = parameters = declare(self, TeleopParameters, rcl_messages)
        leader = load_rig(parameters.rig).arm(parameters.leader)
        if leader.drives is None:
            raise ParameterError("leader", leader.name, "an arm whose `drives` names a follower")
        ends = (
            ArmSetup.load(parameters.rig, leader.name, Role.LEADER),
            ArmSetup.load(parameters.rig, leader.drives, Role.FOLLOWER),
        )
        self._name = f"{leader.name} to {leader.drives}"
        self._map = PoseMap(ends[0].units, ends[1].units)
        self._stamper = RosStamper(self.get_clock())
        self._ends = ends[0].arm.name, ends[1].arm.name
        self._heard_s: dict[str, float] = {}
        self._leader: tuple[float, ...] | None = None
        self._follower: tuple[float, ...] | None = None
        self._wanted = parameters.engaged
        self._engaged = False
        self._message = "the clutch is open"
        self._sent = 0
        self._delays: deque[float] = deque(maxlen=1000)
        self._commands = self.create_publisher(JointState, "command/teleop", COMMAND)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", DIAGNOSTICS)
        topic = sibling(self, leader.name, "joint_states")
        self.create_subscription(JointState, topic, self._on_leader, STATE_NEWEST)
        self._follower_states = self.create_subscription(
            JointState, "joint_states", ignore, STATE_NEWEST, callback_group=PolledGroup()
        )
        self.create_service(SetBool, "~/clutch", self._on_clutch)
        self.create_timer(1.0, self._report, clock=STEADY_CLOCK)

    def _on_leader(self, message: JointState) -> None:
        positions = _by_name(message)
        if positions is None:
            return
        self._heard_s[self._ends[0]] = time.monotonic()
        self._leader = self._map.map(positions)
        if self._wanted and not self._engaged:
            self._look_at_follower()
            if self._follower is not None:
                self._engage()
        if not self._engaged:
            return
        self._commands.publish(joint_state(message.header.stamp, self._leader))
        self._sent += 1
        self._delays.append(self._stamper.age_s(message.header.stamp))

    def _look_at_follower(self) -> None:
        message = take_newest(self._follower_states)
        if message is not None:
            self._follower = _by_name(message)
            self._heard_s[self._ends[1]] = time.monotonic()

    def _on_clutch(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        if request.data and not self._engaged:
            answer = self._engage()
            response.success, response.message = answer.engaged, answer.message
            return response
        if not request.data:
            self._wanted = self._engaged = False
            self._message = "the clutch is open"
        response.success, response.message = True, self._message
        return response

    def _engage(self) -> Engagement:
        self._look_at_follower()
        answer = engage(
            self._leader,
            self._follower,
            threshold_rad=self._settings.threshold,
            refuse=self._settings.on_mismatch == "refuse",
        )
        self._wanted = False
        self._engaged, self._message = answer.engaged, answer.message
        if answer.engaged:
            self.get_logger().info(answer.message)
        else:
            self.get_logger().warning(f"the human does not drive: {answer.message}")
        return answer

    def _report(self) -> None:
        self._look_at_follower()
        delays = list(self._delays)
        values = {
            "engaged": self._engaged,
            "commands": self._sent,
            "leader_to_command_p50_ms": 1e3 * quantile(delays, 0.5),
            "leader_to_command_p99_ms": 1e3 * quantile(delays, 0.99),
        }
        level, text = DiagnosticStatus.OK, self._message
        if silent := silent_arms(self._ends, self._heard_s, time.monotonic()):
            level, text = DiagnosticStatus.WARN, f"{silent}; {text}"
        message = DiagnosticArray()
        message.header.stamp = self.get_clock().now().to_msg()
        message.status = [status(f"teleop: {self._name}", "", level, text, values)]
        self._diagnostics.publish(message)


def silent_arms(arms: Iterable[str], heard_s: Mapping[str, float], now_s: float) -> str:
    """Name the arms whose joint states stay away, and for how long; empty when all are heard."""
    silent = []
    for arm in arms:
        if arm not in heard_s:
            silent.append(f"no joint states of {arm} yet")
        elif now_s - heard_s[arm] > _SILENT_S:
            silent.append(f"no joint states of {arm} for {now_s - heard_s[arm]:.1f} s")
    return "; ".join(silent)


def _by_name(message: JointState) -> tuple[float, ...] | None:
    """Positions in JOINT_NAMES order; None when a joint is missing."""
    known = dict(zip(message.name, message.position, strict=False))
    if not all(joint in known for joint in JOINT_NAMES):
        return None
    return tuple(known[joint] for joint in JOINT_NAMES)


def main() -> int:
    """Entry point."""
    return run_node(TeleopNode)


if __name__ == "__main__":
    sys.exit(main())
