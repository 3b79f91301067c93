# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What a follower does on its bus: measure, ask the guard, write the goal, watch the motors."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from koch_driver.arm.command_latency import CommandLatency
from koch_driver.arm.connect import align_turns, configure, torque_off_quietly
from koch_driver.arm.grip import Grip
from koch_driver.arm.latch import SafetyLatch, StopCause
from koch_driver.arm.reading import Reading
from koch_driver.arm.servo_watch import (
    BEING_READ,
    LIMP,
    RESTARTED,
    UNPOWERED,
    by_words,
    ran_since,
)
from koch_driver.arm.watched_arm import WatchedArm
from koch_driver.bus.handshake import make_talkative
from koch_driver.errors import DriverError, ImplausibleReading, PortLost
from koch_driver.guard import Guard, GuardResult, GuardState, Rule
from koch_driver.trajectory.moves import EXIT_SOURCE, move_to
from koch_driver.trajectory.source import TrajectorySource
from koch_rig.arm_model import Role

if TYPE_CHECKING:
    from koch_driver.arm.motor_health import MotorHealth
    from koch_driver.bus.motor_bus import MotorBus, MotorState
    from koch_driver.trajectory.runner import Execution
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
    """A servo has shut down, or lost what was written to it."""

    def __init__(self, faults: Mapping[str, str]) -> None:
        what = ", ".join(f"{joint} ({fault})" for joint, fault in faults.items())
        super().__init__(
            f"servo fault of {what}: free the joint, let it cool, check plug and supply; then "
            "call the torque service with true, which restores the servo; resume alone does not"
        )


class NotRestored(DriverError):
    """The torque service did what it could, and something is still wrong."""

    def __init__(self, faults: Mapping[str, str]) -> None:
        what = "; ".join(f"{joint}: {fault}" for joint, fault in faults.items())
        super().__init__(
            f"not restored: {what}. The arm stays stopped. Check plug, supply and the joint, then "
            "try again; registers of the calibration are written by 'koch calibrate'"
        )


class TorqueUnconfirmed(DriverError):
    """Not every motor confirmed that it is without torque."""

    def __init__(self) -> None:
        super().__init__("not every motor confirmed that its torque is off; cut the arm's power")


class MoveImpossible(DriverError):
    """The arm cannot begin a motion by itself."""


@dataclass(frozen=True)
class FollowerConfig:
    """Settings of a follower.

    Attributes:
        torque_on_start: Switch the torque on when the arm connects.
        on_exit: How to leave the arm.
        home: Pose of the home service, one angle per joint in [rad]; empty: all zero.
        rest: Pose in which the arm may lose its torque; empty: all zero.
        move_speed: Mean speed of these motions in [rad/s].
        gripper_current_a: Greatest current with which the gripper presses, 0 = the servo's own
            limit, with which a gripper on an object soon has to back off from overload.
        back_off_lead_rad: How far the goal of a joint that backs off may be ahead of it.
    """

    torque_on_start: bool = True
    on_exit: OnExit = OnExit.HOLD
    home: tuple[float, ...] = ()
    rest: tuple[float, ...] = ()
    move_speed: float = 0.8
    gripper_current_a: float = GRIP_CURRENT_A
    back_off_lead_rad: float = 0.06


@dataclass(frozen=True)
class FollowerSnapshot:
    """One cycle of a follower, as the node publishes it.

    Attributes:
        reading: The joints, None when this cycle's reading failed.
        result: What the guard said; None while the torque is off.
        written_ns: When the goal was written, `time.monotonic_ns`; 0 without a goal.
        guarded_ns: When the guard had decided, in the same clock.
        answers: The goal is the first one that answers its command.
    """

    reading: Reading | None
    result: GuardResult | None
    written_ns: int
    guarded_ns: int = 0
    answers: bool = False


class FollowerController(WatchedArm):
    """Its methods run in the loop's thread; `guard` and `moves` take requests."""

    def __init__(
        self,
        units: JointUnits,
        calibration: Mapping[str, MotorCalibration],
        guard: Guard,
        config: FollowerConfig,
        *,
        publish: Callable[[FollowerSnapshot], None],
        ros_now_s: Callable[[], float],
        clock_step_s: Callable[[], float] = lambda: 0.0,
        poll_commands: Callable[[], None] = lambda: None,
        latch: SafetyLatch | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Prepare.

        Args:
            units: Conversions of this arm.
            calibration: To find turn offsets again after a servo's reboot.
            guard: The arm's guard; its sources include "trajectory" and "exit".
            config: Settings.
            publish: Receives every cycle, in the loop's thread.
            ros_now_s: ROS time, on which trajectories run.
            clock_step_s: How far that time was set since the call before, in [s].
            poll_commands: Hands new commands to the guard, in every cycle before that decides.
            latch: What earlier processes were told: stops and a released torque stay.
            say: Receives faults of servos as sentences, once each, in the loop's thread.
        """
        every_s = _HEALTH_PERIOD_S
        super().__init__(
            Role.FOLLOWER,
            units,
            calibration,
            guard,
            every_s=every_s,
            poll_commands=poll_commands,
            say=say,
        )
        self.latch = latch or SafetyLatch()
        self.config = config
        self.trajectories = TrajectorySource(self.model)
        self.latency = CommandLatency()
        self.grip = Grip(config.gripper_current_a, self.model.gripper)
        self.torque_on = False
        self._wants_torque = config.torque_on_start and not self.latch.state.released
        if self.latch.state.stops:
            guard.stop()
        self._publish = publish
        self.ros_now_s = ros_now_s
        self._clock_step_s = clock_step_s
        self._goal: tuple[float, ...] | None = None
        self._leaving: Execution | None = None
        self._known_by_s = 0.0
        self._offered = False  # whether the guard knows what the trajectories want in this cycle
        self._explained: dict[str, str] = {}
        self._known = False  # it has been connected before
        self._configured = False  # its registers hold the profile, or are to
        #: Since when the motors have not answered, before the first connection: power that returns
        #: is no wish to move. By the clock that goes on while the computer sleeps.
        self.silent_since_s = math.inf

    @property
    def faults(self) -> dict[str, str]:
        """What is wrong with servos by joint, in words; while there is any the arm is stopped."""
        return {**self.servos.lost, **self.servos.errors}

    # -- ArmController ------------------------------------------------------------------------

    def connected(self, bus: MotorBus) -> None:
        """Begin at the measured pose, without dropping an arm that is held, or moving a limp one.

        Torque is switched on by itself at the first connection only, and only where no servo has
        any: later, one without torque has lost it, and waits for the torque service.
        """
        self._goal = None
        self._converter.forget()
        looks = self.servos.connect(bus)
        released = self._known and bool(self.latch.state.released)
        if released and not torque_off_quietly(bus):
            raise TorqueUnconfirmed
        held = [] if released else [j for j, look in looks.items() if look.torque_on]
        self.servos.add_lost(self._missing_torque(held, looks))
        if self.faults:
            self._stop_for_faults()
            self.torque_on = bool(held)
            if not self._known and self.model.gripper in held:
                self.grip.apply(bus)
        elif held:
            self._restore(bus, looks)
            self._torque_on(bus)
        elif not self._known:
            configure(bus, self._calibration)
            self.grip.apply(bus)
            self._configured = True
            if self._wants_torque:
                self._torque_on(bus)
        self.servos.compare(on=self._configured)
        self._known = True
        self.guard.restart()

    def _missing_torque(
        self, held: Sequence[str], looks: Mapping[str, MotorHealth]
    ) -> dict[str, str]:
        """Joints that should have torque and have none, though their servos report no error."""
        words = ""
        if self._known or not self.torque_on:  # else the first connection broke half-way
            if self.torque_on or (not self._known and self.latch.state.held):
                words = RESTARTED
            elif not self._known and not ran_since(self.silent_since_s, looks.values()):
                words = UNPOWERED
            elif not self._known and held:
                words = LIMP
        limp = [j for j in self.model.joints if j not in held and j not in self.servos.errors]
        return dict.fromkeys(limp if words else (), words)

    def cycle(self, bus: MotorBus, state: MotorState) -> None:
        """One cycle."""
        now_s = time.monotonic()
        self._offered = False
        reading = self._read(state)
        if reading is not None:
            self.reading = reading
            self._watch(reading, now_s)
            self._offer_trajectory(reading, now_s)
        if state.alerts:
            self._note_alerts(state.alerts)
        self._poll_commands()
        result, written_ns, guarded_ns, answers = None, 0, 0, False
        if self.torque_on:
            result = self.guard.step(now_s, None if reading is None else self._held_pose(reading))
            self._goal = result.goal
            guarded_ns = time.monotonic_ns()
            if result.goal is not None:
                bus.sync_write_goal(self._units.rad_to_ticks(result.goal))
                written_ns = time.monotonic_ns()
                answers = self.latency.add(result, written_ns)
            self._settle_trajectory(result)
            if self.grip.lowered and result.source not in (None, "trajectory", EXIT_SOURCE):
                self.grip.restore(bus)
        self._publish(FollowerSnapshot(reading, result, written_ns, guarded_ns, answers))
        torque = self.model.joints if self.torque_on else ()
        self.servos.look(state, torque, self.grip.possible_ma)
        self._explain()

    def disconnected(self, reason: str) -> None:
        """Nothing is written any more; what was under way has failed."""
        self._goal = None
        self.trajectories.abort(f"the arm was lost: {reason}")
        self.guard.restart()

    def leave(self, bus: MotorBus) -> bool:
        """Leave the arm as configured; True when done."""
        self.latch.leave()
        if not self.torque_on or self.config.on_exit is OnExit.HOLD:
            return True
        if self.config.on_exit is OnExit.REST and not self.guard.stopped and not self.faults:
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

    def set_torque(self, bus: MotorBus, on: bool) -> str:
        """Switch the torque; on also restores servos that have shut down or lost something.

        Returns:
            What was done, for a person.

        Raises:
            BusError: A motor did not answer.
            NotRestored: One is still not as it must be.
            TorqueUnconfirmed: One may still hold.
        """
        if not on:
            self.latch.release("the torque was switched off by the torque service")
            self.trajectories.abort("the torque was switched off by the torque service")
            self.torque_on = False
            self._goal = None
            if not torque_off_quietly(bus):
                raise TorqueUnconfirmed
            return "torque off"
        done = self._bring_back(bus)
        self.latch.hold()
        return f"torque on; restored {done}" if done else "torque on"

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
        """Why the arm obeys no one although it is connected; empty when it does."""
        stops = "; ".join(stop.text for stop in self.latch.state.stops)
        reasons = [f"stopped: {stops}"] if stops else []
        if not self.torque_on:
            reasons.append(self.latch.state.released or "there is no torque")
        return "; ".join(reasons)

    def resume(self) -> None:
        """Obey commands again.

        Raises:
            HardwareErrorPending: A servo has shut down, or lost something.
        """
        if self.faults:
            raise HardwareErrorPending(self.faults)
        self.latch.resume()
        self.guard.resume()

    def home(self, _bus: MotorBus) -> None:
        """Begin to move to the home pose, as a trajectory.

        Raises:
            MoveImpossible: The arm is stopped, or has no torque.
        """
        if self.guard.stopped:
            raise MoveImpossible(f"{self.why_still}; call resume first")
        if not self.torque_on:
            raise MoveImpossible(f"{self.why_still}; call torque with true first")
        if self.guard.others_live("trajectory", time.monotonic()):
            raise MoveImpossible(
                "another source is driving; open teleop's enable switch or end the policy"
            )
        self._move(self.config.home)

    # -- parts of a cycle -----------------------------------------------------------------------

    def _move(self, pose: tuple[float, ...]) -> Execution:
        assert self.reading is not None
        start = self._goal or self.reading.positions
        limits = self.guard.limits
        zero = (0.0,) * len(start)
        target = tuple(
            min(high, max(low, value))
            for value, low, high in zip(pose or zero, limits.lower, limits.upper, strict=True)
        )
        return move_to(
            self.trajectories.arm, start, target, self.config.move_speed, self.ros_now_s()
        )

    def _offer_trajectory(self, reading: Reading, now_s: float) -> None:
        """Hand this cycle's trajectory targets to the guard."""
        source = EXIT_SOURCE if self._leaving is not None else "trajectory"
        step_s = self._clock_step_s()
        if step_s:
            self.trajectories.shift(step_s)
        target = self.trajectories.update(
            self.ros_now_s(), reading.positions, self._goal, reading.velocities
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
            guard.submit(source, self.model.joints, target, age_s=0.0, now_s=now_s)

    def _settle_trajectory(self, result: GuardResult) -> None:
        """Abort a trajectory that a stop or someone else pushed aside, and say why."""
        if not self.trajectories.active or self._leaving is not None:
            return
        self._note_changes(result)
        if result.state is GuardState.STOPPED:
            # The reason of a shutdown is read one or two cycles after its sign.
            if BEING_READ not in self.errors.values() or time.monotonic() > self._known_by_s:
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

    def _read(self, state: MotorState) -> Reading | None:
        """This cycle's reading; None without one.

        Raises:
            ServoLost: It cannot be, because the servo has restarted and forgot its turns.
            ImplausibleReading: It cannot be. The arm is stopped.
        """
        try:
            return self._converter.convert(state) if state.ok else None
        except ImplausibleReading as exc:
            with suppress(PortLost):  # then no one can say more, and the stop holds all the same
                self.servos.ask(exc.joints, self.model.joints if self.torque_on else ())
            self.stop(StopCause.MEASUREMENT, str(exc))
            raise

    def _note_alerts(self, alerts: Sequence[int]) -> None:
        """Servos report hardware errors: stop for good, and ask them which."""
        for joint in self.servos.note_alerts(alerts):
            self._known_by_s = time.monotonic() + _WORDS_S
            self.stop(StopCause.HARDWARE_ERROR, f"{joint} has shut down", joint)

    def _explain(self) -> None:
        """The words of a shutdown come a cycle or two after its sign."""
        if self.errors is not self._explained:
            self._explained = self.errors
            for joint, words in self.errors.items():
                if words != BEING_READ:
                    text = f"{joint} has shut down: {words}"
                    self.latch.explain(StopCause.HARDWARE_ERROR, text, joint)

    def _held_pose(self, reading: Reading) -> tuple[float, ...]:
        """The pose for the guard: a joint that has gone limp takes no other joint with it."""
        faults, goal = self.faults, self._goal
        if not faults or goal is None:
            return reading.positions
        return tuple(
            goal[k] if joint in faults else reading.positions[k]
            for k, joint in enumerate(self.model.joints)
        )

    # -- servos -----------------------------------------------------------------------------------

    def _stop_for_faults(self) -> None:
        """Latch a stop, and say why."""
        lost = self.servos.lost
        for joint, words in self.errors.items():
            self.stop(StopCause.HARDWARE_ERROR, f"{joint} has shut down: {words}", joint)
        if len(lost) == len(self.model.joints):
            self.stop(StopCause.POWER, f"the arm was without power: {by_words(lost)}")
        else:
            for joint, words in lost.items():
                self.stop(StopCause.RESTART, f"{joint} {words}", joint)
        if lost:
            self._say(
                "stopped, nothing moves until the torque service is called with true, and then "
                f"resume: {by_words(lost)}"
            )

    def _bring_back(self, bus: MotorBus) -> str:
        """Everything as it must be, torque included; what was restored, empty for nothing.

        Raises:
            BusError: A motor did not answer.
            NotRestored: Something is still wrong.
        """
        faults = self.faults
        make_talkative(bus)
        looks = self.servos.survey(bus)
        if self.servos.errors:
            self.servos.reboot(bus, tuple(self.servos.errors), self._calibration)
            looks = self.servos.survey(bus)
            if self.servos.errors:
                raise NotRestored(self.servos.errors)
        limp = [joint for joint, look in looks.items() if not look.torque_on]
        if limp:
            align_turns(bus, self._calibration)
            self._converter.forget()
            self.guard.restart()
        written = self._restore(bus, looks)
        if not limp and not faults and not written:
            self.torque_on = True
            return ""
        self._torque_on(bus)
        self._check(self.servos.survey(bus))
        self.servos.restored()
        self.servos.compare()
        self.guard.restart()
        joints = self.model.joints
        parts = {j: written.get(j, []) + ["turns", "torque"] * (j in limp) for j in joints}
        told = [j for j in joints if j in faults or j in written]
        return ", ".join(f"{j} ({', '.join(parts[j]) or 'as it was'})" for j in told)

    def _restore(self, bus: MotorBus, looks: Mapping[str, MotorHealth]) -> dict[str, list[str]]:
        """Write what differs from the profile; the names of the registers, by joint.

        Torque stays on, but in a motor whose EEPROM must be written.
        """
        written = {}
        for joint, look in looks.items():
            names = self.servos.profile.restore(bus, look)
            if names:
                written[joint] = names
                if look.torque_on and not bus.read("Torque_Enable", look.id):
                    bus.write("Torque_Enable", look.id, 1)
        if any("Operating_Mode" in names for names in written.values()):
            align_turns(bus, self._calibration)
        gripper, known = self.model.gripper, self.grip.possible_ma
        limit_ma, found_ma = self.grip.apply(bus), looks[gripper].registers.get("Goal_Current")
        if found_ma not in (None, limit_ma, *known):
            written.setdefault(gripper, []).append("Goal_Current")
        self._configured = True
        return written

    def _check(self, looks: Mapping[str, MotorHealth]) -> None:
        """Raises NotRestored with what is wrong after all was written."""
        profile, wrong = self.servos.profile, dict(self.servos.errors)
        for joint, look in looks.items():
            names = profile.differences(look)
            if names:
                wrong.setdefault(joint, profile.in_words(look, names))
            elif not look.torque_on:
                wrong.setdefault(joint, "no torque")
        if wrong:
            self.servos.add_lost({j: w for j, w in wrong.items() if j not in self.servos.errors})
            raise NotRestored(wrong)

    def _torque_on(self, bus: MotorBus) -> None:
        """Torque for those that have none, each where it is."""
        self.torque_on = True
        present = bus.read_all("Present_Position").tolist()
        torque = bus.read_all("Torque_Enable").tolist()
        for spec, ticks, on in zip(bus.motors, present, torque, strict=True):
            if not on:
                bus.write("Goal_Position", spec.id, ticks)
                bus.write("Torque_Enable", spec.id, 1)
        self.latch.hold()
