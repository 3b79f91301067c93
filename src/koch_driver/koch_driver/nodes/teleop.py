# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The teleop node: the leader's pose becomes the follower's command while a human drives."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from koch_interfaces.msg import GuardStatus
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool

from koch_driver.arm.latch import SafetyLatch, StopCause, latch_path
from koch_driver.arm.schedule import quantile
from koch_driver.arm.teleop_map import LEADER_LOST_S, Engagement, PoseMap, Squeeze, engage
from koch_driver.nodes.arm_setup import ArmSetup
from koch_driver.nodes.command_topics import ControlTopic, Senders
from koch_driver.nodes.messages import joint_state
from koch_driver.nodes.names import sibling
from koch_driver.nodes.parameters import TeleopParameters
from koch_rig.joints import plain_joints
from koch_rig.load import load_rig
from koch_rig.rig import Role
from koch_rig.units import Units
from koch_ros.diagnostics import diagnostic_status
from koch_ros.node import run_node
from koch_ros.parameters import ParameterError, declare
from koch_ros.qos import (
    COMMAND,
    DIAGNOSTICS,
    LATCHED,
    NEWEST,
    SERVICES,
)
from koch_ros.stamps import STEADY_CLOCK, RosStamper

_SILENT_S = 0.5
_LOOK_S = 0.2
_POLICY = "policy"
_ASKED_AGAIN_S = 0.5


class TeleopNode(Node):
    """Publishes `command/teleop` with the leader's stamp; service `~/clutch` (SetBool).

    The service is the enable switch. It stays open when the process dies and is started again, if
    a person or a stop has opened it: that person may have laid the leader down.

    All callbacks run in the executor's single thread.
    """

    def __init__(self) -> None:
        super().__init__("teleop")
        self._settings = parameters = declare(self, TeleopParameters)
        leader = load_rig(parameters.rig).arm(parameters.leader)
        if leader.drives is None:
            raise ParameterError("leader", leader.name, "an arm whose `drives` names a follower")
        ends = (
            ArmSetup.load(parameters.rig, leader.name, Role.LEADER),
            ArmSetup.load(parameters.rig, leader.drives, Role.FOLLOWER),
        )
        self._name = f"{leader.name} to {leader.drives}"
        self._follower_arm = ends[1].arm
        self._map = PoseMap(ends[0].units, ends[1].units)
        self._stamper = RosStamper(self.get_clock())
        self._ends = ends[0].arm.name, ends[1].arm.name
        self._heard_s: dict[str, float] = {}
        self._leader: tuple[float, ...] | None = None
        self._follower: tuple[float, ...] | None = None
        self._open = SafetyLatch(latch_path(self._follower_arm.port, "enable_switch"))
        self._wanted = parameters.engaged
        self._engaged = False
        self._message = "the enable switch is open"
        self._keep_open()
        self._stamp_s: float | None = None  # of the leader's newest state
        self._sent = 0
        self._delays: deque[float] = deque(maxlen=1000)
        self._commands = self.create_publisher(JointState, "command/teleop", COMMAND)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", DIAGNOSTICS)
        self._rivals: tuple[str, ...] = ()
        self._stop_count: int | None = None
        self._still = ""  # why the follower obeys no one
        self._driven_back = False
        self._leader_units = ends[0].units
        self._squeeze, self._takes_over = Squeeze(), False
        self._asked_s = float("-inf")  # when the leader was asked to be driven back, or let go
        self._listen(leader.name)
        back = sibling(self, leader.name, "drive_back")
        self._drive_back = self.create_client(SetBool, back, qos_profile=SERVICES)
        self.create_service(SetBool, "~/clutch", self._on_enable, qos_profile=SERVICES)
        self.create_timer(1.0, self._report, clock=STEADY_CLOCK)
        self.create_timer(_LOOK_S, self._look, clock=STEADY_CLOCK)

    def _listen(self, leader: str) -> None:
        """Subscribe to the poses of both arms and to what their guards say."""
        topic = sibling(self, leader, "joint_states")
        self._leader_senders = Senders(self, topic)
        self.create_subscription(JointState, topic, self._on_leader, NEWEST)
        self._follower_states = ControlTopic(self, JointState, "joint_states", NEWEST)
        self.create_subscription(GuardStatus, "guard_status", self._on_guard, LATCHED)
        back = sibling(self, leader, "guard_status")
        self.create_subscription(GuardStatus, back, self._on_leader_guard, LATCHED)

    def close(self) -> None:
        """Ended on purpose: the next start begins as its parameters say."""
        if not self._open.orphaned:
            self._open.resume()

    def _keep_open(self) -> None:
        """Take up what a teleop that was killed knew of its enable switch."""
        for stop in self._open.state.stops:
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(stop.time_ns * 1e-9))
            self._wanted = False
            self._message = (
                f"the enable switch stays open since {since}: {stop.text}; close it to drive again"
            )
            self.get_logger().warning(self._message)

    def _on_leader(self, message: JointState, info: Mapping[str, Any]) -> None:
        positions = self._by_name(message)
        obeyed = self._leader_senders.hears(info)
        if positions is None or not obeyed:
            return
        self._heard_s[self._ends[0]] = time.monotonic()
        stamp_s = message.header.stamp.sec + 1e-9 * message.header.stamp.nanosec
        silent_s, self._stamp_s = stamp_s - (self._stamp_s or stamp_s), stamp_s
        if self._engaged and silent_s > LEADER_LOST_S:
            self._disengage(f"{self._ends[0]} was lost for {silent_s:.1f} s")
        self._leader = self._map.map(positions)
        if self._driven_back:
            opening = float(self._leader_units.rad_to(Units.LEROBOT, positions)[-1])
            if self._squeeze.take(opening, time.monotonic()):
                self._takes_over = True
                self._ask_leader(follow=False)
        if self._wanted and not self._engaged:
            self._look_at_follower()
            if self._follower is not None:
                self._engage()
        if not self._engaged:
            return
        stamp = message.header.stamp
        self._commands.publish(joint_state(stamp, self._follower_arm.topic_joints, self._leader))
        self._sent += 1
        self._delays.append(self._stamper.age_s(message.header.stamp))

    def _by_name(self, message: JointState) -> tuple[float, ...] | None:
        """Positions of either arm, whose joints are the same; None when one is missing."""
        joints = self._follower_arm.model.joints
        names = plain_joints(message.name, joints=joints)
        known = dict(zip(names, message.position, strict=False))
        if not all(joint in known for joint in joints):
            return None
        return tuple(known[joint] for joint in joints)

    def _look_at_follower(self) -> None:
        heard = self._follower_states.take()
        if heard is not None and heard.obeyed:
            self._follower = self._by_name(heard.message)
            self._heard_s[self._ends[1]] = time.monotonic()

    def _look(self) -> None:
        """See whether a joint state comes from two publishers, and name them at once."""
        rivals = self._follower_states.look() + self._leader_senders.look()
        if rivals == self._rivals:
            return
        self._rivals = rivals
        if rivals:
            self.get_logger().warning(f"the human does not drive: {self._rivals_text()}")
        self._report()

    def _rivals_text(self) -> str:
        who = ", ".join(dict.fromkeys(self._rivals))
        return f"joint states come from several publishers ({who}): stop all but one"

    def _ask_leader(self, *, follow: bool) -> None:
        """Ask the leader to follow the follower, or to be free; again only after a while."""
        now_s = time.monotonic()
        if now_s - self._asked_s > _ASKED_AGAIN_S and self._drive_back.service_is_ready():
            self._asked_s = now_s
            self._drive_back.call_async(SetBool.Request(data=follow))

    # -- who decides the hand-over: the guard of the follower, and the leader's driver ----------

    def _on_guard(self, message: GuardStatus) -> None:
        """A stop or a release ends the human's drive, also where a resume followed at once."""
        stopped = self._stop_count not in (None, message.stop_count)
        self._stop_count = message.stop_count
        still = message.mode in (GuardStatus.STOPPED, GuardStatus.OFF)
        self._still = message.reason or "the arm is stopped" if still else ""
        if self._still or stopped:
            self._disengage(self._still or "the arm was stopped")
        drives = message.mode in (GuardStatus.BLENDING, GuardStatus.DRIVING)
        by_policy = drives and message.source == _POLICY
        is_free = not (self._driven_back or self._engaged or self._wanted or self._takes_over)
        if self._settings.follow_policy and by_policy and is_free:
            self._ask_leader(follow=True)

    def _on_leader_guard(self, message: GuardStatus) -> None:
        """A leader that is driven back follows the follower: it is no one's hand."""
        self._driven_back = message.torque
        if message.torque:
            self._squeeze.forget()
            self._disengage("the leader is driven back to the follower's pose")
        elif self._takes_over:
            # It was where the follower is until this moment: nothing jumps.
            self._takes_over, self._wanted = False, True

    def _disengage(self, why: str) -> None:
        if self._engaged or self._wanted:
            self.get_logger().warning(f"the human does not drive any more: {why}")
            self._message = f"the enable switch was opened: {why}; close it to drive again"
            self._open.stop(StopCause.REQUEST, why)
        self._wanted = self._engaged = False

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        if request.data and not self._engaged:
            answer = self._engage()
            response.success, response.message = answer.engaged, answer.message
            return response
        if not request.data:
            self._wanted = self._engaged = False
            self._message = "the enable switch is open"
            self._open.stop(StopCause.REQUEST, "its service was called")
        response.success, response.message = True, self._message
        return response

    def _engage(self) -> Engagement:
        self._look_at_follower()
        if obstacle := self._obstacle():
            answer = Engagement(False, obstacle)
        else:
            answer = engage(
                self._leader,
                self._follower,
                threshold_rad=self._settings.threshold,
                refuse=self._settings.on_mismatch == "refuse",
                model=self._follower_arm.model,
            )
        self._wanted = False
        self._engaged, self._message = answer.engaged, answer.message
        if answer.engaged:
            self._open.resume()
            self.get_logger().info(answer.message)
        else:
            self.get_logger().warning(f"the human does not drive: {answer.message}")
        return answer

    def _obstacle(self) -> str:
        """Why the human may not drive now; empty when nothing is in the way."""
        if self._still:
            return f"{self._still}; lift that first (services resume, torque)"
        if self._driven_back:
            return "the leader is driven back; call its drive_back with false first"
        return self._rivals_text() if self._rivals else ""

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
        if self._rivals:
            level, text = DiagnosticStatus.WARN, self._rivals_text()
        message = DiagnosticArray()
        message.header.stamp = self.get_clock().now().to_msg()
        message.status = [diagnostic_status(f"teleop: {self._name}", "", level, text, values)]
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


def main() -> int:
    """Entry point."""
    return run_node(TeleopNode)


if __name__ == "__main__":
    sys.exit(main())
