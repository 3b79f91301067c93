# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Demo steps: episodes into a dataset, the dataset into a policy."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

from koch_vla.demo.record import finished_episodes
from koch_vla.demo.step import SMALL_PRESET, VISION_PRESET, DemoContext, DemoSettings, Results
from koch_vla.demo.verb import run_verb

STATE, IMAGES = "observation.state", "observation.images."
# Not "left": it sees the leader, whose pose is the action, and which rests when the policy drives.
LOOKS = ("above", "wrist")
CHECKPOINT = "checkpoints/last/pretrained_model"


def dataset_folder(settings: DemoSettings) -> Path:
    """Where the dataset goes; one for each number of episodes."""
    return settings.folder / f"dataset_{settings.episodes}"


def training_folder(settings: DemoSettings) -> Path:
    """Where the training goes."""
    return settings.folder / f"train_{settings.variant}_{settings.episodes}"


def convert(context: DemoContext) -> Results:
    """Convert the episodes into a LeRobot v3.0 dataset with video.

    Raises:
        DemoError: The converter failed.
    """
    settings = context.settings
    out = dataset_folder(settings)
    shutil.rmtree(out, ignore_errors=True)  # whole, or it would be done
    episodes = finished_episodes(settings.folder / "episodes")[: settings.episodes]
    words = ["convert", *map(str, episodes), "--out", str(out), "--resume"]
    if settings.vision:  # encoding 50 demonstrations again would take minutes
        words += ["--vcodec", "copy"]
    run_verb(words, settings.folder / "logs/convert.log", context.say)
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
    context.say("      " + text.format(**results))
    return results


def validate(context: DemoContext) -> Results:
    """Check every rule of the format that LeRobot's loader relies on.

    Raises:
        DemoError: A rule is broken.
    """
    settings = context.settings
    words = ["inspect", "--validate", "--no-png", str(dataset_folder(settings))]
    run_verb(words, settings.folder / "logs/validate.log", context.say)
    context.say("      valid")
    return {"valid": True}


def train(context: DemoContext) -> Results:
    """Train the policy with its small preset; goes on where an interrupted run stopped.

    Raises:
        DemoError: The training failed.
    """
    settings = context.settings
    out = training_folder(settings)
    words = ["train", "--dataset", str(dataset_folder(settings)), "--policy", settings.policy]
    words += ["--out", str(out), "--rig", str(settings.rig)]
    if (out / "checkpoints/last").exists():
        words += ["--resume"]
    else:
        shutil.rmtree(out, ignore_errors=True)  # began, but saved nothing yet
        words += [*_preset(settings), "--set", f"train.seed={settings.seed}"]
    if settings.vision:
        words += ["--cache", str(settings.folder / "cache")]  # each image is decoded once
    run_verb(words, settings.folder / "logs" / f"train_{settings.variant}.log", context.say)
    results: Results = {"folder": str(out), "checkpoint": str(out / CHECKPOINT)}
    results |= final_losses(out / "loss.csv")
    errors = out / "validation.json"
    if errors.is_file():
        results["validation"] = json.loads(errors.read_text(encoding="utf-8"))
    context.say(f"      {', '.join(f'{k} {v:.4g}' for k, v in _numbers(results).items())}")
    return results


def _preset(settings: DemoSettings) -> list[str]:
    """The words that choose a preset, and what a policy from cameras sees."""
    if not settings.vision:
        return ["--preset", SMALL_PRESET]
    inputs = seen_by_cameras(dataset_folder(settings))
    if all(IMAGES + camera in inputs for camera in LOOKS):
        return ["--preset", VISION_PRESET]
    # Other cameras: no one knows where the work is in their images.
    whole = ["train.crops={}", "train.image_sizes={}", f"train.inputs=[{','.join(inputs)}]"]
    return ["--preset", VISION_PRESET, *(word for each in whole for word in ("--set", each))]


def seen_by_cameras(dataset: Path) -> list[str]:
    """Joint state and cameras of a dataset: what a policy without the true poses sees."""
    features = json.loads((dataset / "meta/info.json").read_text(encoding="utf-8"))["features"]
    cameras = [key for key in features if key.startswith(IMAGES)]
    return [STATE, *([key for key in cameras if key.removeprefix(IMAGES) in LOOKS] or cameras)]


def final_losses(path: Path) -> dict[str, float]:
    """Read the last value of each column of a training's loss table."""
    last: dict[str, float] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            last |= {key: float(value) for key, value in row.items() if value}
    return last


def _numbers(results: Results) -> dict[str, Any]:
    return {key: value for key, value in results.items() if isinstance(value, (int, float))}
