# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What one look at a motor found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from koch_driver.bus.control_table import HardwareError, supply_doubt


@dataclass(frozen=True)
class MotorHealth:
    """What one look at a motor found.

    Attributes:
        joint: Its joint.
        id: Its id.
        voltage_v: Supply.
        temperature_c: Inside the servo.
        hardware_error: What it reports.
        temperature_limit_c: Its own limit.
        voltage_range_v: Its own limits.
        registers: What else it holds, by name.
        at_s: When, by the clock that goes on while the computer sleeps.
        supply_v: What the model is made for.
    """

    joint: str
    id: int
    voltage_v: float
    temperature_c: float
    hardware_error: HardwareError
    temperature_limit_c: float
    voltage_range_v: tuple[float, float] = (0.0, math.inf)
    registers: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    at_s: float = 0.0
    supply_v: float = math.nan

    @property
    def ok(self) -> bool:
        """Whether no hardware error is pending."""
        return not self.hardware_error

    @property
    def supply_doubt(self) -> str:
        """What is wrong with the supply though the servo bears it; empty when nothing is."""
        return supply_doubt(self.voltage_v, self.supply_v)

    @property
    def torque_on(self) -> bool:
        """Whether the motor holds or drives."""
        return bool(self.registers.get("Torque_Enable", 0))
