# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Driver of Koch arms: Dynamixel bus, calibration, guard, servo emulator and nodes."""

from koch_driver.arm.connect import (
    DriftReport,
    check_drift,
    configure,
    connect_arm,
)
from koch_driver.bus.dynamixel import BusConfig, DynamixelBus, MotorState, PingReply
from koch_driver.bus.motors import FOLLOWER_MOTORS, LEADER_MOTORS, MotorSpec, motors_for
from koch_driver.errors import BusError, DriverError
from koch_driver.trajectory.trajectory import (
    Trajectory,
    TrajectoryError,
    TrajectoryPoint,
    check_trajectory,
)

__all__ = [
    "FOLLOWER_MOTORS",
    "LEADER_MOTORS",
    "BusConfig",
    "BusError",
    "DriftReport",
    "DriverError",
    "DynamixelBus",
    "MotorSpec",
    "MotorState",
    "PingReply",
    "Trajectory",
    "TrajectoryError",
    "TrajectoryPoint",
    "check_drift",
    "check_trajectory",
    "configure",
    "connect_arm",
    "motors_for",
]
