# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Which lockstep simulation to open: the options of `koch eval` and `koch record --lockstep`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from koch_core.options import OptionModel, option, same_as
from koch_rig.load import load_rig
from koch_rig.model import default_rig
from koch_ros.shared_options import RIG
from koch_sim.errors import SimulationError
from koch_sim.expert import STYLES
from koch_sim.randomisation import FULL, SWITCHES, Randomisation, randomised
from koch_sim.tasks import BLOCK_IN_CUP, TASKS, Wording

if TYPE_CHECKING:
    from koch_rig.rig import Rig

_TASKS = tuple(TASKS.names())


@dataclass(frozen=True)
class LockstepSettings(OptionModel):
    """Which simulation to open."""

    rig: Path = same_as(RIG, default_rig(sim=True), text="rig file")
    spread: float | None = option(
        None, "part of the reachable area over which things lie, 0 to 1 (default: the rig's)"
    )
    randomise: str = option(
        "",
        f"vary more than poses: all, or some of {','.join(SWITCHES)}",
        bare="all",
        metavar="SWITCHES",
    )
    style: str = option("smooth", "how the expert's hand moves", choices=tuple(sorted(STYLES)))
    task: str = option(
        BLOCK_IN_CUP.name,
        f"what is on the table, and what to do: {', '.join(_TASKS)}",
        choices=_TASKS,
        flags=("--scene",),
        metavar="NAME",
    )
    wording: Wording = option(
        Wording.FIRST, "in which words the task is given; first: the rig's, for the rig's task"
    )
    even: bool = option(
        False,
        "places of consecutive seeds cover the area evenly, for demonstrations to learn from",
    )

    def check(self) -> Rig:
        """Load the rig.

        Raises:
            RigError: It cannot be read.
            SimulationError: It has no simulated table, the spread is no fraction, or there is no
                such switch.
        """
        self.randomisation()
        rig = load_rig(self.rig)
        if not rig.has_simulated_table or rig.simulation is None:
            raise SimulationError(
                f"--rig {rig.path}: got a rig without a simulated table, expected `simulation: "
                "{physics: mujoco}`, as in config/rig.sim.yaml."
            )
        if self.spread is None:
            return rig
        if not 0.0 <= self.spread <= 1.0:
            raise SimulationError(f"--spread {self.spread}: expected a number from 0 to 1.")
        return replace(rig, simulation=replace(rig.simulation, spread_fraction=self.spread))

    def randomisation(self) -> Randomisation:
        """What varies.

        Raises:
            SimulationError: There is no such switch.
        """
        if self.randomise == "all":
            found = FULL
        else:
            found = randomised(name for name in self.randomise.split(",") if name)
        return replace(found, even_places=self.even)
