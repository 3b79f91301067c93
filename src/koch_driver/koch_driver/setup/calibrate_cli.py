# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""koch calibrate ARM: LeRobot's calibration with live bars, then the URDF zero step."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from koch_core.command_line import from_command_line
from koch_core.errors import KochError
from koch_core.options import OptionModel, option, same_as
from koch_core.terminal import complain
from koch_driver.arm.connect import align_turns, check_drift, open_bus, repair_registers
from koch_driver.arm.identity import check_swapped, keep_identity, others_of
from koch_driver.errors import DialogueEnded, in_words
from koch_driver.setup import calibrate_view as view
from koch_driver.setup.calibrate import CalibrationRoutine, zero_offsets
from koch_driver.setup.console import Console
from koch_driver.setup.rig_offsets import joints_block, write_offsets
from koch_rig.calibration import load_calibration, save_calibration
from koch_rig.errors import CalibrationError
from koch_rig.load import load_rig
from koch_rig.model import default_rig
from koch_ros.shared_options import RIG

if TYPE_CHECKING:
    from collections.abc import Sequence

    from koch_driver.bus.motor_bus import MotorBus
    from koch_rig.calibration import Calibration
    from koch_rig.rig import Arm, Rig

_PERIOD_S = 0.04


@dataclass(frozen=True, kw_only=True)
class CalibrateArm(OptionModel):
    """What `koch calibrate` is asked for."""

    arm: str = option(
        ..., "name of the arm in the rig file, such as follower or leader", flags=("arm",)
    )
    rig: Path | None = same_as(RIG, None, text="rig file")
    new: bool = option(False, "do not offer the existing file")
    zero_only: bool = option(False, "only the URDF zero step")
    no_zero: bool = option(False, "skip the URDF zero step")
    write: bool = option(False, "write the zeros into the rig file")


def main(argv: Sequence[str]) -> int:
    """Entry point of 'koch calibrate'; 0 when done, 2 for a problem that the message explains."""
    options = from_command_line(CalibrateArm, "koch calibrate", __doc__ or "", argv)
    rig: Rig | None = None
    try:
        rig = load_rig(default_rig(options.rig))
        arm = rig.arm(options.arm)
        with Console() as console, open_bus(arm, rig) as bus:
            console.say(f"{arm.name} on {arm.port}: {len(bus.motors)} motors, models as expected.")
            if not options.zero_only:
                calibrate(bus, arm, console, new=options.new, rig=rig)
            if not options.no_zero:
                zero(bus, rig, arm, console, write=options.write)
    except KochError as exc:
        complain(f"koch calibrate: {in_words(exc, rig)}")
        return 2
    except KeyboardInterrupt:
        complain(f"koch calibrate: {DialogueEnded('Ctrl-C')}")
        return 2
    return 0


def calibrate(
    bus: MotorBus, arm: Arm, console: Console, *, new: bool, rig: Rig | None = None
) -> None:
    """Use the existing file, or make a new one, and keep which motors it belongs to.

    Raises:
        SwappedPorts: These are the servos of another arm of the rig: nothing is written.
    """
    own = _existing(arm, console, quiet=new)
    # Whatever is asked for, another arm's EEPROM is not written.
    check_swapped(bus, arm, own, others_of(rig, arm) if rig is not None else {})
    existing = None if new else own
    if existing is None or not _use_existing(bus, arm, console, existing):
        existing = _routine(bus, arm, console)
        save_calibration(existing, arm.calibration_path)
        align_turns(bus, existing)
        console.say(f"Saved {arm.calibration_path}; LeRobot reads the same file.")
    console.say(f"Its motors are kept in {keep_identity(bus, arm.calibration_path)}.")


def _use_existing(bus: MotorBus, arm: Arm, console: Console, existing: Calibration) -> bool:
    """Whether the person wants the file's values in the servos; then they are there."""
    report = check_drift(bus, existing)
    if report.clean:
        question = f"The servos agree with {arm.calibration_path}. u uses it as it is; "
    else:
        console.say("The servos differ from the file:\n  " + "\n  ".join(report.differences))
        question = "u writes the file's values into the servos and uses it; "
    if console.choose(f"{question}c makes a new calibration (q ends).", "uc", enter=False) == "c":
        return False
    repair_registers(bus, existing)
    console.say("The servos hold the file's calibration.")
    return True


def _existing(arm: Arm, console: Console, *, quiet: bool) -> Calibration | None:
    try:
        return load_calibration(arm.calibration_path, arm.model.joints)
    except CalibrationError as exc:
        if arm.calibration_path.exists() and not quiet:
            console.say(f"{exc}\nA new calibration will replace it.")
        return None


def _routine(bus: MotorBus, arm: Arm, console: Console) -> Calibration:
    """The two steps with the person."""
    routine = CalibrationRoutine(bus, arm.model)
    routine.prepare()
    console.choose(view.MIDDLE_POSE, "w", enter=False)
    routine.set_middle()
    console.say(view.RANGE_STEP)
    while True:
        rows = routine.observe()
        console.draw(view.bars(rows, console.columns))
        if console.key(_PERIOD_S) == "w":
            still = [r.joint for r in rows if not r.moved]
            if not still:
                return routine.finish(arm.calibration_path)
            console.say(f"Not moved yet: {', '.join(still)}. Go on, then press w again.")


def zero(bus: MotorBus, rig: Rig, arm: Arm, console: Console, *, write: bool) -> None:
    """Measure the URDF zero offsets in the drawn pose."""
    calibration = load_calibration(arm.calibration_path, arm.model.joints)
    if console.choose(view.ZERO_POSE, "es") == "s":
        console.say("Zero step skipped.")
        return
    align_turns(bus, calibration)
    time.sleep(_PERIOD_S)
    state = bus.sync_read_state(budget_s=0.1)
    if not state.ok:
        console.say(f"Motors {state.missing} did not answer; try the zero step again.")
        return
    offsets = zero_offsets(state.position_ticks.tolist(), arm.joints, (0.0,) * len(arm.joints))
    if write and write_offsets(rig.path, arm.name, offsets):
        console.say(f"Zero offsets written to {rig.path}.")
        return
    why = (
        f"{rig.path} does not write every offset_rad of {arm.name} down itself. " if write else ""
    )
    console.say(
        f"{why}Put this under arms: {arm.name}: in {rig.path} (--write does it where it can):\n"
        + joints_block(offsets, arm.joints)
    )
