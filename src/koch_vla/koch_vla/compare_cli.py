# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch compare`: two policies or more in the same set-ups, in simulation or blind on the arm."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import signal
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from koch_core.command_line import command_line, parsed
from koch_core.files import write_atomically
from koch_core.options import OptionError, OptionModel, declared, option, same_as
from koch_core.terminal import say
from koch_core.trials import Pairs, rate_in_words
from koch_core.working import Working
from koch_policy.files import resolve_checkpoint
from koch_ros.shared_options import RUNTIME, STRATEGY, TASK
from koch_sim.settings import LockstepSettings
from koch_vla.evaluate_cli import EvaluateOptions, evaluate_lockstep

if TYPE_CHECKING:
    from koch_policy.nodes.run_client import PolicyProcess, RunClient
    from koch_sim.evaluation import Evaluation

_LOAD_S = 300.0
_FIND_S = 10.0
_ARM_ONLY = ("reset_time_s", "record")
_LOCKSTEP_ONLY = ("jobs", "seed", "delay_s")


@dataclass(frozen=True, kw_only=True)
class CompareOptions(OptionModel):
    """What `koch compare` is asked for, besides the simulation."""

    policies: tuple[Path, ...] = option(
        (), "two checkpoint folders or more", flags=("policies",), metavar="DIR"
    )
    lockstep: bool = option(False, "in simulation: many seeds, the same for each policy")
    rollouts: int = option(
        20, "set-ups that each policy tries", low=1, metavar="N",
        flags=("--rollouts", "-n", "--num-episodes"),
    )  # fmt: skip
    timeout_s: float = option(
        30.0, "longest run [s]", low=0.1, metavar="S", flags=("--timeout-s", "--episode-time-s")
    )
    task: str | None = same_as(TASK, None)
    strategy: str = same_as(STRATEGY, "")
    runtime: str = same_as(RUNTIME, "auto")
    out: Path = option(Path("outputs/compare"), "folder of the results")
    reset_time_s: float = option(
        0.0, "on the arm: pause before each run [s]; 0: until a key", low=0.0, metavar="S"
    )
    record: bool = option(False, "on the arm: record each run as an episode")
    jobs: int = option(1, "in lockstep: processes side by side", low=1)
    seed: int = option(100_000, "in lockstep: of the first set-up")
    delay_s: float = option(0.05, "in lockstep: time of an inference [s]", low=0.0)

    def __post_init__(self) -> None:
        """Check what does not go together.

        Raises:
            OptionError: A value means nothing.
        """
        super().__post_init__()
        if len(set(self.policies)) < max(2, len(self.policies)):
            named = " ".join(map(str, self.policies)) or "none"
            raise OptionError("DIR", named, "two different checkpoint folders or more")


def main(argv: Sequence[str]) -> int:
    """Run the subcommand.

    Raises:
        KochError: A checkpoint cannot be used, or the graph does not answer.
    """
    settings, options = _parse(argv)
    for policy in options.policies:
        resolve_checkpoint(policy.expanduser())
    options.out.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the node must end
    if options.lockstep:
        return _in_lockstep(settings, options)
    # The simulated rig is the default of the simulation only.
    is_named = settings.rig != declared(LockstepSettings)["rig"].default
    return _on_arm(settings.rig if is_named else None, options)


def _parse(argv: Sequence[str]) -> tuple[LockstepSettings, CompareOptions]:
    parser = command_line(
        "koch compare",
        "Let policies try the same set-ups, and tell which is better. On a running graph (koch "
        "up) you lay out each set-up and judge each run, without knowing whose it is until the "
        "end. With --lockstep the simulation does both.",
        LockstepSettings,
        CompareOptions,
    )
    settings, options = parsed(parser, argv, LockstepSettings, CompareOptions)
    if options.lockstep:
        wrong: list[tuple[type, object, str]] = [(CompareOptions, options, n) for n in _ARM_ONLY]
        needs = "no --lockstep"
    else:
        wrong = [(CompareOptions, options, name) for name in _LOCKSTEP_ONLY]
        wrong += [
            (LockstepSettings, settings, each.name)
            for each in fields(LockstepSettings)
            if each.name != "rig" and each.name in declared(LockstepSettings)
        ]
        needs = "--lockstep"
    for model, values, name in wrong:
        item = declared(model)[name]
        if getattr(values, name) != item.default:
            parser.error(f"{item.flag} needs {needs}")
    return settings, options


def _named(options: CompareOptions) -> dict[str, str]:
    """The checkpoints as A, B, C: their paths are too long for a table."""
    return {chr(ord("A") + k): str(policy) for k, policy in enumerate(options.policies)}


# -- in simulation --------------------------------------------------------------------------------


def _in_lockstep(settings: LockstepSettings, options: CompareOptions) -> int:
    evaluations = {}
    for name, policy in _named(options).items():
        asked = EvaluateOptions(
            lockstep=True,
            policy=Path(policy),
            rollouts=options.rollouts,
            timeout_s=options.timeout_s,
            task=options.task,
            strategy=options.strategy,
            runtime=options.runtime,
            seed=options.seed,
            jobs=options.jobs,
            delay_s=options.delay_s,
        )
        evaluations[name] = evaluate_lockstep(settings, asked)
    lines = [f"{name} is {policy}" for name, policy in _named(options).items()]
    lines += lockstep_lines(evaluations)
    results = {
        "summary": lines,
        "policies": {name: json.loads(e.to_json()) for name, e in evaluations.items()},
    }
    write_atomically(options.out / "compare.json", json.dumps(results, indent=2) + "\n")
    for line in lines:
        say(line)
    say(f"written to {options.out}")
    return 0


def lockstep_lines(evaluations: dict[str, Evaluation]) -> list[str]:
    """A line for each policy, how far its failures came, and each pair of policies."""
    lines = []
    for name, evaluation in evaluations.items():
        rate = rate_in_words(evaluation.successes, len(evaluation.trials))
        lines.append(f"{name}: {rate} succeeded")
        far = evaluation.failures_by_milestone()
        if far:
            lines[-1] += f"; failures by the furthest milestone: {far}"
    for first, second in itertools.combinations(evaluations, 2):
        ends = (evaluations[name].trials for name in (first, second))
        pairs = Pairs.of([(a.success, b.success) for a, b in zip(*ends, strict=True)])
        lines.append(pairs.in_words(first, second))
    return lines


# -- on the arm -----------------------------------------------------------------------------------


def _on_arm(rig: Path | None, options: CompareOptions) -> int:
    """Shuffled and blind: the person lays out and judges, and learns whose runs they were last."""
    from koch_episodes.recorder.keys import Keyboard
    from koch_policy.judge import Judge, JudgeSettings
    from koch_policy.nodes.onlooker import Onlooker
    from koch_policy.nodes.run_client import RunClient
    from koch_policy.watched_run import RunRequest
    from koch_rig.load import load_rig
    from koch_rig.model import default_rig

    path = default_rig(rig)
    request = RunRequest(
        options.task or "", options.timeout_s, options.strategy, record=options.record, blind=True
    )
    settings = JudgeSettings(
        options.rollouts, options.reset_time_s, options.out, request,
        seed=random.SystemRandom().randrange(2**32),
    )  # fmt: skip
    with RunClient() as client, _OnePolicy(client, path, options.runtime) as policy:
        with Working("koch compare: looking for the graph"):
            client.follows_clock(_FIND_S)
        onlooker = Onlooker(client.session, load_rig(path), None)
        with Keyboard() as keyboard:
            judge = Judge(settings, client, keyboard, onlooker, policy.load)
            judge.run(_named(options))
    return 0


class _OnePolicy(contextlib.AbstractContextManager["_OnePolicy"]):
    """The node of the policy that is next; it says nothing by which it can be known."""

    def __init__(self, client: RunClient, rig: Path, runtime: str) -> None:
        self._client, self._rig, self._runtime = client, rig, runtime
        self._name = ""
        self._process: PolicyProcess | None = None

    def load(self, name: str) -> None:
        """Make a policy the one that runs."""
        from koch_policy.nodes.run_client import PolicyProcess

        if name == self._name:
            return
        self._close()
        with Working("koch compare: loading the next policy"):
            self._process = PolicyProcess(
                {
                    "rig": str(self._rig),
                    "checkpoint": str(Path(name).expanduser().resolve()),
                    "runtime": self._runtime,
                    "use_sim_time": self._client.session.follows_clock,
                },
                quiet=True,
            )
            self._client.wait_for_node(_LOAD_S, self._process.check)
        self._name = name

    def _close(self) -> None:
        if self._process is not None:
            self._process.close()
        self._process = None

    def __exit__(self, *_: object) -> None:
        """End the node."""
        self._close()
