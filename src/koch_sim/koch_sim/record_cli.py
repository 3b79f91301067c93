# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch record --lockstep`: demonstrations of the scripted expert, faster than time."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from koch_core.command_line import command_line, parsed
from koch_core.options import OptionError, OptionModel, option, same_as
from koch_core.terminal import say
from koch_policy.files import resolve_checkpoint
from koch_ros.shared_options import CHECKPOINT, EPISODE_ROOT, TASK
from koch_sim.settings import LockstepSettings

if TYPE_CHECKING:
    from koch_sim.recording import Recorded

#: Seeds without a success in a row after which the expert cannot do the task.
_HOPELESS = 20
_RECOVER_AFTER_S = 8.0
_CORRECT_AFTER_S = 6.0


@dataclass(frozen=True, kw_only=True)
class LockstepRecord(OptionModel):
    """What `koch record --lockstep` is asked for, besides the simulation."""

    num_episodes: int = option(
        50, "successes to record", low=1, flags=("--num-episodes", "-n"), metavar="N"
    )
    seed: int = option(0, "of the first try")
    task: str = same_as(TASK, "", text="task text (default: the goal's)")
    root: Path = same_as(
        EPISODE_ROOT,
        Path(os.environ.get("KOCH_EPISODES", "episodes")),
        text="folder of episodes",
        parse=None,
    )
    jobs: int = option(1, "processes side by side", low=1)
    recover: str | None = same_as(
        CHECKPOINT, None, flags=("--recover",), parse=None,
        text="recoveries: this policy begins, the expert takes over; marked as intervention",
    )  # fmt: skip
    recover_after: float = option(
        _RECOVER_AFTER_S,
        "the policy tries for at most so long [s]; see --recover",
        above=0.5,
        metavar="S",
    )
    correct: str | None = same_as(
        CHECKPOINT, None, flags=("--correct",), parse=None,
        text="corrections: whole runs of this policy, where it errs the expert goes on",
    )  # fmt: skip
    correct_after: float = option(
        _CORRECT_AFTER_S,
        "the policy errs when it lifted nothing for so long [s]; see --correct",
        above=0.5,
        metavar="S",
    )
    lockstep: bool = option(False, "in one process and the world's own time")

    def __post_init__(self) -> None:
        """Check what does not go together.

        Raises:
            OptionError: A value means nothing.
        """
        super().__post_init__()
        if self.recover is None and self.recover_after != _RECOVER_AFTER_S:
            raise OptionError("--recover-after", self.recover_after, "--recover DIR beside it")
        if self.correct is None and self.correct_after != _CORRECT_AFTER_S:
            raise OptionError("--correct-after", self.correct_after, "--correct DIR beside it")
        if self.correct is not None and self.recover is not None:
            raise OptionError("--correct", self.correct, "no --recover beside it")


def main(argv: list[str]) -> int:
    """Run the command.

    Raises:
        KochError: The rig has no simulated table, or the folder cannot be used.
    """
    parser = command_line(
        "koch record --lockstep", __doc__ or "", LockstepSettings, LockstepRecord
    )
    settings, options = parsed(parser, argv, LockstepSettings, LockstepRecord)
    # Here, because --help and a wrong word shall not wait for MuJoCo.
    from koch_episodes.recorder.store import EpisodeStore
    from koch_sim.lockstep import over_processes

    settings.check()
    store = EpisodeStore(options.root)
    make = _maker(settings, options)
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
                end += f", {result.remark}" if result.remark else ""
                say(f"[{done}/{options.num_episodes}] seed {result.seed}: {end}")
    finally:
        store.close()
    say(f"{done} episodes in {options.root}")
    return 0 if done == options.num_episodes else 1


def _maker(
    settings: LockstepSettings, options: LockstepRecord
) -> Callable[[], Callable[[tuple[int, int, Path]], Recorded]]:
    """What makes the recorder of one process; only with a policy it needs torch."""
    named = options.recover or options.correct
    if named is None:
        from koch_sim.recording import Demonstrator

        return partial(Demonstrator, settings, options.task)
    from koch_sim.recovery import Corrector, Recoverer
    from koch_sim.rollout import PolicySettings

    policy = PolicySettings(resolve_checkpoint(Path(named).expanduser()))
    if options.correct is not None:
        return partial(Corrector, settings, policy, options.task, options.correct_after)
    return partial(Recoverer, settings, policy, options.task, options.recover_after)
