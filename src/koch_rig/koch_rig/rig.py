# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What is on the table: the rig as frozen dataclasses, SI units, one source for every node."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from koch_core.errors import KochError
from koch_rig.arm_model import DEFAULT_BUS, KOCH_V1_1, ArmModel
from koch_rig.arm_model import Role as Role  # a rig's reader looks for it here
from koch_rig.stream import Stream, StreamContent, content_of

Vector3 = tuple[float, float, float]


class PhysicsKind(enum.Enum):
    """What moves the emulated servos of a simulated rig."""

    FIRST_ORDER = "first_order"
    MUJOCO = "mujoco"


class ColorMode(enum.Enum):
    """Channel order of decoded images."""

    RGB = "rgb"
    BGR = "bgr"


class ArmChoiceError(KochError):
    """A rig was asked for an arm that it does not have, or has several times."""

    def __init__(self, what: str, rig: Rig) -> None:
        arms = ", ".join(f"{arm.name} ({arm.role.value})" for arm in rig.arms.values())
        super().__init__(f"{rig.path}: {what}. Arms of this rig: {arms}.")


@dataclass(frozen=True)
class Mount:
    """Where a thing sits: its pose in a parent frame.

    Attributes:
        parent: Parent frame, such as "world" or "follower/gripper_link".
        xyz: Position of the thing's origin in the parent [m].
        rpy_rad: Fixed-axis roll, pitch, yaw of the thing in the parent [rad], as in URDF.
    """

    parent: str = "world"
    xyz: Vector3 = (0.0, 0.0, 0.0)
    rpy_rad: Vector3 = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class JointOffset:
    """How a servo sits on its joint: angle = sign * (ticks - 2047) * 2 pi / 4096 + offset_rad.

    Attributes:
        sign: +1 where ticks grow with the URDF angle, -1 where they shrink.
        offset_rad: URDF angle [rad] at tick 2047, the middle pose of LeRobot's calibration.
    """

    sign: int = 1
    offset_rad: float = 0.0


@dataclass(frozen=True)
class Arm:
    """One arm.

    Attributes:
        name: Name in the rig; ROS namespace and frame prefix.
        role: Follower or leader.
        port: Serial device.
        calibration_path: LeRobot calibration JSON.
        base: Pose of base_link; the arm reaches along +x of base_link, z is up.
        rate_hz: Bus cycles per second [Hz].
        joints: Sign and zero offset of all joints.
        drives: Name of the follower that a leader drives, else None.
        joint_prefix: Is before each joint's name on topics and in the robot description, such
            as "follower_"; datasets, calibrations and all code have the plain names.
        model: What kind of arm it is.
        bus: How the driver speaks to its servos, a name in `arm_model.MOTOR_BUSES`.
        delay_s: Dead time from a command to the motion [s], as measured; a simulated follower's
            motors are late by it.
    """

    name: str
    role: Role
    port: str
    calibration_path: Path
    base: Mount
    rate_hz: float
    joints: Mapping[str, JointOffset]
    drives: str | None = None
    joint_prefix: str = ""
    model: ArmModel = KOCH_V1_1
    bus: str = DEFAULT_BUS
    delay_s: float = 0.0

    @property
    def topic_joints(self) -> tuple[str, ...]:
        """The joints as topics and description name them."""
        return tuple(f"{self.joint_prefix}{joint}" for joint in self.model.joints)


@dataclass(frozen=True)
class Camera:
    """One camera.

    Attributes:
        name: Name in the rig.
        source: Device path, URL, file, or OpenCV-style index.
        width: Image width after rotation [px].
        height: Image height after rotation [px].
        fps: Images per second [Hz].
        rotation: Clockwise rotation of the image [deg]: 0, 90, 180 or -90, as LeRobot's.
        fourcc: Pixel format to ask the device for, or None.
        color_mode: Channel order of decoded images.
        mount: Pose of the camera's optical frame (z forward, x right, y down); None where nobody
            measured it: then the camera has no frame, and nothing that needs one can use it.
        intrinsics_path: Camera calibration YAML, or None.
        fovy_deg: Vertical field of view [deg]; only simulated cameras have it.
    """

    name: str
    source: str | int
    width: int
    height: int
    fps: float
    mount: Mount | None = None
    rotation: int = 0
    fourcc: str | None = None
    color_mode: ColorMode = ColorMode.RGB
    intrinsics_path: Path | None = None
    fovy_deg: float | None = None


@dataclass(frozen=True)
class WorkspaceBox:
    """A box in the world frame that the TCP may not leave [m]."""

    min: Vector3
    max: Vector3


@dataclass(frozen=True)
class Limits:
    """What the guard lets through.

    Attributes:
        max_speed: Per joint [rad/s].
        max_acceleration: Per joint [rad/s^2].
        table_z: Lowest z of the TCP in the world frame [m], or None for no table.
        workspace: Box for the TCP, or None.
        joints: Lower and upper angle of all joints of the followers [rad]: the URDF's, narrowed
            by the rig.
        command_timeout_s: Without a command for so long the arm holds its pose [s].
        max_command_age_s: A command older than this is refused [s].
    """

    max_speed: float
    max_acceleration: float
    table_z: float | None
    workspace: WorkspaceBox | None
    joints: Mapping[str, tuple[float, float]]
    command_timeout_s: float
    max_command_age_s: float


@dataclass(frozen=True)
class Feature:
    """One key of a dataset frame and what fills it.

    Attributes:
        key: Feature key.
        streams: Names of streams, whose values are joined in this order; usually one.
    """

    key: str
    streams: tuple[str, ...]


@dataclass(frozen=True)
class SimulationSettings:
    """Present only where the rig is simulated.

    Attributes:
        physics: What moves the servos.
        seed: Of the first set-up of the table.
        spread_fraction: Part of the reachable area over which block and cup are laid, 0..1.
        arm_model_path: How the follower's servos move it, as `koch identify` found; None: nominal.
    """

    physics: PhysicsKind
    seed: int = 0
    spread_fraction: float = 1.0
    arm_model_path: Path | None = None


@dataclass(frozen=True)
class Rig:
    """The whole set-up. Mappings keep the order of the file and cannot be changed."""

    name: str
    fps: int
    task: str
    robot_type: str
    arms: Mapping[str, Arm]
    cameras: Mapping[str, Camera]
    limits: Limits
    streams: Mapping[str, Stream]
    features: Mapping[str, Feature]
    simulation: SimulationSettings | None
    path: Path
    text: str = field(repr=False, compare=False)

    @property
    def has_simulated_table(self) -> bool:
        """Whether the world is MuJoCo's: arms that are no arms, a block and a cup."""
        return self.simulation is not None and self.simulation.physics is PhysicsKind.MUJOCO

    @property
    def follower(self) -> Arm:
        """The only follower.

        Raises:
            ArmChoiceError: The rig has no follower, or several.
        """
        followers = [arm for arm in self.arms.values() if arm.role is Role.FOLLOWER]
        if len(followers) != 1:
            raise ArmChoiceError(f"exactly one follower is needed, not {len(followers)}", self)
        return followers[0]

    def arm(self, name: str) -> Arm:
        """The arm of this name.

        Raises:
            ArmChoiceError: There is no such arm.
        """
        if name not in self.arms:
            raise ArmChoiceError(f"there is no arm named {name!r}", self)
        return self.arms[name]

    def content_of(self, stream: str) -> StreamContent:
        """What a stream carries, also one that the file does not name."""
        return content_of(stream, self.arms, self.cameras)

    def leader_of(self, follower: str) -> Arm | None:
        """The leader that drives this follower, or None."""
        for arm in self.arms.values():
            if arm.role is Role.LEADER and arm.drives == follower:
                return arm
        return None
