# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The follower's driver node: topics and services around the control loop."""

from __future__ import annotations

import sys
import time
from array import array
from collections.abc import Sequence

from diagnostic_msgs.msg import DiagnosticStatus
from koch_interfaces.msg import NamedVector
from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool, Trigger

from koch_driver.arm.control_loop import LoopPhase
from koch_driver.arm.follower_controller import (
    FollowerConfig,
    FollowerController,
    FollowerSnapshot,
    OnExit,
)
from koch_driver.arm.latch import LatchState, SafetyLatch, StopCause, latch_path
from koch_driver.bus.motor_bus import MotorBus
from koch_driver.errors import MissingMotors, WrongPort
from koch_driver.guard import Guard, workspace_from_rig
from koch_driver.nodes.arm_node import ArmNode
from koch_driver.nodes.command_topics import ControlTopic, Senders
from koch_driver.nodes.diagnostics import guard_status
from koch_driver.nodes.guard_report import LOOK_S, GuardReport
from koch_driver.nodes.messages import joint_state
from koch_driver.nodes.parameters import FollowerParameters
from koch_driver.nodes.trajectory_server import TOPIC, TrajectoryServer
from koch_driver.trajectory.moves import DRIVER_SOURCES
from koch_rig.joints import plain_joints
from koch_rig.rig import Role
from koch_ros.node import run_node
from koch_ros.qos import COMMAND, SERVICES, STATE
from koch_ros.stamps import STEADY_CLOCK, ClockWatch

# Sources with a topic; trajectories come in through actions as well, "exit" from nowhere else.
_TORQUE_S = 10.0  # six servos may have to reboot
_TOPICS = ("teleop", "policy", "trajectory", "replay")
_TRACED = (
    "policy"  # its node tells the other half of a goal's way; teleop sends a hundred a second
)


class FollowerNode(ArmNode[FollowerParameters]):
    """Publishes `joint_states` and `joint_command`; obeys `command/<source>` through the guard.

    Services: `torque` (SetBool), `stop`, `resume`, `home` (Trigger). The control
    loop's thread also takes the commands, just before it needs them, and publishes the joint
    messages.
    """

    controller: FollowerController

    def __init__(self) -> None:
        super().__init__(FollowerParameters, Role.FOLLOWER)
        self._commands = self.create_publisher(JointState, "joint_command", STATE)
        self._traces = self.create_publisher(NamedVector, "command_trace", STATE)
        self.controller = self._make_controller()
        self.loop = self._make_loop()
        self._topics = {
            source: ControlTopic(self, JointState, f"command/{source}", COMMAND)
            for source in _TOPICS
        }
        self._senders: dict[str, Senders] = dict(self._topics)
        self._guard_report = GuardReport(self, self.controller, self._senders, self._report)
        self._guard_report.watch(self.loop)
        self.create_service(SetBool, "torque", self._on_torque, qos_profile=SERVICES)
        self.create_service(Trigger, "stop", self._on_stop, qos_profile=SERVICES)
        self.create_service(Trigger, "resume", self._on_resume, qos_profile=SERVICES)
        self.create_service(Trigger, "home", self._on_home, qos_profile=SERVICES)
        self.create_timer(LOOK_S, self._guard_report.tick, clock=STEADY_CLOCK)
        self._server = TrajectoryServer(
            self.controller,
            self.loop,
            self._stamper,
            self._settings,
            self.get_namespace(),
            joint_prefix=self._setup.arm.joint_prefix,
        )
        self._senders[TOPIC] = self._server.senders
        self._say_what_is_kept(self.controller.latch.state)
        self.loop.start()

    def _say_what_is_kept(self, kept: LatchState) -> None:
        """Name what holds the arm still since before this process, and what lifts it."""
        for stop in kept.stops:
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(stop.time_ns * 1e-9))
            self.get_logger().warning(f"stopped since {since}: {stop.text}; call resume")
        if kept.released:
            self.get_logger().warning(f"no torque: {kept.released}; call torque with true")

    def close(self) -> None:
        """Leave the arm as `on_exit` says; idempotent."""
        self.loop.close()
        self._server.close()

    def _make_controller(self) -> FollowerController:
        parameters, setup = self._settings, self._setup
        guard = Guard(
            setup.guard_limits(simulated_time=self._stamper.simulated),
            period_s=1.0 / setup.arm.rate_hz,
            workspace=workspace_from_rig(setup.rig.limits, setup.arm),
            sources=DRIVER_SOURCES,
        )
        config = FollowerConfig(
            torque_on_start=parameters.torque_on_start,
            on_exit=OnExit(parameters.on_exit),
            home=parameters.home_of(setup.arm.model),
            rest=parameters.rest_of(setup.arm.model),
            move_speed=parameters.move_speed,
            gripper_current_a=parameters.gripper_current,
        )
        simulated = self._stamper.simulated
        goal_clock = ClockWatch()
        latch = SafetyLatch(latch_path(setup.arm.port))
        if setup.rig.has_simulated_table:
            latch.leave()  # a world begins with new arms, which no one ever held
        return FollowerController(
            setup.units,
            setup.calibration,
            guard,
            config,
            publish=self._publish,
            ros_now_s=self._stamper.now_s if simulated else goal_clock.now_s,
            clock_step_s=(lambda: 0.0) if simulated else goal_clock.look,
            poll_commands=self._take_commands,
            latch=latch,
            say=self._warn,
        )

    # -- from the bus thread --------------------------------------------------------------------

    def _connect(self) -> MotorBus:
        try:
            return super()._connect()
        except (WrongPort, MissingMotors):
            self.controller.silent_since_s = min(
                self.controller.silent_since_s, time.clock_gettime(time.CLOCK_BOOTTIME)
            )
            raise

    def _take_commands(self) -> None:
        for source, topic in self._topics.items():
            heard = topic.take()
            if heard is None or (source == "trajectory" and self.controller.trajectories.active):
                continue  # while an action is under way, the topic would share its source timeout
            now_s = time.monotonic()
            if not heard.obeyed:
                self.controller.guard.refuse_senders(source, topic.rivals, now_s)
                continue
            message, arm = heard.message, self._setup.arm
            self.controller.guard.submit(
                source,
                plain_joints(message.name, arm.joint_prefix, arm.model.joints),
                message.position,
                age_s=self._stamper.age_s(message.header.stamp),
                now_s=now_s,
                sender=heard.sender,
            )

    def _publish(self, snapshot: FollowerSnapshot) -> None:
        reading, result = snapshot.reading, snapshot.result
        if reading is not None:
            self._publish_states(reading)
        if result is not None and result.goal is not None:
            self._commands.publish(
                joint_state(
                    self._stamper.stamp(snapshot.written_ns),
                    self._names,
                    result.goal,
                    result.velocity,
                )
            )
        if snapshot.answers and result is not None and result.source == _TRACED:
            self._trace(snapshot)
        self._guard_report.cycle(result)

    def _trace(self, snapshot: FollowerSnapshot) -> None:
        """Tell when a command was decided and written, after its stamp, [s]."""
        result = snapshot.result
        assert result is not None
        assert result.command is not None
        stamp_s = result.command.stamp_s
        message = NamedVector(name=["guard", "bus"])
        message.header.stamp = self._stamper.stamp(round(stamp_s * 1e9))
        message.header.frame_id = result.source or ""
        ends_ns = (snapshot.guarded_ns, snapshot.written_ns)
        message.value = array("d", [1e-9 * ns - stamp_s for ns in ends_ns])
        self._traces.publish(message)

    def _on_phase(self, phase: LoopPhase, reason: str) -> None:
        self._guard_report.changed()
        super()._on_phase(phase, reason)

    # -- callbacks ------------------------------------------------------------------------------

    def _on_torque(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        def switch() -> str:
            return self.loop.call(
                lambda bus: self.controller.set_torque(bus, request.data), timeout_s=_TORQUE_S
            )

        return self._answer(response, switch)

    def _on_stop(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self.controller.stop(StopCause.REQUEST, "the stop service was called")
        self._guard_report.changed()
        response.success, response.message = True, "stopped; call resume to go on"
        return response

    def _on_resume(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        def resume() -> str:
            self.controller.resume()
            self._guard_report.changed()
            return "commands are obeyed again"

        return self._answer(response, resume)

    def _on_home(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        def home() -> str:
            self.loop.call(self.controller.home)
            return "moving to the home pose"

        return self._answer(response, home)

    def _own_statuses(self) -> Sequence[DiagnosticStatus]:
        arm, senders = self._setup.arm, self._guard_report.senders
        connected = self.loop.phase is LoopPhase.RUNNING
        return [guard_status(arm.name, arm.port, self.controller, senders, connected=connected)]


def main() -> int:
    """Entry point."""
    return run_node(FollowerNode)


if __name__ == "__main__":
    sys.exit(main())
