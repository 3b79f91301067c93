# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch runs`: a table over training runs, from what each wrote into its output folder."""

from __future__ import annotations

import contextlib
import csv
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from koch_core.command_line import from_command_line
from koch_core.options import OptionModel, option
from koch_core.terminal import Column, limit, say, table
from koch_policy.errors import CheckpointError

_LAST = "checkpoints/last/pretrained_model"
_LOSSES = "loss.csv"
_COLUMNS = (
    Column("run"),
    Column("policy"),
    Column("step", right=True),
    Column("of", rank=5, right=True),
    Column("loss", right=True),
    Column("val. loss", rank=2, right=True),
    Column("error", rank=3, right=True),
    Column("success", rank=1, right=True),
    Column("episodes", rank=4, right=True),
    Column("dataset", rank=6),
    Column("saved", rank=7),
)


@dataclass(frozen=True)
class Run:
    """A training run.

    Attributes:
        folder: Its output folder.
        policy: Policy type.
        step, steps: Of the newest checkpoint, and of the recipe.
        figures: Newest value of each column of loss.csv.
        success: Newest rate of success in simulation, 0 to 1, and how many rollouts; None without.
        episodes: Of the dataset; 0 when unknown.
        dataset: As it was named.
        saved_s: When the newest checkpoint was written, seconds since 1970.
    """

    folder: Path
    policy: str
    step: int
    steps: int
    figures: dict[str, float]
    success: tuple[float, int] | None
    episodes: int
    dataset: str
    saved_s: float

    def cells(self, base: Path) -> list[str]:
        """Return the row of the table; folders below `base` are shown from there."""
        name = self.folder.relative_to(base) if self.folder.is_relative_to(base) else self.folder
        success = ""
        if self.success is not None:
            rate, count = self.success
            success = f"{round(rate * count)}/{count}"
        shown = [f"{self.figures[k]:.4g}" if k in self.figures else "" for k in _FIGURES]
        saved = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.saved_s))
        return [
            str(name), self.policy, str(self.step), str(self.steps or ""), *shown, success,
            str(self.episodes or ""), self.dataset, saved,
        ]  # fmt: skip


_DRAWN = 300
_MOST_EVALUATIONS = 20
_FIGURES = ("loss", "validation_loss", "error")


def find_runs(folders: Sequence[Path]) -> Iterator[Run]:
    """Yield the runs at or below some folders, the newest first.

    Raises:
        CheckpointError: A folder is missing, or a run's files are damaged.
    """
    found: list[Run] = []
    for folder in folders:
        if not folder.is_dir():
            raise CheckpointError(folder, "no such folder", "Name folders of `koch train --out`.")
        inside = {path.parents[2] for path in folder.glob(f"**/{_LAST}")}
        found += [read_run(each) for each in sorted(inside)]
    yield from sorted(found, key=lambda run: -run.saved_s)


def describe_runs(folder: Path) -> list[dict[str, Any]]:
    """The runs below a folder as plain data, the newest first, for the page of the console.

    A damaged run is told with its problem, so that it hides no other. One that trains shows its
    curve before its first checkpoint.
    """
    inside = {path.parents[2] for path in folder.glob(f"**/{_LAST}")}
    inside |= {path.parent for path in folder.glob(f"**/{_LOSSES}")}
    found = []
    for each in sorted(inside, key=_newest_s, reverse=True):
        name = str(each.relative_to(folder)) if each != folder else folder.name
        try:
            run = read_run(each)
            facts = {**run.__dict__, "folder": str(each), "curve": _curve(each / _LOSSES)}
            facts |= {"checkpoints": _checkpoints(each), "evaluations": _evaluations(each)}
            found.append({**facts, "name": name})
        except CheckpointError as exc:
            found.append({"name": name, "folder": str(each), "problem": str(exc)})
    return found


def _newest_s(folder: Path) -> float:
    """When the newest checkpoint was written, seconds since 1970; before the first, the losses."""
    path = folder / _LAST
    return (path if path.exists() else folder / _LOSSES).stat().st_mtime


def _checkpoints(folder: Path) -> list[str]:
    """Names of the checkpoints of a run, the newest first."""
    found = (path.parent.name for path in folder.glob("checkpoints/*/pretrained_model"))
    return sorted(found, reverse=True)


def _curve(path: Path) -> dict[str, list[tuple[float, float]]]:
    """Points (step, value) of the losses, so few that a page can draw them."""
    points: dict[str, list[tuple[float, float]]] = {"loss": [], "validation_loss": []}
    for row in _losses(path):
        for key, found in points.items():
            if key in row and "step" in row:
                found.append((row["step"], row[key]))
    # Thinned from the end, so that the newest value is there.
    return {key: found[:: -1 - len(found) // _DRAWN][::-1] for key, found in points.items()}


def _evaluations(folder: Path) -> list[dict[str, Any]]:
    """Successes and trials of each evaluation below a run, the newest first."""
    reports = sorted(folder.glob("**/eval.json"), key=lambda path: -path.stat().st_mtime)
    found = []
    for path in reports[:_MOST_EVALUATIONS]:
        trials = _json(path).get("trials") or []
        good = sum(bool(trial.get("success")) for trial in trials if isinstance(trial, dict))
        name = str(path.parent.relative_to(folder))
        shown = {"film": "rollouts.mp4", "sheet": "contact_sheet.png"}
        there = {key: (path.parent / file).is_file() for key, file in shown.items()}
        films = sorted(film.stem for film in path.parent.glob("rollout_*.mp4"))
        facts = {"name": name, "successes": good, "trials": len(trials), "films": films}
        found.append({**facts, **there})
    return found


def read_run(folder: Path) -> Run:
    """Read one training output.

    Raises:
        CheckpointError: A file is damaged.
    """
    last = folder / _LAST
    extras = _json(last / "koch.json")
    training = extras.get("training") or {}
    recipe = _json(last / "koch_train_config.json")
    return Run(
        folder=folder,
        policy=str(_json(last / "config.json").get("type", "")),
        step=int(training.get("step", 0)),
        steps=int((recipe.get("train") or {}).get("steps", 0)),
        figures=_newest_figures(folder / _LOSSES),
        success=_success(folder),
        episodes=int((training.get("data") or {}).get("episodes", 0)),
        dataset=str(training.get("dataset", "")),
        saved_s=_newest_s(folder),
    )


def _newest_figures(path: Path) -> dict[str, float]:
    figures: dict[str, float] = {}
    for row in _losses(path):
        figures.update(row)
    return figures


def _losses(path: Path) -> Iterator[dict[str, float]]:
    """Rows of loss.csv without empty cells; a row that is being written is left out."""
    if not path.is_file():
        return
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            with contextlib.suppress(ValueError):
                yield {key: float(value) for key, value in row.items() if key and value}


def _success(folder: Path) -> tuple[float, int] | None:
    """The newest evaluation below a run: `koch eval --out RUN/eval` or train.evaluate_every."""
    reports = sorted(folder.glob("**/eval.json"), key=lambda path: path.stat().st_mtime)
    if not reports:
        return None
    trials = _json(reports[-1]).get("trials") or []
    good = sum(bool(trial.get("success")) for trial in trials if isinstance(trial, dict))
    return (good / len(trials), len(trials)) if trials else None


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise CheckpointError(path, f"not readable as JSON ({exc})", "Delete the run.") from exc
    return content if isinstance(content, dict) else {}


@dataclass(frozen=True, kw_only=True)
class RunsOptions(OptionModel):
    """What `koch runs` is asked for."""

    folders: tuple[Path, ...] = option(
        (Path("outputs"),), "search here", flags=("folders",), metavar="FOLDER"
    )
    json: bool = option(False, "print JSON instead")


def main(argv: Sequence[str]) -> int:
    """Print the table; 1 where there is no run."""
    options = from_command_line(
        RunsOptions,
        "koch runs",
        "List training runs: policy, steps, losses, open-loop error on held-out "
        "episodes (mean over joints), success in simulation where it was measured.",
        argv,
    )
    runs = list(find_runs(options.folders))
    if options.json:
        rows = [{**run.__dict__, "folder": str(run.folder)} for run in runs]
        say(json.dumps(rows, indent=2))
    elif runs:
        base = options.folders[0] if len(options.folders) == 1 else Path()
        for line in table(_COLUMNS, [run.cells(base) for run in runs], limit()):
            say(line)
    else:
        where = ", ".join(map(str, options.folders))
        say(f"no training run below {where}; name the folders that `koch train --out` made")
    return 0 if runs else 1
