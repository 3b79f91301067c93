# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch identify`: fit the simulated arm to recordings of the user's."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from koch_core.command_line import from_command_line
from koch_core.options import OptionError, OptionModel, option, same_as
from koch_core.terminal import say
from koch_rig.load import load_rig
from koch_rig.model import default_rig
from koch_ros.shared_options import RIG

if TYPE_CHECKING:
    from koch_rig.rig import Rig
    from koch_sim.identify import JointFit

#: Column of the table: parameter, heading, factor from SI, decimals.
_COLUMNS = (
    ("gain_scale", "gain", 1.0, 2),
    ("friction_nm", "friction [N m]", 1.0, 3),
    ("armature_kg_m2", "armature [kg m^2]", 1.0, 4),
    ("delay_s", "delay [ms]", 1e3, 1),
    ("backlash_rad", "backlash [deg]", math.degrees(1.0), 2),
    ("bias_rad", "bias [deg]", math.degrees(1.0), 2),
)


@dataclass(frozen=True, kw_only=True)
class IdentifyOptions(OptionModel):
    """What `koch identify` is asked for."""

    bags: tuple[Path, ...] = option(
        (), "episodes with commands and states of the follower", flags=("bags",), metavar="BAG"
    )
    rig: Path = same_as(RIG, default_rig(sim=True), text="rig file of the arm")
    out: Path = option(Path("arm_model.json"), "file of the identified arm")
    excite: Path | None = option(
        None,
        "instead of identifying, write an episode with a motion that tells much: play it on the "
        "arm with `koch replay` while `koch record` records",
        metavar="DIR",
    )


def main(argv: list[str]) -> int:
    """Run the command.

    Raises:
        KochError: A recording cannot be used, or the rig not be read.
    """
    options = from_command_line(IdentifyOptions, "koch identify", __doc__ or "", argv)
    if options.excite is not None:
        if options.bags:
            raise OptionError("--excite", str(options.excite), "no BAG beside it")
        return _excite(load_rig(options.rig), options.excite)
    if not options.bags:
        raise OptionError("BAG", "none", "one or more episodes, or --excite DIR")
    # Here, because --help and a wrong word shall not wait for MuJoCo.
    from koch_sim.arm_dynamics import save_dynamics
    from koch_sim.identify import ArmRollouts, identify
    from koch_sim.recorded_arm import read_recording

    rig = load_rig(options.rig)
    recordings = [read_recording(bag, rig.follower) for bag in options.bags]
    rollouts = ArmRollouts(rig, recordings)
    taught = sum(not piece.is_held_out for piece in rollouts.pieces)
    say(f"{taught} pieces to learn from, {len(rollouts.pieces) - taught} held out")
    fits = identify(rollouts, say)
    for line in table(fits):
        say(line)
    save_dynamics(options.out, {name: fit.dynamics for name, fit in fits.items()})
    say(f"written to {options.out}; the rig names it: simulation: {{arm_model: {options.out}}}")
    return 0


def table(fits: dict[str, JointFit]) -> list[str]:
    """The result in lines: a block for each joint."""
    lines = []
    for name, fit in fits.items():
        before, after = (math.degrees(error) for error in (fit.before_rad, fit.after_rad))
        lines.append(f"{name}: held-out error {before:.3f} -> {after:.3f} degrees rms")
        for parameter, heading, factor, decimals in _COLUMNS:
            value = factor * getattr(fit.dynamics, parameter)
            if parameter in fit.untold:
                remark = "not told by these recordings: nominal"
            else:
                remark = f"+- {factor * fit.deviation[parameter]:.{decimals}f}"
            if parameter in fit.at_bound:
                remark += ", at the edge of its range: distrust it"
            lines.append(f"  {heading:<18}{value:>9.{decimals}f}  {remark}")
    return lines


def _excite(rig: Rig, folder: Path) -> int:
    """Write the motion as an episode of the simulated arm."""
    from koch_sim.excitation import record_excitation

    seconds = record_excitation(rig, folder)
    say(
        f"{seconds:.0f} s of motion in {folder}, guarded in the simulation. On the arm: clear its "
        f"surroundings, empty the gripper, start 'koch record' and then 'koch replay {folder}'."
    )
    return 0
