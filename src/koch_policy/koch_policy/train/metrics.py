# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Figures of a training run: loss table, plot, progress line and open-loop error."""

from __future__ import annotations

import csv
import importlib
import importlib.util
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TextIO

import torch
from torch import nn

from koch_core.working import Working
from koch_policy.configs import ACTION, ACTION_IS_PAD
from koch_policy.errors import ConfigError
from koch_policy.files import write_json
from koch_policy.models.registry import policy_model
from koch_policy.normalize import Normalizer
from koch_policy.train.data import IntArray, Windows

COLUMNS = (
    "step", "loss", "rate", "gradient_norm", "samples_per_s", "validation_loss", "error",
    "success",
)  # fmt: skip


@dataclass
class History:
    """Rows of the loss table, kept in the training state so that a resumed run continues it."""

    rows: list[dict[str, float]] = field(default_factory=list)
    errors: dict[str, float] = field(default_factory=dict)

    def add(self, row: Mapping[str, float]) -> None:
        """Append one row."""
        self.rows.append(dict(row))

    def truncate(self, step: int) -> None:
        """Forget rows after a step."""
        self.rows = [row for row in self.rows if row["step"] <= step]

    def write(self, out: Path) -> None:
        """Write loss.csv, loss.png and, when there are some, the errors per joint."""
        names = [name for name in COLUMNS if any(name in row for row in self.rows)]
        extra = sorted({name for row in self.rows for name in row} - set(COLUMNS))
        with (out / "loss.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [*names, *extra], restval="")
            writer.writeheader()
            writer.writerows(self.rows)
        if self.errors:
            write_json(out / "validation.json", self.errors)
        plot_losses(self.rows, out / "loss.png")


def plot_losses(rows: Sequence[Mapping[str, float]], path: Path) -> None:
    """Draw losses, open-loop error, success, learning rate and gradient norm over the steps."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 6.5), layout="constrained")
    FigureCanvasAgg(figure)  # no display, whatever backend is configured
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    for name, label in (("loss", "training loss"), ("validation_loss", "validation loss")):
        _draw(axes, rows, name, label=label)
    if any("error" in row for row in rows):
        right = axes.twinx()
        _draw(right, rows, "error", style="o--", color="tab:green", markersize=3)
        right.set_ylabel("open-loop action error, mean over joints", color="tab:green")
        right.set_ylim(bottom=0)
    if any("success" in row for row in rows):
        _draw(axes, rows, "success", style="s-", color="tab:red", label="success in simulation")
    axes.set_ylabel("loss")
    if any(row.get("loss", 0) > 0 for row in rows):
        axes.set_yscale("log")
    axes.legend(loc="upper right")
    _draw(below, rows, "gradient_norm", color="tab:purple")
    below.set_ylabel("gradient norm", color="tab:purple")
    if any(row.get("gradient_norm", 0) > 0 for row in rows):
        below.set_yscale("log")
    rate = below.twinx()
    _draw(rate, rows, "rate", color="tab:gray")
    rate.set_ylabel("learning rate", color="tab:gray")
    rate.set_ylim(bottom=0)
    below.set_xlabel("step")
    for each in (axes, below):
        each.grid(visible=True, alpha=0.3)
    figure.savefig(path, format="png")


def _draw(
    axes: Any, rows: Sequence[Mapping[str, float]], name: str, *, style: str = "-", **look: Any
) -> None:
    points = [(row["step"], row[name]) for row in rows if name in row]
    if points:
        axes.plot(*zip(*points, strict=True), style, **look)


@torch.no_grad()
def open_loop_error(
    model: nn.Module, normalizer: Normalizer, windows: Windows, rows: IntArray, batch_size: int
) -> torch.Tensor:
    """Return the mean absolute action error per element, float64 (A,), in dataset units.

    Predicts a whole chunk from each recorded observation and compares it with what the person
    did, over the steps inside the episode that the policy would execute.
    """
    config = windows.config
    start = config.n_obs_steps - 1
    chosen = slice(start, start + config.n_action_steps)
    total = torch.zeros(config.action_dim, dtype=torch.float64)
    count = 0
    device = next(model.parameters()).device
    for first in range(0, len(rows), batch_size):
        batch = windows.batch(rows[first : first + batch_size])
        truth = batch.pop(ACTION)[:, chosen]
        valid = ~batch.pop(ACTION_IS_PAD)[:, chosen]
        inputs = prepare(batch, normalizer, device)
        predicted = normalizer.restore(ACTION, policy_model(model)(inputs)[:, chosen])
        error = (predicted.float().cpu() - truth).abs().double()
        total += (error * valid.unsqueeze(-1)).sum((0, 1))
        count += int(valid.sum())
    return total / max(count, 1)


def prepare(
    batch: Mapping[str, torch.Tensor], normalizer: Normalizer, device: torch.device
) -> dict[str, torch.Tensor]:
    """Move a batch to the device, turn uint8 images into [0, 1] and normalise everything."""
    ready = {}
    for key, value in batch.items():
        moved = value.to(device, non_blocking=True)
        if moved.dtype == torch.uint8:
            moved = moved.float().div_(255.0)
        ready[key] = normalizer.normalize(key, moved)
    return ready


class TrainProgress:
    """The run's line: step, loss, samples/s, time to go and what is being done.

    A thread shows it, so that it moves while a step or a validation takes long. A context manager.

    Args:
        steps: Of the whole run.
        first: Step at which this process begins.
        stream: Where to write; standard error if absent.
    """

    def __init__(self, steps: int, first: int, stream: TextIO | None = None) -> None:
        self.steps = steps
        self.first = first
        self.step = first
        self.phase = ""  # other than training: validating, saving
        self._figures = ""
        self._begin = time.monotonic()
        self._working = Working(self.line, stream)

    def __enter__(self) -> TrainProgress:
        """Start."""
        self._working.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        """Stop."""
        self._working.__exit__(*error)

    def say(self, line: str) -> None:
        """Write a line that stays."""
        self._working.say(line)

    def measured(self, loss: float, samples_per_s: float) -> None:
        """Show the newest figures."""
        self._figures = f"  loss {loss:.4f}  {samples_per_s:.0f} samples/s"

    def line(self) -> str:
        """Return the line of this moment."""
        done = self.step - self.first
        bar = "#" * round(20 * self.step / self.steps)
        left = ""
        if done:
            passed_s = time.monotonic() - self._begin
            left = f"  {clock(passed_s / done * (self.steps - self.step))} to go"
        phase = f"  {self.phase}" if self.phase else ""
        return f"[{bar:<20}] {self.step}/{self.steps}{self._figures}{left}{phase}"


def clock(seconds: float) -> str:
    """Return a time as M:SS, or H:MM:SS."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class MetricsBoard(Protocol):
    """Somewhere else that the figures of a run go to."""

    def add(self, row: Mapping[str, float]) -> None:
        """Take one row of the loss table."""
        ...

    def close(self) -> None:
        """End."""
        ...


class TensorBoard:
    """TensorBoard's event files in OUT/tensorboard."""

    def __init__(self, out: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(out / "tensorboard"))

    def add(self, row: Mapping[str, float]) -> None:
        """Write one scalar per figure."""
        for name, value in row.items():
            self._writer.add_scalar(name, value, int(row["step"]))

    def close(self) -> None:
        """Flush."""
        self._writer.close()


class Wandb:
    """A run in a Weights & Biases project; WANDB_MODE=offline keeps it on this machine.

    Raises:
        ConfigError: The package is not installed.
    """

    def __init__(self, project: str, out: Path, recipe: Mapping[str, Any]) -> None:
        try:
            wandb = importlib.import_module("wandb")  # an extra that the user adds
        except ImportError as exc:
            raise ConfigError(
                "train", "wandb", project, "null, as wandb is not installed",
                "Add it with `./koch setup --with wandb`.",
            ) from exc  # fmt: skip
        # The name of the output folder names the run, so that --resume goes on with the same one.
        self._run: Any = wandb.init(
            project=project, name=out.name, id=out.name, dir=str(out), config=dict(recipe),
            resume="allow",
        )  # fmt: skip

    def add(self, row: Mapping[str, float]) -> None:
        """Log the figures under their step."""
        self._run.log(dict(row), step=int(row["step"]))

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


def open_boards(
    out: Path, wandb_project: str | None, recipe: Mapping[str, Any]
) -> list[MetricsBoard]:
    """Open TensorBoard where it is installed, and wandb where the recipe asks for it.

    Raises:
        ConfigError: wandb is asked for and not installed.
    """
    boards: list[MetricsBoard] = []
    if wandb_project is not None:
        boards.append(Wandb(wandb_project, out, recipe))
    if importlib.util.find_spec("tensorboard") is not None:
        boards.append(TensorBoard(out))
    return boards
