# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Errors of the driver: each leaf builds its own message (what, where, got, expected, do)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from koch_core.busy import busy_words
from koch_core.errors import KochError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from koch_rig.rig import Rig


class DriverError(KochError):
    """Root of everything koch_driver raises."""


class BusError(DriverError):
    """Root of the errors of the motor bus.

    Attributes:
        cause: What happened.
        wiring: What to look at where there are plugs, cables and a supply; may be empty.
    """

    def __init__(self, cause: str, wiring: str = "") -> None:
        super().__init__(f"{cause} {wiring}".rstrip())
        self.cause = cause
        self.wiring = wiring


def in_words(error: KochError, rig: Rig | None) -> str:
    """An error for a person at this rig.

    In a simulated world there is no cable to look at: a servo is late or silent because the
    computer is busy, or the world has ended. Emulated servos alone are different: their supply,
    bus and adapter are emulated as well, and fail when told to.
    """
    if rig is None or rig.simulation is None or not isinstance(error, BusError):
        return str(error)
    load = busy_words()
    if not rig.has_simulated_table:
        return f"{str(error).rstrip('.')}. {load}" if error.wiring and load else str(error)
    if not error.wiring:
        return error.cause
    load = load or "Does the process that simulates them still run?"
    return f"{error.cause.rstrip(';:.')}. These servos are simulated. {load}"


class PortNotFound(BusError):
    """The device file of the port does not exist."""

    def __init__(self, port: str, candidates: Sequence[str]) -> None:
        there = "\n  ".join(candidates) if candidates else "none at all: is the USB cable in?"
        super().__init__(
            f"port {port} does not exist.",
            f"Serial ports of this computer:\n  {there}\n"
            "Plug the arm in, or correct the arm's 'port' in the rig file.",
        )
        self.port = port


class PortDenied(BusError):
    """The user may not open the port."""

    def __init__(self, port: str) -> None:
        super().__init__(
            f"no permission to open {port}. Add your user to the group that owns the device "
            "(usually 'dialout'): sudo usermod -aG dialout $USER, then log in again."
        )


class PortInUse(BusError):
    """Another program holds the port."""

    def __init__(self, port: str, holder: str) -> None:
        super().__init__(
            f"port {port} is in use by {holder}. Stop that program (another driver, LeRobot, "
            "Dynamixel Wizard) and try again: two masters on one bus corrupt each other."
        )


class PortLost(BusError):
    """The device vanished while open."""

    def __init__(self, port: str, why: str) -> None:
        super().__init__(
            f"port {port} is gone ({why}). The bus must be opened again.",
            "Check the USB cable and the power of the arm.",
        )


class PortNotOpen(BusError):
    """The bus was used before open() or after close()."""

    def __init__(self, port: str) -> None:
        super().__init__(f"the bus on {port} is not open; call open() first.")


class WrongPort(BusError):
    """The port opens, but there is no arm behind it."""

    def __init__(self, port: str, why: str) -> None:
        super().__init__(
            f"no arm behind {port}: {why}.",
            "Check that the arm has power (12 V follower, 5 V leader), and that the rig names "
            "the right port ('koch motors list' scans them).",
        )


class MissingMotors(BusError):
    """Some motors of the chain do not answer."""

    def __init__(
        self,
        port: str,
        missing: Mapping[int, str],
        found: Mapping[int, str],
        total: int,
        conclusion: str = "",
    ) -> None:
        gone = ", ".join(f"id {i} ({name})" for i, name in missing.items())
        there = ", ".join(f"id {i} ({name})" for i, name in found.items()) or "none"
        super().__init__(
            f"{len(missing)} of {total} motors on {port} do not answer: {gone}"
            f"{'; ' * bool(conclusion)}{conclusion}. Found: {there}.",
            "Check the cable that leads to the first missing motor and its power; a motor "
            "without an id is given one with 'koch motors setup'.",
        )
        self._parts = port, missing, found, total
        self.missing = tuple(missing)

    def concluded(self, conclusion: str) -> MissingMotors:
        """The same after a look at other baud rates and at shared ids."""
        return MissingMotors(*self._parts, conclusion)


class SharedIds(BusError):
    """Motors that share an id spoil each other's answers."""

    def __init__(self, port: str, shared: Mapping[int, str]) -> None:
        ids = " and ".join(f"id {i} ({name})" for i, name in shared.items())
        super().__init__(
            f"two motors answer as {ids} on {port}.",
            "Take out the one too many; a motor with a wrong id is given its own with "
            "'koch motors setup ARM --only JOINT'.",
        )


class WrongModel(BusError):
    """A motor answers with another model number than the arm should have."""

    def __init__(self, port: str, wrong: Mapping[str, tuple[str, str]]) -> None:
        lines = ", ".join(f"{j}: found {got}, expected {want}" for j, (got, want) in wrong.items())
        super().__init__(
            f"wrong servo models on {port}: {lines}. If all are wrong, the ports of leader "
            "and follower are probably swapped in the rig file."
        )
        self.found = [got for got, _ in wrong.values()]


class NoStateRead(BusError):
    """The motors answer one by one, but not together."""

    def __init__(self, port: str, refusals: Mapping[int, int]) -> None:
        why = "no answer"
        if refusals:
            why = ", ".join(f"id {i}: error {code}" for i, code in refusals.items())
        super().__init__(
            f"the motors on {port} answer pings, but neither Fast Sync Read nor Sync Read of "
            f"their state (10 bytes at address 126): {why}. Their firmware, emulator or adapter "
            "must support Sync Read; one motor after the other would be too slow."
        )


class BusTimeout(BusError):
    """A motor did not answer within the time budget."""

    def __init__(self, port: str, what: str, budget_s: float, attempts: int) -> None:
        super().__init__(
            f"no valid answer on {port} to {what} within {budget_s * 1e3:.0f} ms "
            f"({attempts} attempts).",
            "Check cable, power and the USB latency timer.",
        )


class StatusError(BusError):
    """A motor refused an instruction."""

    def __init__(self, port: str, what: str, code: int, hint: str) -> None:
        super().__init__(f"motor on {port} refused {what}: error {code}, {hint}.")
        self.code = code


class ServoLost(BusError):
    """Servos are not as they were left: restarted, without torque, or with other registers."""

    def __init__(self, found: Mapping[str, str], ids: Mapping[str, int]) -> None:
        super().__init__("; ".join(f"{j} (id {ids[j]}) {words}" for j, words in found.items()))


class ImplausibleReading(BusError):
    """A position that no joint can have reached, or be in."""

    def __init__(
        self,
        jumps: Mapping[str, tuple[float, float]],
        elapsed_s: float,
        outside: Mapping[str, float],
    ) -> None:
        within = f"within {1e3 * elapsed_s:.0f} ms"
        what = [f"{j} from {a:.2f} to {b:.2f} rad {within}" for j, (a, b) in jumps.items()]
        what += [f"{j} at {a:.2f} rad, half a turn outside its range" for j, a in outside.items()]
        super().__init__(
            f"implausible reading: {', '.join(what)}. It is not used; turns are counted again.",
            "A servo that restarts forgets its turns: check plug and supply.",
        )
        self.joints = (*jumps, *outside)


class RegisterError(DriverError):
    """A register access that the control table forbids."""

    def __init__(self, what: str, got: object, expected: str) -> None:
        super().__init__(f"{what}: got {got!r}, expected {expected}.")


class OtherArm(DriverError):
    """What an arm says of itself is not what a file says of it."""

    fault = ""
    advice = ""

    def __init__(self, arm: str, path: object, differences: Sequence[str]) -> None:
        lines = "\n  ".join(differences)
        super().__init__(
            f"arm '{arm}' {self.fault} {path}:\n  {lines}\n"
            f"Nothing was moved. Is this the arm '{arm}'{self.advice.format(arm=arm)}"
        )
        self.differences = tuple(differences)


class CalibrationDrift(OtherArm):
    """The arm's registers or pose do not belong to its calibration file."""

    fault = "does not match its calibration"
    advice = (
        ", on its own port? Then run 'koch calibrate {arm}': it offers to write the file's values "
        "into the servos, or to calibrate again."
    )


class SwappedPorts(DriverError):
    """The servos behind an arm's port are those of another arm of the rig."""

    def __init__(self, arm: str, other: str, port: str, evidence: str) -> None:
        super().__init__(
            f"the ports of '{arm}' and '{other}' are swapped: all servos on {port} have "
            f"{evidence}, the arm '{other}'. Nothing was moved and nothing was written. Exchange "
            f"the two arms' 'port' in the rig file, or their USB plugs; paths of "
            "/dev/serial/by-id do not change with the order of plugging."
        )


class OtherMotors(OtherArm):
    """The arm's motors are not those that were calibrated."""

    fault = "has other motors than those kept in"
    advice = (
        "? If a motor was replaced, its firmware updated, or the arm calibrated by LeRobot, "
        "'koch calibrate {arm}' keeps the new ones."
    )


class IdentityError(DriverError):
    """An identity file cannot be used."""

    def __init__(self, path: object, why: object) -> None:
        super().__init__(
            f"{path} does not say which motors an arm has ({why!r}). Delete it; "
            "'koch calibrate ARM' writes it again."
        )


class CalibrationAborted(DriverError):
    """The calibration was ended, or a joint was not moved."""

    def __init__(self, why: str) -> None:
        super().__init__(f"calibration stopped: {why}. The old calibration file is untouched.")


class DialogueEnded(DriverError):
    """The person pressed q, Esc or Ctrl-C, or the input ended."""

    def __init__(self, why: str) -> None:
        super().__init__(f"stopped: {why}. Only what is reported above was changed.")


class MotorSetupError(DriverError):
    """'koch motors setup' cannot go on."""

    def __init__(self, port: str, got: str, expected: str) -> None:
        super().__init__(
            f"motor set-up on {port}: found {got}, expected {expected}. Connect exactly one motor "
            "to the board, check its power, and try again."
        )


class UnknownJoint(DriverError):
    """An arm was asked for a joint that its model does not have."""

    def __init__(self, arm: str, joint: str, joints: Sequence[str]) -> None:
        super().__init__(f"got joint {joint!r}, expected one of {arm}: {', '.join(joints)}")


class UnknownServo(DriverError):
    """An arm model names a servo that has no control table."""

    def __init__(self, model: str, joint: str, servo: str, known: Sequence[str]) -> None:
        super().__init__(
            f"arm model {model}: got servo {servo!r} of {joint}, expected one of "
            f"{', '.join(known)} (koch_driver/bus/control_table.py holds their registers)"
        )


class EmulatorError(DriverError):
    """The servo emulator was asked for something it cannot do."""

    def __init__(self, what: str, got: object, expected: str) -> None:
        super().__init__(f"emulator: {what}: got {got!r}, expected {expected}.")
