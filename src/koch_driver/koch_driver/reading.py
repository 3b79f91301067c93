# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A bus state in joint units."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from koch_driver.errors import ImplausibleReading

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from koch_driver.bus import MotorState
    from koch_driver.motors import MotorSpec
    from koch_rig.units import JointUnits

# Faster than a hand flicks a leader's wrist, or any of these servos turns under load.
FASTEST_RAD_S = 20.0
_SLACK_RAD = 0.5
# However long a joint was not seen: half a turn on the nearest way is the other way round.
_HALF_TURN_RAD = math.pi
_RAD_S_PER_TICK = 0.229 * 2.0 * math.pi / 60.0


@dataclass(frozen=True)
class Reading:
    """State of an arm's joints at one instant, in JOINT_NAMES order.

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
        self._fastest_rad_s = fastest_rad_s
        self._joints = [motor.joint for motor in motors]
        lower, upper = units.range_rad()
        self._low, self._high = lower - _HALF_TURN_RAD, upper + _HALF_TURN_RAD
        self._last: tuple[int, NDArray[np.float64]] | None = None
        self._speed = units.sign * _RAD_S_PER_TICK
        stall = np.array([motor.model.stall_current_a for motor in motors])
        measured = np.array([motor.model.measures_current for motor in motors])
        amperes = np.where(measured, 1e-3, stall * 1e-3)
        self._current = units.sign * amperes
        self._load = amperes / stall

    def forget(self) -> None:
        """The next state begins anew: turns were counted again."""
        self._last = None

    def convert(self, state: MotorState) -> Reading:
        """Convert a good state.

        Raises:
            ImplausibleReading: A joint would have moved faster than any can since the state
                before, or be half a turn outside its calibrated range.
        """
        positions = self._units.ticks_to_rad(state.position_ticks)
        self._doubt(positions, state.monotonic_ns)
        return Reading(
            state.monotonic_ns,
            tuple(positions.tolist()),
            tuple((state.velocity_ticks * self._speed).tolist()),
            tuple((state.current_ma * self._current).tolist()),
            tuple(np.abs(state.current_ma * self._load).tolist()),
        )

    def _doubt(self, positions: NDArray[np.float64], now_ns: int) -> None:
        """Refuse what cannot be."""
        outside = (positions < self._low) | (positions > self._high)
        then_ns, before = self._last or (now_ns, positions)
        elapsed_s = 1e-9 * (now_ns - then_ns)
        reach = min(_SLACK_RAD + self._fastest_rad_s * elapsed_s, _HALF_TURN_RAD)
        jumped = np.abs(positions - before) > reach
        if (outside | jumped).any():
            angles = dict(
                zip(
                    self._joints,
                    zip(before.tolist(), positions.tolist(), strict=True),
                    strict=True,
                )
            )
            jumps = {j: angles[j] for j, bad in zip(self._joints, jumped, strict=True) if bad}
            there = zip(self._joints, outside & ~jumped, strict=True)
            raise ImplausibleReading(
                jumps, elapsed_s, {j: angles[j][1] for j, bad in there if bad}
            )
        self._last = now_ns, positions
