# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Parameters of the console node. Tokens are none: the whole graph could read them."""

from __future__ import annotations

from dataclasses import dataclass

from koch_console.options import (
    BIND,
    DEFAULT_BIND,
    DEFAULT_PORT,
    DEFAULT_RUNS,
    PORT,
    RUNS,
)
from koch_core.options import same_as
from koch_ros.parameters import parameter
from koch_ros.shared_options import EPISODE_ROOT, RIG


@dataclass(frozen=True)
class ConsoleParameters:
    """All parameters are read-only."""

    rig: str = same_as(RIG, "")
    bind: str = same_as(BIND, DEFAULT_BIND)
    port: int = same_as(PORT, DEFAULT_PORT)
    root: str = same_as(EPISODE_ROOT, "")
    runs: str = same_as(RUNS, DEFAULT_RUNS)
    hosts: tuple[str, ...] = parameter(
        (), "names of this computer, besides its own, under which browsers ask for the page"
    )
