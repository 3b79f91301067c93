# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Demo steps: episodes into a dataset, the dataset into a policy."""

from __future__ import annotations

import json
from pathlib import Path

from koch_vla.demo.step import DemoContext, DemoSettings, Results
from koch_vla.learning_steps import convert_episodes, finished_episodes, train_or_resume
from koch_vla.steps import run_subcommand

STATE, IMAGES = "observation.state", "observation.images."
# Not "left": it sees the leader, whose pose is the action, and which rests when the policy drives.
LOOKS = ("above", "wrist")


def dataset_folder(settings: DemoSettings) -> Path:
    """Where the dataset goes; one for each number of episodes."""
    return settings.folder / f"dataset_{settings.episodes}"


def training_folder(settings: DemoSettings) -> Path:
    """Where the training goes."""
    return settings.folder / f"train_{settings.variant}_{settings.episodes}"


def convert(context: DemoContext) -> Results:
    """Convert the episodes into a LeRobot v3.0 dataset with video.

    Raises:
        StepError: The converter failed.
    """
    settings = context.settings
    episodes = finished_episodes(settings.folder / "episodes")[: settings.episodes]
    # Encoding so many demonstrations again would take minutes.
    words = ["--vcodec", "copy"] if settings.vision else []
    log = settings.folder / "logs/convert.log"
    return convert_episodes(episodes, dataset_folder(settings), words, log, context.say)


def validate(context: DemoContext) -> Results:
    """Check every rule of the format that LeRobot's loader relies on.

    Raises:
        StepError: A rule is broken.
    """
    settings = context.settings
    words = ["inspect", "--validate", "--no-png", str(dataset_folder(settings))]
    run_subcommand(words, settings.folder / "logs/validate.log", context.say)
    context.say("      valid")
    return {"valid": True}


def train(context: DemoContext) -> Results:
    """Train the policy with its small preset; goes on where an interrupted run stopped.

    Raises:
        StepError: The training failed.
    """
    settings = context.settings
    words = ["--dataset", str(dataset_folder(settings)), "--policy", settings.policy]
    words += ["--rig", str(settings.rig)]
    if settings.vision:
        words += ["--cache", str(settings.folder / "cache")]  # each image is decoded once
    begin = [*_preset(settings), "--set", f"train.seed={settings.seed}"]
    log = settings.folder / "logs" / f"train_{settings.variant}.log"
    return train_or_resume(training_folder(settings), words, begin, log, context.say)


def _preset(settings: DemoSettings) -> list[str]:
    """The words that choose a preset, and what a policy from cameras sees."""
    preset = ["--preset", settings.preset]
    if not settings.vision:
        return preset
    inputs = seen_by_cameras(dataset_folder(settings))
    if all(IMAGES + camera in inputs for camera in LOOKS):
        return preset
    # Other cameras: no one knows where the work is in their images.
    whole = ["train.crops={}", "train.image_sizes={}", f"train.inputs=[{','.join(inputs)}]"]
    return [*preset, *(word for each in whole for word in ("--set", each))]


def seen_by_cameras(dataset: Path) -> list[str]:
    """Joint state and cameras of a dataset: what a policy without the true poses sees."""
    features = json.loads((dataset / "meta/info.json").read_text(encoding="utf-8"))["features"]
    cameras = [key for key in features if key.startswith(IMAGES)]
    return [STATE, *([key for key in cameras if key.removeprefix(IMAGES) in LOOKS] or cameras)]
