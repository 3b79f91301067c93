# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A look at one motor: temperature, voltage, hardware errors, and what its registers hold."""

from __future__ import annotations

import contextlib
import time
from types import MappingProxyType
from typing import TYPE_CHECKING

from koch_driver.arm.motor_health import MotorHealth
from koch_driver.bus.control_table import HardwareError
from koch_driver.errors import BusTimeout, StatusError

if TYPE_CHECKING:
    from koch_driver.arm.health_monitor import HealthMonitor
    from koch_driver.bus.motor_bus import MotorBus, MotorState
    from koch_driver.bus.motors import MotorSpec

# Two blocks, one transaction each: (address, length), and what is taken from it.
_RAM = 64, 83
_RAM_NAMES = (
    "Torque_Enable",
    "Status_Return_Level",
    "Hardware_Error_Status",
    "Position_D_Gain",
    "Position_I_Gain",
    "Position_P_Gain",
    "Feedforward_2nd_Gain",
    "Feedforward_1st_Gain",
    "Bus_Watchdog",
    "Goal_PWM",
    "Goal_Current",
    "Profile_Acceleration",
    "Profile_Velocity",
    "Realtime_Tick",
    "Present_Input_Voltage",
    "Present_Temperature",
)
_EEPROM = 9, 31
_EEPROM_NAMES = (
    "Return_Delay_Time",
    "Drive_Mode",
    "Operating_Mode",
    "Homing_Offset",
    "Temperature_Limit",
    "Max_Voltage_Limit",
    "Min_Voltage_Limit",
    "PWM_Limit",
    "Current_Limit",
)
# EEPROM is locked under torque and outlives a restart: a look in so many is enough for it.
_EEPROM_EVERY = 6
_BUDGET_S = 0.006
_PATIENT_S = 0.3  # of one motor outside the cycle
# With less left no answer can be expected: nothing is asked.
_SHORTEST_S = 0.001
# Share of what a cycle has left; the rest is for publishing and for the next one to be on time.
_SHARE = 0.7


class HealthReader:
    """Reads one motor per call, round robin. A motor that does not answer is passed over."""

    def __init__(self, bus: MotorBus) -> None:
        self._bus = bus
        self._next = 0
        self._eeprom: dict[int, dict[str, int]] = {}
        self._looks = dict.fromkeys(bus.ids, 0)
        self._singly: set[int] = set()

    def next_is(self, motor_id: int) -> None:
        """Read this motor next."""
        self._next = self._bus.ids.index(motor_id)

    def step(self, budget_s: float = _BUDGET_S) -> tuple[MotorSpec, MotorHealth | None]:
        """Look at the next motor.

        Costs one transaction, now and then a second one, and never more than the budget.

        Args:
            budget_s: Time for all transactions together.

        Returns:
            The motor, and its health; None where it did not answer in time.

        Raises:
            PortLost: The device vanished.
        """
        spec = self._bus.motors[self._next % len(self._bus.motors)]
        self._next += 1
        try:
            return spec, self._look(spec, time.monotonic() + budget_s)
        except BusTimeout:
            return spec, None

    def survey(self) -> dict[str, MotorHealth]:
        """Look at every motor, EEPROM included, outside the cycle.

        Returns:
            What was found, by joint.

        Raises:
            BusTimeout: A motor does not answer.
            PortLost: The device vanished.
        """
        self._eeprom = {}
        return {
            spec.joint: self._look(spec, time.monotonic() + _PATIENT_S)
            for spec in self._bus.motors
        }

    def _look(self, spec: MotorSpec, until_s: float) -> MotorHealth:
        begin_s = time.clock_gettime(time.CLOCK_BOOTTIME)
        ram = self._read(spec, _RAM, _RAM_NAMES, until_s)
        end_s = time.clock_gettime(time.CLOCK_BOOTTIME)
        count = self._looks[spec.id] = self._looks[spec.id] + 1
        if spec.id not in self._eeprom:
            self._eeprom[spec.id] = self._read(spec, _EEPROM, _EEPROM_NAMES, until_s)
        elif count % _EEPROM_EVERY == 0:
            with contextlib.suppress(BusTimeout):  # what is left of the cycle may be too short
                self._eeprom[spec.id] = self._read(spec, _EEPROM, _EEPROM_NAMES, until_s)
        found = {**self._eeprom[spec.id], **ram}
        return MotorHealth(
            spec.joint,
            spec.id,
            found["Present_Input_Voltage"] / 10.0,
            float(found["Present_Temperature"]),
            HardwareError(found["Hardware_Error_Status"]),
            float(found["Temperature_Limit"]),
            (found["Min_Voltage_Limit"] / 10.0, found["Max_Voltage_Limit"] / 10.0),
            MappingProxyType(found),
            0.5 * (begin_s + end_s),
            spec.model.supply_v,
        )

    def _read(
        self, spec: MotorSpec, block: tuple[int, int], names: tuple[str, ...], until_s: float
    ) -> dict[str, int]:
        """Registers of a block by name, those that the model has."""
        address, length = block
        left_s = until_s - time.monotonic()
        if left_s < 0.0:
            raise BusTimeout(self._bus.port, f"read of {address}, id {spec.id}", 0.0, 0)
        registers = [spec.model.table[name] for name in names if name in spec.model.table]
        if spec.id in self._singly:
            return {r.name: self._bus.read(r.name, spec.id) for r in registers}
        try:
            data = self._bus.read_block(spec.id, address, length, left_s)
        except StatusError:  # some read whole registers only, as servos of other makers do
            self._singly.add(spec.id)
            return self._read(spec, block, names, until_s)
        offsets = [(r, r.address - address) for r in registers]
        return {r.name: r.decode(data[begin : begin + r.length]) for r, begin in offsets}


class HealthWatch:
    """Looks at a motor every now and then, in what a cycle has left, for a `HealthMonitor`.

    One lost packet, or a motor that only answers the state question, must not cost a cycle: the
    bus's usual time-out for registers is thirty of them.
    """

    def __init__(
        self, bus: MotorBus, monitor: HealthMonitor, *, every_s: float, period_s: float
    ) -> None:
        """Prepare.

        Args:
            bus: The open bus.
            monitor: Receives what is read, and which motor did not answer.
            every_s: Time from one motor to the next.
            period_s: Cycle time of the control loop.
        """
        self.reader = HealthReader(bus)
        self._monitor = monitor
        self._every_s = every_s
        self._period_s = period_s
        self._due_s = 0.0
        self._urgent: list[int] = []

    def hurry(self, motor_id: int) -> None:
        """Look at this motor in one of the next cycles: something has happened to it."""
        if motor_id not in self._urgent:
            self._urgent.append(motor_id)

    def look_now(self, motor_id: int) -> MotorHealth | None:
        """Look at this motor, whatever the cycle has left; None where it does not answer.

        Raises:
            PortLost: The device vanished.
        """
        self.reader.next_is(motor_id)
        return self.reader.step()[1]

    def step(self, state: MotorState) -> MotorHealth | None:
        """Look at a motor if it is time to, and if the cycle of `state` has time left.

        Raises:
            PortLost: The device vanished.
        """
        now_s = time.monotonic()
        begun_s = state.monotonic_ns * 1e-9 - 0.5 * state.duration_s
        left_s = _SHARE * (begun_s + self._period_s - now_s)
        due = bool(self._urgent) or now_s >= self._due_s
        if not state.ok or not due or left_s < _SHORTEST_S:
            return None
        if self._urgent:
            self.reader.next_is(self._urgent.pop(0))
        else:
            self._due_s = now_s + self._every_s
        spec, health = self.reader.step(min(_BUDGET_S, left_s))
        if health is None:
            self._monitor.add_silence(spec.joint)
        else:
            self._monitor.add_motor(health)
        return health
