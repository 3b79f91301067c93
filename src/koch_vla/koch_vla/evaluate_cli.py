# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch eval`: seeded rollouts of the expert or a policy on the simulated rig."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from koch_core.command_line import command_line, parsed
from koch_core.options import OptionModel, declared, option, same_as
from koch_core.terminal import say
from koch_core.working import Working
from koch_rig.load import load_rig
from koch_ros.shared_options import CHECKPOINT, RUNTIME, STRATEGY, TASK, WORLD_SPEED
from koch_sim.errors import SimulationError
from koch_sim.evaluation import Evaluation, Trial
from koch_sim.settings import LockstepSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from koch_rig.rig import Rig
    from koch_sim.nodes.evaluator import Evaluator
    from koch_sim.rollout import ExpertRollouts, PolicyRollouts

READY_TIMEOUT_S = 90.0
_TELL_S = 3.0  # discovery takes about one
LONGEST_FILM = 1200  # images: two minutes
_CAMERA = "left"  # sees arm, block and cup
_LOCKSTEP_ONLY = (
    "spread", "randomise", "jobs", "style", "execution-steps", "denoising-steps", "draws",
    "delay-s", "runtime", "scene", "wording", "films", "energy",
)  # fmt: skip


def main(argv: list[str]) -> int:
    """Run the subcommand.

    Raises:
        KochError: The rig cannot be used, or the graph does not answer.
    """
    settings, options = _parse(argv)
    rig = load_rig(settings.rig)
    _refuse_unusable(rig, options)
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the graph must end
    if options.lockstep:
        return _finish(evaluate_lockstep(settings, options), out)
    graph = contextlib.nullcontext(_nothing) if options.attach else _graph(rig, options)
    with graph as check:
        evaluation = _evaluate(rig, options, check)
    return _finish(evaluation, out)


def _finish(evaluation: Evaluation, out: Path) -> int:
    (out / "eval.json").write_text(evaluation.to_json() + "\n", encoding="utf-8")
    say(evaluation.table())
    say(f"written to {out}")
    return 0


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(OptionModel):
    """What `koch eval` is asked for, besides the simulation."""

    jobs: int = option(1, "processes side by side", low=1)
    policy: Path | None = same_as(
        CHECKPOINT, None, text="checkpoint folder; without it the expert", parse=None
    )
    strategy: str = same_as(STRATEGY, "")
    task: str | None = same_as(TASK, None)
    rollouts: int = option(10, "how many", low=1, flags=("--rollouts", "-n"), metavar="N")
    seed: int = option(100_000, "of the first rollout")
    timeout_s: float = option(30.0, "longest rollout [s]")
    speed: float = same_as(WORLD_SPEED, 1.0)
    camera: str | None = option(None, "whose images are shown (default: left, or any)")
    films: int = option(
        0, "in lockstep, films of the first N rollouts, one file each", low=0, metavar="N"
    )
    out: Path = option(Path("outputs/eval"), "folder of the results")
    lockstep: bool = option(
        False,
        "in one process and the world's own time, without graph: many seeds, same result on every "
        "machine",
    )
    execution_steps: int = option(0, "steps between two chunks")
    denoising_steps: int = option(0, "of iterative policies")
    draws: int = option(0, "iterative policies execute the mean of so many")
    delay_s: float = option(0.05, "time of an inference in lockstep [s]")
    runtime: str = same_as(
        RUNTIME, "torch", text="in lockstep", choices=("torch", "openvino", "auto")
    )
    energy: bool = option(
        False, "in lockstep, also note how well a flow or diffusion policy knows what it does"
    )
    attach: bool = option(False, "use the graph that runs already")


def _parse(argv: list[str]) -> tuple[LockstepSettings, EvaluateOptions]:
    parser = command_line("koch eval", __doc__ or "", LockstepSettings, EvaluateOptions)
    settings, options = parsed(parser, argv, LockstepSettings, EvaluateOptions)
    if not options.lockstep:
        for model in (settings, options):
            for name, item in declared(type(model)).items():
                is_set = getattr(model, name) != item.default
                if is_set and item.flag.removeprefix("--") in _LOCKSTEP_ONLY:
                    parser.error(f"{item.flag} needs --lockstep")
    return settings, options


def _refuse_unusable(rig: Rig, options: EvaluateOptions) -> None:
    """Say what cannot work before anything is written or started.

    Raises:
        SimulationError: The rig is no simulated table, or has no such camera.
        CheckpointError: The folder of --policy holds none.
    """
    if not rig.has_simulated_table:
        raise SimulationError(
            f"--rig {rig.path}: got a rig without a simulated table, expected `simulation: "
            "{physics: mujoco}`, as in config/rig.sim.yaml. koch eval never moves real arms; for "
            "those, `koch run --policy DIR` and `koch record` with labels."
        )
    if options.camera is not None and options.camera not in rig.cameras:
        known = ", ".join(rig.cameras) or "none"
        raise SimulationError(f"--camera {options.camera}: not in {rig.path}, which has {known}.")
    if options.policy is not None:
        from koch_policy.files import resolve_checkpoint  # here: it may be left out

        resolve_checkpoint(options.policy)


def evaluate_lockstep(settings: LockstepSettings, options: EvaluateOptions) -> Evaluation:
    """Run all rollouts in lockstep, in several processes."""
    with Working("koch eval: loading the simulation", at_once=True):
        from koch_sim.lockstep import over_processes
        from koch_sim.rollout import (
            ExpertRollouts,
            FilmedRollouts,
            PolicyRollouts,
            PolicySettings,
        )

        settings.check()
    evaluation = Evaluation(_subject(options))
    make: Callable[[], ExpertRollouts | PolicyRollouts]
    if options.policy is None:
        make = partial(ExpertRollouts, settings, options.timeout_s)
    else:
        policy = PolicySettings(
            options.policy, options.runtime, options.strategy, options.execution_steps,
            options.denoising_steps, options.draws, options.delay_s, options.task or "",
            energy=options.energy,
        )  # fmt: skip
        make = partial(PolicyRollouts, settings, policy, options.timeout_s)
    seeds = range(options.seed, options.seed + options.rollouts)
    camera = _chosen_camera(load_rig(settings.rig), options)
    filmed: Callable[[], Callable[[int], Trial]] = make
    if options.films and camera is not None:
        filmed = partial(FilmedRollouts, make, seeds[: options.films], camera, options.out)
    begin = time.monotonic()
    with Working(f"koch eval: {options.rollouts} rollouts in lockstep", at_once=True) as work:
        for trial in over_processes(filmed, seeds, options.jobs):
            _add(evaluation, trial, options.rollouts, work.say)
            work.now(f"{len(evaluation.trials)} of {options.rollouts} rollouts")
    evaluation.policy = {"wall_s": time.monotonic() - begin}
    return evaluation


def _chosen_camera(rig: Rig, options: EvaluateOptions) -> str | None:
    any_camera = _CAMERA if _CAMERA in rig.cameras else next(iter(rig.cameras), None)
    return options.camera or any_camera


def _subject(options: EvaluateOptions) -> str:
    return f"policy {options.policy}" if options.policy is not None else "expert"


def _add(
    evaluation: Evaluation, trial: Trial, total: int, tell: Callable[[str, TextIO], None]
) -> None:
    """Count a rollout and say how it ended."""
    evaluation.trials.append(trial)
    line = (
        f"[{len(evaluation.trials)}/{total}] seed {trial.seed}: "
        f"{'success' if trial.success else 'failure'} after {trial.duration_s:.1f} s "
        f"({trial.reason})"
    )
    tell(line, sys.stdout)


def _nothing() -> None:
    """Someone else's graph is not watched."""


@contextlib.contextmanager
def _graph(rig: Rig, options: EvaluateOptions) -> Iterator[Callable[[], None]]:
    """Run the rig's graph beside us, its output in a file; give what checks that it still runs."""
    from koch_vla.background import BackgroundGraph
    from koch_vla.graph import GraphOptions, build_graph
    from koch_vla.nodes.namesakes import refuse_namesakes
    from koch_vla.preflight import check_files

    policy = "" if options.policy is None else str(options.policy.resolve())
    specs = build_graph(rig, GraphOptions(speed=options.speed, policy=policy, teleop=not policy))
    check_files(rig, specs)
    refuse_namesakes(specs)
    log = options.out / "graph.log"
    log.unlink(missing_ok=True)
    with contextlib.ExitStack() as stack:
        graph = stack.enter_context(BackgroundGraph(specs, log))
        try:
            yield graph.check
        finally:
            with Working("koch eval: ending the graph"):
                stack.close()


def _evaluate(rig: Rig, options: EvaluateOptions, check: Callable[[], None]) -> Evaluation:
    """Run all rollouts, printing one line each."""
    with Working("koch eval: loading ROS", at_once=True):
        from koch_sim.nodes.evaluator import evaluator_node

    camera = _chosen_camera(rig, options)
    evaluation = Evaluation(_subject(options))
    images: list[tuple[bytes, bool]] = []
    film: list[bytes] = []
    with evaluator_node(rig, camera, check, options.speed) as evaluator:
        with Working("koch eval: waiting for the graph", at_once=True) as work:
            _wait_ready(evaluator, rig, options, work)
        for number in range(options.rollouts):
            seed = options.seed + number
            with Working(f"rollout {number + 1} of {options.rollouts}, seed {seed}") as work:
                trial = evaluation.attempt(
                    partial(_trial, evaluator, rig, options, seed),
                    f"[{number + 1}/{options.rollouts}] seed {seed}: ",
                    work.say,
                )
                if trial is None:
                    continue
                _add(evaluation, trial, options.rollouts, work.say)
            film += evaluator.film
            if evaluator.image is not None:
                images.append((evaluator.image, trial.success))
        evaluation.guard = dict(evaluator.guard)
        evaluation.policy = evaluator.policy_figures() if options.policy is not None else {}
    with Working("koch eval: writing images and film"):
        from koch_episodes.clip import write_clip
        from koch_episodes.contact_sheet import write_contact_sheet

        if images:
            write_contact_sheet(options.out / "contact_sheet.png", images)
        write_clip(options.out / "rollouts.mp4", film[:LONGEST_FILM])
    return evaluation


def _wait_ready(evaluator: Evaluator, rig: Rig, options: EvaluateOptions, work: Working) -> None:
    """Wait for what the rollouts need, and say what is missing while it is.

    Raises:
        SimulationError: Something did not come in time; it is named.
    """
    advice = f"Its output is in {options.out / 'graph.log'}."
    if options.attach:
        advice = f"Start it with 'koch up --rig {rig.path}{_up_policy(options)}'."
    for turn in range(round(READY_TIMEOUT_S / _TELL_S)):
        missing = evaluator.missing(_TELL_S, policy=options.policy is not None)
        if not missing:
            return
        work.now(f"koch eval: waiting for {missing}")
        if options.attach and turn == 0:  # a graph of our own is still starting
            work.say(f"koch eval: no graph that is ready yet: it lacks {missing}. {advice}")
    raise SimulationError(
        f"After {READY_TIMEOUT_S:.0f} s the graph still lacks {missing}. {advice}"
    )


def _up_policy(options: EvaluateOptions) -> str:
    """What `koch up` needs besides the rig for these rollouts."""
    return f" --no-teleop --policy {options.policy}" if options.policy is not None else ""


def _trial(evaluator: Evaluator, rig: Rig, options: EvaluateOptions, seed: int) -> Trial:
    evaluator.film.clear()
    if options.policy is None:
        return evaluator.demonstrate(seed, options.timeout_s)
    return evaluator.run_policy(
        seed, options.timeout_s, options.task or rig.task, options.strategy
    )
