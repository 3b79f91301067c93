# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Slow registers of the motors: temperature, voltage and hardware errors, one motor per call."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from koch_driver.control_table import HardwareError
from koch_driver.errors import BusTimeout

if TYPE_CHECKING:
    from koch_driver.bus import DynamixelBus

_ADDRESS = 144  # Present_Input_Voltage 2, Present_Temperature 1
_LAYOUT = struct.Struct("<HB")
_BUDGET_S = 0.006


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
    """Reads one motor per call, round robin, inside a small time budget."""

    def __init__(self, bus: DynamixelBus) -> None:
        self._bus = bus
        self._next = 0
        self._limits: dict[int, int] = {}

    def step(self) -> MotorHealth | None:
        """Health of the next motor; None where it did not answer in time.

        Costs one transaction, and one more while the motor reports a hardware error.

        Raises:
            PortLost: The device vanished.
        """
        bus = self._bus
        spec = bus.motors[self._next % len(bus.motors)]
        self._next += 1
        try:
            if spec.id not in self._limits:
                self._limits[spec.id] = bus.read("Temperature_Limit", spec.id)
            data, alert = bus.read_block_alert(spec.id, _ADDRESS, _LAYOUT.size, _BUDGET_S)
            error = bus.read("Hardware_Error_Status", spec.id) if alert else 0
        except BusTimeout:
            return None
        tenths, celsius = _LAYOUT.unpack(data)
        return MotorHealth(
            spec.joint, spec.id, tenths / 10.0, float(celsius), HardwareError(error),
            float(self._limits[spec.id]),
        )  # fmt: skip
