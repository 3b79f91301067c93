# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch record --lockstep`: demonstrations of the scripted expert, faster than time."""

from __future__ import annotations

import argparse
import os
from functools import partial
from pathlib import Path

from koch_core.terminal import CommandLine, say
from koch_episodes.recorder.store import EpisodeStore
from koch_sim.expert import STYLES
from koch_sim.lockstep import LockstepSettings, over_processes
from koch_sim.recording import Demonstrator

#: Seeds without a success in a row after which the expert cannot do the task.
_HOPELESS = 20


def main(argv: list[str]) -> int:
    """Run the command.

    Raises:
        KochError: The rig has no simulated table, or the folder cannot be used.
    """
    options = _parser().parse_args(argv)
    settings = LockstepSettings.of(options)
    settings.check()
    store = EpisodeStore(options.root)
    make = partial(Demonstrator, settings, options.task)
    done, seed, failed = 0, options.seed, 0
    try:
        while done < options.num_episodes and failed < _HOPELESS:
            jobs = []
            for number in range(options.num_episodes - done):
                index = store.take_index()
                jobs.append((seed + number, index, store.folder(index)))
            seed += len(jobs)
            for result in over_processes(make, jobs, options.jobs):
                ok = result.folder is not None
                done, failed = done + ok, 0 if ok else failed + 1
                end = result.folder.name if result.folder else "the expert failed, not kept"
                say(f"[{done}/{options.num_episodes}] seed {result.seed}: {end}")
    finally:
        store.close()
    say(f"{done} episodes in {options.root}")
    return 0 if done == options.num_episodes else 1


def _parser() -> argparse.ArgumentParser:
    parser = CommandLine(prog="koch record --lockstep", description=__doc__)
    LockstepSettings.add_arguments(parser)
    parser.add_argument("-n", "--num-episodes", type=int, default=50, help="successes to record")
    parser.add_argument("--seed", type=int, default=0, help="of the first try")
    parser.add_argument("--style", choices=sorted(STYLES), default="smooth", help="of the hand")
    parser.add_argument("--task", default="", help="task text (default: the goal's)")
    parser.add_argument(
        "--root",
        type=Path,
        default=Path(os.environ.get("KOCH_EPISODES", "episodes")),
        help="folder of episodes",
    )
    parser.add_argument("--lockstep", action="store_true", help=argparse.SUPPRESS)
    return parser
