# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Node parameters: one frozen dataclass per node, from which the ROS declarations follow."""

from __future__ import annotations

from dataclasses import dataclass

from koch_core.options import Option, same_as
from koch_driver.arm.follower_controller import GRIP_CURRENT_A
from koch_driver.arm.jog import JogLimits
from koch_driver.arm.leader_controller import GENTLE_CURRENT_A
from koch_rig.arm_model import KOCH_V1_1, ArmModel
from koch_ros.parameters import ParameterError, parameter
from koch_ros.shared_options import RIG

_ALLOW_DRIFT = Option("connect although the servos differ from the calibration file")
_GRIPPER_CURRENT = Option(
    "greatest current with which the gripper presses [A], 0 = the servo's own limit",
    low=0.0,
    high=1.75,
)


def _pose(name: str, values: tuple[float, ...], model: ArmModel) -> tuple[float, ...]:
    """Check that a pose has one angle per joint.

    Raises:
        ParameterError: It has not.
    """
    if len(values) != len(model.joints):
        expected = f"{len(model.joints)} angles in rad: {', '.join(model.joints)}"
        raise ParameterError(name, list(values), expected)
    return tuple(float(value) for value in values)


@dataclass(frozen=True)
class FollowerParameters:
    """Parameters of the follower node."""

    rig: str = same_as(RIG, "")
    arm: str = parameter("", "name of the arm in the rig", required=True)
    torque_on_start: bool = parameter(True, "switch the torque on when the arm connects")
    on_exit: str = parameter(
        "hold",
        "at the end: hold the pose, move to the rest pose and release, or release at once",
        choices=("hold", "rest", "release"),
    )
    home_pose: tuple[float, ...] = parameter(
        KOCH_V1_1.home_rad, "pose of the home service [rad], in the order of the joints"
    )
    rest_pose: tuple[float, ...] = parameter(
        KOCH_V1_1.rest_rad, "pose in which the torque may go [rad]"
    )
    move_speed: float = parameter(
        0.8, "mean speed of motions to home and rest [rad/s]", low=0.05, high=3.0
    )
    gripper_current: float = same_as(_GRIPPER_CURRENT, GRIP_CURRENT_A)
    allow_drift: bool = same_as(_ALLOW_DRIFT, False)
    path_tolerance: float = parameter(
        0.4, "default path tolerance of trajectories [rad], 0 = none", low=0.0, high=3.2
    )
    goal_tolerance: float = parameter(
        0.1, "default goal tolerance of trajectories [rad], 0 = none", low=0.0, high=3.2
    )
    goal_time: float = parameter(
        2.0,
        "time to reach the goal after a trajectory's end [s], 0 = for ever",
        low=0.0,
        high=60.0,
    )

    # Parameters are declared before the arm is known, so their defaults are a Koch's poses:
    # unchanged they stand for those of whatever model the arm is.

    def home_of(self, model: ArmModel) -> tuple[float, ...]:
        """The pose of the home service for an arm of this model."""
        is_default = tuple(self.home_pose) == KOCH_V1_1.home_rad
        return model.home_rad if is_default else _pose("home_pose", self.home_pose, model)

    def rest_of(self, model: ArmModel) -> tuple[float, ...]:
        """The pose in which the torque may go for an arm of this model."""
        is_default = tuple(self.rest_pose) == KOCH_V1_1.rest_rad
        return model.rest_rad if is_default else _pose("rest_pose", self.rest_pose, model)


@dataclass(frozen=True)
class LeaderParameters:
    """Parameters of the leader node."""

    rig: str = same_as(RIG, "")
    arm: str = parameter("", "name of the arm in the rig", required=True)
    gripper_open: float = parameter(
        50.0, "rest position of the gripper trigger [0..100 of its range]", low=0.0, high=100.0
    )
    gripper_current: float = same_as(
        _GRIPPER_CURRENT,
        GENTLE_CURRENT_A,
        text="greatest current of the trigger's spring [A], 0 = the servo's own",
    )
    allow_drift: bool = same_as(_ALLOW_DRIFT, False)


@dataclass(frozen=True)
class TeleopParameters:
    """Parameters of the teleop node."""

    rig: str = same_as(RIG, "")
    leader: str = parameter("", "name of the leader arm in the rig", required=True)
    engaged: bool = parameter(True, "the human drives from the start (soft start)")
    threshold: float = parameter(
        0.35,
        "distance between the arms above which `on_mismatch` applies [rad]",
        low=0.0,
        high=3.2,
    )
    on_mismatch: str = parameter(
        "blend",
        "beyond the threshold: let the guard blend slowly, or refuse to engage",
        choices=("blend", "refuse"),
    )
    follow_policy: bool = parameter(
        False,
        "the leader follows while a policy drives; its trigger, squeezed, takes over",
    )


@dataclass(frozen=True)
class JogParameters:
    """Parameters of the jog node."""

    rig: str = same_as(RIG, "")
    arm: str = parameter("", "name of the follower in the rig", required=True)
    engaged: bool = parameter(True, "the hand may be moved from the start")
    linear_speed: float = parameter(
        JogLimits.linear, "greatest speed of the TCP [m/s]", low=0.001, high=0.5
    )
    angular_speed: float = parameter(
        JogLimits.angular,
        "greatest speed of the hand's turns [rad/s]",
        low=0.01,
        high=3.0,
    )
    gripper_speed: float = parameter(
        JogLimits.gripper, "greatest speed of the gripper's joint [rad/s]", low=0.01, high=3.0
    )
