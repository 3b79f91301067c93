# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""How the servos of one arm move its joints: nominal values, and the file of an identified arm."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from koch_core.files import write_atomically
from koch_core.options import OptionModel, option, read
from koch_driver.bus.motors import motors_for
from koch_sim.errors import SimulationError

if TYPE_CHECKING:
    from pathlib import Path

    from koch_driver.bus.control_table import ServoModel
    from koch_rig.rig import Arm

#: Rotor and gear train at the output shaft, [kg m^2]: gear ratio squared times a rotor of about
#: 1e-7 kg m^2 for the XL430 (258.5:1) and 3e-8 for the XL330 (288.4:1), as in MuJoCo Menagerie.
ARMATURE_BY_STALL_NM = ((1.0, 0.010), (0.0, 0.0025))
#: Dry friction of the gear train as a fraction of the stall torque.
FRICTION_FRACTION = 0.02

#: What the file says it is.
_KIND, _VERSION = "koch_arm_model", 1


@dataclass(frozen=True, kw_only=True)
class JointDynamics(OptionModel):
    """One joint and its servo; the ranges bound the identification as well."""

    gain_scale: float = option(1.0, "duty per error, of the servo's registers'", low=0.2, high=3.0)
    friction_nm: float = option(..., "dry friction at the joint [N m]", low=0.0, high=0.5)
    armature_kg_m2: float = option(
        ..., "rotor and gears at the joint [kg m^2]", low=0.0001, high=0.1
    )
    delay_s: float = option(0.0, "the motor follows its goal so late [s]", low=0.0, high=0.2)
    backlash_rad: float = option(0.0, "free play of the gears [rad]", low=0.0, high=0.1)
    bias_rad: float = option(
        0.0, "the servo aims so far beside its goal [rad]", low=-0.15, high=0.15
    )

    @classmethod
    def nominal(cls, servo: ServoModel) -> JointDynamics:
        """Values of a servo of this model, before anything is known of the arm."""
        stall = servo.stall_torque_nm
        return cls(
            friction_nm=FRICTION_FRACTION * stall,
            armature_kg_m2=next(a for low, a in ARMATURE_BY_STALL_NM if stall >= low),
        )


ArmDynamics = Mapping[str, JointDynamics]
"""By joint name, in the arm's order."""


def nominal_dynamics(arm: Arm) -> ArmDynamics:
    """What an arm is taken for before it is identified."""
    motors = motors_for(arm.role, arm.model)
    return MappingProxyType({m.joint: JointDynamics.nominal(m.model) for m in motors})


def save_dynamics(path: Path, dynamics: ArmDynamics) -> None:
    """Write the file that a rig's `simulation: {arm_model: FILE}` names.

    Raises:
        OSError: It cannot be written.
    """
    joints = {name: asdict(joint) for name, joint in dynamics.items()}
    write_atomically(path, json.dumps({_KIND: _VERSION, "joints": joints}, indent=2) + "\n")


def load_dynamics(path: Path, arm: Arm) -> ArmDynamics:
    """Read what `save_dynamics` wrote.

    Raises:
        SimulationError: It cannot be read, has a wrong value, or is of another arm.
    """

    def error(key: str, got: object, expected: str, hint: str = "") -> SimulationError:
        where = f"{path}: {key}" if key else str(path)
        remedy = hint or "'koch identify' writes such a file."
        return SimulationError(f"{where}: got {got!r}, expected {expected}. {remedy}")

    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise SimulationError(
            f"{path}: the rig's simulation.arm_model cannot be read: {exc}. "
            "Name the file that 'koch identify' wrote, or leave the key out."
        ) from exc
    if not isinstance(content, dict) or content.get(_KIND) != _VERSION:
        raise error("", content, f"a mapping with {_KIND}: {_VERSION}")
    joints = content.get("joints")
    if not isinstance(joints, dict) or set(joints) != set(arm.model.joints):
        names = sorted(joints) if isinstance(joints, dict) else joints
        raise error("joints", names, f"the joints of {arm.name}: {', '.join(arm.model.joints)}")

    def joint(name: str) -> JointDynamics:
        def refuse(key: str, got: object, expected: str, hint: str) -> SimulationError:
            return error(f"joints.{name}.{key}", got, expected, hint)

        return read(JointDynamics, joints[name], refuse)

    return MappingProxyType({name: joint(name) for name in arm.model.joints})
