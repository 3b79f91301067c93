# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What the nodes of a leader and of a follower do alike: bus, log, diagnostics, services."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool, Trigger

from koch_core.errors import KochError
from koch_driver.arm.connect import connect_arm
from koch_driver.arm.control_loop import ControlLoop, LoopConfig, LoopPhase
from koch_driver.arm.reading import Reading
from koch_driver.arm.watched_arm import WatchedArm
from koch_driver.bus.motor_bus import MotorBus
from koch_driver.nodes.arm_setup import ArmSetup
from koch_driver.nodes.diagnostics import loop_status, motor_statuses
from koch_driver.nodes.messages import joint_state
from koch_driver.nodes.parameters import FollowerParameters, LeaderParameters
from koch_driver.nodes.phase_log import PhaseLog
from koch_rig.rig import Arm, Role
from koch_ros.parameters import declare
from koch_ros.qos import DIAGNOSTICS, STATE
from koch_ros.stamps import STEADY_CLOCK, ClockWatch, RosStamper

P = TypeVar("P", FollowerParameters, LeaderParameters)
R = TypeVar("R", SetBool.Response, Trigger.Response)


class ArmNode(Node, Generic[P]):
    """A driver. Its kind makes `controller`, then `loop`, and starts that when all else is there.

    Callbacks run in the executor's single thread; the bus belongs to the control loop's thread.
    """

    controller: WatchedArm
    loop: ControlLoop

    def __init__(self, parameters: type[P], role: Role) -> None:
        super().__init__("driver")
        self._settings: P = declare(self, parameters)
        self._setup = ArmSetup.load(self._settings.rig, self._settings.arm, role)
        self._names = self._setup.arm.topic_joints
        self._stamper = RosStamper(self.get_clock())
        self._clock_watch = ClockWatch()
        self._phase_log = PhaseLog(self.get_logger(), self._setup)
        self._bus: MotorBus | None = None
        self._states = self.create_publisher(JointState, "joint_states", STATE)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", DIAGNOSTICS)
        self.create_timer(1.0, self._report, clock=STEADY_CLOCK)

    def _make_loop(self) -> ControlLoop:
        return ControlLoop(
            self._setup.arm.name,
            self._connect,
            self.controller,
            LoopConfig.at(self._setup.arm.rate_hz),
            report=self._on_phase,
            words=self._setup.words,
        )

    # -- from the bus thread --------------------------------------------------------------------

    def _connect(self) -> MotorBus:
        """Open the arm; the first time everything is checked."""
        self._bus = connect_arm(
            self._setup.arm,
            self._setup.calibration,
            allow_drift=self._settings.allow_drift,
            rig=self._setup.rig,
            thorough=self._bus is None,
        )
        return self._bus

    def _publish_states(self, reading: Reading) -> None:
        self._states.publish(
            joint_state(
                self._stamper.stamp(reading.monotonic_ns),
                self._names,
                reading.positions,
                reading.velocities,
                reading.currents,
            )
        )

    def _on_phase(self, phase: LoopPhase, reason: str) -> None:
        self._phase_log.note(phase, reason)
        self._report()

    def _warn(self, text: str) -> None:
        self.get_logger().error(f"{self._setup.arm.name}: {text}")
        self._report()

    # -- callbacks ------------------------------------------------------------------------------

    def _answer(self, response: R, act: Callable[[], str]) -> R:
        """Do what a service was asked for, which says what it did; an error is its answer."""
        try:
            response.message = act()
            response.success = True
        except KochError as exc:
            response.success, response.message = False, self._setup.words(exc)
        return response

    def _report(self) -> None:
        self._phase_log.tick()
        if not self._stamper.simulated and self._clock_watch.look():
            self.get_logger().warning(f"{self._setup.arm.name}: {self._clock_watch.words()}")
        arm: Arm = self._setup.arm
        controller: WatchedArm = self.controller
        reading, joints = controller.reading, arm.model.joints
        currents: dict[str, float] = {}
        if reading is not None:
            currents = dict(zip(joints, reading.currents, strict=True))
        message = DiagnosticArray()
        message.header.stamp = self.get_clock().now().to_msg()
        statistics = None if self._bus is None else self._bus.statistics.snapshot()
        clock = self._clock_watch.words()
        message.status = [
            loop_status(arm.name, arm.port, self.loop.status(), statistics, clock),
            *self._own_statuses(),
            *motor_statuses(
                arm.name,
                arm.port,
                controller.monitor,
                currents,
                controller.errors,
                controller.servos.lost,
            ),
        ]
        self._diagnostics.publish(message)

    def _own_statuses(self) -> Sequence[DiagnosticStatus]:
        """What this kind of arm reports beside its loop and motors."""
        return ()
