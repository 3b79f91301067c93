# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What a leader and a follower know of their arm, whatever they do with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from koch_driver.arm.control_loop import ArmController
from koch_driver.arm.reading import Reading, ReadingConverter
from koch_driver.arm.register_profile import RegisterProfile
from koch_driver.arm.servo_watch import ServoWatch
from koch_driver.bus.motors import motors_for
from koch_driver.guard import Guard
from koch_rig.arm_model import Role

if TYPE_CHECKING:
    from koch_rig.calibration import MotorCalibration
    from koch_rig.units import JointUnits


class WatchedArm(ArmController):
    """A controller that watches its arm's servos: model, newest reading, health and guard.

    Args:
        role: Of the arm.
        units: Its conversions.
        calibration: To find turn offsets again after a servo's reboot.
        guard: Its guard.
        every_s: How often one of its motors is looked at, [s].
        poll_commands: Hands new commands to the guard, in every cycle before that decides.
        say: Receives faults of servos as sentences, once each, in the loop's thread.
    """

    def __init__(
        self,
        role: Role,
        units: JointUnits,
        calibration: Mapping[str, MotorCalibration],
        guard: Guard,
        *,
        every_s: float,
        poll_commands: Callable[[], None],
        say: Callable[[str], None],
    ) -> None:
        self.guard = guard
        self.model = units.model
        motors = motors_for(role, self.model)
        self.servos = ServoWatch(
            RegisterProfile.of(motors),
            every_s=every_s,
            period_s=guard.period_s,
            say=say,
        )
        self.monitor = self.servos.monitor
        self.reading: Reading | None = None
        self._units = units
        self._calibration = calibration
        self._converter = ReadingConverter(units, motors, fastest_rad_s=guard.limits.fastest_rad_s)
        self._poll_commands = poll_commands
        self._say = say

    @property
    def errors(self) -> dict[str, str]:
        """Hardware errors by joint, in words."""
        return self.servos.errors
