# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Figures of a training run: loss table, plot, progress line and open-loop error."""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import nn

from koch_policy.configs import ACTION, ACTION_IS_PAD
from koch_policy.files import write_json
from koch_policy.models.registry import policy_model
from koch_policy.normalize import Normalizer
from koch_policy.train.data import IntArray, Windows

COLUMNS = ("step", "loss", "rate", "gradient_norm", "samples_per_s", "validation_loss", "error")


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
    """Draw training loss, validation loss and open-loop error over the steps as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)  # no display, whatever backend is configured
    axes = figure.add_subplot()
    for name, label in (("loss", "training loss"), ("validation_loss", "validation loss")):
        points = [(row["step"], row[name]) for row in rows if name in row]
        if points:
            axes.plot(*zip(*points, strict=True), label=label)
    errors = [(row["step"], row["error"]) for row in rows if "error" in row]
    if errors:
        right = axes.twinx()
        right.plot(*zip(*errors, strict=True), "o--", color="tab:green", markersize=3)
        right.set_ylabel("open-loop action error, mean over joints", color="tab:green")
        right.set_ylim(bottom=0)
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    if any(row.get("loss", 0) > 0 for row in rows):
        axes.set_yscale("log")
    axes.grid(visible=True, alpha=0.3)
    axes.legend(loc="upper right")
    figure.savefig(path, format="png")


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
    """Move a batch to the device, turn uint8 pictures into [0, 1] and normalise everything."""
    ready = {}
    for key, value in batch.items():
        moved = value.to(device, non_blocking=True)
        if moved.dtype == torch.uint8:
            moved = moved.float().div_(255.0)
        ready[key] = normalizer.normalize(key, moved)
    return ready


@dataclass
class Progress:
    """One line on the terminal that is rewritten: step, loss, samples/s and time to go."""

    steps: int
    first: int
    stream: TextIO = field(default_factory=lambda: sys.stderr)
    _begin: float = field(default_factory=time.monotonic)
    _shown: float = 0.0

    def show(self, step: int, loss: float, samples_per_s: float) -> None:
        """Rewrite the line, at most five times a second; every 30 s where it is no terminal."""
        now = time.monotonic()
        terminal = self.stream.isatty()
        if now - self._shown < (0.2 if terminal else 30.0) and step != self.steps:
            return
        self._shown = now
        done = (step - self.first) / max(self.steps - self.first, 1)
        left_s = (now - self._begin) / max(done, 1e-9) * (1 - done)
        bar = "#" * round(20 * step / self.steps)
        text = (
            f"[{bar:<20}] {step}/{self.steps}  loss {loss:.4f}  "
            f"{samples_per_s:.0f} samples/s  {_clock(left_s)} to go"
        )
        self.stream.write(f"\r{text:<79}" if terminal else f"{text}\n")
        self.stream.flush()

    def close(self) -> None:
        """End the line."""
        if self.stream.isatty():
            self.stream.write("\n")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def tensorboard_writer(out: Path) -> Any | None:
    """Return a TensorBoard writer where the package is installed, else None."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(out / "tensorboard"))
