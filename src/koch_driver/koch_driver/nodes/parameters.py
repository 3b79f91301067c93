# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Node parameters: one frozen dataclass per node, from which the ROS declarations follow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from koch_core.options import same_as
from koch_driver.follower_task import GRIP_CURRENT_A
from koch_driver.leader_task import GENTLE_CURRENT_A
from koch_rig.joints import HOME_POSE_RAD, JOINT_COUNT, JOINT_NAMES, REST_POSE_RAD
from koch_ros.parameters import ParameterError, parameter
from koch_ros.shared_options import RIG


def joint_vector(name: str, values: Any) -> tuple[float, ...]:
    """Check a pose parameter.

    Raises:
        ParameterError: It has not one angle per joint.
    """
    if len(values) != JOINT_COUNT:
        raise ParameterError(
            name, list(values), f"{JOINT_COUNT} angles in rad: {', '.join(JOINT_NAMES)}"
        )
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
        HOME_POSE_RAD, "pose of the home service [rad], in the order of the joints"
    )
    rest_pose: tuple[float, ...] = parameter(
        REST_POSE_RAD, "pose in which the torque may go [rad]"
    )
    move_speed: float = parameter(
        0.8, "mean speed of motions to home and rest [rad/s]", low=0.05, high=3.0
    )
    gripper_current: float = parameter(
        GRIP_CURRENT_A,
        "greatest current with which the gripper presses [A], 0 = the servo's own limit",
        low=0.0,
        high=1.75,
    )
    allow_drift: bool = parameter(
        False, "connect although the servos differ from the calibration file"
    )
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


@dataclass(frozen=True)
class LeaderParameters:
    """Parameters of the leader node."""

    rig: str = same_as(RIG, "")
    arm: str = parameter("", "name of the arm in the rig", required=True)
    gripper_open: float = parameter(
        50.0, "rest position of the gripper trigger [0..100 of its range]", low=0.0, high=100.0
    )
    gripper_current: float = parameter(
        GENTLE_CURRENT_A,
        "greatest current of the trigger's spring [A], 0 = the servo's own",
        low=0.0,
        high=1.75,
    )
    allow_drift: bool = parameter(
        False, "connect although the servos differ from the calibration file"
    )


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
