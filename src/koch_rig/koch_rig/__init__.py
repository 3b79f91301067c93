# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The rig, joints, units, calibration data, geometry and kinematics of Koch arms. No ROS.

Names are imported on first use: `koch doctor` must run where not even numpy is installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from koch_core.lazy import lazy_name

if TYPE_CHECKING:
    from koch_rig.arm_model import KOCH_V1_1, ArmModel, Motor, register_arm_model
    from koch_rig.calibration import (
        Calibration,
        MotorCalibration,
        lerobot_calibration_path,
        load_calibration,
        save_calibration,
    )
    from koch_rig.fingerprint import difference
    from koch_rig.joints import JOINT_NAMES
    from koch_rig.kinematics import IkResult, Kinematics, Orientation
    from koch_rig.load import load_rig
    from koch_rig.model import default_rig, share_folder
    from koch_rig.rig import Arm, Camera, Rig, Role
    from koch_rig.units import JointUnits, Units

__all__ = [
    "JOINT_NAMES",
    "KOCH_V1_1",
    "Arm",
    "ArmModel",
    "Calibration",
    "Camera",
    "IkResult",
    "JointUnits",
    "Kinematics",
    "Motor",
    "MotorCalibration",
    "Orientation",
    "Rig",
    "Role",
    "Units",
    "default_rig",
    "difference",
    "lerobot_calibration_path",
    "load_calibration",
    "load_rig",
    "register_arm_model",
    "save_calibration",
    "share_folder",
]

_MODULES = {
    "arm_model": ("KOCH_V1_1", "ArmModel", "Motor", "register_arm_model"),
    "calibration": (
        "Calibration",
        "MotorCalibration",
        "lerobot_calibration_path",
        "load_calibration",
        "save_calibration",
    ),
    "fingerprint": ("difference",),
    "joints": ("JOINT_NAMES",),
    "kinematics": ("IkResult", "Kinematics", "Orientation"),
    "load": ("load_rig",),
    "model": ("default_rig", "share_folder"),
    "rig": ("Arm", "Camera", "Rig", "Role"),
    "units": ("JointUnits", "Units"),
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module."""
    return lazy_name(__name__, name, _MODULES)
