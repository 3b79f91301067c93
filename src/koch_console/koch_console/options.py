# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Options that `koch console` and its node share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from koch_console.access import OPERATE_TOKEN, READ_TOKEN
from koch_core.options import Option, OptionModel, option, same_as
from koch_ros.shared_options import EPISODE_ROOT, RIG, absolute

BIND = Option(
    "address on which the page is served; other than this computer's own it needs a token",
    metavar="ADDRESS",
)
PORT = Option("port of the page; 0 takes any that is free", low=0, high=65535)
RUNS = Option("folder of training runs and datasets", metavar="DIR", parse=absolute)
DEFAULT_RUNS = "outputs"
DEFAULT_BIND = "127.0.0.1"
DEFAULT_PORT = 8765


@dataclass(frozen=True)
class ConsoleOptions(OptionModel):
    """What `koch console` is asked for."""

    rig: Path | None = same_as(RIG, None, text="rig file (default: $KOCH_RIG, else the shipped)")
    sim: bool = option(False, "use config/rig.sim.yaml")
    bind: str = same_as(BIND, DEFAULT_BIND)
    port: int = same_as(PORT, DEFAULT_PORT)
    root: str = same_as(EPISODE_ROOT, "")
    runs: str = same_as(RUNS, DEFAULT_RUNS)
    token: str = option(
        "",
        f"who operates must know it (default: ${OPERATE_TOKEN}, which others on this computer "
        "cannot read in the list of processes)",
        metavar="TEXT",
    )
    read_token: str = option(
        "", f"who only looks must know it (default: ${READ_TOKEN})", metavar="TEXT"
    )
