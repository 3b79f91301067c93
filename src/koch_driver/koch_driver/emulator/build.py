# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Emulated chains from the rig file."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from koch_driver.bus.motors import motors_for
from koch_driver.emulator.chain import EmulatedChain, WireTiming
from koch_driver.emulator.physics import FirstOrderPhysics, Physics
from koch_driver.emulator.servo import EmulatedServo
from koch_driver.emulator.shaft import ShaftFrame
from koch_rig.calibration import load_calibration

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import ArrayLike

    from koch_driver.emulator.faults import Faults
    from koch_rig.calibration import MotorCalibration
    from koch_rig.rig import Arm, Rig


def build_servos(arm: Arm, calibration: Mapping[str, MotorCalibration]) -> list[EmulatedServo]:
    """The servos of an arm with what LeRobot's calibration leaves in their EEPROM."""
    servos = []
    for spec in motors_for(arm.role, arm.model):
        motor = calibration[spec.joint]
        eeprom = {
            "Return_Delay_Time": 0,
            "Drive_Mode": motor.drive_mode,
            "Operating_Mode": spec.registers["Operating_Mode"],
            "Homing_Offset": motor.homing_offset,
            "Min_Position_Limit": motor.range_min,
            "Max_Position_Limit": motor.range_max,
        }
        servos.append(EmulatedServo(spec.model, motor.id, eeprom))
    return servos


def build_chain(
    rig: Rig,
    arm_name: str,
    physics: Physics | None = None,
    *,
    port: str | Path | None = None,
    wire: WireTiming | None = None,
    faults: Faults | None = None,
    initial_rad: ArrayLike = 0.0,
    clock: Callable[[], float] = time.monotonic,
) -> EmulatedChain:
    """Emulate one arm of a rig.

    Args:
        rig: The rig.
        arm_name: Which of its arms.
        physics: What moves the shafts; first-order where absent.
        port: Path of the link to the pty; the arm's port where absent.
        wire: Timing of the wire; off where absent.
        faults: Fault switches.
        initial_rad: Joint angles at power-up for first-order physics, one for all or shape (J,).
        clock: Seconds, for the servos' controllers; a world with its own clock passes that.
    """
    arm = rig.arms[arm_name]
    calibration = load_calibration(arm.calibration_path, arm.model.joints)
    frame = ShaftFrame(arm, calibration)
    if physics is None:
        models = [spec.model for spec in motors_for(arm.role, arm.model)]
        physics = FirstOrderPhysics(models, frame.to_shaft(initial_rad).tolist())

    def to_shaft(index: int, joint_rad: float) -> float:
        angles = np.zeros(len(arm.model.joints))
        angles[index] = joint_rad
        return float(frame.to_shaft(angles)[index])

    return EmulatedChain(
        build_servos(arm, calibration),
        physics,
        faults=faults,
        wire=wire,
        link_path=arm.port if port is None else port,
        joints=arm.model.joints,
        to_shaft=to_shaft,
        clock=clock,
    )
