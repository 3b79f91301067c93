# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The leader's driver node: joint states out, and optional back-driving."""

from __future__ import annotations

import contextlib
import sys
import time

from koch_interfaces.msg import GuardStatus
from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool

from koch_core.errors import KochError
from koch_driver.arm.control_loop import LoopPhase
from koch_driver.arm.leader_controller import (
    BACK_DRIVE,
    LEADER_SOURCES,
    LeaderConfig,
    LeaderController,
)
from koch_driver.arm.teleop_map import PoseMap
from koch_driver.guard import Guard
from koch_driver.nodes.arm_node import ArmNode
from koch_driver.nodes.arm_setup import ArmSetup
from koch_driver.nodes.command_topics import ControlTopic
from koch_driver.nodes.names import sibling
from koch_driver.nodes.parameters import LeaderParameters
from koch_rig.joints import plain_joints
from koch_rig.rig import Role
from koch_ros.node import run_node
from koch_ros.qos import (
    LATCHED,
    NEWEST,
    SERVICES,
)
from koch_ros.stamps import STEADY_CLOCK

_LOOK_S = 0.2
_HUMAN = "teleop"
# A teleop that has just been told of the drive back needs a moment, and its source the time-out.
_YIELD_S = 1.0


class LeaderNode(ArmNode[LeaderParameters]):
    """Publishes `joint_states`; service `drive_back` (SetBool) makes it follow its follower.

    The leader follows its follower, or the follower its leader, never both at once: two arms under
    torque that follow each other drift off together. This node decides which. It drives back only
    while the human does not drive (the follower's `guard_status`), and says so in its own
    `guard_status`, at which teleop opens its enable switch and keeps it open.
    """

    controller: LeaderController

    def __init__(self) -> None:
        super().__init__(LeaderParameters, Role.LEADER)
        self.controller = self._make_controller(self._settings)
        self.loop = self._make_loop()
        self._guard_status = self.create_publisher(GuardStatus, "guard_status", LATCHED)
        self._said: tuple[object, ...] = ()
        self._follower_states: ControlTopic[JointState] | None = None
        self._human_drives = False
        self._both_since_s = float("inf")
        self._rivals: tuple[str, ...] = ()
        self._follower_map = self._watch_follower()
        self.create_service(SetBool, "drive_back", self._on_drive_back, qos_profile=SERVICES)
        self.create_timer(_LOOK_S, self._look, clock=STEADY_CLOCK)
        self.loop.start()

    def close(self) -> None:
        """Free the arm; idempotent."""
        self.loop.close()

    def _make_controller(self, parameters: LeaderParameters) -> LeaderController:
        setup = self._setup
        guard = Guard(
            setup.guard_limits(simulated_time=self._stamper.simulated),
            period_s=1.0 / setup.arm.rate_hz,
            sources=LEADER_SOURCES,
        )
        return LeaderController(
            setup.units,
            setup.calibration,
            guard,
            LeaderConfig(parameters.gripper_open, parameters.gripper_current),
            publish=self._publish_states,
            poll_commands=self._follow,
            say=self._warn,
        )

    def _watch_follower(self) -> PoseMap | None:
        """Subscribe to the follower that this leader drives, for back-driving."""
        setup = self._setup
        if setup.arm.drives is None:
            return None
        other = ArmSetup.load(str(setup.rig.path), setup.arm.drives, Role.FOLLOWER)
        topic = sibling(self, other.arm.name, "joint_states")
        self._follower_states = ControlTopic(self, JointState, topic, NEWEST)
        topic = sibling(self, other.arm.name, "guard_status")
        self.create_subscription(GuardStatus, topic, self._on_follower_guard, LATCHED)
        return PoseMap(other.units, setup.units)

    def _follow(self) -> None:
        """Hand the follower's newest pose to the guard; called in the bus thread."""
        heard = None if self._follower_states is None else self._follower_states.take()
        if heard is None or not self.controller.driven_back or self._follower_map is None:
            return
        if not heard.obeyed:
            self.controller.guard.release(BACK_DRIVE)
            return
        message = heard.message
        joints = self._setup.arm.model.joints  # the follower has the same
        names = plain_joints(message.name, joints=joints)
        known = dict(zip(names, message.position, strict=False))
        if not all(joint in known for joint in joints):
            return
        positions = self._follower_map.map([known[joint] for joint in joints])
        self.controller.guard.submit(
            BACK_DRIVE,
            joints,
            positions,
            age_s=self._stamper.age_s(message.header.stamp),
            now_s=time.monotonic(),
        )

    def _on_follower_guard(self, message: GuardStatus) -> None:
        drives = message.mode in (GuardStatus.BLENDING, GuardStatus.DRIVING)
        self._human_drives = drives and message.source == _HUMAN

    def _look(self) -> None:
        """Say what the leader does, and end a drive back during which a human drives."""
        if self._follower_states is not None:
            self._rivals = self._follower_states.look()
        if not self.controller.driven_back or not self._human_drives:
            self._both_since_s = float("inf")
        elif self._both_since_s == float("inf"):
            self._both_since_s = time.monotonic()
        elif time.monotonic() - self._both_since_s > _YIELD_S:
            self.get_logger().error(
                "the drive back ends: commands of teleop drive the follower at the same time"
            )
            with contextlib.suppress(KochError):  # the arm is lost, and free with it
                self.loop.call(lambda bus: self.controller.drive_back(bus, False))
        self._say()

    def _say(self) -> None:
        """Publish `guard_status` when it is no longer what was published."""
        back = self.controller.driven_back
        running = self.loop.phase is LoopPhase.RUNNING
        mode = GuardStatus.OFF if running else GuardStatus.DISCONNECTED
        state = (GuardStatus.DRIVING if back else mode, BACK_DRIVE if back else "", back)
        if state != self._said:
            self._said = state
            message = GuardStatus(mode=state[0], source=state[1], torque=state[2])
            message.header.stamp = self.get_clock().now().to_msg()
            message.reason = "" if back else "the leader is free: drive_back gives it torque"
            self._guard_status.publish(message)

    def _on_drive_back(
        self, request: SetBool.Request, response: SetBool.Response
    ) -> SetBool.Response:
        if self._follower_map is None:
            response.success = False
            response.message = "the rig says of no follower that this leader drives"
            return response
        if request.data and (self._human_drives or self._rivals):
            response.success = False
            response.message = (
                "a human drives the follower: open the enable switch of teleop first"
                if self._human_drives
                else f"the follower's joint states come from several publishers "
                f"({', '.join(self._rivals)}): stop all but one"
            )
            return response

        def drive_back() -> str:
            self.loop.call(lambda bus: self.controller.drive_back(bus, request.data))
            self._say()
            return "following the follower" if request.data else "free"

        return self._answer(response, drive_back)


def main() -> int:
    """Entry point."""
    return run_node(LeaderNode)


if __name__ == "__main__":
    sys.exit(main())
