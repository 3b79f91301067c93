# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The rig, joints, units, calibration data, geometry and kinematics of Koch arms. No ROS."""

from koch_rig.calibration import (
    Calibration,
    MotorCalibration,
    lerobot_calibration_path,
    load_calibration,
    save_calibration,
)
from koch_rig.errors import KochError
from koch_rig.fingerprint import difference, fingerprint
from koch_rig.joints import JOINT_COUNT, JOINT_NAMES
from koch_rig.load import load_rig
from koch_rig.rig import Arm, Camera, Rig, Role
from koch_rig.units import JointUnits, Units

__all__ = [
    "JOINT_COUNT",
    "JOINT_NAMES",
    "Arm",
    "Calibration",
    "Camera",
    "JointUnits",
    "KochError",
    "MotorCalibration",
    "Rig",
    "Role",
    "Units",
    "difference",
    "fingerprint",
    "lerobot_calibration_path",
    "load_calibration",
    "load_rig",
    "save_calibration",
]
