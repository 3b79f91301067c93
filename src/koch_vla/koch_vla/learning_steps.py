# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What `koch demo` and `koch improve` have in common: record, convert, train, evaluate, go on.

Each runs one subcommand and reads what it left. Interrupted, the same call goes on with the rest.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from koch_vla.errors import StepError
from koch_vla.steps import Results, run_subcommand

CHECKPOINT = "checkpoints/last/pretrained_model"
PARTIAL = ".partial"
Say = Callable[[str], None]


def finished_episodes(folder: Path) -> list[Path]:
    """List the whole episodes of a folder, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(
        path.parent for path in folder.glob("*/metadata.yaml") if PARTIAL not in path.parent.name
    )


class Attempts:
    """Counts the seeds that were tried, across interruptions.

    Args:
        path: Where the count is kept.
        first: First seed.
    """

    def __init__(self, path: Path, first: int) -> None:
        self._path = path
        try:
            self.count = int(json.loads(path.read_text())["attempts"])
        except (OSError, ValueError, KeyError, TypeError):
            self.count = 0
        self._first = first

    def next_seed(self) -> int:
        """Take the next seed; it is not used again, whatever becomes of it."""
        seed = self._first + self.count
        self.skip(1)
        return seed

    def skip(self, seeds: int) -> None:
        """Let no one use the next seeds."""
        self.count += seeds
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps({"attempts": self.count}))


def record_missing(
    folder: Path, count: int, attempts: Attempts, words: Sequence[str], log: Path, say: Say
) -> list[Path]:
    """Record in lockstep until a folder holds so many episodes; they are returned.

    Args:
        folder: Of the episodes.
        count: How many there are to be.
        attempts: Gives the seeds.
        words: Of `koch record --lockstep`, besides number, seed and folder.
        log: Gets the output.
        say: Is shown a line now and then.

    Raises:
        StepError: It failed.
    """
    missing = count - len(finished_episodes(folder))
    if missing > 0:
        asked = ["-n", str(missing), "--seed", str(attempts.next_seed()), "--root", str(folder)]
        attempts.skip(missing)
        run_subcommand(["record", "--lockstep", *asked, *words], log, say)
    return finished_episodes(folder)[:count]


def convert_episodes(
    episodes: Sequence[Path], out: Path, words: Sequence[str], log: Path, say: Say
) -> Results:
    """Convert episodes into a LeRobot v3.0 dataset; whatever was there is replaced.

    Raises:
        StepError: The converter failed.
    """
    shutil.rmtree(out, ignore_errors=True)  # whole, or it would be done
    run_subcommand(
        ["convert", *map(str, episodes), "--out", str(out), "--resume", *words], log, say
    )
    info = json.loads((out / "meta/info.json").read_text(encoding="utf-8"))
    size_mb = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / 1e6
    results: Results = {
        "dataset": str(out),
        "episodes": info["total_episodes"],
        "frames": info["total_frames"],
        "fps": info["fps"],
        "megabytes": round(size_mb, 1),
    }
    text = "{episodes} episodes, {frames} frames at {fps}/s, {megabytes:.0f} MB"
    say("      " + text.format(**results))
    return results


def train_or_resume(
    out: Path, words: Sequence[str], begin: Sequence[str], log: Path, say: Say
) -> Results:
    """Train; go on where an interrupted training stopped.

    Args:
        out: Folder of the training.
        words: Of `koch train`, at each call.
        begin: More words, where it begins: a resumed training knows them.
        log: Gets the output.
        say: Is shown a line now and then.

    Raises:
        StepError: The training failed.
    """
    if (out / "checkpoints/last").exists():
        begin = ["--resume"]
    else:
        shutil.rmtree(out, ignore_errors=True)  # began, but saved nothing yet
    run_subcommand(["train", *words, "--out", str(out), *begin], log, say)
    results: Results = {"folder": str(out), "checkpoint": str(out / CHECKPOINT)}
    results |= final_losses(out / "loss.csv")
    errors = out / "validation.json"
    if errors.is_file():
        results["validation"] = json.loads(errors.read_text(encoding="utf-8"))
    say(f"      {', '.join(f'{k} {v:.4g}' for k, v in _numbers(results).items())}")
    return results


def final_losses(path: Path) -> dict[str, float]:
    """Read the last value of each column of a training's loss table."""
    last: dict[str, float] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            last |= {key: float(value) for key, value in row.items() if value}
    return last


def _numbers(results: Results) -> dict[str, Any]:
    return {key: value for key, value in results.items() if isinstance(value, (int, float))}


def evaluate(out: Path, words: Sequence[str], log: Path, say: Say) -> Results:
    """Run `koch eval` and read what it found.

    Raises:
        StepError: The evaluation failed, or wrote no result.
    """
    run_subcommand(["eval", "--out", str(out), *words], log, say)
    try:
        results: Results = json.loads((out / "eval.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StepError(f"koch eval left no readable result in {out}: {error}") from error
    results["folder"] = str(out)
    return results
