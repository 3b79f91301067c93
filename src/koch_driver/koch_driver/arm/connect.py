# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""An arm on its bus: connect, compare with the calibration, configure as LeRobot does."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from koch_driver.arm import identity
from koch_driver.arm.health import HealthReader
from koch_driver.arm.register_profile import RegisterProfile
from koch_driver.bus.control_table import TICKS_PER_TURN
from koch_driver.bus.motors import motors_for
from koch_driver.bus.scan import SCAN_ORDER, TARGET_BAUD, conclude, scan
from koch_driver.errors import (
    BusTimeout,
    CalibrationDrift,
    MissingMotors,
    NoStateRead,
    SharedIds,
    StatusError,
    WrongModel,
    WrongPort,
)
from koch_rig.arm_model import MOTOR_BUSES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from koch_driver.bus.motor_bus import BusConfig, MotorBus
    from koch_driver.errors import BusError
    from koch_rig.calibration import MotorCalibration
    from koch_rig.rig import Arm, Rig

# what follows where a register differs from the calibration file
_WHY = {
    "Drive_Mode": "the joint would run mirrored",
    "Homing_Offset": "every angle would be off",
    "Min_Position_Limit": "the file is of another calibration",
    "Max_Position_Limit": "the file is of another calibration",
}
_POSE_SLACK_TICKS = 200  # beyond the recorded range: a joint pressed against its stop


@dataclass(frozen=True)
class DriftReport:
    """How an arm differs from its calibration file.

    Attributes:
        registers: Differences that writing the file into the servos repairs, as sentences.
        unmendable: Differences that need a new calibration or another file: drive mode, pose.
    """

    registers: tuple[str, ...]
    unmendable: tuple[str, ...]

    @property
    def clean(self) -> bool:
        """Whether arm and file agree."""
        return not self.registers and not self.unmendable

    @property
    def differences(self) -> tuple[str, ...]:
        """All sentences."""
        return self.registers + self.unmendable


def range_center_ticks(
    bus: MotorBus, calibration: Mapping[str, MotorCalibration]
) -> NDArray[np.int64]:
    """Middle of each joint's calibrated range, int64, shape (J,)."""
    motors = [calibration[spec.joint] for spec in bus.motors]
    return np.array([(m.range_min + m.range_max) // 2 for m in motors], dtype=np.int64)


def turn_offsets(
    position_ticks: NDArray[np.int64], center_ticks: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Multiples of 4096 that bring positions within half a turn of the centers.

    In extended position mode a servo loses its turns without power: a joint whose middle was near
    raw 0 can come back one turn off.

    Args:
        position_ticks: Present_Position registers, int64, shape (J,).
        center_ticks: Middle of the calibrated ranges, int64, shape (J,).
    """
    half = TICKS_PER_TURN // 2
    turns = (center_ticks - position_ticks + half) // TICKS_PER_TURN
    offsets: NDArray[np.int64] = turns * TICKS_PER_TURN
    return offsets


def align_turns(bus: MotorBus, calibration: Mapping[str, MotorCalibration]) -> None:
    """Set the bus's turn offsets from where the joints are now.

    Raises:
        BusTimeout: A motor does not answer.
    """
    position = _positions(bus)
    bus.set_turn_offsets(turn_offsets(position, range_center_ticks(bus, calibration)))


def _positions(bus: MotorBus) -> NDArray[np.int64]:
    """Present positions without turn offsets."""
    return bus.read_all("Present_Position")


def check_drift(bus: MotorBus, calibration: Mapping[str, MotorCalibration]) -> DriftReport:
    """Compare the servos' registers and the pose with the calibration file. Writes nothing."""
    mendable: list[str] = []
    rest: list[str] = []
    for register, field in identity.FIELDS.items():
        values = bus.read_all(register).tolist()
        for spec, got in zip(bus.motors, values, strict=True):
            want = getattr(calibration[spec.joint], field)
            if got != want:
                line = (
                    f"{spec.joint} (id {spec.id}): {register} {got}, file {want}: {_WHY[register]}"
                )
                mendable.append(line)
    if not mendable:
        rest += _implausible_pose(bus, calibration)
    return DriftReport(tuple(mendable), tuple(rest))


def _implausible_pose(bus: MotorBus, calibration: Mapping[str, MotorCalibration]) -> list[str]:
    """Joints that stand outside their recorded range, whole turns aside."""
    raw = _positions(bus)
    aligned = raw + turn_offsets(raw, range_center_ticks(bus, calibration))
    lines = []
    for spec, ticks in zip(bus.motors, aligned.tolist(), strict=True):
        motor = calibration[spec.joint]
        low, high = motor.range_min - _POSE_SLACK_TICKS, motor.range_max + _POSE_SLACK_TICKS
        if not low <= ticks <= high:
            lines.append(
                f"{spec.joint} (id {spec.id}): stands at {ticks} ticks, outside its calibrated "
                f"range {motor.range_min} .. {motor.range_max}: the horn was moved on its shaft, "
                "or the file is of another arm"
            )
    return lines


def open_bus(
    arm: Arm,
    rig: Rig | None = None,
    config: BusConfig | None = None,
    *,
    thorough: bool = False,
) -> MotorBus:
    """Open an arm's bus and see that its motors are there.

    Args:
        arm: The arm of the rig.
        rig: Names the other arms that may be behind this port instead.
        config: Settings of the bus.
        thorough: Where motors are missing, look for them at other baud rates; takes a second.

    Raises:
        SwappedPorts: They are those of another arm of the rig.
        SharedIds: Several motors answer to one id.
        BusError: As the bus's open().
    """
    bus: MotorBus = MOTOR_BUSES[arm.bus](arm.port, motors_for(arm.role, arm.model), config)
    try:
        bus.open()
    except WrongModel as exc:
        if rig is not None:
            identity.check_models(exc, arm, rig)
        raise
    except NoStateRead as exc:
        _check_shared(arm, exc)
        raise
    except (MissingMotors, WrongPort) as exc:
        # At our baud rate every time: a motor with another's id may have come while running.
        rates = 3 if thorough else int(isinstance(exc, MissingMotors))
        found = scan(arm.port, SCAN_ORDER[:rates])
        if not found or not (thorough or any(motor.shared for motor in found)):
            raise
        conclusion = " ".join(f"it is {conclude(found)}".split())
        if isinstance(exc, WrongPort):
            raise WrongPort(arm.port, f"none answers at {TARGET_BAUD} baud; {conclusion}") from exc
        raise exc.concluded(conclusion) from exc
    return bus


def _check_shared(arm: Arm, error: BusError) -> None:
    """Find out whether motors are not understood because they share an id.

    They answer pings alike, as one.

    Raises:
        SharedIds: They do.
    """
    names = {spec.id: spec.joint for spec in motors_for(arm.role, arm.model)}
    found = [motor.reply.id for motor in scan(arm.port, (TARGET_BAUD,)) if motor.shared]
    if found:
        shared = {i: names.get(i, "not of this arm") for i in found}
        raise SharedIds(arm.port, shared) from error


def connect_arm(
    arm: Arm,
    calibration: Mapping[str, MotorCalibration],
    *,
    config: BusConfig | None = None,
    allow_drift: bool = False,
    rig: Rig | None = None,
    thorough: bool = False,
) -> MotorBus:
    """Open an arm's bus and make sure that it is the calibrated arm.

    Moves nothing and writes nothing, but for motors that were told not to acknowledge writes.

    Args:
        arm: The arm of the rig.
        calibration: Its calibration.
        config: Settings of the bus.
        allow_drift: Go on although registers, pose or motors differ from what was kept.
        rig: Names the other arms that may be behind this port instead.
        thorough: As `open_bus`.

    Returns:
        The open bus, turn offsets set, torque as it was.

    Raises:
        CalibrationDrift: Registers or pose do not belong to the file.
        SwappedPorts: They are those of another arm of the rig.
        OtherMotors: They are not the motors that were calibrated.
        SharedIds: Several motors answer to one id.
        BusError: As the bus's open().
    """
    bus = open_bus(arm, rig, config, thorough=thorough)
    try:
        align_turns(bus, calibration)
        report = check_drift(bus, calibration)
        if not report.clean and not allow_drift:
            if rig is not None:
                identity.check_swapped(bus, arm, calibration, identity.others_of(rig, arm))
            path = getattr(calibration, "path", arm.calibration_path)
            raise CalibrationDrift(arm.name, path, report.differences)
        if not allow_drift:
            identity.check_identity(bus, arm)
    except BusTimeout as exc:
        bus.close()
        _check_shared(arm, exc)
        raise
    except BaseException:
        bus.close()
        raise
    return bus


def repair_registers(bus: MotorBus, calibration: Mapping[str, MotorCalibration]) -> None:
    """Write a calibration file into the servos' EEPROM; torque goes off.

    Unlike LeRobot this also writes Drive_Mode, so that a replaced leader elbow is repaired too.
    """
    bus.write_all("Torque_Enable", 0)
    for register, field in identity.FIELDS.items():
        present = bus.read_all(register).tolist()
        for spec, got in zip(bus.motors, present, strict=True):
            want = getattr(calibration[spec.joint], field)
            if got != want:
                bus.write(register, spec.id, want)
    align_turns(bus, calibration)


def configure(bus: MotorBus, calibration: Mapping[str, MotorCalibration] | None = None) -> None:
    """Set an arm's registers as its model has them (LeRobot's for a Koch); torque goes off.

    Writes only what differs.

    Args:
        bus: The open bus.
        calibration: To find the turn offsets again where an operating mode had to change.
    """
    profile = RegisterProfile.of(bus.motors)
    bus.write_all("Torque_Enable", 0)
    written: list[str] = []
    for look in HealthReader(bus).survey().values():
        written += profile.restore(bus, look)
    if "Operating_Mode" in written and calibration is not None:
        align_turns(bus, calibration)


def torque_off_quietly(bus: MotorBus, attempts: int = 3) -> bool:
    """Take the torque away as well as the bus allows; whether all motors confirmed.

    One that does not answer keeps no other from going limp.
    """
    done = True
    for spec in bus.motors:
        for _ in range(attempts):
            try:
                bus.write("Torque_Enable", spec.id, 0)
                break
            except (BusTimeout, StatusError):
                time.sleep(0.01)
        else:
            done = False
    return done
