# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The training loop: one process, or several under torchrun or `accelerate launch`.

A run is a function of its recipe, data and seed: batches and augmentation follow from the step,
all other randomness from torch's generator, whose state is saved. A run that was stopped and
resumed therefore ends with the same bits as one that was not (same machine and thread count).
"""

from __future__ import annotations

import contextlib
import io
import queue
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from koch_policy.checkpoint import (
    Checkpoint,
    load_checkpoint,
    load_weights,
    policy_tensors,
    save_checkpoint,
)
from koch_policy.configs import ACTION, PolicyConfig
from koch_policy.errors import CheckpointError, ConfigError, NotFiniteError
from koch_policy.files import RECIPE, write_json
from koch_policy.metadata import CheckpointMetadata
from koch_policy.models.registry import build_model, iterative_model, policy_model
from koch_policy.models.task import fit_tasks
from koch_policy.normalize import Normalizer, Statistics
from koch_policy.train import parallel, state
from koch_policy.train.augment import add_noise, augment_images, noise_of
from koch_policy.train.config import Recipe, recipe_from_json
from koch_policy.train.data import Windows, early_weights, shuffled_batches
from koch_policy.train.distill import Teacher
from koch_policy.train.finetune import freeze, freeze_norms
from koch_policy.train.lerobot_keys import honoured
from koch_policy.train.lora import add_adapters, has_adapters, merged
from koch_policy.train.metrics import (
    History,
    MetricsBoard,
    TrainProgress,
    open_boards,
    open_loop_error,
    prepare,
)
from koch_policy.train.norms import measure_norms
from koch_policy.train.optim import (
    AveragedWeights,
    has_fast_bfloat16,
    make_optimizer,
    optimize,
    set_rate,
)
from koch_policy.train.resume import (
    ResumeError,
    data_differences,
    data_identity,
    recipe_differences,
    statistics_differences,
)
from koch_policy.train.rollouts import Evaluate, EvaluationError, find_evaluation
from koch_policy.train.shares import split

_PREFETCHED = 3
_MEASURED_ROWS = 32
_TOKENIZED_ROWS = 2000  # chunks that a tokenizer is learned from


@dataclass
class Trainer:
    """One training run.

    Attributes:
        recipe: What to do.
        config: The policy.
        training: Windows to learn from.
        validation: Windows of held-out episodes, None without.
        normalizer, statistics: Of the training data.
        extras: Goes into every checkpoint.
        out: Output folder.
        device: Where the network lives.
        degrees: Factor from dataset units to degrees per action element, NaN where unknown.
        show_progress: Write a progress line.
        is_new: Start from pretrained weights where the recipe names some.
        rig: Rig file of evaluations in simulation; None for the shipped one.
        evaluate_with: Measures success; None: what is registered, where the recipe asks for it.
        notes: What was decided on the way, for the person who started it.
    """

    recipe: Recipe
    config: PolicyConfig
    training: Windows
    validation: Windows | None
    normalizer: Normalizer
    statistics: Statistics
    extras: CheckpointMetadata
    out: Path
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    degrees: NDArray[np.float64] | None = None
    show_progress: bool = True
    is_new: bool = True
    rig: Path | None = None
    evaluate_with: Evaluate | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Build network and optimiser from the seed."""
        train = self.recipe.train
        if train.evaluate_every and self.evaluate_with is None:
            self.evaluate_with = find_evaluation()
        torch.manual_seed(train.seed)
        self.stop = threading.Event()
        self.step = 0
        self.history = History()
        self.model: nn.Module = build_model(self.config)
        if train.kl_warmup_steps and not getattr(self.config, "use_vae", False):
            raise ConfigError("train", "kl_warmup_steps", train.kl_warmup_steps, "0: it has no KL")
        iterative = iterative_model(self.model)
        if iterative is not None:
            iterative.draws = train.draws
        if self.is_new:
            self._start_from_pretrained()
        self.model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.normalizer.to(self.device)
        freeze(self.model, train.freeze)
        if train.adapters is not None:
            add_adapters(self.model, train.adapters)
        if self.is_new and train.pretrained_policy is None:
            self._learn_tokens()
            if (tasks := self.training.task_embeddings) is not None:
                fit_tasks(self.model, torch.from_numpy(tasks).to(self.device))
        if self.is_new and train.measure_norms and train.pretrained is None:
            measure_norms(self.model, self._images())
        self.teacher = None
        if train.teacher is not None:
            seen = (self.config, self.normalizer, self.training.data, self.extras)
            self.teacher = Teacher(train, *seen, self.device)
        self.optimizer = make_optimizer(self.model, self.config, train)
        self.average = AveragedWeights(self.model, train.ema_decay) if train.ema_decay else None
        self.rank, self.world = parallel.rank_and_world()
        windows, least = len(self.training.rows()), self.world * train.accumulate
        if min(train.batch_size, windows) < least:
            raise ConfigError(
                "train", "batch_size", f"{train.batch_size} of {windows} windows",
                f"{least} or more: each of {self.world} process(es) computes "
                f"{train.accumulate} part(s) (train.accumulate)",
            )  # fmt: skip

    @property
    def uses_bfloat16(self) -> bool:
        """Whether the network is computed in bfloat16: asked for, and no loss of time here."""
        return self.recipe.train.amp and has_fast_bfloat16(self.device)

    def _start_from_pretrained(self) -> None:
        train = self.recipe.train
        if train.pretrained_policy is not None:
            start = load_checkpoint(Path(train.pretrained_policy), zero_range=self._zero_range())
            where = Path(train.pretrained_policy)
            load_weights(self.model, policy_tensors(start.model), where)
        elif train.pretrained_backbone is not None:
            from koch_policy.models.pretrained import load_backbones

            load_backbones(self.model, Path(train.pretrained_backbone))

    def _learn_tokens(self) -> None:
        """Let a network that predicts tokens learn its tokenizer from the training data."""
        learn_tokens = getattr(self.model, "learn_tokens", None)
        if learn_tokens is not None:
            actions = self.training.actions(self._rows_all_over(_TOKENIZED_ROWS))[ACTION]
            learn_tokens(self.normalizer.normalize(ACTION, actions.to(self.device)))

    def _rows_all_over(self, count: int) -> NDArray[np.int64]:
        """Return up to so many rows, from all over the training data."""
        rows = self.training.rows()
        return rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(np.int64)]

    def _learn(self) -> None:
        """Put the network into training mode."""
        self.model.train()
        freeze_norms(self.model)

    def _images(self) -> list[Tensor]:
        """Normalised images (B, 3, H, W) of every camera, from all over the training data."""
        raw = self.training.batch(self._rows_all_over(_MEASURED_ROWS))
        batch = prepare(raw, self.normalizer, self.device)
        return [batch[key].flatten(0, -4) for key in self.config.cameras]

    def resume(self) -> int:
        """Take up the newest checkpoint of `out`; return its step.

        Raises:
            CheckpointError: There is none, or it was made with another recipe.
        """
        folder = self.out / "checkpoints" / "last"
        if not folder.is_dir():
            raise CheckpointError(self.out, "no checkpoint to resume", "Start without --resume.")
        checkpoint = load_checkpoint(folder / state.MODEL_FOLDER, zero_range=self._zero_range())
        if checkpoint.config != self.config:
            raise CheckpointError(
                folder, "was made with another policy configuration", "Start again."
            )
        if lines := self._differences(checkpoint):
            raise ResumeError(self.out, lines)
        if not has_adapters(self.model):  # else the checkpoint's weights are merged
            self.model.load_state_dict(checkpoint.model.state_dict())
        self.step, history = state.load_state(
            folder / state.STATE_FOLDER, self.model, self.optimizer, self.average
        )
        self.history = History(**history)
        return self.step

    def _differences(self, checkpoint: Checkpoint) -> list[str]:
        """What differs from the run's beginning in data, recipe, split and statistics."""
        training = checkpoint.extras.training
        lines = data_differences(training.get("data", {}), self.training.data)
        stored = recipe_from_json(checkpoint.path / RECIPE)
        lines += recipe_differences(honoured(stored), self.recipe)
        if training.get("validation_episodes", self._held_out()) != self._held_out():
            before, now = training["validation_episodes"], self._held_out()
            lines.append(f"episodes held out for validation: {before} -> {now}")
        return lines + statistics_differences(checkpoint.statistics, self.statistics)

    def _held_out(self) -> list[int]:
        return [] if self.validation is None else [int(each) for each in self.validation.episodes]

    def _zero_range(self) -> Any:
        from koch_policy.normalize import ZeroRange

        return ZeroRange(self.recipe.train.zero_range)

    def run(self) -> None:
        """Train to the last step, or until `stop` is set; save in both cases."""
        train = self.recipe.train
        if self.step >= train.steps:
            return
        self.out.mkdir(parents=True, exist_ok=True)
        shows = self.rank == 0 and self.show_progress
        progress = TrainProgress(train.steps, self.step, None if shows else io.StringIO())
        recipe = self.recipe.to_dict()
        boards = open_boards(self.out, train.wandb, recipe) if self.rank == 0 else []
        batches = _prefetch(self.training, self._row_batches())
        with contextlib.ExitStack() as stack:
            for board in boards:
                stack.callback(board.close)
            stack.callback(batches.close)
            self._train(batches, stack.enter_context(progress), boards)

    def _train(
        self,
        batches: Generator[dict[str, Tensor], None, None],
        progress: TrainProgress,
        boards: Sequence[MetricsBoard],
    ) -> None:
        """Step, log, validate and save until the end."""
        train = self.recipe.train
        self._learn()
        mark, count, samples = time.monotonic(), 0, 0
        sums: dict[str, Tensor] = {}
        for batch in batches:
            parts, norm = self._optimise(batch)
            count += 1
            samples += len(batch[ACTION]) * self.world
            for name, value in parts.items():
                sums[name] = sums.get(name, torch.zeros((), device=self.device)) + value
            self.step = progress.step = self.step + 1
            ends = self.step == train.steps or parallel.any_true(self.stop.is_set())
            evaluates = train.evaluate_every and (
                self.step % train.evaluate_every == 0 or self.step == train.steps
            )
            if self.step % train.log_every == 0 or ends or evaluates:
                speed = samples / (time.monotonic() - mark)
                row = self._row(sums, count, norm, speed)
                progress.measured(row["loss"], speed)
                mark, count, samples, sums = time.monotonic(), 0, 0, {}
                if self.step % train.validate_every == 0 or self.step == train.steps:
                    progress.phase = "validating"
                    row |= self._validate()
                if evaluates and not self.stop.is_set():
                    progress.phase = "saving and evaluating in simulation"
                    self.save()
                    row |= self._evaluate(progress)
                self._record(row, boards)
            if self.step % train.save_every == 0 or ends:
                progress.phase = "saving"
                self.save()
            progress.phase = ""
            if ends:
                return

    def seconds_per_step(self) -> float:
        """Measure one step without taking it: reading a batch, loss and gradients [s]."""
        devices = [self.device] if self.device.type == "cuda" else []
        kept = {key: value.clone() for key, value in self.model.state_dict().items()}
        self._learn()
        begin = time.monotonic()
        with torch.random.fork_rng(devices):
            kind = self.device.type
            for batch in self._parts(self.training.batch(next(self._row_batches()))):
                with torch.autocast(kind, dtype=torch.bfloat16, enabled=self.uses_bfloat16):
                    loss, _ = policy_model(self.model).loss(batch)
                loss.backward()  # type: ignore[no-untyped-call]
            float(loss.detach())  # waits for the device
        taken_s = time.monotonic() - begin
        self.optimizer.zero_grad(set_to_none=True)
        self.model.load_state_dict(kept)  # running statistics of batch norms
        return taken_s

    def _row_batches(self) -> Iterator[NDArray[np.int64]]:
        """Yield the rows of each step; those of the first steps may prefer early ones."""
        train, data = self.recipe.train, self.training.data
        rows = self.training.rows()
        draw = partial(
            shuffled_batches,
            rows,
            train.batch_size,
            train.seed,
            rank=self.rank,
            world=self.world,
        )
        early = train.early_frames
        if early is None:
            return draw(start=self.step, weights=data.weights)
        share = partial(early_weights, data, rows, max(round(early.seconds * data.fps), 1))
        later = data.weights if early.later_share is None else share(early.later_share)
        if self.step >= early.steps:
            return draw(start=self.step, weights=later)
        preferred = draw(start=self.step, weights=share(early.share))
        afterwards = draw(start=early.steps, weights=later)
        return chain(islice(preferred, early.steps - self.step), afterwards)

    def _optimise(self, raw: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """Take one step; return the loss with its parts, and the gradient's norm."""
        train = self.recipe.train
        set_rate(self.optimizer, self.step, train)
        if train.kl_warmup_steps:
            act: Any = self.model
            act.kl_fraction = min(self.step / train.kl_warmup_steps, 1.0)
        batches = self._parts(raw)
        if self.world > 1:  # else all processes would draw the same noise, times and dropout
            torch.manual_seed(self._draws())
        parts, norm = optimize(
            self.model,
            self.optimizer,
            batches,
            amp=self.uses_bfloat16,
            clip_norm=train.clip_norm,
            world=self.world,
        )
        if not bool(torch.isfinite(norm)):
            raise NotFiniteError(
                f"training step {self.step}", 1, "Lower the learning rate or check the data."
            )
        if self.average is not None:
            self.average.update(self.model)
        return parts, norm

    def _parts(self, raw: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
        """Return this process's windows of a step in as many parts as they are computed in."""
        parts = split(raw, self.recipe.train.accumulate)
        return [self._augmented(part, number) for number, part in enumerate(parts)]

    def _augmented(self, raw: Mapping[str, Tensor], part: int = 0) -> dict[str, Tensor]:
        """Scale, normalise and augment windows; the draws follow from seed, step and part."""
        config = self.recipe.augment
        generator = torch.Generator().manual_seed(self._draws(part))
        batch = {}
        for key, value in raw.items():
            moved = value.to(self.device, non_blocking=True)
            if moved.dtype == torch.uint8:
                image = moved.float().div_(255.0)
                moved = augment_images(image, config, generator)
            moved = self.normalizer.normalize(key, moved)
            batch[key] = add_noise(moved, noise_of(key, config), generator)
        return batch if self.teacher is None else self.teacher.teach(batch, raw, generator)

    def _draws(self, part: int = 0) -> int:
        """Return the seed of what this process draws at this step, for a part of its windows."""
        train = self.recipe.train
        place = (self.step * self.world + self.rank) * train.accumulate + part
        return (train.seed << 32) + place

    def _row(
        self, sums: Mapping[str, Tensor], count: int, norm: Tensor, speed: float
    ) -> dict[str, float]:
        means = {name: float(value) / count for name, value in sums.items()}
        return {
            "step": self.step,
            **means,
            "rate": float(self.optimizer.param_groups[0]["lr"]),
            "gradient_norm": float(norm),
            "samples_per_s": speed,
        }

    def _record(self, row: dict[str, float], boards: Sequence[MetricsBoard]) -> None:
        self.history.add(row)
        if self.rank != 0:
            return
        self.history.write(self.out)
        for board in boards:
            board.add(row)

    def _validate(self) -> dict[str, float]:
        """Return loss and open-loop error of the held-out episodes; all state stays as it was."""
        windows = self.validation
        if windows is None or self.rank != 0:
            return {}
        train = self.recipe.train
        rows = windows.rows()
        picked = np.linspace(0, len(rows) - 1, min(train.validation_windows, len(rows)))
        rows = rows[np.unique(picked.astype(np.int64))]
        random = torch.get_rng_state()
        raw = {key: value.clone() for key, value in self.model.state_dict().items()}
        if self.average is not None:
            self.model.load_state_dict(self.average.values)
        self.model.eval()
        torch.manual_seed(train.seed)
        with torch.inference_mode():
            losses = []
            for first in range(0, len(rows), train.batch_size):
                part = windows.batch(rows[first : first + train.batch_size])
                batch = prepare(part, self.normalizer, self.device)
                losses.append(float(policy_model(self.model).loss(batch)[0]))
            error = open_loop_error(
                self.model, self.normalizer, windows, rows, train.batch_size
            ).numpy()
        self.model.load_state_dict(raw)
        self._learn()
        torch.set_rng_state(random)
        self._name_errors(error)
        known = self.degrees
        if known is None or not np.isfinite(known).any():
            known = np.ones_like(error)  # no joint in degrees: the mean in dataset units
        mean = float(np.nanmean(error * known))
        return {"validation_loss": float(np.mean(losses)), "error": mean}

    def _evaluate(self, progress: TrainProgress) -> dict[str, float]:
        """Let the checkpoint of this step try the task; a failed evaluation ends no training."""
        if self.rank != 0 or self.evaluate_with is None:
            return {}
        folder = state.step_folder(self.out, self.step, self.recipe.train.steps)
        try:
            rate = self.evaluate_with(
                folder / state.MODEL_FOLDER,
                self.out / "eval" / folder.name,
                self.recipe.train.evaluate_rollouts,
                self.rig,
            )
        except EvaluationError as exc:
            progress.say(str(exc))
            return {}
        progress.say(f"step {self.step}: {rate:.0%} of rollouts in simulation succeeded")
        return {"success": rate}

    def _name_errors(self, error: NDArray[np.float64]) -> None:
        names = self.extras.names.get(ACTION) or [str(index) for index in range(len(error))]
        self.history.errors = {}
        for index, name in enumerate(names):
            factor = float(self.degrees[index]) if self.degrees is not None else float("nan")
            if np.isfinite(factor):
                self.history.errors[f"{name} [deg]"] = float(error[index]) * factor
            else:
                self.history.errors[f"{name} [dataset units]"] = float(error[index])

    def save(self) -> None:
        """Write checkpoint and training state, then let `last` point at them."""
        if self.rank != 0:
            return
        train = self.recipe.train
        folder = state.step_folder(self.out, self.step, train.steps)
        raw = self.model.state_dict()
        kept = {key: value.clone() for key, value in raw.items()} if self.average else None
        if self.average is not None:
            self.model.load_state_dict(self.average.values)
        training = {
            "step": self.step,
            "dataset": self.training.data.name,
            "data": data_identity(self.training.data),
            "validation_episodes": self._held_out(),
            "open_loop_error": self.history.errors,
        }
        if train.episodes:
            selected = {name: list(each) for name, each in self.training.data.selected.items()}
            training["selection"] = {"episodes": train.episodes, "selected": selected}
        extras = CheckpointMetadata(**{**self.extras.__dict__, "training": training})
        inner = folder / state.MODEL_FOLDER
        save_checkpoint(inner, self.config, merged(self.model), self.statistics, extras)
        write_json(inner / RECIPE, self.recipe.to_dict())
        if kept is not None:
            self.model.load_state_dict(kept)
        history = {"rows": self.history.rows, "errors": self.history.errors}
        state.save_state(
            folder / state.STATE_FOLDER,
            self.step,
            self.model,
            self.optimizer,
            self.average,
            history,
        )
        state.point_last(self.out, folder)


def _prefetch(
    windows: Windows, rows: Iterator[NDArray[np.int64]]
) -> Generator[dict[str, Tensor], None, None]:
    """Yield batches that another thread reads ahead; its errors are raised here."""
    ready: queue.Queue[dict[str, Tensor] | BaseException] = queue.Queue(_PREFETCHED)
    done = threading.Event()

    def put(item: dict[str, Tensor] | BaseException) -> bool:
        while not done.is_set():
            try:
                ready.put(item, timeout=0.2)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for chosen in rows:
                if not put(windows.batch(chosen)):
                    return
        except BaseException as exc:  # handed to the training thread, which raises it
            put(exc)

    thread = threading.Thread(target=work, name="batches", daemon=True)
    thread.start()
    try:
        while True:
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        done.set()
        thread.join()
