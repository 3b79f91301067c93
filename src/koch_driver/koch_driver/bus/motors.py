# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The motors of an arm model, with the control tables of their servos."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from koch_driver.bus.control_table import MODELS, ServoModel
from koch_driver.errors import UnknownServo
from koch_rig.arm_model import KOCH_V1_1, ArmModel, Role


@dataclass(frozen=True)
class MotorSpec:
    """What should sit at one place of the chain.

    Attributes:
        id: Dynamixel id.
        joint: The joint that it moves.
        model: The servo.
        registers: What is written beyond the servo's defaults.
        drive_mode: Drive_Mode that the calibration writes.
    """

    id: int
    joint: str
    model: ServoModel
    registers: Mapping[str, int] = field(default_factory=dict)
    drive_mode: int = 0


def motors_for(role: Role, model: ArmModel = KOCH_V1_1) -> tuple[MotorSpec, ...]:
    """Motors of an arm by its role and model, in joint order.

    Raises:
        UnknownServo: The model names a servo without a control table.
    """
    specs = []
    for motor in model.motors[role]:
        if motor.servo not in MODELS:
            raise UnknownServo(model.name, motor.joint, motor.servo, tuple(MODELS))
        servo = MODELS[motor.servo]
        specs.append(MotorSpec(motor.id, motor.joint, servo, motor.registers, motor.drive_mode))
    return tuple(specs)


FOLLOWER_MOTORS = motors_for(Role.FOLLOWER)
LEADER_MOTORS = motors_for(Role.LEADER)
