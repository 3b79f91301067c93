# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Which arm is behind a port: its motors' identity, kept beside the calibration, and whose it is.

Two arms of one model look alike on a bus. What tells them apart is what calibration left in their
servos, and their firmware. LeRobot's JSON has no room for it, so a file of its own is beside it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from koch_core.files import write_atomically
from koch_driver.bus.dynamixel import DynamixelBus
from koch_driver.bus.motors import motors_for
from koch_driver.errors import IdentityError, OtherMotors, SwappedPorts, WrongModel
from koch_rig.calibration import Calibration, load_calibration
from koch_rig.errors import CalibrationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from koch_driver.bus.motor_bus import MotorBus
    from koch_rig.arm_model import ArmModel, Role
    from koch_rig.calibration import MotorCalibration
    from koch_rig.rig import Arm, Rig


FIELDS = {
    "Drive_Mode": "drive_mode",
    "Homing_Offset": "homing_offset",
    "Min_Position_Limit": "range_min",
    "Max_Position_Limit": "range_max",
}
"""Registers that a calibration file holds, and its names for them."""


@dataclass(frozen=True)
class MotorIdentity:
    """What does not change in a motor unless someone changes it.

    Attributes:
        id: Dynamixel id.
        model: Model number.
        firmware: Firmware version.
        homing_offset: Homing_Offset register in [ticks].
    """

    id: int
    model: int
    firmware: int
    homing_offset: int


def identity_path(calibration_path: Path) -> Path:
    """follower.json -> follower.identity.json."""
    return calibration_path.with_suffix(".identity.json")


def read_identity(bus: MotorBus) -> dict[str, MotorIdentity]:
    """Ask an open bus, joint by joint."""
    homing = bus.read_all("Homing_Offset").tolist()
    return {
        spec.joint: MotorIdentity(spec.id, spec.model.number, firmware, offset)
        for spec, firmware, offset in zip(bus.motors, bus.firmware, homing, strict=True)
    }


def keep_identity(bus: MotorBus, calibration_path: Path) -> Path:
    """Write down which motors the calibration belongs to; where."""
    path = identity_path(calibration_path)
    motors = {joint: asdict(motor) for joint, motor in read_identity(bus).items()}
    write_atomically(path, json.dumps(motors, indent=2) + "\n")
    return path


def load_identity(arm: Arm) -> dict[str, MotorIdentity] | None:
    """What was kept of an arm; None where nothing was.

    Raises:
        IdentityError: The file is not one of ours.
    """
    path = identity_path(arm.calibration_path)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        motors = {joint: MotorIdentity(**data[joint]) for joint in arm.model.joints}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise IdentityError(path, exc) from exc
    return motors


def others_of(rig: Rig, arm: Arm) -> dict[str, Calibration]:
    """Calibrations of the rig's other arms of this kind, as far as they can be read."""
    alike = [other for other in rig.arms.values() if _kind(other) == _kind(arm)]
    return _calibrations([other for other in alike if other.name != arm.name])


def _kind(arm: Arm) -> tuple[Role, ArmModel]:
    """What arms have in common that may be mistaken for each other."""
    return arm.role, arm.model


def _calibrations(arms: Iterable[Arm]) -> dict[str, Calibration]:
    """Calibrations of arms by name, as far as they can be read."""
    found = {}
    for arm in arms:
        try:
            found[arm.name] = load_calibration(arm.calibration_path, arm.model.joints)
        except CalibrationError:
            continue  # it cannot tell whose servos these are; its own driver names it
    return found


def check_swapped(
    bus: MotorBus,
    arm: Arm,
    own: Mapping[str, MotorCalibration] | None,
    others: Mapping[str, Calibration],
) -> None:
    """Find out whether servos that do not fit their calibration are another arm's.

    Raises:
        SwappedPorts: Every joint differs from the arm's own calibration (or it has none), and all
            fit another arm of the rig.
    """
    owner = _owner(bus, own, others)
    if owner is not None:
        what = f"the calibration {others[owner].path}"
        raise SwappedPorts(arm.name, owner, bus.port, what)


def _owner(
    bus: MotorBus,
    own: Mapping[str, MotorCalibration] | None,
    others: Mapping[str, Calibration],
) -> str | None:
    """Which of other arms' calibrations all servos fit; None where one of them fits its own."""
    registers = {field: bus.read_all(name).tolist() for name, field in FIELDS.items()}
    present = {
        spec.joint: tuple(values[k] for values in registers.values())
        for k, spec in enumerate(bus.motors)
    }

    def fitting(calibration: Mapping[str, MotorCalibration]) -> list[bool]:
        return [
            present[joint] == tuple(getattr(calibration[joint], field) for field in registers)
            for joint in present
        ]

    if own is not None and any(fitting(own)):
        return None
    return next((name for name, one in others.items() if all(fitting(one))), None)


def check_models(error: WrongModel, arm: Arm, rig: Rig) -> None:
    """Find out whether wrong models are those of another arm of the rig, and of which.

    Raises:
        SwappedPorts: They are.
    """
    arms = [
        other
        for other in rig.arms.values()
        if _kind(other) != _kind(arm)
        and error.found == [spec.model.name for spec in motors_for(other.role, other.model)]
    ]
    if not arms:
        return
    name = " or ".join(other.name for other in arms)
    if len(arms) > 1:  # their models are alike: the calibration tells
        with DynamixelBus(arm.port, motors_for(arms[0].role, arms[0].model)) as bus:
            name = _owner(bus, None, _calibrations(arms)) or name
    raise SwappedPorts(
        arm.name, name, arm.port, f"the models of a {arms[0].role.value}"
    ) from error


def check_identity(bus: MotorBus, arm: Arm) -> None:
    """Compare the motors with those that were calibrated, where that was written down.

    Raises:
        OtherMotors: Some are others.
        IdentityError: What was written down cannot be read.
    """
    kept = load_identity(arm)
    if kept is None:
        return
    present = read_identity(bus)
    lines = []
    for joint, was in kept.items():
        now = asdict(present[joint])
        changed = [
            f"{name} {now[name]}, kept {value}"
            for name, value in asdict(was).items()
            if now[name] != value
        ]
        if changed:
            lines.append(f"{joint}: {'; '.join(changed)}")
    if lines:
        raise OtherMotors(arm.name, identity_path(arm.calibration_path), lines)
