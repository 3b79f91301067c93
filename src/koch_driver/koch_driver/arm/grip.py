# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""How hard a gripper presses: the goal current of current-based position mode."""

from __future__ import annotations

from typing import TYPE_CHECKING

from koch_driver.bus.control_table import XL330_M288
from koch_driver.errors import BusTimeout
from koch_rig.arm_model import KOCH_V1_1

if TYPE_CHECKING:
    from koch_driver.bus.motor_bus import MotorBus

#: Of a follower's gripper servo: estimates effort from current and back.
NM_PER_A = XL330_M288.stall_torque_nm / XL330_M288.stall_current_a
# Inside a control cycle an acknowledgement is waited for no longer than this.
_CYCLE_BUDGET_S = 0.004


class Grip:
    """The gripper's lasting current limit, and a lower one for a while.

    The servo's own limit (Current_Limit, in EEPROM) bounds both and is never written: LeRobot,
    which writes neither, finds the arm as it left it once the motor had no power.
    """

    def __init__(self, current_a: float, joint: str = KOCH_V1_1.gripper) -> None:
        """Prepare.

        Args:
            current_a: The lasting limit in [A]; 0 leaves the servo's own.
            joint: The gripper.
        """
        self._current_a = current_a
        self._joint = joint
        self._lasting_ma = 0
        self._lowered_ma = 0
        self.lowered = False

    @property
    def possible_ma(self) -> tuple[int, ...]:
        """What Goal_Current may be now; empty before anything was written.

        Two values where a write may not have arrived.
        """
        if not self._lasting_ma:
            return ()
        return (self._lasting_ma, self._lowered_ma) if self.lowered else (self._lasting_ma,)

    def apply(self, bus: MotorBus) -> int:
        """Write the lasting limit where the servo has another one; the limit in [mA].

        Raises:
            BusError: The motor did not answer, or refused.
        """
        self._lasting_ma = self._bounded_ma(bus, self._current_a)
        if bus.read("Goal_Current", self._joint) != self._lasting_ma:
            bus.write("Goal_Current", self._joint, self._lasting_ma)
        self.lowered = False
        return self._lasting_ma

    def lower(self, bus: MotorBus, current_a: float) -> int:
        """Press more gently until `restore`; nothing exceeds the lasting limit.

        Args:
            bus: The open bus.
            current_a: In [A]; 0 asks for the lasting limit.

        Returns:
            The limit in [mA].

        Raises:
            BusError: The motor did not answer, or refused.
        """
        lasting_ma = self.apply(bus)
        wanted_ma = min(lasting_ma, self._bounded_ma(bus, current_a))
        if wanted_ma != lasting_ma:
            self._lowered_ma, self.lowered = wanted_ma, True
            bus.write("Goal_Current", self._joint, wanted_ma)
        return wanted_ma

    def restore(self, bus: MotorBus) -> None:
        """Go back to the lasting limit, inside a control cycle; tried again while `lowered`."""
        try:
            bus.write("Goal_Current", self._joint, self._lasting_ma, budget_s=_CYCLE_BUDGET_S)
        except BusTimeout:
            return
        self.lowered = False

    def _bounded_ma(self, bus: MotorBus, current_a: float) -> int:
        """A current in [mA] that the servo accepts; its own limit for 0."""
        limit_ma = bus.read("Current_Limit", self._joint)
        if current_a <= 0.0:
            return limit_ma
        return max(min(limit_ma, 1), round(min(1e3 * current_a, limit_ma)))
