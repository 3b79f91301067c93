# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Options that nodes' parameters share with the graph, its launch file and subcommands.

Each is declared here once; a model takes it with `same_as`, perhaps under a name of its own.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from koch_core.options import Option


def absolute(path: str) -> str:
    """A path that stays the same in the node's process; empty stays empty."""
    return str(Path(path).expanduser().resolve()) if path else ""


def checkpoint(policy: str) -> str:
    """A folder as `absolute` has it; the address of a policy server stays as it is."""
    return policy if "://" in policy else absolute(policy)


RIG = Option("path of the rig file", required=True, metavar="FILE")
EPISODE_ROOT = Option(
    "folder of the episodes; empty: ~/koch_episodes/<rig>", metavar="DIR", parse=absolute
)
CHECKPOINT = Option(
    "checkpoint folder, training output, or address of a `koch serve`",
    required=True,
    metavar="DIR",
    parse=checkpoint,
)
STRATEGY = Option("chunk execution; empty: what suits the policy", metavar="NAME")
SHADOW = Option("predict and compare with the human, command nothing")
RUNTIME = Option("what computes", choices=("auto", "torch", "openvino", "lerobot"))
ALLOW_MISMATCH = Option("run although the rig's fingerprint differs")
EXPERT = Option("the scripted expert demonstrates again and again")
SPEED = Option(
    "simulated seconds per second; other than 1 all nodes follow /clock",
    low=1e-3,
    high=1000.0,
    metavar="X",
)
WORLD_SPEED = replace(
    SPEED,
    text="simulated seconds per second: below 1 for a busy machine, above 1 for a fast one",
    low=0.05,
    high=20.0,
)
START_TIMEOUT = Option(
    "how long a start waits for dead streams [s]", low=0.1, high=3600.0, live=True, metavar="S"
)
RESET_TIME = Option(
    "pause behind each episode [s]; a start ends it", low=0.0, high=3600.0, live=True, metavar="S"
)
TASK = Option(
    "task text (default: the rig's)",
    needs_words=True,
    hint="Leave it out for the rig's task.",
)
