# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What a chain's registers must hold: one table that is written, verified and restored alike.

A servo that restarts forgets its RAM: gains, profile, goal current, status return level. So what
was written once is never believed for long: `koch_driver.arm.servo_watch` compares it in every
round.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from koch_driver.bus.control_table import Area

if TYPE_CHECKING:
    from koch_driver.arm.motor_health import MotorHealth
    from koch_driver.bus.motor_bus import MotorBus
    from koch_driver.bus.motors import MotorSpec

ANSWER_ALL = 2  # Status_Return_Level
# Registers that the servo's own default is right for, but that must hold it.
_DEFAULTS = (
    "Position_D_Gain",
    "Position_I_Gain",
    "Position_P_Gain",
    "Feedforward_2nd_Gain",
    "Feedforward_1st_Gain",
    "Bus_Watchdog",
    "Profile_Acceleration",
    "Profile_Velocity",
)
# EEPROM of the calibration: watched, but written by 'koch calibrate' only.
_CALIBRATED = ("Drive_Mode", "Homing_Offset")


@dataclass(frozen=True)
class RegisterProfile:
    """Values of one arm's registers by joint and name, in the order in which they are written.

    Attributes:
        motors: The chain.
        values: What is written where it differs. Goal_Current is not among them: it belongs to
            `Grip`, and changes.
        watched: What is compared only, as it was found first.
    """

    motors: tuple[MotorSpec, ...]
    values: Mapping[str, Mapping[str, int]]
    watched: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @classmethod
    def of(cls, motors: Sequence[MotorSpec]) -> RegisterProfile:
        """A chain's, as its arm model has it: LeRobot's for a Koch."""
        values = {}
        for spec in motors:
            values[spec.joint] = {
                "Status_Return_Level": ANSWER_ALL,
                "Return_Delay_Time": 0,
                # A change of the mode resets the gains and the profile, which come after it.
                "Operating_Mode": spec.registers["Operating_Mode"],
                **{name: spec.model.register(name).default or 0 for name in _DEFAULTS},
                **spec.registers,
            }
        return cls(tuple(motors), values)

    def as_found(self, looks: Mapping[str, MotorHealth]) -> RegisterProfile:
        """The same, watching the calibration's registers and Goal_PWM as `looks` show them."""
        watched = {
            joint: {
                **{name: look.registers[name] for name in _CALIBRATED},
                "Goal_PWM": look.registers["PWM_Limit"],
            }
            for joint, look in looks.items()
            if "PWM_Limit" in look.registers
        }
        return RegisterProfile(self.motors, self.values, watched)

    def differences(self, look: MotorHealth, currents_ma: Collection[int] = ()) -> list[str]:
        """Names of the registers in which a motor differs.

        Args:
            look: The motor as it is.
            currents_ma: What Goal_Current may be, where that is known.
        """
        found = look.registers
        wanted = {**self.values[look.joint], **self.watched.get(look.joint, {})}
        names = [name for name, value in wanted.items() if found.get(name, value) != value]
        if currents_ma and found.get("Goal_Current", min(currents_ma)) not in currents_ma:
            names.append("Goal_Current")
        return names

    def in_words(self, look: MotorHealth, names: Collection[str]) -> str:
        """Differences for a person: "Position_P_Gain 640, was set to 1500"."""
        wanted = {**self.values[look.joint], **self.watched.get(look.joint, {})}
        parts = []
        for name in names:
            was = f", was set to {wanted[name]}" if name in wanted else ""
            parts.append(f"{name} {look.registers[name]}{was}")
        return "; ".join(parts)

    def restore(self, bus: MotorBus, look: MotorHealth) -> list[str]:
        """Write what differs in one motor; its torque goes off where EEPROM must be written.

        Returns:
            Names of the registers that were written.

        Raises:
            BusError: The motor did not answer, or refused.
        """
        table = self.motors[bus.ids.index(look.id)].model.table
        names = [n for n in self.differences(look) if n in self.values[look.joint]]
        if any(table[name].area is Area.EEPROM for name in names):
            bus.write("Torque_Enable", look.id, 0)
        written = []
        for name, value in self.values[look.joint].items():
            reset = "Operating_Mode" in names and table[name].area is Area.RAM
            if name in names or reset:
                bus.write(name, look.id, value)
            if name in names:
                written.append(name)
        power = self.watched.get(look.joint, {}).get("Goal_PWM")
        if power is not None and look.registers.get("Goal_PWM", power) != power:
            bus.write("Goal_PWM", look.id, power)
            written.append("Goal_PWM")
        return written
