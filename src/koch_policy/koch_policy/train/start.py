# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What `koch train` does: read recipe and data, build the trainer, run it."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict

import torch

from koch_core.options import declared
from koch_core.terminal import say
from koch_core.working import Working
from koch_episodes.dataset import load_info
from koch_policy.errors import CheckpointError, DatasetError
from koch_policy.files import RECIPE
from koch_policy.memory import keep_freed_memory
from koch_policy.train import parallel
from koch_policy.train.config import (
    LoraOptions,
    Recipe,
    load_recipe,
    recipe_from_json,
)
from koch_policy.train.degrees import degrees_per_unit
from koch_policy.train.finetune import recipe_to_go_on
from koch_policy.train.header import COLUMN, header, preset_hints
from koch_policy.train.lerobot_keys import honoured
from koch_policy.train.loop import Trainer
from koch_policy.train.mixture import named_dataset
from koch_policy.train.options import TrainOptions
from koch_policy.train.resume import ResumeError, recipe_differences
from koch_policy.train.setup import limit_threads, make_trainer
from koch_policy.train.source import open_all
from koch_policy.train.state import MODEL_FOLDER

_SECOND_SIGNAL_S = 3.0


def _recipe(options: TrainOptions) -> Recipe:
    """Return the recipe of the arguments, or, to resume, the one the run was started with."""
    if options.resume:
        return _resumed(options)
    if (options.out / "checkpoints" / "last").exists():
        raise CheckpointError(
            options.out, "holds a training run already", "Add --resume or choose another --out."
        )
    if options.start is not None:
        base = recipe_to_go_on(options.start)
        kind = options.policy or base.policy_type
        recipe = load_recipe(kind, options.preset, options.config, options.settings, base)
    else:
        kind = options.policy or "act"
        recipe = load_recipe(kind, options.preset, options.config, options.settings)
    if options.lora and not recipe.train.lora:
        recipe = recipe.with_overrides({"train": {"lora": asdict(LoraOptions())}}, "--lora")
    if options.teacher is not None:
        named = {"teacher": str(options.teacher)}
        recipe = recipe.with_overrides({"train": named}, "--teacher")
    return honoured(_with_flags(recipe, options))


def _with_flags(recipe: Recipe, options: TrainOptions) -> Recipe:
    """Put the fields of `train` that have flags of their own into a recipe."""
    for name in ("zero_range", "episodes"):
        if (value := getattr(options, name)) is not None:
            flag = declared(TrainOptions)[name].flag
            recipe = recipe.with_overrides({"train": {name: value}}, flag)
    return recipe


def _resumed(options: TrainOptions) -> Recipe:
    """Return the recipe of the run in OUT with what may change; all else must be as it was."""
    path = options.out / "checkpoints" / "last" / MODEL_FOLDER / RECIPE
    if not path.is_file():
        raise CheckpointError(path, "nothing to resume", "Start without --resume.")
    stored = recipe_from_json(path)
    # More steps, another logging interval; said again, the rest must be what it was.
    changes = [setting for setting in options.settings if setting.startswith("train.")]
    again = [setting for setting in options.settings if setting not in changes]
    kind = options.policy or stored.policy_type
    if kind != stored.policy_type:
        raise ResumeError(options.out, [f"policy.type: {stored.policy_type!r} -> {kind!r}"])
    named = load_recipe(kind, options.preset, options.config, again, stored)
    named = _with_flags(named, options)
    if lines := recipe_differences(stored, named, everything=True):
        raise ResumeError(options.out, lines)
    return honoured(load_recipe(kind, None, [], changes, stored))


@contextlib.contextmanager
def _stop_on_signals(stop: threading.Event) -> Iterator[None]:
    """Let SIGINT and SIGTERM end the run after the present step; one more after 3 s kills.

    A terminal and a parent process may both hand the same Ctrl-C on, hence the delay.
    """
    first: list[float] = []

    def handler(number: int, _frame: object) -> None:
        first.append(time.monotonic())
        stop.set()
        if first[-1] - first[0] > _SECOND_SIGNAL_S:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def train(options: TrainOptions) -> None:
    """Train, with progress on stderr.

    Raises:
        KochError: Data, recipe or folder do not allow it.
    """
    recipe = _recipe(options)
    if options.threads:
        torch.set_num_threads(options.threads)
    with Working(f"reading {' '.join(options.dataset)}") as work:
        trainer = _prepared(options, recipe, work)
    try:
        with _stop_on_signals(trainer.stop):
            trainer.run()
    finally:
        parallel.stop()
    errors = trainer.history.errors
    for name, value in errors.items():
        say(f"open-loop error {name}: {value:.3f}")
    say(f"saved {options.out}/checkpoints/last/{MODEL_FOLDER} at step {trainer.step}")


def _device(option: str, recipe: Recipe) -> str:
    """Join --device and LeRobot's `policy.device`; `make_trainer` refuses a contradiction."""
    return str(recipe.policy.get("device") or option) if option == "auto" else option


def _prepared(options: TrainOptions, recipe: Recipe, work: Working) -> Trainer:
    """Open the data, build the trainer and say what it is going to do."""
    try:
        data = open_all(options.dataset, recipe.train, cache=options.cache, rig=options.rig)
    except DatasetError as exc:
        raise _with_hints(exc, options) from exc
    data, degrees = degrees_per_unit(data, options.units, options.rig)
    device = parallel.start(_device(options.device, recipe))
    if device.type == "cpu":
        keep_freed_memory()
    try:
        work.now("building the network")
        trainer = make_trainer(
            data, recipe, options.out, device=device, degrees=degrees, is_new=not options.resume
        )
        trainer.rig = options.rig
        if not options.threads:
            limit_threads(trainer)
        if options.resume:
            work.say(f"resumed at step {trainer.resume()}")
        if trainer.rank == 0 and trainer.step < recipe.train.steps:
            work.now("timing one step")
            for line in header(trainer, trainer.seconds_per_step()):
                work.say(line, indent=" " * COLUMN)
    except BaseException:
        parallel.stop()
        raise
    return trainer


def _with_hints(error: DatasetError, options: TrainOptions) -> DatasetError:
    """Name the presets that these data have the features for, where one was asked for."""
    if options.preset is None or "has no" not in str(error):
        return error
    hints = preset_hints(list(load_info(named_dataset(options.dataset[0])[0]).features))
    fitting = "; ".join(hints) or "none; leave --preset out"
    return DatasetError(
        str(error).rstrip("."),
        f"--preset {options.preset} needs it",
        f"Presets that fit: {fitting}.",
    )
