# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""One emulated servo: rules of its registers, modes, limits, errors and shutdown."""

from __future__ import annotations

import itertools
import math
import struct
import time
from typing import TYPE_CHECKING

from koch_driver.bus.control_table import (
    ACCELERATION_UNIT_RPM2,
    PWM_FULL,
    TICKS_PER_TURN,
    VELOCITY_UNIT_RPM,
    Area,
    DriveMode,
    HardwareError,
    OperatingMode,
    Register,
    ServoModel,
)
from koch_driver.bus.packet import ALERT_BIT, ErrorCode
from koch_driver.emulator.physics import ServoDrive
from koch_driver.emulator.profile import Profile
from koch_driver.emulator.registers import RegisterMemory
from koch_driver.emulator.write_rules import check_write, shut_down

if TYPE_CHECKING:
    from collections.abc import Mapping

RAD_PER_TICK = 2.0 * math.pi / TICKS_PER_TURN
_TICKS_PER_S = VELOCITY_UNIT_RPM / 60.0 * TICKS_PER_TURN  # per velocity unit
_TICKS_PER_S2 = ACCELERATION_UNIT_RPM2 / 3600.0 * TICKS_PER_TURN  # per acceleration unit
_RPM = 60.0 / (2.0 * math.pi)
_PRESENT = struct.Struct("<HBBhhiiiiHB")  # address 120 .. 146
_PRESENT_ADDRESS = 120
_TICK = struct.Struct("<H")  # its first register
_TICK_TURN_MS = 32768
_COUNT = itertools.count()
# plain integers: the enums' bit operators cost microseconds
_REVERSE, _TIME_PROFILE, _TORQUE_ON_BY_GOAL = (
    int(bit) for bit in (DriveMode.REVERSE, DriveMode.TIME_PROFILE, DriveMode.TORQUE_ON_BY_GOAL)
)
_POSITION_MODE = int(OperatingMode.POSITION)
_IN_POSITION_TICKS = 10
_HOMING_IN_POSITION_MODE = 1024
_AMBIENT_C = 28.0
_HEATING_C_PER_S = 1.2  # at stall current
_COOLING_S = 120.0
_OVERLOAD_FRACTION = 0.9
_OVERLOAD_S = 3.0


class EmulatedServo:
    """A servo on the bus. Everything runs under the chain's lock."""

    def __init__(
        self, model: ServoModel, motor_id: int, eeprom: Mapping[str, int] | None = None
    ) -> None:
        """Make a servo as it leaves the power switch.

        Args:
            model: Which one.
            motor_id: Its ID register.
            eeprom: EEPROM registers that differ from the factory's; 1 Mbaud unless told otherwise.
        """
        self.model = model
        self.memory = RegisterMemory(model)
        for name, value in {"ID": motor_id, "Baud_Rate": 3, **(eeprom or {})}.items():
            self.memory.set(name, value)
        self.voltage_v = model.supply_v
        self.temperature_c = _AMBIENT_C
        self.forced_temperature_c: float | None = None
        self.shaft_rad = 0.0
        self._base_ticks = 0  # what the firmware counts the present turn from
        self._profile = Profile()
        self._registered: tuple[int, bytes] | None = None
        self._since_instruction_s = 0.0
        self._overload_s = 0.0
        # No two servos on a supply start in the same millisecond.
        self._start_s = 0.003 * (next(_COUNT) % 16)
        # An arm that is there when a program starts has been under power for a while.
        self._ran_s = 20.0
        self._booted_s = 0.0
        self._drive: ServoDrive | None = None  # kept while nothing it depends on changes

    # -- identity and state -------------------------------------------------------------------

    @property
    def id(self) -> int:
        """Its ID register."""
        return self.memory.data[7]

    @property
    def alert(self) -> int:
        """The alert bit while a hardware error is pending, else 0."""
        return ALERT_BIT if self.memory.data[70] else 0

    def get(self, name: str) -> int:
        """Value of a register, for tests and physics."""
        return self.memory.get(name)

    def set(self, name: str, value: int) -> None:
        """Set a register behind the protocol's back, for tests."""
        self.memory.set(name, value)
        self._drive = None

    def _sign(self) -> int:
        return -1 if self.memory.data[10] & _REVERSE else 1

    def _mode(self) -> OperatingMode:
        return OperatingMode(self.memory.data[11])

    def _offset(self) -> int:
        offset = int.from_bytes(self.memory.data[20:24], "little", signed=True)
        if self.memory.data[11] == _POSITION_MODE:
            offset = min(_HOMING_IN_POSITION_MODE, max(-_HOMING_IN_POSITION_MODE, offset))
        return offset

    def _exact_ticks(self) -> float:
        return self._sign() * self.shaft_rad / RAD_PER_TICK - self._base_ticks + self._offset()

    # -- power --------------------------------------------------------------------------------

    def power_up(self, shaft_rad: float) -> None:
        """Start the firmware: RAM from scratch, turns forgotten, torque off."""
        self.shaft_rad = shaft_rad
        self._drive = None
        # The firmware's own milliseconds: whatever the speed of the world that moves the shaft.
        self._booted_s = time.monotonic() + self._start_s - self._ran_s
        self._ran_s = 0.0
        self.memory.load_defaults(Area.RAM)
        self._registered = None
        self._overload_s = self._since_instruction_s = 0.0
        self._count_from_this_turn()
        self._reset_goals()
        self._check_errors(0.0, 0.0)

    def factory_reset(self, option: int) -> None:
        """Set EEPROM to the manual's defaults: 0xFF all, 1 but the id, 2 but id and baud rate."""
        kept = {0x01: ("ID",), 0x02: ("ID", "Baud_Rate")}.get(option, ())
        keep = {name: self.memory.get(name) for name in kept}
        self.memory.load_defaults(Area.EEPROM, keep)
        self.power_up(self.shaft_rad)

    def clear_turns(self) -> ErrorCode:
        """CLEAR instruction: the present position falls back into one turn."""
        if self.memory.data[64] and self.memory.data[122]:
            return ErrorCode.RESULT_FAIL
        self._count_from_this_turn()
        self._profile.rest_at(self._exact_ticks())
        self._store_goal()
        self._drive = None
        return ErrorCode.NONE

    def _count_from_this_turn(self) -> None:
        ticks = self._sign() * self.shaft_rad / RAD_PER_TICK
        self._base_ticks = math.floor(round(ticks) / TICKS_PER_TURN) * TICKS_PER_TURN

    def _reset_goals(self) -> None:
        memory = self.memory
        memory.set("Goal_PWM", memory.get("PWM_Limit"))
        if memory.has("Goal_Current"):
            memory.set("Goal_Current", memory.get("Current_Limit"))
        memory.set("Goal_Velocity", 0)
        self._profile.rest_at(self._exact_ticks())
        self._store_goal()

    def _store_goal(self) -> None:
        self.memory.set("Goal_Position", round(self._profile.goal))

    # -- instructions -------------------------------------------------------------------------

    def heard(self) -> None:
        """Any instruction for this servo feeds the bus watchdog."""
        self._since_instruction_s = 0.0

    def read(self, address: int, length: int) -> tuple[int, bytes]:
        """READ: error code and data.

        The firmware's milliseconds are those of this moment. On a busy machine the physics may
        be late, and old ones would look like a servo that has restarted.
        """
        if address < _PRESENT_ADDRESS + _TICK.size and address + length > _PRESENT_ADDRESS:
            _TICK.pack_into(self.memory.data, _PRESENT_ADDRESS, self._tick_ms())
        data = self.memory.read(address, length)
        return (ErrorCode.ACCESS, b"") if data is None else (ErrorCode.NONE, data)

    def write(self, address: int, data: bytes) -> int:
        """WRITE: all or nothing; the error code."""
        error = check_write(self.memory, address, data)
        if error == ErrorCode.NONE:
            for start, run in self.memory.runs(address, data):
                for register, chunk in self.memory.registers(start, run):
                    if register is not None:
                        self._apply(register, register.decode(chunk))
        return error

    def register_write(self, address: int, data: bytes) -> int:
        """REG_WRITE: keep a write for ACTION; the error code."""
        error = check_write(self.memory, address, data)
        if error == ErrorCode.NONE:
            self._registered = (address, data)
            self.memory.set("Registered_Instruction", 1)
        return error

    def action(self) -> int:
        """ACTION: do the registered write; the error code."""
        if self._registered is None:
            return ErrorCode.NONE
        registered, self._registered = self._registered, None
        self.memory.set("Registered_Instruction", 0)
        return self.write(*registered)

    def _apply(self, register: Register, value: int) -> None:
        name = register.name
        self._drive = None
        previous = self.memory.value(register)
        self.memory.put(register, value)
        if name == "Goal_Position":
            if self.memory.data[10] & _TORQUE_ON_BY_GOAL and not shut_down(self.memory):
                self._set_torque(on=True)
                self.memory.put(register, value)
            self._aim(value)
        elif name == "Torque_Enable":
            if value != previous:
                self.memory.put(register, previous)
                self._set_torque(on=bool(value))
        elif name == "Operating_Mode" and value != previous:
            self._change_mode()
        elif name in ("Homing_Offset", "Drive_Mode") and value != previous:
            if name == "Drive_Mode":
                self._count_from_this_turn()
            self._profile.rest_at(self._exact_ticks())
            self._store_goal()
        elif name == "Bus_Watchdog":
            self._since_instruction_s = 0.0
        self._refresh_position()

    def _set_torque(self, *, on: bool) -> None:
        self._drive = None
        if on and not self.memory.data[64]:
            self._profile.rest_at(self._exact_ticks())
            self._store_goal()
            self.memory.set("Goal_Velocity", 0)
            self._overload_s = 0.0
        self.memory.data[64] = int(on)

    def _change_mode(self) -> None:
        """The manual: gains, profile and goals start again; position mode forgets the turns."""
        for name in _RESET_BY_MODE:
            register = self.model.table[name]
            self.memory.put(register, register.default or 0)
        if self._mode() is OperatingMode.POSITION:
            self._count_from_this_turn()
        self._reset_goals()

    def _aim(self, goal: int) -> None:
        velocity = self.memory.get("Profile_Velocity")
        acceleration = self.memory.get("Profile_Acceleration")
        times = None
        if self.memory.data[10] & _TIME_PROFILE:
            times = (velocity * 1e-3, acceleration * 1e-3)
        self._profile.aim(goal, velocity * _TICKS_PER_S, acceleration * _TICKS_PER_S2, times)

    # -- time ---------------------------------------------------------------------------------

    def drive(self, dt_s: float) -> ServoDrive:
        """Let `dt_s` pass in the controller; what it wants from the motor."""
        self._tick_watchdog(dt_s)
        if self._profile.running:
            self._profile.step(dt_s)
            self._drive = None
        if self._drive is None:
            self._drive = self._new_drive()
        return self._drive

    def _new_drive(self) -> ServoDrive:
        memory, model = self.memory, self.model
        sign = self._sign()
        set_point = self._profile.position + self._base_ticks - self._offset()
        mode = self._mode()
        goal_current_a, current_limit_a = 0.0, 2.0 * model.stall_current_a
        if model.measures_current:
            current_limit_a = memory.get("Current_Limit") * 1e-3
            goal_current_a = memory.get("Goal_Current") * 1e-3
            if mode is OperatingMode.CURRENT_POSITION:
                current_limit_a = min(current_limit_a, abs(goal_current_a))
        duty = memory.get("PWM_Limit") / PWM_FULL
        goal_pwm = memory.get("Goal_PWM") / PWM_FULL
        if mode is not OperatingMode.PWM:
            duty = min(duty, abs(goal_pwm))
        # e-Manual, position PID: gains are divided by 128 (P) and 16 (D), error in ticks,
        # the result is in PWM units; the controller runs at 1 kHz.
        stiffness = memory.get("Position_P_Gain") / 128.0 / PWM_FULL / RAD_PER_TICK
        damping = memory.get("Position_D_Gain") / 16.0 / PWM_FULL / RAD_PER_TICK * 1e-3
        speed = memory.get("Goal_Velocity") * VELOCITY_UNIT_RPM / _RPM
        return ServoDrive(
            model=model,
            torque_enabled=bool(memory.data[64]),
            mode=mode,
            goal_position_rad=sign * set_point * RAD_PER_TICK,
            goal_velocity=sign * speed,
            goal_current_a=sign * goal_current_a,
            goal_duty_fraction=sign * goal_pwm,
            current_limit_a=current_limit_a,
            duty_limit_fraction=duty,
            stiffness=stiffness,
            damping=damping,
            velocity_gain=memory.get("Velocity_P_Gain") / 100.0 / model.no_load_speed,
        )

    def measure(self, dt_s: float, shaft_rad: float, velocity: float, torque_nm: float) -> None:
        """Take the physics' state into the present registers; errors and shutdown."""
        model, memory = self.model, self.memory
        self.shaft_rad = shaft_rad
        if memory.data[11] == _POSITION_MODE:
            self._wrap_in_position_mode()
        sign = self._sign()
        load = torque_nm / model.stall_torque_nm if memory.data[64] else 0.0
        speed_units = sign * velocity * _RPM / VELOCITY_UNIT_RPM
        load_units = sign * load * (model.stall_current_a * 1e3 if model.measures_current else 1e3)
        duty = (load + velocity / model.no_load_speed) if memory.data[64] else 0.0
        position = round(self._exact_ticks())
        error = abs(self._profile.position - position)
        moving = abs(speed_units) > memory.data[24]
        status = (error <= _IN_POSITION_TICKS and not self._profile.running) | (
            self._profile.running << 1
        )
        _PRESENT.pack_into(
            memory.data, _PRESENT_ADDRESS, self._tick_ms(), moving, status,
            _bounded(sign * duty * PWM_FULL, PWM_FULL), _bounded(load_units, 1750),
            round(speed_units), position,
            round(self._profile.velocity / _TICKS_PER_S), round(self._profile.position),
            round(self.voltage_v * 10.0), round(self.temperature_c),
        )  # fmt: skip
        self._check_errors(dt_s, load)

    def _tick_ms(self) -> int:
        return max(0, int(1e3 * (time.monotonic() - self._booted_s))) % _TICK_TURN_MS

    def _refresh_position(self) -> None:
        self.memory.set("Present_Position", round(self._exact_ticks()))

    def _wrap_in_position_mode(self) -> None:
        raw = round(self._sign() * self.shaft_rad / RAD_PER_TICK) - self._base_ticks
        turns = raw // TICKS_PER_TURN
        if turns:
            self._base_ticks += turns * TICKS_PER_TURN

    def _tick_watchdog(self, dt_s: float) -> None:
        self._since_instruction_s += dt_s
        period = self.memory.data[98]
        if 0 < period < 128 and self._since_instruction_s > period * 0.02 and self.memory.data[64]:
            self._drive = None
            self.memory.set("Bus_Watchdog", -1)
            self.memory.set("Goal_Velocity", 0)
            self._profile.rest_at(self._exact_ticks())

    # -- errors -------------------------------------------------------------------------------

    def trip(self, error: HardwareError) -> None:
        """Raise a hardware error; those in the Shutdown mask take the torque away."""
        self.memory.data[70] |= error
        if shut_down(self.memory):
            self._set_torque(on=False)

    def _check_errors(self, dt_s: float, load_fraction: float) -> None:
        memory = self.memory
        if self.forced_temperature_c is None:
            heat = load_fraction * load_fraction * _HEATING_C_PER_S
            cool = (self.temperature_c - _AMBIENT_C) / _COOLING_S
            self.temperature_c += (heat - cool) * dt_s
        else:
            self.temperature_c = self.forced_temperature_c
        if self.temperature_c > memory.data[31]:
            self.trip(HardwareError.OVERHEATING)
        tenths = round(self.voltage_v * 10.0)
        data = memory.data
        low, high = data[34] | data[35] << 8, data[32] | data[33] << 8
        if not low <= tenths <= high:
            self.trip(HardwareError.INPUT_VOLTAGE)
        if abs(load_fraction) > _OVERLOAD_FRACTION:
            self._overload_s += dt_s
            if self._overload_s > _OVERLOAD_S:
                self.trip(HardwareError.OVERLOAD)
        else:
            self._overload_s = 0.0


_RESET_BY_MODE = (
    "Velocity_I_Gain", "Velocity_P_Gain", "Position_D_Gain", "Position_I_Gain", "Position_P_Gain",
    "Feedforward_2nd_Gain", "Feedforward_1st_Gain", "Profile_Acceleration", "Profile_Velocity",
)  # fmt: skip


def _bounded(value: float, limit: int) -> int:
    return min(limit, max(-limit, round(value)))
