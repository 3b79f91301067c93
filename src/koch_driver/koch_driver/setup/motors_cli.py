# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""koch motors list|setup|read: find motors, give them their ids, look into their registers."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from koch_core.command_line import parsed_subcommand, subcommands
from koch_core.errors import KochError
from koch_core.options import OptionModel, option, same_as
from koch_core.terminal import complain, say
from koch_driver.bus.control_table import HardwareError
from koch_driver.bus.motors import MotorSpec, motors_for
from koch_driver.bus.scan import SCAN_ORDER, FoundMotor, check_port, conclude, is_whole, scan
from koch_driver.bus.serial_port import list_ports
from koch_driver.errors import BusError, DialogueEnded, MotorSetupError, UnknownJoint
from koch_driver.setup.console import Console
from koch_driver.setup.motor_setup import read_registers, set_up_motor, with_supply
from koch_rig.load import load_rig
from koch_rig.model import default_rig
from koch_ros.shared_options import RIG

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, kw_only=True)
class ListMotors(OptionModel):
    """Who answers on which port."""

    port: tuple[str, ...] = option((), "only this port (may be repeated)")
    rig: Path | None = same_as(
        RIG, None, text="also the ports of this rig file (default: $KOCH_RIG)"
    )
    all_bauds: bool = option(False, "try every baud rate")


@dataclass(frozen=True, kw_only=True)
class SetUpMotors(OptionModel):
    """Give each motor of an arm its id, one after the other."""

    arm: str = option(..., "name of the arm in the rig file", flags=("arm",))
    rig: Path | None = same_as(RIG, None, text="rig file")
    port: str | None = option(None, "port, if not the rig's")
    only: str | None = option(None, "only this joint", metavar="JOINT")


@dataclass(frozen=True, kw_only=True)
class ReadMotors(OptionModel):
    """All registers of the motors on a port."""

    port: str = option(..., "such as /dev/ttyACM0", flags=("port",))
    id: int | None = option(None, "only this motor")


KINDS = {"list": ListMotors, "setup": SetUpMotors, "read": ReadMotors}


def main(argv: Sequence[str]) -> int:
    """Entry point of 'koch motors'; 0 when done, 2 for a problem that the message explains."""
    about = "Find motors, give them their ids, look into their registers."
    word, options = parsed_subcommand(subcommands("koch motors", about, KINDS), argv, KINDS)
    try:
        do: dict[str, Callable[[Any], int]] = {"list": list_motors, "setup": set_up, "read": read}
        return do[word](options)
    except KochError as exc:
        complain(f"koch motors: {exc}")
        return 2
    except KeyboardInterrupt:
        complain(f"koch motors: {DialogueEnded('Ctrl-C')}")
        return 2


def list_motors(options: ListMotors) -> int:
    """Scan ports; 0 if any motor was found."""
    ports = _ports(options)
    if not ports:
        say("no serial port on this computer: is the USB cable in?")
        return 2
    bauds = SCAN_ORDER if options.all_bauds else SCAN_ORDER[:2]
    any_found = False
    for port in ports:
        try:
            found = scan(port, bauds)
            if found and not is_whole(found) and not options.all_bauds:
                found += scan(port, SCAN_ORDER[2:])
            found = with_supply(port, found)
        except BusError as exc:
            say(str(exc))  # names the port
            continue
        any_found = any_found or bool(found)
        say(f"{port}: {conclude(found)}")
        for motor in found:
            reply = motor.reply
            volts = "" if math.isnan(motor.voltage_v) else f"  {motor.voltage_v:4.1f} V"
            say(
                f"  id {reply.id:3d}  {motor.model:<12} firmware {reply.firmware:3d}  "
                f"{motor.baud} baud{volts}{', several motors' if motor.shared else ''}"
            )
    return 0 if any_found else 2


def _ports(options: ListMotors) -> list[str]:
    """The named ports, else all of this computer; those of a chosen rig besides. Each once."""
    ports = list(options.port) or list_ports()
    if options.rig or (os.environ.get("KOCH_RIG") and not options.port):
        rig = load_rig(default_rig(options.rig))
        ports = [*ports, *(arm.port for arm in rig.arms.values())]
    return list({os.path.realpath(port): port for port in ports}.values())


def set_up(options: SetUpMotors) -> int:
    """Go through an arm's motors from the gripper to the base, as LeRobot does."""
    rig = load_rig(default_rig(options.rig))
    arm = rig.arm(options.arm)
    port = options.port or arm.port
    chain: list[MotorSpec] = list(reversed(motors_for(arm.role, arm.model)))
    specs = [spec for spec in chain if options.only in (None, spec.joint)]
    if not specs:
        raise UnknownJoint(arm.name, options.only or "", arm.model.joints)
    check_port(port)
    with Console() as console:
        for spec in specs:
            found = _set_up_with_person(console, port, spec)
            console.say(
                f"{spec.joint}: was id {found.reply.id} at {found.baud} baud, "
                f"is id {spec.id} at 1000000 baud."
            )
    say(f"Done. Connect the whole chain; 'koch motors list' should show {len(chain)} motors.")
    return 0


def _set_up_with_person(console: Console, port: str, spec: MotorSpec) -> FoundMotor:
    """Ask for one motor until it is there: a slip of the hand costs no second round.

    Raises:
        DialogueEnded: The person ended it.
    """
    again = ""
    while True:
        console.choose(
            f"{again}Connect only the motor of {spec.joint} ({spec.model.name}) to the board and "
            f"press w: that writes id {spec.id} into it (q ends).",
            "w",
            enter=False,
        )
        try:
            return set_up_motor(port, spec)
        except (BusError, MotorSetupError) as exc:
            console.say(str(exc))
            again = "Once more. "


def read(options: ReadMotors) -> int:
    """Print all registers."""
    found = scan(options.port, SCAN_ORDER, stop_at_first=True)
    if options.id is not None:
        found = [m for m in found if m.reply.id == options.id]
    if not found:
        raise MotorSetupError(options.port, "nobody", "a motor that answers")
    for motor in found:
        say(f"id {motor.reply.id}  {motor.model}")
        for name, value in read_registers(options.port, motor).items():
            hint = ""
            if name in ("Hardware_Error_Status", "Shutdown"):
                flags = [e.name.lower() for e in HardwareError if e.name and e & value]
                hint = "  " + (", ".join(flags) or "none")
            say(f"  {name:<24}{value:>12}{hint}")
    return 0
