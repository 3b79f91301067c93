# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Slow registers of the motors: temperature, voltage and hardware errors, one motor per call."""

from __future__ import annotations

import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from koch_driver.control_table import HardwareError
from koch_driver.errors import BusTimeout

if TYPE_CHECKING:
    from koch_driver.bus import DynamixelBus, MotorState
    from koch_driver.health_monitor import HealthMonitor
    from koch_driver.motors import MotorSpec

_SLOW = 144, struct.Struct("<HB")  # Present_Input_Voltage 2, Present_Temperature 1
_ERROR = 70, struct.Struct("<B")  # Hardware_Error_Status
_LIMIT = 31, struct.Struct("<B")  # Temperature_Limit
_BUDGET_S = 0.006
# With less left no answer can be expected: nothing is asked.
_SHORTEST_S = 0.001
# Share of what a cycle has left; the rest is for publishing and for the next one to be on time.
_SHARE = 0.7


@dataclass(frozen=True)
class MotorHealth:
    """Slow state of one motor."""

    joint: str
    id: int
    voltage_v: float
    temperature_c: float
    hardware_error: HardwareError
    temperature_limit_c: float

    @property
    def ok(self) -> bool:
        """Whether no hardware error is pending."""
        return not self.hardware_error


class HealthReader:
    """Reads one motor per call, round robin. A motor that does not answer is passed over."""

    def __init__(self, bus: DynamixelBus) -> None:
        self._bus = bus
        self._next = 0
        self._limits: dict[int, int] = {}

    def next_is(self, motor_id: int) -> None:
        """Read this motor next."""
        self._next = self._bus.ids.index(motor_id)

    def step(self, budget_s: float = _BUDGET_S) -> tuple[MotorSpec, MotorHealth | None]:
        """Look at the next motor.

        Costs one transaction, one more at the first time and while the motor reports a hardware
        error, and never more than the budget.

        Args:
            budget_s: Time for all transactions together.

        Returns:
            The motor, and its health; None where it did not answer in time.

        Raises:
            PortLost: The device vanished.
        """
        spec = self._bus.motors[self._next % len(self._bus.motors)]
        self._next += 1
        until_s = time.monotonic() + budget_s
        try:
            if spec.id not in self._limits:
                (self._limits[spec.id],), _ = self._read(spec.id, _LIMIT, until_s)
            (tenths, celsius), alert = self._read(spec.id, _SLOW, until_s)
            error = self._read(spec.id, _ERROR, until_s)[0][0] if alert else 0
        except BusTimeout:
            return spec, None
        return spec, MotorHealth(
            spec.joint, spec.id, tenths / 10.0, float(celsius), HardwareError(error),
            float(self._limits[spec.id]),
        )  # fmt: skip

    def _read(
        self, motor_id: int, block: tuple[int, struct.Struct], until_s: float
    ) -> tuple[tuple[int, ...], bool]:
        """Values of a block of registers, and whether the motor reports an error."""
        address, layout = block
        left_s = until_s - time.monotonic()
        if left_s < 0.0:
            raise BusTimeout(self._bus.port, f"read of {address}, id {motor_id}", 0.0, 0)
        data, alert = self._bus.read_block_alert(motor_id, address, layout.size, left_s)
        return layout.unpack(data), alert


class HealthWatch:
    """Looks at a motor every now and then, in what a cycle has left, for a `HealthMonitor`.

    One lost packet, or a motor that only answers the state question, must not cost a cycle: the
    bus's usual time-out for registers is thirty of them.
    """

    def __init__(
        self, bus: DynamixelBus, monitor: HealthMonitor, *, every_s: float, period_s: float
    ) -> None:
        """Prepare.

        Args:
            bus: The open bus.
            monitor: Receives what is read, and which motor did not answer.
            every_s: Time from one motor to the next.
            period_s: Cycle time of the control loop.
        """
        self._reader = HealthReader(bus)
        self._monitor = monitor
        self._every_s = every_s
        self._period_s = period_s
        self._due_s = 0.0

    def hurry(self, motor_id: int) -> None:
        """Look at this motor in the next cycle: it has reported a hardware error."""
        self._reader.next_is(motor_id)
        self._due_s = 0.0

    def step(self, state: MotorState) -> MotorHealth | None:
        """Look at a motor if it is time to, and if the cycle of `state` has time left.

        Raises:
            PortLost: The device vanished.
        """
        now_s = time.monotonic()
        begun_s = state.monotonic_ns * 1e-9 - 0.5 * state.duration_s
        left_s = _SHARE * (begun_s + self._period_s - now_s)
        if not state.ok or now_s < self._due_s or left_s < _SHORTEST_S:
            return None
        self._due_s = now_s + self._every_s
        spec, health = self._reader.step(min(_BUDGET_S, left_s))
        if health is None:
            self._monitor.add_silence(spec.joint)
        else:
            self._monitor.add_motor(health)
        return health
