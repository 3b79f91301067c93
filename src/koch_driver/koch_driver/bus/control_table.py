# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Control tables of XL330-M077, XL330-M288 and XL430-W250, as data.

Source: ROBOTIS e-Manual, section "Control Table" of each model
    https://emanual.robotis.com/docs/en/dxl/x/xl330-m077/
    https://emanual.robotis.com/docs/en/dxl/x/xl330-m288/
    https://emanual.robotis.com/docs/en/dxl/x/xl430-w250/
Names are LeRobot's (words joined by underscores).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum, IntEnum, IntFlag
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

from koch_driver.errors import RegisterError

if TYPE_CHECKING:
    from collections.abc import Mapping

TICKS_PER_TURN = 4096
VELOCITY_UNIT_RPM = 0.229
ACCELERATION_UNIT_RPM2 = 214.577
PWM_FULL = 885  # 100 % duty in units of 0.113 %
MULTI_TURN_TICKS = 1_048_575  # +- 256 turns


class Area(Enum):
    """Memory area. EEPROM keeps its value without power and is locked under torque."""

    EEPROM = "EEPROM"
    RAM = "RAM"


class OperatingMode(IntEnum):
    """Register 11."""

    CURRENT = 0
    VELOCITY = 1
    POSITION = 3
    EXTENDED_POSITION = 4
    CURRENT_POSITION = 5
    PWM = 16


class DriveMode(IntFlag):
    """Register 10."""

    REVERSE = 1
    TIME_PROFILE = 4
    TORQUE_ON_BY_GOAL = 8


class HardwareError(IntFlag):
    """Register 70, and the mask of register 63 (Shutdown)."""

    INPUT_VOLTAGE = 1
    OVERHEATING = 4
    ENCODER = 8
    ELECTRICAL_SHOCK = 16
    OVERLOAD = 32


BAUD_RATES: Mapping[int, int] = MappingProxyType(
    {0: 9600, 1: 57600, 2: 115200, 3: 1_000_000, 4: 2_000_000, 5: 3_000_000, 6: 4_000_000}
)


@dataclass(frozen=True)
class Register:
    """One item of a control table; `default` None: set by the servo itself."""

    name: str
    address: int
    length: int
    area: Area
    writable: bool
    signed: bool
    minimum: int
    maximum: int
    default: int | None
    unit: str

    def check(self, value: int) -> None:
        """Check that `value` may be written.

        Raises:
            RegisterError: The register is read-only, or the value is outside its range.
        """
        if not self.writable:
            raise RegisterError(f"write of {self.name}", value, "a writable register")
        if not self.minimum <= value <= self.maximum:
            raise RegisterError(
                f"write of {self.name}", value, f"{self.minimum} .. {self.maximum} {self.unit}"
            )

    def encode(self, value: int) -> bytes:
        """Little-endian bytes of `value`, two's complement where signed."""
        return value.to_bytes(self.length, "little", signed=self.signed)

    def decode(self, data: bytes) -> int:
        """Value of the register's bytes."""
        return int.from_bytes(data, "little", signed=self.signed)


@dataclass(frozen=True)
class ServoModel:
    """One servo model: identity, control table and the data sheet's mechanics."""

    name: str
    number: int
    manual_url: str
    table: Mapping[str, Register]
    modes: frozenset[OperatingMode]
    fast_read_firmware: int  # first firmware with Fast Sync/Bulk Read
    firmware: int  # of the emulated servo
    supply_v: float
    stall_torque_nm: float
    stall_current_a: float
    no_load_rpm: float
    measures_current: bool  # else address 126 is present load, 0.1 %

    def register(self, name: str) -> Register:
        """Look a register up.

        Raises:
            RegisterError: The model has no such register.
        """
        try:
            return self.table[name]
        except KeyError as exc:
            raise RegisterError(
                f"register of {self.name}", name, "one of " + ", ".join(self.table)
            ) from exc

    @cached_property
    def no_load_speed(self) -> float:
        """No-load speed in [rad/s]."""
        return self.no_load_rpm * 2.0 * math.pi / 60.0

    @cached_property
    def size(self) -> int:
        """Bytes of the whole table, the last address + 1."""
        return max(r.address + r.length for r in self.table.values())


# name, address, length, access, signed, min, max, default, unit
_Row = tuple[str, int, int, str, bool, int, int, "int | None", str]
_ANY4 = 2**31
_EEPROM_ROWS: tuple[_Row, ...] = (
    ("Model_Number", 0, 2, "R", False, 0, 65535, None, ""),
    ("Model_Information", 2, 4, "R", False, 0, 2**32 - 1, 0, ""),
    ("Firmware_Version", 6, 1, "R", False, 0, 255, None, ""),
    ("ID", 7, 1, "RW", False, 0, 252, 1, ""),
    ("Baud_Rate", 8, 1, "RW", False, 0, 6, 1, ""),
    ("Return_Delay_Time", 9, 1, "RW", False, 0, 254, 250, "2 us"),
    ("Drive_Mode", 10, 1, "RW", False, 0, 13, 0, ""),
    ("Operating_Mode", 11, 1, "RW", False, 0, 16, 3, ""),
    ("Secondary_ID", 12, 1, "RW", False, 0, 255, 255, ""),
    ("Protocol_Type", 13, 1, "RW", False, 1, 22, 2, ""),
    ("Homing_Offset", 20, 4, "RW", True, -1_044_479, 1_044_479, 0, "tick"),
    ("Moving_Threshold", 24, 4, "RW", False, 0, 1023, 10, "0.229 rpm"),
    ("Temperature_Limit", 31, 1, "RW", False, 0, 100, 70, "degree C"),
    ("Max_Voltage_Limit", 32, 2, "RW", False, 31, 140, 70, "0.1 V"),
    ("Min_Voltage_Limit", 34, 2, "RW", False, 31, 140, 35, "0.1 V"),
    ("PWM_Limit", 36, 2, "RW", False, 0, PWM_FULL, PWM_FULL, "0.113 %"),
    ("Current_Limit", 38, 2, "RW", False, 0, 1750, 1750, "mA"),
    ("Velocity_Limit", 44, 4, "RW", False, 0, 2047, 445, "0.229 rpm"),
    ("Max_Position_Limit", 48, 4, "RW", False, 0, 4095, 4095, "tick"),
    ("Min_Position_Limit", 52, 4, "RW", False, 0, 4095, 0, "tick"),
    ("Startup_Configuration", 60, 1, "RW", False, 0, 3, 0, ""),
    ("PWM_Slope", 62, 1, "RW", False, 1, 255, 140, "1.977 mV/ms"),
    ("Shutdown", 63, 1, "RW", False, 0, 63, 53, ""),
)
_RAM_ROWS: tuple[_Row, ...] = (
    ("Torque_Enable", 64, 1, "RW", False, 0, 1, 0, ""),
    ("LED", 65, 1, "RW", False, 0, 1, 0, ""),
    ("Status_Return_Level", 68, 1, "RW", False, 0, 2, 2, ""),
    ("Registered_Instruction", 69, 1, "R", False, 0, 1, 0, ""),
    ("Hardware_Error_Status", 70, 1, "R", False, 0, 255, 0, ""),
    ("Velocity_I_Gain", 76, 2, "RW", False, 0, 16383, 1600, ""),
    ("Velocity_P_Gain", 78, 2, "RW", False, 0, 16383, 180, ""),
    ("Position_D_Gain", 80, 2, "RW", False, 0, 16383, 0, ""),
    ("Position_I_Gain", 82, 2, "RW", False, 0, 16383, 0, ""),
    ("Position_P_Gain", 84, 2, "RW", False, 0, 16383, 400, ""),
    ("Feedforward_2nd_Gain", 88, 2, "RW", False, 0, 16383, 0, ""),
    ("Feedforward_1st_Gain", 90, 2, "RW", False, 0, 16383, 0, ""),
    ("Bus_Watchdog", 98, 1, "RW", True, 0, 127, 0, "20 ms"),
    ("Goal_PWM", 100, 2, "RW", True, -PWM_FULL, PWM_FULL, None, "0.113 %"),
    ("Goal_Current", 102, 2, "RW", True, -1750, 1750, None, "mA"),
    ("Goal_Velocity", 104, 4, "RW", True, -2047, 2047, 0, "0.229 rpm"),
    ("Profile_Acceleration", 108, 4, "RW", False, 0, 32767, 0, "214.577 rpm^2 or ms"),
    ("Profile_Velocity", 112, 4, "RW", False, 0, 32767, 0, "0.229 rpm or ms"),
    ("Goal_Position", 116, 4, "RW", True, -MULTI_TURN_TICKS, MULTI_TURN_TICKS, None, "tick"),
    ("Realtime_Tick", 120, 2, "R", False, 0, 32767, 0, "ms"),
    ("Moving", 122, 1, "R", False, 0, 1, 0, ""),
    ("Moving_Status", 123, 1, "R", False, 0, 255, 0, ""),
    ("Present_PWM", 124, 2, "R", True, -PWM_FULL, PWM_FULL, 0, "0.113 %"),
    ("Present_Current", 126, 2, "R", True, -1750, 1750, 0, "mA"),
    ("Present_Velocity", 128, 4, "R", True, -_ANY4, _ANY4 - 1, 0, "0.229 rpm"),
    ("Present_Position", 132, 4, "R", True, -_ANY4, _ANY4 - 1, 0, "tick"),
    ("Velocity_Trajectory", 136, 4, "R", True, -_ANY4, _ANY4 - 1, 0, "0.229 rpm"),
    ("Position_Trajectory", 140, 4, "R", True, -_ANY4, _ANY4 - 1, 0, "tick"),
    ("Present_Input_Voltage", 144, 2, "R", False, 0, 65535, 0, "0.1 V"),
    ("Present_Temperature", 146, 1, "R", False, 0, 255, 0, "degree C"),
    ("Backup_Ready", 147, 1, "R", False, 0, 1, 0, ""),
)
# name: (minimum, maximum, default) where a model differs from the rows above
_Changes = dict[str, "tuple[int, int, int | None]"]
_XL430_CHANGES: _Changes = {
    "Temperature_Limit": (0, 100, 72),
    "Max_Voltage_Limit": (60, 140, 140),
    "Min_Voltage_Limit": (60, 140, 60),
    "Velocity_Limit": (0, 1023, 265),
    "Shutdown": (0, 63, 52),
    "Velocity_I_Gain": (0, 16383, 1000),
    "Velocity_P_Gain": (0, 16383, 100),
    "Position_D_Gain": (0, 16383, 4000),
    "Position_P_Gain": (0, 16383, 640),
    "Goal_Velocity": (-1023, 1023, 0),
    "Present_Load": (-1000, 1000, 0),
}
_XL330_CHANGES: _Changes = {
    "Max_Voltage_Limit": (31, 70, 70),
    "Min_Voltage_Limit": (31, 70, 35),
}


def _indirect(first: int, count: int, address: int, data: int, top: int) -> list[Register]:
    """Registers of one block of indirect addresses and their data."""
    rows = []
    for k in range(count):
        n = first + k
        rows.append(
            Register(
                f"Indirect_Address_{n}",
                address + 2 * k,
                2,
                Area.RAM,
                True,
                False,
                64,
                top,
                data + k,
                "",
            )
        )
        rows.append(
            Register(f"Indirect_Data_{n}", data + k, 1, Area.RAM, True, False, 0, 255, 0, "")
        )
    return rows


def _table(
    number: int, firmware: int, changes: _Changes, drop: set[str], indirect: list[Register]
) -> Mapping[str, Register]:
    """Build a model's table from the common rows and its differences."""
    registers: dict[str, Register] = {}
    own = {"Model_Number": number, "Firmware_Version": firmware}
    for area, rows in ((Area.EEPROM, _EEPROM_ROWS), (Area.RAM, _RAM_ROWS)):
        for row_name, address, length, access, signed, low, high, default, unit in rows:
            name = row_name
            if name == "Present_Current" and "Present_Load" in changes:
                name, unit = "Present_Load", "0.1 %"
            if name in drop:
                continue
            low, high, default = changes.get(name, (low, high, default))
            registers[name] = Register(
                name, address, length, area, access == "RW", signed, low, high,
                own.get(name, default), unit,
            )  # fmt: skip
    registers.update((r.name, r) for r in indirect)
    return MappingProxyType(registers)


_FIRMWARE = 52  # of the emulated servos: a recent release that has Fast Sync Read
_MANUAL = "https://emanual.robotis.com/docs/en/dxl/x/"
_XL330_MODES = frozenset(OperatingMode)
_XL430_MODES = frozenset(
    {
        OperatingMode.VELOCITY,
        OperatingMode.POSITION,
        OperatingMode.EXTENDED_POSITION,
        OperatingMode.PWM,
    }
)

XL330_M077 = ServoModel(
    name="xl330-m077",
    number=1190,
    manual_url=_MANUAL + "xl330-m077/",
    table=_table(
        1190, _FIRMWARE, {**_XL330_CHANGES, "Velocity_Limit": (0, 2047, 1620)}, set(),
        _indirect(1, 20, 168, 208, 227),
    ),
    modes=_XL330_MODES,
    fast_read_firmware=46,
    firmware=_FIRMWARE,
    supply_v=5.0,
    stall_torque_nm=0.228,
    stall_current_a=1.47,
    no_load_rpm=383.0,
    measures_current=True,
)  # fmt: skip
XL330_M288 = ServoModel(
    name="xl330-m288",
    number=1200,
    manual_url=_MANUAL + "xl330-m288/",
    table=_table(1200, _FIRMWARE, _XL330_CHANGES, set(), _indirect(1, 20, 168, 208, 227)),
    modes=_XL330_MODES,
    fast_read_firmware=46,
    firmware=_FIRMWARE,
    supply_v=5.0,
    stall_torque_nm=0.52,
    stall_current_a=1.47,
    no_load_rpm=103.0,
    measures_current=True,
)
XL430_W250 = ServoModel(
    name="xl430-w250",
    number=1060,
    manual_url=_MANUAL + "xl430-w250/",
    table=_table(
        1060, _FIRMWARE, _XL430_CHANGES, {"Current_Limit", "Goal_Current", "PWM_Slope"},
        _indirect(1, 28, 168, 224, 661) + _indirect(29, 28, 578, 634, 661),
    ),
    modes=_XL430_MODES,
    fast_read_firmware=46,
    firmware=_FIRMWARE,
    supply_v=12.0,
    stall_torque_nm=1.5,
    stall_current_a=1.4,
    no_load_rpm=61.0,
    measures_current=False,
)  # fmt: skip

_SUPPLY_SHARE = 0.25  # farther from its nominal supply a servo is weak, or in danger

MODELS: Mapping[str, ServoModel] = MappingProxyType(
    {m.name: m for m in (XL330_M077, XL330_M288, XL430_W250)}
)
MODELS_BY_NUMBER: Mapping[int, ServoModel] = MappingProxyType(
    {m.number: m for m in MODELS.values()}
)


def model_name(number: int) -> str:
    """Readable name of a model number, known or not."""
    model = MODELS_BY_NUMBER.get(number)
    return model.name if model else f"unknown model {number}"


def supply_doubt(voltage_v: float, supply_v: float) -> str:
    """What is wrong with a servo's supply though it answers; empty when nothing is, or is known.

    Args:
        voltage_v: What it measures; NaN where it was not asked.
        supply_v: What its model is made for.
    """
    if not abs(voltage_v - supply_v) > _SUPPLY_SHARE * supply_v:
        return ""
    return f"supply {voltage_v:.1f} V, made for {supply_v:.0f} V: wrong adapter?"
