# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What a kind of arm is, as data: joints, motors, registers, poses, description.

A model of your own is one `ArmModel` in a package of your own:

    MY_ARM = register_arm_model(ArmModel(name="my_arm", ...))

and in that package's metadata the entry point that lets every node find it:

    [project.entry-points."koch_vla.arm_models"]
    my_arm = "my_package.my_arm"

The rig then says `model: my_arm` of an arm.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from koch_core.registry import Registry


class Role(enum.Enum):
    """What an arm does."""

    FOLLOWER = "follower"
    LEADER = "leader"


@dataclass(frozen=True)
class Motor:
    """One motor of an arm model.

    Attributes:
        id: Dynamixel id.
        joint: The joint that it moves.
        servo: Its model, a name of koch_driver's control tables such as "xl330-m288".
        registers: What is written beyond the servo's defaults, in this order. Operating_Mode is
            3 (position), 4 (extended position) or 5 (position with limited current).
        drive_mode: Drive_Mode that the calibration writes; 1 reverses the servo.
    """

    id: int
    joint: str
    servo: str
    registers: Mapping[str, int] = field(default_factory=dict)
    drive_mode: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "registers", MappingProxyType(dict(self.registers)))


@dataclass(frozen=True, eq=False)  # one object is one model
class ArmModel:
    """A kind of arm; leader and follower may be built differently around the same joints.

    Attributes:
        name: `model:` in the rig file.
        title: What people call it: a `title` follower.
        motors: By role, base to tip; a role that is absent cannot be had. The last joint is the
            gripper.
        urdf: By role, a xacro file with the arguments prefix, joint_prefix, parent, xyz and rpy;
            relative ones are in the suite's urdf/. It has the links that `koch_rig.fingertips`
            names. Joints of it that no motor moves are fixed at zero.
        home_rad: Where the arm waits between tasks [rad].
        rest_rad: Where the torque may go [rad]: the arm falls nowhere.
        full_turn: Joints whose calibrated range is 0..4095 instead of recorded, as in LeRobot.
        percent: Joints that LeRobot's units number 0..100; the others are -100..100.
        has_simulation: The simulated table of koch_sim knows it: its masses, and how it grasps.

    Raises:
        ValueError: The parts contradict each other.
    """

    name: str
    title: str
    motors: Mapping[Role, tuple[Motor, ...]]
    urdf: Mapping[Role, Path]
    home_rad: tuple[float, ...]
    rest_rad: tuple[float, ...]
    full_turn: tuple[str, ...] = ()
    percent: tuple[str, ...] = ()
    has_simulation: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "motors", MappingProxyType(dict(self.motors)))
        object.__setattr__(self, "urdf", MappingProxyType(dict(self.urdf)))
        for role, motors in self.motors.items():
            if tuple(motor.joint for motor in motors) != self.joints:
                raise ValueError(f"{self.name}: the {role.value} has other joints: {motors}")
            if len({motor.id for motor in motors}) < len(motors):
                raise ValueError(f"{self.name}: the {role.value} has an id twice: {motors}")
        if set(self.urdf) != set(self.motors):
            raise ValueError(f"{self.name}: motors and urdf need the same roles")
        if not len(self.home_rad) == len(self.rest_rad) == len(self.joints):
            raise ValueError(f"{self.name}: home_rad and rest_rad need {len(self.joints)} angles")
        if unknown := {*self.full_turn, *self.percent} - {*self.joints}:
            raise ValueError(f"{self.name}: no such joints: {', '.join(sorted(unknown))}")

    @cached_property
    def joints(self) -> tuple[str, ...]:
        """Names base to tip, the order of every vector of joints."""
        return tuple(motor.joint for motor in next(iter(self.motors.values())))

    @cached_property
    def arm_joints(self) -> tuple[str, ...]:
        """The joints that move the hand: all but the gripper."""
        return self.joints[:-1]

    @cached_property
    def gripper(self) -> str:
        """The joint that opens the hand."""
        return self.joints[-1]


#: What `bus:` of an arm may say: how its servos are spoken to. The kinds are classes of
#: `koch_driver` and of other packages that fulfil `koch_driver.bus.MotorBus`.
MOTOR_BUSES: Registry[Any] = Registry("motor bus", "koch_vla.motor_buses")
DEFAULT_BUS = "dynamixel"

#: All arm models, by name.
ARM_MODELS: Registry[ArmModel] = Registry("arm model", "koch_vla.arm_models")


def register_arm_model(model: ArmModel) -> ArmModel:
    """Let rigs choose a model by its name; returns it.

    Raises:
        ValueError: Another model has this name.
    """
    ARM_MODELS.add(model, model.name)
    return model


_EXTENDED = {"Operating_Mode": 4}
_GRIPPER = {"Operating_Mode": 5}  # presses with a limited current
_ELBOW = {**_EXTENDED, "Position_P_Gain": 1500, "Position_I_Gain": 0, "Position_D_Gain": 600}

#: The Koch v1.1 with LeRobot's names, ids and registers.
KOCH_V1_1 = register_arm_model(
    ArmModel(
        name="koch_v1_1",
        title="Koch",
        motors={
            Role.FOLLOWER: (
                Motor(1, "shoulder_pan", "xl430-w250", _EXTENDED),
                Motor(2, "shoulder_lift", "xl430-w250", _EXTENDED),
                Motor(3, "elbow_flex", "xl330-m288", _ELBOW),
                Motor(4, "wrist_flex", "xl330-m288", _EXTENDED),
                Motor(5, "wrist_roll", "xl330-m288", _EXTENDED),
                Motor(6, "gripper", "xl330-m288", _GRIPPER),
            ),
            Role.LEADER: (
                Motor(1, "shoulder_pan", "xl330-m077", _EXTENDED),
                Motor(2, "shoulder_lift", "xl330-m077", _EXTENDED),
                Motor(3, "elbow_flex", "xl330-m077", _EXTENDED, drive_mode=1),
                Motor(4, "wrist_flex", "xl330-m077", _EXTENDED),
                Motor(5, "wrist_roll", "xl330-m077", _EXTENDED),
                Motor(6, "gripper", "xl330-m077", _GRIPPER),
            ),
        },
        urdf={
            Role.FOLLOWER: Path("koch_follower.urdf.xacro"),
            Role.LEADER: Path("koch_leader.urdf.xacro"),
        },
        # Folded, hand over the table, gripper open.
        home_rad=(0.0, -0.3, -0.9, -1.3, 0.0, -0.9),
        # Near the table.
        rest_rad=(0.0, 0.5, 1.2, 0.0, 0.0, 0.0),
        full_turn=("shoulder_pan", "wrist_roll"),
        percent=("gripper",),
        has_simulation=True,
    )
)
