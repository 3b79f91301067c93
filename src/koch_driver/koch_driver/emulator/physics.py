# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What moves the emulated servos: the plug-in interface, and a first-order motor model."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from koch_driver.bus.control_table import OperatingMode, ServoModel

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class ServoDrive:
    """What one servo's controller wants right now; angles are of the output shaft, unreversed.

    The shaft angle is 0 where the absolute encoder reads 0, grows over the turns, and knows
    nothing of homing offset and drive mode: those are the servo's register arithmetic.
    """

    model: ServoModel
    torque_enabled: bool
    mode: OperatingMode
    goal_position_rad: float  # the profile's set point, not the final goal
    goal_velocity: float  # [rad/s]
    goal_current_a: float
    goal_duty_fraction: float
    current_limit_a: float
    duty_limit_fraction: float
    stiffness: float  # duty per rad of position error
    damping: float  # duty per rad/s
    velocity_gain: float  # duty per rad/s of velocity error

    def duty(self, position_rad: float, velocity: float) -> float:
        """Fraction of the supply put on the windings, -1 .. 1, inside PWM and current limits."""
        if not self.torque_enabled:
            return 0.0
        model = self.model
        back_emf = velocity / model.no_load_speed
        mode = self.mode
        if mode is OperatingMode.PWM:
            duty = self.goal_duty_fraction
        elif mode is OperatingMode.CURRENT:
            duty = self.goal_current_a / model.stall_current_a + back_emf
        elif mode is OperatingMode.VELOCITY:
            wanted = self.goal_velocity
            duty = wanted / model.no_load_speed + self.velocity_gain * (wanted - velocity)
        else:
            error = self.goal_position_rad - position_rad
            duty = self.stiffness * error - self.damping * velocity
        room = self.current_limit_a / model.stall_current_a
        duty = min(back_emf + room, max(back_emf - room, duty))
        limit = self.duty_limit_fraction
        return min(limit, max(-limit, duty))

    def torque(self, position_rad: float, velocity: float) -> float:
        """Torque in [N m] on the output shaft, back-EMF included; 0 without torque enable."""
        if not self.torque_enabled:
            return 0.0
        model = self.model
        duty = self.duty(position_rad, velocity)
        return model.stall_torque_nm * (duty - velocity / model.no_load_speed)


@dataclass(frozen=True)
class PhysicsState:
    """State of all motors at their output shafts, in chain order; sequences or float64 arrays."""

    position_rad: Sequence[float]
    velocity: Sequence[float]  # [rad/s]
    torque_nm: Sequence[float]  # of the motor


class Physics(Protocol):
    """A world that the servos live in."""

    def advance(self, dt_s: float, drives: Sequence[ServoDrive]) -> None:
        """Take the newest drives and, unless the world has its own clock, step by `dt_s`."""
        ...

    def state(self) -> PhysicsState:
        """Newest state."""
        ...


class ExternalPhysics:
    """Mailbox between a chain and a world that steps in its own thread. Thread safe.

    The chain hands drives in; the world takes them with `drives` and answers with `publish`.
    """

    def __init__(self, initial_rad: Sequence[float]) -> None:
        n = len(initial_rad)
        self._lock = threading.Lock()
        self._drives: tuple[ServoDrive, ...] = ()
        zeros = (0.0,) * n
        self._state = PhysicsState(tuple(initial_rad), zeros, zeros)

    def advance(self, dt_s: float, drives: Sequence[ServoDrive]) -> None:
        """Keep the newest drives; time passes elsewhere."""
        with self._lock:
            self._drives = tuple(drives)

    def drives(self) -> tuple[ServoDrive, ...]:
        """Newest drives; empty before the chain runs."""
        with self._lock:
            return self._drives

    def publish(self, state: PhysicsState) -> None:
        """Set the state that the servos measure from now on."""
        with self._lock:
            self._state = state

    def state(self) -> PhysicsState:
        """Newest published state."""
        with self._lock:
            return self._state


_STEP_S = 0.0025
_REST = 1e-4  # rad, rad/s: below this nothing is integrated
_TIME_CONSTANT_S = 0.025  # of a Koch joint's speed under full duty
_FRICTION_FRACTION = 0.003  # of the stall torque
_COAST_S = 0.03  # a joint without torque stops that fast: gearbox friction
_HAND_SPEED = 6.0  # rad/s


class FirstOrderPhysics:
    """Each joint alone: a geared DC motor against its own inertia, stops and a hand. No gravity.

    Thread safe for `hold`, `push` and `set_stop` against the chain's thread.
    """

    def __init__(self, models: Sequence[ServoModel], initial_rad: Sequence[float]) -> None:
        self._models = tuple(models)
        n = len(self._models)
        self._position = [float(p) for p in initial_rad]
        self._velocity = [0.0] * n
        self._torque = [0.0] * n
        self._load = [0.0] * n
        self._held: list[float | None] = [None] * n
        self._stops: list[tuple[float, float, float] | None] = [None] * n
        self._inertia = [m.stall_torque_nm * _TIME_CONSTANT_S / m.no_load_speed for m in models]

    def hold(self, motor: int, position_rad: float | None) -> None:
        """Let a hand lead a shaft to a position and keep it there; None lets go."""
        self._held[motor] = None if position_rad is None else float(position_rad)

    def push(self, motor: int, torque_nm: float) -> None:
        """Load a shaft with a constant outside torque in [N m]."""
        self._load[motor] = float(torque_nm)

    def set_stop(
        self, motor: int, low_rad: float, high_rad: float, stiffness: float = 20.0
    ) -> None:
        """Put something hard in a shaft's way, like an object between the gripper's fingers.

        Args:
            motor: Index in the chain.
            low_rad: Below this shaft angle the object pushes back.
            high_rad: Above this as well.
            stiffness: Of the object [N m/rad].
        """
        self._stops[motor] = (low_rad, high_rad, stiffness)

    def state(self) -> PhysicsState:
        """Newest state, copied."""
        return PhysicsState(tuple(self._position), tuple(self._velocity), tuple(self._torque))

    def advance(self, dt_s: float, drives: Sequence[ServoDrive]) -> None:
        """Integrate by `dt_s` in steps of 2.5 ms or less."""
        for k, drive in enumerate(drives):
            held = self._held[k]
            if held is not None:
                self._lead(k, held, drive, dt_s)
            elif not self._at_rest(k, drive):
                self._integrate(k, drive, dt_s)

    def _at_rest(self, k: int, drive: ServoDrive) -> bool:
        if abs(self._velocity[k]) > _REST or self._load[k]:
            return False
        if not drive.torque_enabled:
            self._velocity[k] = self._torque[k] = 0.0
            return True
        positional = drive.mode not in (
            OperatingMode.PWM, OperatingMode.CURRENT, OperatingMode.VELOCITY
        )  # fmt: skip
        return positional and abs(drive.goal_position_rad - self._position[k]) < _REST

    def _lead(self, k: int, target: float, drive: ServoDrive, dt_s: float) -> None:
        """A hand is stronger than the motor; the motor still pushes against it."""
        reach = _HAND_SPEED * dt_s
        move = min(reach, max(-reach, target - self._position[k]))
        self._position[k] += move
        self._velocity[k] = move / dt_s if dt_s > 0.0 else 0.0
        self._torque[k] = drive.torque(self._position[k], self._velocity[k])

    def _integrate(self, k: int, drive: ServoDrive, dt_s: float) -> None:
        position, velocity, load = self._position[k], self._velocity[k], self._load[k]
        inertia, stop = self._inertia[k], self._stops[k]
        friction = _FRICTION_FRACTION * drive.model.stall_torque_nm
        steps = max(1, math.ceil(dt_s / _STEP_S))
        step_s = dt_s / steps
        coast = math.exp(-step_s / _COAST_S)
        torque = 0.0
        for _ in range(steps):
            torque = drive.torque(position, velocity)
            total = torque + load
            if stop is not None:
                low, high, stiffness = stop
                if position < low:
                    total += stiffness * (low - position) - 0.05 * velocity
                elif position > high:
                    total -= stiffness * (position - high) + 0.05 * velocity
            if abs(velocity) < _REST and abs(total) <= friction:
                velocity = 0.0
                break
            velocity += total / inertia * step_s
            slow = friction / inertia * step_s
            velocity = 0.0 if abs(velocity) <= slow else velocity - math.copysign(slow, velocity)
            if not drive.torque_enabled:
                velocity *= coast
            position += velocity * step_s
        self._position[k], self._velocity[k], self._torque[k] = position, velocity, torque
