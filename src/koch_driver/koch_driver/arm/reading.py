# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A bus state in joint units."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from koch_driver.errors import ImplausibleReading
from koch_driver.guard.plausibility import FASTEST_RAD_S, Plausibility

if TYPE_CHECKING:
    from collections.abc import Sequence

    from koch_driver.bus.dynamixel import MotorState
    from koch_driver.bus.motors import MotorSpec
    from koch_rig.units import JointUnits

_RAD_S_PER_TICK = 0.229 * 2.0 * math.pi / 60.0


@dataclass(frozen=True)
class Reading:
    """State of an arm's joints at one instant, in the order of its motors.

    Attributes:
        monotonic_ns: Middle of the bus transaction, `time.monotonic_ns`.
        positions: Angles in [rad].
        velocities: In [rad/s].
        currents: In [A], positive where it drives the joint's angle up. Servos without current
            sensor (XL430) report their load; it is scaled by the stall current: an estimate.
        loads: Share of the stall current, 0..1, not signed.
    """

    monotonic_ns: int
    positions: tuple[float, ...]
    velocities: tuple[float, ...]
    currents: tuple[float, ...]
    loads: tuple[float, ...]


class ReadingConverter:
    """Turns ticks, 0.229 rev/min and mA of one arm into rad, rad/s and A."""

    def __init__(
        self,
        units: JointUnits,
        motors: Sequence[MotorSpec],
        *,
        fastest_rad_s: float = FASTEST_RAD_S,
    ) -> None:
        """Prepare.

        Args:
            units: Conversions of the arm.
            motors: Its chain.
            fastest_rad_s: Speed that no joint exceeds; inf in a world whose time may run fast.
        """
        self._units = units
        self._joints = [motor.joint for motor in motors]
        lower, upper = units.range_rad()
        self._plausibility = Plausibility(lower.tolist(), upper.tolist(), fastest_rad_s)
        self._speed = units.sign * _RAD_S_PER_TICK
        stall = np.array([motor.model.stall_current_a for motor in motors])
        measured = np.array([motor.model.measures_current for motor in motors])
        amperes = np.where(measured, 1e-3, stall * 1e-3)
        self._current = units.sign * amperes
        self._load = amperes / stall

    def forget(self) -> None:
        """The next state begins again: turns were counted again."""
        self._plausibility.forget()

    def convert(self, state: MotorState) -> Reading:
        """Convert a good state.

        Raises:
            ImplausibleReading: A joint would have moved faster than any can since the state
                before, or be half a turn outside its calibrated range.
        """
        positions = self._units.ticks_to_rad(state.position_ticks).tolist()
        doubt = self._plausibility.doubt(positions, 1e-9 * state.monotonic_ns)
        if doubt is not None:
            raise ImplausibleReading(
                {self._joints[index]: angles for index, angles in doubt.jumps.items()},
                doubt.elapsed_s,
                {self._joints[index]: angle for index, angle in doubt.outside.items()},
            )
        return Reading(
            state.monotonic_ns,
            tuple(positions),
            tuple((state.velocity_ticks * self._speed).tolist()),
            tuple((state.current_ma * self._current).tolist()),
            tuple(np.abs(state.current_ma * self._load).tolist()),
        )
