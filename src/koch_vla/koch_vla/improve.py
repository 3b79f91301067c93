# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch improve`: rounds of running a policy, correcting it and learning from that, in simulation.

    for each round: run on fresh seeds, the expert takes over where the policy errs
                    -> convert -> fine-tune on everything so far -> evaluate on other seeds

Every part is a subcommand that a person could type; `FOLDER/logs` says which.
"""

from __future__ import annotations

import json
import shutil
import signal
import sys
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from koch_core.command_line import command_line, command_words, parsed
from koch_core.files import write_atomically
from koch_core.options import OptionError, OptionModel, option
from koch_core.terminal import Column, complain, limit, say, table
from koch_core.trials import Pairs, rate_in_words
from koch_core.working import Working
from koch_episodes.bag import RawMessage, open_bag
from koch_episodes.cdr import is_intervention
from koch_episodes.dataset.format import load_info
from koch_policy.files import RECIPE, resolve_checkpoint
from koch_policy.train.config import Recipe, recipe_from_json
from koch_sim.settings import LockstepSettings
from koch_vla.errors import GraphError
from koch_vla.learning_steps import (
    Attempts,
    convert_episodes,
    evaluate,
    finished_episodes,
    record_missing,
    train_or_resume,
)
from koch_vla.steps import Results, Step, StepContext, alone, run_steps

#: Seeds between two rounds: no round sees another one's tables.
_ROUND_SEEDS = 10_000
#: How often a frame of the policy's own is drawn. Where it erred it is no example, and where it
#: succeeded it learns nothing new.
_OWN_FRAMES = 0.05
#: Fields of `train` that a round takes from the training of the policy to begin with.
_AS_BEFORE = (
    "batch_size", "draws", "seed", "learning_rate", "backbone_learning_rate", "weight_decay",
    "warmup_steps", "final_rate_fraction", "clip_norm", "amp", "ema_decay", "validation_fraction",
    "validation_windows",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ImproveOptions(OptionModel):
    """What `koch improve` is asked for, besides the simulation.

    Attributes:
        simulation: The words of the simulation's options.
    """

    policy: Path = option(..., "checkpoint folder or training output to begin with", metavar="DIR")
    dataset: tuple[str, ...] = option(
        ..., "what it learned from, and goes on learning from (repeatable)", metavar="DIR[:WEIGHT]"
    )
    lockstep: bool = option(False, "in simulation, where the scripted expert corrects")
    rounds: int = option(3, "how many", low=1, metavar="R")
    num_episodes: int = option(
        20, "runs of a round", low=1, flags=("--num-episodes", "-n"), metavar="N"
    )
    demonstrate: bool = option(
        False, "record plain demonstrations instead, as many and with as many steps, to compare"
    )
    correct_after: float = option(
        6.0, "the policy errs when it lifted nothing for so long [s]", above=0.5, metavar="S"
    )
    weight: float = option(
        2.0, "how often a corrected frame is drawn, compared with a demonstration's", above=0.0
    )
    steps: int | None = option(
        None, "of a round's training (default: half of what the policy was trained for)", low=1
    )
    settings: tuple[str, ...] = option(
        (), "a value of a round's recipe (repeatable)", flags=("--set",), metavar="GROUP.KEY=VALUE"
    )
    rollouts: int = option(100, "runs of an evaluation", low=1, metavar="N")
    timeout_s: float = option(30.0, "longest of them [s]", above=0.0, metavar="S")
    seed: int = option(400_000, "of the first run; rounds have 10000 each", low=0)
    evaluation_seed: int = option(100_000, "of an evaluation's first run", low=0)
    jobs: int = option(1, "processes side by side", low=1)
    threads: int = option(0, "CPU threads of a training; 0: as `koch train` chooses", low=0)
    folder: Path = option(Path("outputs/improve"), "everything goes there", metavar="DIR")
    fresh: bool = option(False, "forget what an earlier call did in this folder")
    simulation: tuple[str, ...] = ()

    def log(self, number: int, what: str) -> Path:
        """Where a part of a round puts its output."""
        return self.folder / "logs" / f"round_{number}_{what}.log"


ImproveContext = StepContext[ImproveOptions]


def steps(options: ImproveOptions) -> list[Step[ImproveOptions]]:
    """An evaluation to begin with, then four steps for each round."""
    what = "Demonstrating" if options.demonstrate else "Running and correcting"
    evaluation = ("simulation", "policy", "rollouts", "timeout_s", "evaluation_seed")
    recording = ("num_episodes", "seed", "demonstrate", "correct_after")
    training = ("dataset", "weight", "steps", "settings")
    found: list[Step[ImproveOptions]] = [
        Step("evaluate_0", "Evaluating the first policy", partial(_evaluate, 0), evaluation)
    ]
    for k in range(1, options.rounds + 1):
        head = f"Round {k}: "
        found += [
            Step(f"record_{k}", f"{head}{what}", partial(_record, k), recording),
            Step(f"convert_{k}", f"{head}Converting", partial(_convert, k)),
            Step(f"train_{k}", f"{head}Fine-tuning", partial(_train, k), training),
            Step(f"evaluate_{k}", f"{head}Evaluating", partial(_evaluate, k)),
        ]
    return found


def _place(number: int, what: str, context: ImproveContext) -> Path:
    """Where a part of a round puts what it makes; other settings have another place."""
    return context.settings.folder / f"round_{number}" / f"{what}_{context.digest}"


def _policy_after(number: int, context: ImproveContext) -> str:
    """The checkpoint that a round made; round 0 has what was there to begin with."""
    if not number:
        return str(context.settings.policy)
    return str(context.results[f"train_{number}"]["checkpoint"])


def _record(number: int, context: ImproveContext) -> Results:
    """Run the policy on fresh seeds, and let the expert correct it; or the expert alone."""
    options = context.settings
    folder = _place(number, "episodes", context)
    words = [*options.simulation, "--jobs", str(options.jobs)]
    if not options.demonstrate:
        words += ["--correct", _policy_after(number - 1, context)]
        words += ["--correct-after", str(options.correct_after)]
    attempts = Attempts(folder.with_suffix(".json"), options.seed + _ROUND_SEEDS * number)
    log = options.log(number, "record")
    episodes = record_missing(folder, options.num_episodes, attempts, words, log, context.say)
    results = {"folder": str(folder), **counts(episodes)}
    if not options.demonstrate:
        text = "{own} of {runs} by itself, {interventions} corrected, {failures} failed"
        context.say("      " + text.format(**results))
    return results


def counts(episodes: list[Path]) -> Results:
    """What became of recorded runs: by itself, with an intervention, or not at all."""
    ends = []
    for path in episodes:
        with open_bag(path) as bag:
            corrected = any(map(_says_intervention, bag.messages(_event_topics(bag.topics))))
            ends.append((bag.custom.get("koch.outcome") == "success", corrected))
    return {
        "runs": len(ends),
        "own": ends.count((True, False)),
        "interventions": sum(corrected for _, corrected in ends),
        "failures": sum(not succeeded for succeeded, _ in ends),
    }


def _event_topics(topics: Any) -> list[str]:
    return [name for name in topics if name.endswith("/events")]


def _says_intervention(message: RawMessage) -> bool:
    return is_intervention(message.data)


def _convert(number: int, context: ImproveContext) -> Results:
    """Convert the runs that ended well: what ended otherwise is no example."""
    options = context.settings
    folder = Path(context.results[f"record_{number}"]["folder"])
    episodes = finished_episodes(folder)[: options.num_episodes]
    return convert_episodes(
        episodes,
        _place(number, "dataset", context),
        ["--episodes", "outcome == 'success'"],
        options.log(number, "convert"),
        context.say,
    )


def _train(number: int, context: ImproveContext) -> Results:
    """Go on from the policy before, on the first datasets and those of all rounds so far."""
    options = context.settings
    folder = _place(number, "train", context)
    words = [word for named in options.dataset for word in ("--dataset", named)]
    corrected = sum(context.results[f"record_{k}"]["interventions"] for k in _until(number))
    for k in _until(number):
        weight = 1.0 if options.demonstrate else _OWN_FRAMES
        words += ["--dataset", f"{context.results[f'convert_{k}']['dataset']}:{weight}"]
    words += ["--threads", str(options.threads)]
    recipe = folder.with_suffix(".yaml")
    overrides = round_recipe(options, with_interventions=corrected > 0)
    write_atomically(recipe, yaml.safe_dump(overrides, sort_keys=False))
    begin = ["--from", _policy_after(number - 1, context), "--config", str(recipe)]
    begin += [word for each in options.settings for word in ("--set", each)]
    log = options.log(number, "train")
    return train_or_resume(folder, words, begin, log, context.say)


def _until(number: int) -> range:
    """The rounds up to one."""
    return range(1, number + 1)


def round_recipe(options: ImproveOptions, *, with_interventions: bool) -> dict[str, Any]:
    """What a round's training is told beyond the checkpoint's network: trained as before, shorter.

    Raises:
        OptionError: The checkpoint does not say for how long it was trained, nor does --steps.
    """
    recipe = _recipe_of(resolve_checkpoint(options.policy))
    if recipe is None and options.steps is None:
        raise OptionError(
            "--steps", None, "a number", f"{options.policy} does not say how it was trained."
        )
    steps = options.steps or max(1, (recipe or Recipe()).train.steps // 2)
    train: dict[str, Any] = {}
    if recipe is not None:
        train = {name: getattr(recipe.train, name) for name in _AS_BEFORE}
        train["warmup_steps"] = min(recipe.train.warmup_steps, steps // 10)
    train |= {"steps": steps, "save_every": steps, "validate_every": steps}
    if with_interventions:
        train["weights"] = {"intervention": options.weight / _OWN_FRAMES}
    return {"train": train, "augment": {} if recipe is None else asdict(recipe.augment)}


def _recipe_of(checkpoint: Path) -> Recipe | None:
    """How our training made a checkpoint; None where another one did."""
    path = checkpoint / RECIPE
    return recipe_from_json(path) if path.is_file() else None


def _evaluate(number: int, context: ImproveContext) -> Results:
    """Measure the policy of a round, each on the same seeds."""
    options = context.settings
    words = ["--lockstep", *options.simulation, "--policy", _policy_after(number, context)]
    words += ["-n", str(options.rollouts), "--seed", str(options.evaluation_seed)]
    words += ["--timeout-s", str(options.timeout_s), "--jobs", str(options.jobs)]
    out, log = _place(number, "evaluation", context), options.log(number, "evaluate")
    results = evaluate(out, words, log, context.say)
    rate = rate_in_words(results["successes"], results["rollouts"])
    context.say(f"      {rate} succeeded")
    return results


# -- what came out --------------------------------------------------------------------------------


def rows_of(context: ImproveContext) -> list[dict[str, Any]]:
    """One row for each round, and one for the policy to begin with."""
    options, results = context.settings, context.results
    learned = sum(map(_episodes_of, options.dataset))
    rows = []
    for k in range(options.rounds + 1):
        learned += results[f"convert_{k}"]["episodes"] if k else 0
        found = results[f"evaluate_{k}"]
        ends = results[f"record_{k}"] if k else {}
        rows.append(
            {
                "round": k,
                "demonstrations": learned,
                **{name: ends.get(name, 0) for name in ("runs", "interventions", "own")},
                **{name: found[name] for name in ("successes", "rollouts", "success_interval")},
                "policy": _policy_after(k, context),
            }
        )
    return rows


def _episodes_of(named: str) -> int:
    """Number of episodes of DIR or DIR:WEIGHT."""
    from koch_policy.train.mixture import named_dataset  # here: it brings torch

    return int(load_info(named_dataset(named)[0]).total_episodes)


def lines_of(context: ImproveContext) -> list[str]:
    """The table, and what the rounds brought together on the same seeds."""
    heads = [
        Column("round", right=True),
        Column("learned from", right=True),
        Column("corrected", right=True),
        Column("by itself", rank=1, right=True),
        Column("success (95 % interval)"),
    ]
    cells = []
    for row in rows_of(context):
        runs = row["runs"] if not context.settings.demonstrate else 0
        told = [f"{row[name]} of {runs}" if runs else "" for name in ("interventions", "own")]
        rate = rate_in_words(row["successes"], row["rollouts"])
        cells.append([str(row["round"]), str(row["demonstrations"]), *told, rate])
    last = context.settings.rounds
    before, after = (context.results[f"evaluate_{k}"]["trials"] for k in (0, last))
    pairs = Pairs.of([(a["success"], b["success"]) for a, b in zip(before, after, strict=True)])
    return [*table(heads, cells, limit()), pairs.in_words("round 0", f"round {last}")]


def report(context: ImproveContext) -> None:
    """Print the table and leave it as JSON."""
    path = context.settings.folder / "improve.json"
    lines = lines_of(context)
    content = {"rounds": rows_of(context), "summary": lines}
    write_atomically(path, json.dumps(content, indent=2) + "\n")
    for line in lines:
        context.say(line)
    context.say(f"written to {path}")


# -- command line ---------------------------------------------------------------------------------


def parse(argv: list[str]) -> ImproveOptions:
    """Parse the arguments."""
    parser = command_line(
        "koch improve",
        "Rounds in which a policy runs, is corrected where it errs, and learns from that. "
        "Interrupted and started again, it goes on where it was.",
        LockstepSettings,
        ImproveOptions,
    )
    simulation, options = parsed(parser, argv, LockstepSettings, ImproveOptions)
    if not options.lockstep:
        raise GraphError(by_hand(options))
    simulation.check()
    made: ImproveOptions = replace(
        options,
        policy=resolve_checkpoint(options.policy.expanduser()).resolve(),
        folder=options.folder.resolve(),
        simulation=tuple(command_words(simulation)),
    )
    return made


def by_hand(options: ImproveOptions) -> str:
    """How a person corrects on an arm: the subcommands of one round."""
    data = " ".join(f"--dataset {named}" for named in options.dataset)
    weights = f"{{intervention: {options.weight / _OWN_FRAMES:g}}}"
    return (
        "without --lockstep a person corrects, on a running graph (koch up --record). Round 1:\n"
        f"  koch run --policy {options.policy} --record --num-episodes {options.num_episodes}\n"
        "    take over by closing the leader's enable switch (service FOLLOWER/teleop/clutch), or "
        "by Take over on the console's page; the policy pauses, and goes on when you give back\n"
        "  koch convert EPISODES --out round_1 --episodes \"outcome == 'success'\"\n"
        f"  koch train --from {options.policy} {data} --dataset round_1:{_OWN_FRAMES} --set "
        f"'train.weights={weights}' --out policy_1\n"
        f"  koch compare {options.policy} policy_1"
    )


def main(argv: list[str]) -> int:
    """Run the subcommand.

    Raises:
        KochError: The policy, a dataset or the rig cannot be used, or a part failed.
    """
    options = parse(argv)
    for named in options.dataset:
        _episodes_of(named)  # before an hour of running
    round_recipe(options, with_interventions=False)
    if options.fresh and (options.folder / "steps").is_dir():  # a folder of ours, no other
        shutil.rmtree(options.folder)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the part must end
    try:
        with (
            alone(options.folder, "koch improve"),
            Working("koch improve", in_logs=False) as work,
        ):
            context = ImproveContext(options, partial(work.say, stream=sys.stdout), work.now)
            run_steps(steps(options), context)
    except KeyboardInterrupt:
        complain("\nkoch improve: interrupted; the same command goes on from here")
        return 130
    context.say = say  # the line of the sign of life is gone
    report(context)
    return 0
