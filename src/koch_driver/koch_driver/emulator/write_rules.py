# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What an emulated servo lets a master write.

Source: ROBOTIS e-Manual, X series, notes of the registers, and DYNAMIXEL Protocol 2.0, "Error".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from koch_driver.bus.control_table import Area, OperatingMode, Register
from koch_driver.bus.packet import ErrorCode

if TYPE_CHECKING:
    from koch_driver.emulator.registers import RegisterMemory

_GOALS = ("Goal_PWM", "Goal_Current", "Goal_Velocity", "Goal_Position")
_LIMIT_OF = {
    "Goal_PWM": "PWM_Limit",
    "Goal_Current": "Current_Limit",
    "Goal_Velocity": "Velocity_Limit",
}
_POSITION_MODE = int(OperatingMode.POSITION)


def shut_down(memory: RegisterMemory) -> bool:
    """Whether a pending hardware error is one that keeps the torque off."""
    return bool(memory.data[70] & memory.data[63])


def check_write(memory: RegisterMemory, address: int, data: bytes) -> int:
    """Error code of a write of some bytes; all of it is refused if any of it is."""
    if not data:
        return ErrorCode.DATA_LENGTH
    if address + len(data) > len(memory.data):
        return ErrorCode.ACCESS
    for start, run in memory.runs(address, data):
        for register, chunk in memory.registers(start, run):
            if register is None:
                return ErrorCode.DATA_LENGTH
            error = _check_value(memory, register, register.decode(chunk))
            if error != ErrorCode.NONE:
                return error
    return ErrorCode.NONE


def _check_value(memory: RegisterMemory, register: Register, value: int) -> int:
    name = register.name
    if not register.writable or (register.area is Area.EEPROM and memory.data[64]):
        return ErrorCode.ACCESS
    if not register.minimum <= value <= register.maximum:
        return ErrorCode.DATA_RANGE
    if name == "Operating_Mode" and value not in memory.model.modes:
        return ErrorCode.DATA_RANGE
    if name == "Torque_Enable" and value and shut_down(memory):
        return ErrorCode.RESULT_FAIL
    return _check_goal(memory, name, value) if name in _GOALS else ErrorCode.NONE


def _check_goal(memory: RegisterMemory, name: str, value: int) -> int:
    if memory.get("Bus_Watchdog") == -1:
        return ErrorCode.DATA_RANGE
    limit = _LIMIT_OF.get(name)
    if limit and memory.has(limit) and abs(value) > memory.get(limit):
        return ErrorCode.DATA_LIMIT
    if name == "Goal_Position" and memory.data[11] == _POSITION_MODE:
        low, high = memory.get("Min_Position_Limit"), memory.get("Max_Position_Limit")
        if not low <= value <= high:
            return ErrorCode.DATA_LIMIT
    return ErrorCode.NONE
