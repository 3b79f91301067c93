# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""One emulated servo without a bus: modes, limits, profiles, errors."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

from koch_driver.bus.control_table import (
    MODELS,
    TICKS_PER_TURN,
    XL330_M288,
    XL430_W250,
    HardwareError,
    OperatingMode,
    ServoModel,
)
from koch_driver.bus.packet import ErrorCode
from koch_driver.emulator import EmulatedServo, FirstOrderPhysics

STEP_S = 0.005
RAD = 2.0 * math.pi / TICKS_PER_TURN


class Bench:
    """A servo with its own first-order physics."""

    def __init__(self, model: ServoModel = XL330_M288, shaft_rad: float = 2.0, **eeprom: int):
        self.servo = EmulatedServo(model, 1, eeprom)
        self.physics = FirstOrderPhysics([model], [shaft_rad])
        self.servo.power_up(shaft_rad)
        self.run(STEP_S)

    def write(self, name: str, value: int) -> int:
        """A write through the protocol's rules."""
        register = self.servo.model.table[name]
        return self.servo.write(register.address, register.encode(value))

    def get(self, name: str) -> int:
        """Register."""
        return self.servo.get(name)

    def run(self, seconds: float) -> None:
        """Let time pass."""
        for _ in range(round(seconds / STEP_S)):
            self.physics.advance(STEP_S, [self.servo.drive(STEP_S)])
            state = self.physics.state()
            self.servo.measure(
                STEP_S, state.position_rad[0], state.velocity[0], state.torque_nm[0]
            )

    def torque_on(self, mode: OperatingMode) -> None:
        """Choose a mode and switch on."""
        assert self.write("Operating_Mode", mode) == 0
        assert self.write("Torque_Enable", 1) == 0


@pytest.mark.parametrize("model", MODELS.values(), ids=str)
@pytest.mark.parametrize("reverse", [0, 1])
def test_position_goal_is_reached(model: ServoModel, reverse: int) -> None:
    bench = Bench(model, Drive_Mode=reverse, Homing_Offset=300)
    start = bench.get("Present_Position")
    bench.torque_on(OperatingMode.EXTENDED_POSITION)
    assert bench.get("Goal_Position") == bench.get("Present_Position") == start
    bench.write("Goal_Position", start + 700)
    bench.run(1.5)
    assert bench.get("Present_Position") == pytest.approx(start + 700, abs=3)
    assert bench.get("Moving") == 0
    moved = bench.servo.shaft_rad - 2.0
    assert moved == pytest.approx((-1 if reverse else 1) * 700 * RAD, abs=3 * RAD)


def test_present_is_actual_plus_homing_offset() -> None:
    bench = Bench(shaft_rad=1000 * RAD)
    assert bench.get("Present_Position") == 1000
    bench.write("Operating_Mode", OperatingMode.EXTENDED_POSITION)
    bench.write("Homing_Offset", 2047 - 1000)
    bench.run(STEP_S)
    assert bench.get("Present_Position") == 2047


def test_turns_are_lost_at_power_up_and_kept_in_extended_mode() -> None:
    bench = Bench(shaft_rad=-100 * RAD, Operating_Mode=4)
    assert bench.get("Present_Position") == 3996  # raw -100 comes back within one turn
    bench.servo.measure(STEP_S, 3 * 2 * math.pi, 0.0, 0.0)
    assert bench.get("Present_Position") == 3 * 4096 + 4096
    bench.servo.power_up(3 * 2 * math.pi)
    bench.servo.measure(STEP_S, 3 * 2 * math.pi, 0.0, 0.0)
    assert bench.get("Present_Position") == 0


def test_position_mode_keeps_its_limits_and_one_turn() -> None:
    bench = Bench(Min_Position_Limit=1000, Max_Position_Limit=2000)
    bench.torque_on(OperatingMode.POSITION)
    assert bench.write("Goal_Position", 999) == ErrorCode.DATA_LIMIT
    assert bench.write("Goal_Position", 1000) == 0
    assert bench.write("Goal_Position", -1) == ErrorCode.DATA_LIMIT


def test_modes_that_a_model_lacks() -> None:
    bench = Bench(XL430_W250)
    for mode in (0, 5, 2, 7):
        assert bench.write("Operating_Mode", mode) == ErrorCode.DATA_RANGE
    for mode in (1, 3, 4, 16):
        assert bench.write("Operating_Mode", mode) == 0


def test_changing_the_mode_resets_gains_and_goals() -> None:
    bench = Bench()
    bench.write("Position_P_Gain", 1500)
    bench.write("Profile_Velocity", 50)
    bench.write("Operating_Mode", OperatingMode.EXTENDED_POSITION)
    assert bench.get("Position_P_Gain") == 400
    assert bench.get("Profile_Velocity") == 0
    assert bench.get("Goal_Current") == bench.get("Current_Limit")


def test_eeprom_lock() -> None:
    bench = Bench()
    bench.write("Torque_Enable", 1)
    assert bench.write("Operating_Mode", 4) == ErrorCode.ACCESS
    assert bench.write("Position_P_Gain", 500) == 0
    bench.write("Torque_Enable", 0)
    assert bench.write("Operating_Mode", 4) == 0


def test_velocity_mode_turns_at_the_goal_speed() -> None:
    bench = Bench()
    bench.torque_on(OperatingMode.VELOCITY)
    assert bench.write("Goal_Velocity", 446) == ErrorCode.DATA_LIMIT
    bench.write("Goal_Velocity", 100)
    bench.run(0.8)
    assert bench.get("Present_Velocity") == pytest.approx(100, abs=5)
    assert bench.get("Moving") == 1


def test_pwm_mode_and_pwm_limit() -> None:
    bench = Bench(PWM_Limit=442)
    bench.torque_on(OperatingMode.PWM)
    assert bench.write("Goal_PWM", 443) == ErrorCode.DATA_LIMIT
    bench.write("Goal_PWM", 442)
    bench.run(1.0)
    top = XL330_M288.no_load_rpm / 0.229
    assert bench.get("Present_Velocity") == pytest.approx(top / 2, rel=0.05)


def test_current_mode_pushes_with_the_goal_current() -> None:
    bench = Bench()
    bench.physics.set_stop(0, 0.0, 2.0)
    bench.torque_on(OperatingMode.CURRENT)
    bench.write("Goal_Current", 300)
    bench.run(0.5)
    assert bench.get("Present_Current") == pytest.approx(300, abs=10)


@pytest.mark.parametrize("current_ma", [100, 400])
def test_current_based_position_squeezes_an_object_gently(current_ma: int) -> None:
    bench = Bench()
    bench.physics.set_stop(0, 0.0, 2.0)  # the object: no further than where it stands
    bench.torque_on(OperatingMode.CURRENT_POSITION)
    bench.write("Goal_Current", current_ma)
    bench.write("Goal_Position", bench.get("Present_Position") + 600)
    bench.run(1.0)
    assert bench.get("Present_Current") == pytest.approx(current_ma, abs=15)
    assert bench.get("Hardware_Error_Status") == 0


def test_negative_control_position_mode_squeezes_until_it_trips() -> None:
    bench = Bench()
    bench.physics.set_stop(0, 0.0, 2.0)
    bench.torque_on(OperatingMode.EXTENDED_POSITION)
    bench.write("Goal_Position", bench.get("Present_Position") + 1500)
    bench.run(4.0)
    assert bench.get("Hardware_Error_Status") == HardwareError.OVERLOAD
    assert bench.get("Torque_Enable") == 0


def test_velocity_profile_is_a_trapezoid() -> None:
    bench = Bench()
    bench.torque_on(OperatingMode.EXTENDED_POSITION)
    bench.write("Profile_Velocity", 100)  # 22.9 rpm = 1563 ticks/s
    bench.write("Profile_Acceleration", 10)  # 2145.8 rpm^2 = 2441 ticks/s^2
    bench.write("Goal_Position", bench.get("Present_Position") + 3000)
    start = bench.get("Position_Trajectory")
    speeds = []
    for _ in range(600):
        bench.run(STEP_S)
        speeds.append(bench.get("Velocity_Trajectory"))
        if bench.get("Position_Trajectory") == start + 3000:
            break
    taken_s = len(speeds) * STEP_S
    assert max(speeds) == pytest.approx(100, abs=2)
    assert taken_s == pytest.approx(3000 / 1563 + 1563 / 2441, rel=0.05)
    steps = np.diff(speeds[:-1])
    assert np.abs(steps).max() <= 2  # 2441 * 5 ms / 15.63


def test_time_based_profile_takes_its_time() -> None:
    bench = Bench(Drive_Mode=4)
    bench.torque_on(OperatingMode.EXTENDED_POSITION)
    bench.write("Profile_Velocity", 800)  # ms
    bench.write("Profile_Acceleration", 200)
    goal = bench.get("Present_Position") + 900
    bench.write("Goal_Position", goal)
    bench.run(0.7)
    assert bench.get("Position_Trajectory") < goal
    bench.run(0.15)
    assert bench.get("Position_Trajectory") == goal


def test_torque_on_by_goal_update() -> None:
    bench = Bench(Drive_Mode=8)
    bench.write("Operating_Mode", 4)
    bench.write("Goal_Position", bench.get("Present_Position") + 200)
    assert bench.get("Torque_Enable") == 1
    bench.run(1.0)
    assert bench.get("Present_Position") == pytest.approx(bench.get("Goal_Position"), abs=3)


def test_bus_watchdog_stops_and_locks_the_goals() -> None:
    bench = Bench()
    bench.torque_on(OperatingMode.VELOCITY)
    bench.write("Goal_Velocity", 50)
    bench.write("Bus_Watchdog", 5)  # 100 ms
    bench.run(0.09)
    assert bench.get("Bus_Watchdog") == 5
    bench.run(0.5)
    assert bench.get("Bus_Watchdog") == -1
    assert abs(bench.get("Present_Velocity")) < 5
    assert bench.write("Goal_Velocity", 10) == ErrorCode.DATA_RANGE
    assert bench.write("Bus_Watchdog", 0) == 0
    assert bench.write("Goal_Velocity", 10) == 0


@pytest.mark.parametrize(
    ("error", "bit"), [("temperature", HardwareError.OVERHEATING), ("voltage", 1)]
)
def test_limits_trip_the_shutdown_and_reboot_clears_it(error: str, bit: int) -> None:
    bench = Bench()
    bench.write("Torque_Enable", 1)
    if error == "temperature":
        bench.servo.forced_temperature_c = 71.0
    else:
        bench.servo.voltage_v = 3.0
    bench.run(STEP_S)
    assert bench.get("Hardware_Error_Status") == bit
    assert bench.get("Torque_Enable") == 0
    assert bench.write("Torque_Enable", 1) == ErrorCode.RESULT_FAIL
    bench.servo.forced_temperature_c = 30.0
    bench.servo.voltage_v = 5.0
    bench.servo.power_up(bench.servo.shaft_rad)
    assert bench.write("Torque_Enable", 1) == 0


def test_errors_outside_the_shutdown_mask_only_alert() -> None:
    bench = Bench(XL430_W250, Shutdown=0)
    bench.write("Torque_Enable", 1)
    bench.servo.trip(HardwareError.OVERLOAD)
    assert bench.servo.alert == 0x80
    assert bench.get("Torque_Enable") == 1


def test_a_limp_joint_coasts_and_a_hand_moves_it() -> None:
    bench = Bench()
    bench.physics.push(0, 0.05)
    bench.run(0.3)
    bench.physics.push(0, 0.0)
    bench.run(0.5)
    rest = bench.get("Present_Position")
    bench.run(0.2)
    assert bench.get("Present_Position") == rest
    bench.physics.hold(0, 1.0)
    bench.run(0.5)
    assert bench.get("Present_Position") == round(1.0 / RAD)


def test_a_held_joint_is_pushed_away_and_comes_back() -> None:
    bench = Bench()
    bench.torque_on(OperatingMode.EXTENDED_POSITION)
    home = bench.get("Present_Position")
    bench.physics.push(0, 0.1)
    bench.run(0.5)
    assert bench.get("Present_Position") > home + 20
    bench.physics.push(0, 0.0)
    bench.run(0.8)
    assert bench.get("Present_Position") == pytest.approx(home, abs=3)


def test_the_firmware_s_time_is_that_of_the_moment_of_reading_however_late_the_physics() -> None:
    servo = Bench().servo
    ticks = []
    for _ in range(3):  # the firmware starts before the second
        _, data = servo.read(120, 2)
        ticks.append(int.from_bytes(data, "little"))
        time.sleep(0.1)
    assert ticks[2] - ticks[1] >= 99
