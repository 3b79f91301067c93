# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What a follower does on its bus: measure, ask the guard, write the goal, watch the motors."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from koch_driver.arm import (
    ELBOW_GAINS,
    configure_follower,
    operating_modes,
    torque_off_quietly,
)
from koch_driver.command_latency import CommandLatency
from koch_driver.errors import DriverError
from koch_driver.grip import Grip
from koch_driver.guard import Guard, GuardResult, GuardState, Rule
from koch_driver.health import HealthWatch
from koch_driver.health_monitor import HealthMonitor
from koch_driver.latch import SafetyLatch, StopCause
from koch_driver.motor_errors import UNKNOWN, in_words, pending_errors, reboot_motors
from koch_driver.motors import FOLLOWER_MOTORS
from koch_driver.moves import EXIT_SOURCE, move_to
from koch_driver.reading import Reading, ReadingConverter
from koch_driver.trajectory_source import TrajectorySource
from koch_rig.joints import GRIPPER, JOINT_NAMES

if TYPE_CHECKING:
    from koch_driver.bus import DynamixelBus, MotorState
    from koch_driver.trajectory_runner import Execution
    from koch_rig.calibration import MotorCalibration
    from koch_rig.units import JointUnits

_HEALTH_PERIOD_S = 0.1
_WORDS_S = 0.1  # by when the reason of a shutdown is known
# Holds a full cup, and leaves an egg whole; far below the servo's overload.
GRIP_CURRENT_A = 0.45


class OnExit(Enum):
    """How the arm is left when the driver ends."""

    HOLD = "hold"  # torque stays on, the last goal is held
    REST = "rest"  # moves to the rest pose, then torque off
    RELEASE = "release"  # torque off where it is


class HardwareErrorPending(DriverError):
    """A servo has shut down."""

    def __init__(self, errors: Mapping[str, str]) -> None:
        what = ", ".join(f"{joint} ({error})" for joint, error in errors.items())
        super().__init__(
            f"hardware error of {what}: free the joint, let it cool, then call the torque service "
            "with true, which reboots the servo; resume alone does not"
        )


class MoveImpossible(DriverError):
    """The arm cannot begin a motion by itself."""


@dataclass(frozen=True)
class FollowerConfig:
    """Settings of a follower.

    Attributes:
        torque_on_start: Switch the torque on when the arm connects.
        on_exit: How to leave the arm.
        home: Pose of the home service, angles in [rad] in JOINT_NAMES order.
        rest: Pose in which the arm may lose its torque.
        move_speed: Mean speed of these motions in [rad/s].
        gripper_current_a: Greatest current with which the gripper presses, 0 = the servo's own
            limit, with which a gripper on an object soon has to back off from overload.
        back_off_lead_rad: How far the goal of a joint that backs off may be ahead of it.
    """

    torque_on_start: bool = True
    on_exit: OnExit = OnExit.HOLD
    home: tuple[float, ...] = (0.0,) * len(JOINT_NAMES)
    rest: tuple[float, ...] = (0.0,) * len(JOINT_NAMES)
    move_speed: float = 0.8
    gripper_current_a: float = GRIP_CURRENT_A
    back_off_lead_rad: float = 0.06


@dataclass(frozen=True)
class Snapshot:
    """One cycle of a follower, as the node publishes it.

    Attributes:
        reading: The joints, None when this cycle's reading failed.
        result: What the guard said; None while the torque is off.
        written_ns: When the goal was written, `time.monotonic_ns`; 0 without a goal.
    """

    reading: Reading | None
    result: GuardResult | None
    written_ns: int


class FollowerTask:
    """An `ArmTask`. Its methods run in the loop's thread; `guard` and `moves` take requests."""

    def __init__(
        self,
        units: JointUnits,
        calibration: Mapping[str, MotorCalibration],
        guard: Guard,
        config: FollowerConfig,
        *,
        publish: Callable[[Snapshot], None],
        ros_now_s: Callable[[], float],
        hear: Callable[[], None] = lambda: None,
        latch: SafetyLatch | None = None,
    ) -> None:
        """Prepare.

        Args:
            units: Conversions of this arm.
            calibration: To find turn offsets again after a servo's reboot.
            guard: The arm's guard; its sources include "trajectory" and "exit".
            config: Settings.
            publish: Receives every cycle, in the loop's thread.
            ros_now_s: ROS time, on which trajectories run.
            hear: Hands new commands to the guard; called in every cycle before the guard decides.
            latch: What earlier processes were told: stops and a released torque stay.
        """
        self.guard = guard
        self.latch = latch or SafetyLatch()
        self.config = config
        self.trajectories = TrajectorySource()
        self.monitor = HealthMonitor(JOINT_NAMES)
        self.latency = CommandLatency()
        self.grip = Grip(config.gripper_current_a)
        self.torque_on = False
        self.errors: dict[str, str] = {}
        self.reading: Reading | None = None
        self._wants_torque = config.torque_on_start and not self.latch.state.released
        if self.latch.state.stops:
            guard.stop()
        self._units = units
        self._calibration = calibration
        self._converter = ReadingConverter(units, FOLLOWER_MOTORS)
        self._publish = publish
        self._ros_now_s = ros_now_s
        self._hear = hear
        self._health: HealthWatch | None = None
        self._goal: tuple[float, ...] | None = None
        self._leaving: Execution | None = None
        self._configured = False
        self._known_by_s = 0.0
        self._offered = False  # whether the guard knows what the trajectories want in this cycle

    # -- ArmTask ------------------------------------------------------------------------------

    def connected(self, bus: DynamixelBus) -> None:
        """Configure without dropping an arm that is still held; begin at the measured pose."""
        self._health = HealthWatch(
            bus, self.monitor, every_s=_HEALTH_PERIOD_S, period_s=self.guard.period_s
        )
        self._goal = None
        self.errors = pending_errors(bus)
        self._configured = True
        if self.errors:
            # A servo that has shut down refuses torque; the others keep theirs, and the arm
            # waits for the torque service. Without any torque there is nothing to write.
            for joint, error in self.errors.items():
                self.stop(StopCause.HARDWARE_ERROR, f"{joint} has shut down: {error}", joint)
            self._configured = False
            self.torque_on = bool(bus.read_all("Torque_Enable").any())
            if GRIPPER not in self.errors:
                self.grip.apply(bus)
        elif not self._still_held(bus):
            configure_follower(bus, self._calibration)
            self.torque_on = False
            if self._wants_torque:
                self._torque_on(bus)
        else:
            self.grip.apply(bus)
            self.torque_on = True
            self.latch.hold()  # somebody gave the torque back without us
        self.guard.restart()

    def cycle(self, bus: DynamixelBus, state: MotorState) -> None:
        """One cycle."""
        now_s = time.monotonic()
        self._offered = False
        reading = self._converter.convert(state) if state.ok else None
        if reading is not None:
            self.reading = reading
            self._watch(reading, now_s)
            self._offer_trajectory(reading, now_s)
        if state.alerts:
            self._note_errors(state.alerts)
        self._hear()
        result, written_ns = None, 0
        if self.torque_on:
            result = self.guard.step(now_s, None if reading is None else reading.positions)
            self._goal = result.goal
            if result.goal is not None:
                bus.sync_write_goal(self._units.rad_to_ticks(result.goal))
                written_ns = time.monotonic_ns()
                self.latency.add(result, written_ns)
            self._settle_trajectory(result)
            if self.grip.lowered and result.source not in (None, "trajectory", EXIT_SOURCE):
                self.grip.restore(bus)
        self._publish(Snapshot(reading, result, written_ns))
        self._look_at_a_motor(state)

    def disconnected(self, reason: str) -> None:
        """Nothing is written any more; what was under way has failed."""
        self._goal = None
        self.trajectories.abort(f"the arm was lost: {reason}")
        self.guard.restart()

    def leave(self, bus: DynamixelBus) -> bool:
        """Leave the arm as configured; True when done."""
        if not self.torque_on or self.config.on_exit is OnExit.HOLD:
            return True
        if self.config.on_exit is OnExit.REST and not self.guard.stopped and not self.errors:
            if self._leaving is None:
                self._leaving = self._move(self.config.rest)
            outcome = self._leaving.outcome
            if outcome is None:
                return False
            if outcome.code != 0:
                return True
        torque_off_quietly(bus)
        self.torque_on = False
        return True

    # -- requests, run in the loop's thread through ControlLoop.call ----------------------------

    def set_torque(self, bus: DynamixelBus, on: bool) -> None:
        """Switch the torque; on also reboots servos that have shut down.

        Raises:
            BusError: A motor did not confirm.
        """
        self._wants_torque = on
        if not on:
            self.latch.release("the torque was switched off by the torque service")
            self.trajectories.abort("the torque was switched off by the torque service")
            bus.write_all("Torque_Enable", 0)
            self.torque_on = False
            self._goal = None
            return
        self._clear_errors(bus)
        if not self.torque_on or not self._still_held(bus):
            if not self._configured:
                configure_follower(bus, self._calibration)
                self._configured = True
            self._torque_on(bus)
            self.guard.restart()
        self.latch.hold()

    def stop(self, cause: StopCause, text: str, joint: str = "") -> None:
        """Brake and hold until `resume`, in this process and in those after it.

        Args:
            cause: Kind of the reason.
            text: The reason for people: what happened.
            joint: The joint concerned, empty for the whole arm.
        """
        self.guard.stop()  # first: the file may take its time
        self.latch.stop(cause, text, joint)
        if cause is StopCause.HARDWARE_ERROR:
            self.trajectories.release()  # what is under way is aborted once the reason is known
        else:
            self.trajectories.abort(f"stopped: {text}")

    @property
    def why_still(self) -> str:
        """Why the arm obeys nobody although it is connected; empty when it does."""
        stops = "; ".join(stop.text for stop in self.latch.state.stops)
        reasons = [f"stopped: {stops}"] if stops else []
        if not self.torque_on:
            reasons.append(self.latch.state.released or "there is no torque")
        return "; ".join(reasons)

    def resume(self) -> None:
        """Obey commands again.

        Raises:
            HardwareErrorPending: A servo has shut down.
        """
        if self.errors:
            raise HardwareErrorPending(self.errors)
        self.latch.resume()
        self.guard.resume()

    def home(self, _bus: DynamixelBus) -> None:
        """Begin to move to the home pose, as a trajectory.

        Raises:
            MoveImpossible: The arm is stopped, or has no torque.
        """
        if self.guard.stopped:
            raise MoveImpossible(f"{self.why_still}; call resume first")
        if not self.torque_on:
            raise MoveImpossible(f"{self.why_still}; call torque with true first")
        if self.guard.others_live("trajectory", time.monotonic()):
            raise MoveImpossible("another source is driving; open the clutch or end the policy")
        self._move(self.config.home)

    # -- parts of a cycle -----------------------------------------------------------------------

    def _move(self, pose: tuple[float, ...]) -> Execution:
        assert self.reading is not None
        start = self._goal or self.reading.positions
        limits = self.guard.limits
        target = tuple(
            min(high, max(low, value))
            for value, low, high in zip(pose, limits.lower, limits.upper, strict=True)
        )
        return move_to(
            self.trajectories.arm, start, target, self.config.move_speed, self._ros_now_s()
        )

    def _offer_trajectory(self, reading: Reading, now_s: float) -> None:
        """Hand this cycle's trajectory targets to the guard."""
        source = EXIT_SOURCE if self._leaving is not None else "trajectory"
        target = self.trajectories.update(
            self._ros_now_s(), reading.positions, self._goal, reading.velocities
        )
        guard = self.guard
        if target is None:
            guard.release(source)
            return
        if not self.trajectories.active and guard.others_live(source, now_s):
            self.trajectories.release()
            guard.release(source)
            return
        if self.torque_on and not guard.stopped:
            self._offered = True
            guard.submit(source, JOINT_NAMES, target, age_s=0.0, now_s=now_s)

    def _settle_trajectory(self, result: GuardResult) -> None:
        """Abort a trajectory that a stop or somebody else pushed aside, and say why."""
        if not self.trajectories.active or self._leaving is not None:
            return
        self._note_changes(result)
        if result.state is GuardState.STOPPED:
            # The reason of a shutdown is read one or two cycles after its sign.
            if UNKNOWN not in self.errors.values() or time.monotonic() > self._known_by_s:
                self.trajectories.abort(self.why_still)
        elif self._offered and result.source not in (None, "trajectory"):
            self.trajectories.abort(f"{result.source} took over")

    def _note_changes(self, result: GuardResult) -> None:
        """Let what is under way remember where the guard did not follow it."""
        if result.source != "trajectory":
            return
        # Each motion starts softly, which bends its beginning: no news.
        usual = {Rule.SOFT_START}
        if result.state is GuardState.BLENDING:
            usual |= {Rule.SPEED, Rule.ACCELERATION}
        for item in result.interventions:
            if item.granted is not None and item.rule not in usual:
                self.trajectories.note_change(
                    item.rule.value, item.joint, item.requested, item.granted
                )

    def _watch(self, reading: Reading, now_s: float) -> None:
        for joint, reason in self.monitor.add_loads(reading.loads, now_s).items():
            lead = None if reason is None else self.config.back_off_lead_rad
            self.guard.back_off(joint, lead)

    def _note_errors(self, alerts: tuple[int, ...]) -> None:
        """A servo reports a hardware error: stop for good, and ask it which."""
        known = {spec.joint: spec.id for spec in FOLLOWER_MOTORS if spec.id in alerts}
        for joint in known.keys() - self.errors.keys():
            self.errors = {**self.errors, joint: UNKNOWN}
            self._known_by_s = time.monotonic() + _WORDS_S
            self.stop(StopCause.HARDWARE_ERROR, f"{joint} has shut down", joint)
            if self._health is not None:
                self._health.hurry(known[joint])

    def _look_at_a_motor(self, state: MotorState) -> None:
        motor = None if self._health is None else self._health.step(state)
        if motor is not None and motor.hardware_error and motor.joint in self.errors:
            words = in_words(motor.hardware_error)
            self.errors = {**self.errors, motor.joint: words}
            text = f"{motor.joint} has shut down: {words}"
            self.latch.explain(StopCause.HARDWARE_ERROR, text, motor.joint)

    def _clear_errors(self, bus: DynamixelBus) -> None:
        if not self.errors:
            return
        reboot_motors(bus, self.errors, self._calibration)
        if "elbow_flex" in self.errors:
            for register, value in ELBOW_GAINS.items():
                bus.write(register, "elbow_flex", value)
        self.errors = {}
        self.torque_on = False

    def _torque_on(self, bus: DynamixelBus) -> None:
        self.grip.apply(bus)
        bus.write_all("Torque_Enable", 1)
        self.torque_on = True

    def _still_held(self, bus: DynamixelBus) -> bool:
        """True when all motors hold, configured as they should be."""
        return (
            bool(bus.read_all("Torque_Enable").all())
            and bus.read_all("Operating_Mode").tolist() == operating_modes()
            and all(bus.read(name, "elbow_flex") == value for name, value in ELBOW_GAINS.items())
        )
