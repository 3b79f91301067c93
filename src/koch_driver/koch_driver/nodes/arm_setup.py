# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What every arm node needs from the rig file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf

from koch_core.errors import KochError
from koch_driver.errors import in_words
from koch_driver.guard import GuardLimits
from koch_rig.calibration import Calibration, load_calibration
from koch_rig.load import load_rig
from koch_rig.rig import Arm, Rig, Role
from koch_rig.units import JointUnits
from koch_ros.parameters import ParameterError


@dataclass(frozen=True)
class ArmSetup:
    """An arm of a rig with its calibration."""

    rig: Rig
    arm: Arm
    calibration: Calibration
    units: JointUnits

    @classmethod
    def load(cls, rig_path: str, arm_name: str, role: Role) -> ArmSetup:
        """Read rig and calibration.

        Raises:
            RigError, ArmChoiceError, CalibrationError: They cannot be used.
            ParameterError: The arm has another role.
        """
        rig = load_rig(rig_path)
        arm = rig.arm(arm_name)
        if arm.role is not role:
            raise ParameterError(
                "arm", arm_name, f"a {role.value} of {rig_path}; it is a {arm.role.value}"
            )
        calibration = load_calibration(arm.calibration_path, arm.model.joints)
        return cls(rig, arm, calibration, JointUnits(arm, calibration))

    def words(self, error: KochError) -> str:
        """An error for a person at this rig."""
        return in_words(error, self.rig)

    def guard_limits(self, *, simulated_time: bool) -> GuardLimits:
        """The rig's limits, narrowed by the calibrated ranges.

        Args:
            simulated_time: The arm moves in the time of /clock, which may run faster than ours.
        """
        lower, upper = self.units.range_rad()
        model = self.arm.model
        ranges = zip(model.joints, lower.tolist(), upper.tolist(), strict=True)
        limits = GuardLimits.from_rig(
            self.rig.limits,
            calibrated={joint: (low, high) for joint, low, high in ranges},
            model=model,
        )
        return replace(limits, fastest_rad_s=inf) if simulated_time else limits
