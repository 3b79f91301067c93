# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Between URDF joint angles and the shafts of the servos that move them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from koch_driver.bus.control_table import DriveMode
from koch_rig.calibration import MIDDLE_TICKS
from koch_rig.units import RAD_PER_TICK, JointUnits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

    from koch_rig.calibration import MotorCalibration
    from koch_rig.rig import Arm


class ShaftFrame:
    """Affine map of one arm: shaft = direction * angle + shift, per joint.

    The shaft angle is the servo's absolute encoder, turns counted on; present position =
    (reversed) encoder + homing offset.
    """

    def __init__(self, arm: Arm, calibration: Mapping[str, MotorCalibration]) -> None:
        units = JointUnits(arm, calibration)
        motors = [calibration[name] for name in arm.model.joints]
        reverse = np.array([-1.0 if m.drive_mode & DriveMode.REVERSE else 1.0 for m in motors])
        homing = np.array([m.homing_offset for m in motors], dtype=np.float64)
        self.direction: NDArray[np.float64] = reverse * units.sign
        self.shift_rad: NDArray[np.float64] = (
            reverse * (MIDDLE_TICKS - homing) * RAD_PER_TICK - self.direction * units.offset_rad
        )

    def to_shaft(self, joint_rad: ArrayLike) -> NDArray[np.float64]:
        """Joint angles [rad], shape (..., J), to shaft angles [rad]."""
        return np.asarray(joint_rad, dtype=np.float64) * self.direction + self.shift_rad
