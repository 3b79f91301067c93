# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch train --policy smolvla`: LeRobot's trainer, in LeRobot's own Python, on our dataset.

Its policies and its trainer stay LeRobot's. What is ours: one command line, the progress, and
koch.json in each checkpoint, by which `koch run` compares units, names and fingerprint with the
rig. `--set lerobot.KEY=VALUE` reaches every option of the trainer, as its `--KEY=VALUE`.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TextIO

import yaml

from koch_core.terminal import say
from koch_policy.errors import CheckpointError, ConfigError, PolicyError
from koch_policy.files import CONFIG, is_hub_name, read_json, resolve_checkpoint
from koch_policy.metadata import CheckpointMetadata, write_metadata
from koch_policy.server.client import lerobot_python, server_environment
from koch_policy.train.config import TrainConfig
from koch_policy.train.metrics import TrainProgress
from koch_policy.train.mixture import named_dataset
from koch_policy.train.options import TrainOptions
from koch_policy.train.source import open_demonstrations
from koch_policy.train.state import MODEL_FOLDER

# Our options that its trainer has under another name.
_NAMES = {
    "steps": "steps", "batch_size": "batch_size", "seed": "seed", "save_every": "save_freq",
    "log_every": "log_freq",
}  # fmt: skip
_DEFAULTS = {"steps": 20_000, "log_every": 50}  # as our own trainer's
_LOGGED = re.compile(r"\bstep:\S+ .*\bloss:(?P<loss>\S+)")
_SHOWN = 12  # last lines of a trainer that failed


class LeRobotTrainingError(PolicyError):
    """LeRobot's trainer did not train; its last lines say why."""

    def __init__(self, code: int, log: Path, lines: Sequence[str]) -> None:
        shown = "".join(f"\n  {line}" for line in lines)
        super().__init__(f"LeRobot's trainer ended with code {code}:{shown}\nAll of it: {log}")


def train(options: TrainOptions) -> None:
    """Train one of LeRobot's policies, with progress on stderr.

    Raises:
        KochError: LeRobot is not there, the options are none of its, or it fails.
    """
    _refuse_ours_alone(options)
    settings = _settings(options.settings)
    root, weight = named_dataset(options.dataset[0])
    if len(options.dataset) > 1 or weight != 1.0:
        raise ConfigError("--dataset", "", " ".join(options.dataset), "one with LeRobot's trainer")
    metadata = dataset_metadata(root)
    numbers = None if options.episodes is None else _numbers(root, options.episodes)
    if numbers is not None:
        selection = {"episodes": options.episodes, "selected": {str(root): numbers}}
        metadata = replace(metadata, training={**metadata.training, "selection": selection})
        settings["lerobot"].setdefault("dataset.episodes", str(numbers))
    command = [lerobot_python(), "-m", "lerobot.scripts.lerobot_train"]
    command += trainer_arguments(options, settings, root.absolute())
    log = options.out.parent / f"{options.out.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    say(f"LeRobot's trainer: {' '.join(command[3:])}")
    steps, every = (int(settings["train"].get(key, _DEFAULTS[key])) for key in _DEFAULTS)
    try:
        _run(command, options.threads, log, steps, every)
    finally:
        for folder in sorted(options.out.glob(f"checkpoints/*/{MODEL_FOLDER}")):
            if not folder.parent.is_symlink():
                _describe(folder, metadata)
    say(f"saved {options.out}/checkpoints/last/{MODEL_FOLDER}; koch run --runtime lerobot runs it")


def _numbers(root: Path, text: str) -> list[int]:
    """The episodes that --episodes means; LeRobot's trainer takes numbers only."""
    from koch_episodes.dataset.reader import LeRobotDatasetReader

    return [episode.index for episode in LeRobotDatasetReader(root).chosen(text)]


def dataset_metadata(root: Path) -> CheckpointMetadata:
    """Return what a checkpoint of a dataset says of units, names and fingerprint.

    Raises:
        KochError: The folder is no dataset that can be trained on.
    """
    data = open_demonstrations(root, TrainConfig())
    return CheckpointMetadata(
        fingerprint=data.fingerprint,
        names=dict(data.names),
        units=data.units,
        fps=data.fps,
        robot_type=data.robot_type,
        tasks=list(data.tasks),
        training={"dataset": data.name, "trainer": "lerobot"},
    )


def _describe(folder: Path, metadata: CheckpointMetadata) -> None:
    """Write koch.json into a checkpoint: of the dataset's vectors only those that it has."""
    config = read_json(folder / CONFIG)
    known = {**config["input_features"], **config["output_features"]}
    names = {key: value for key, value in metadata.names.items() if key in known}
    write_metadata(folder, replace(metadata, names=names))


def trainer_arguments(
    options: TrainOptions, settings: Mapping[str, Mapping[str, str]], root: Path
) -> list[str]:
    """Return the options of LeRobot's trainer.

    Raises:
        ConfigError: A setting is none that it has.
    """
    if options.resume:
        config = options.out / "checkpoints" / "last" / MODEL_FOLDER / "train_config.json"
        if not config.is_file():
            raise CheckpointError(config, "nothing to resume", "Start without --resume.")
        given = {"config_path": str(config), "resume": "true"}
    else:
        given = {
            "dataset.repo_id": f"koch/{root.name}",
            "dataset.root": str(root),
            "output_dir": str(options.out),
            "policy.push_to_hub": "false",
            "wandb.enable": "false",
            # Its default, torchcodec, wants a system FFmpeg; PyAV comes with LeRobot.
            "dataset.video_backend": "pyav",
            **{_NAMES[key]: str(value) for key, value in _DEFAULTS.items()},
            **_start(options),
        }
        if options.device != "auto":
            given["policy.device"] = options.device
    for key, value in settings["train"].items():
        if key == "lora":
            given |= _adapters(value)
        elif key in _NAMES:
            given[_NAMES[key]] = value
        else:
            raise ConfigError(
                "--set", f"train.{key}", value, f"one of {', '.join((*_NAMES, 'lora'))}",
                "LeRobot's trainer has others: --set lerobot.KEY=VALUE.",
            )  # fmt: skip
    if options.lora:
        given = {**_adapters("{}"), **given}
    given |= {f"policy.{key}": value for key, value in settings["policy"].items()}
    given |= settings["lerobot"]
    return [f"--{key}={value}" for key, value in given.items()]


def _start(options: TrainOptions) -> dict[str, str]:
    """Where the weights come from; LeRobot reads the type from a checkpoint's config.json."""
    if options.start is None:
        return {"policy.type": str(options.policy)}
    text = str(options.start)
    if not options.start.exists() and is_hub_name(text):
        return {"policy.path": text}
    return {"policy.path": str(resolve_checkpoint(options.start).absolute())}


def _adapters(text: str) -> dict[str, str]:
    """Translate `train.lora`; LeRobot knows which layers a policy of its own adapts."""
    lora = yaml.safe_load(text) or {}
    unknown = set(lora) - {"rank", "targets"}
    if unknown:
        raise ConfigError(
            "--set", f"train.lora.{min(unknown)}", lora[min(unknown)], "rank or targets",
            "LeRobot's trainer scales adapters itself.",
        )  # fmt: skip
    given = {"peft.method_type": "LORA", "peft.r": str(lora.get("rank", 16))}
    if targets := lora.get("targets"):
        given["peft.target_modules"] = yaml.safe_dump(targets, default_flow_style=True).strip()
    return given


def _settings(given: Sequence[str]) -> dict[str, dict[str, str]]:
    """Sort --set GROUP.KEY=VALUE into groups.

    Raises:
        ConfigError: One has another form or group.
    """
    groups: dict[str, dict[str, str]] = {"train": {}, "policy": {}, "lerobot": {}}
    for setting in given:
        key, equals, value = setting.partition("=")
        group, dot, name = key.partition(".")
        if not equals or not dot or group not in groups:
            expected = " or ".join(f"{name}.KEY=VALUE" for name in groups)
            raise ConfigError("--set", "", setting, expected)
        groups[group][name] = value
    return groups


def _refuse_ours_alone(options: TrainOptions) -> None:
    for name in ("preset", "config", "teacher", "units", "zero_range", "cache"):
        if value := getattr(options, name):
            raise ConfigError(
                f"--{name.replace('_', '-')}", "", value, "nothing with LeRobot's trainer",
                "Its options are given as --set lerobot.KEY=VALUE.",
            )  # fmt: skip


def _run(command: Sequence[str], threads: int, log: Path, steps: int, every: int) -> None:
    """Run the trainer, show its losses as ours, and keep what it writes.

    Raises:
        LeRobotTrainingError: It ended with a code.
    """
    last: deque[str] = deque(maxlen=_SHOWN)
    with (
        tempfile.TemporaryDirectory(prefix="koch_lerobot_") as lent,
        log.open("a", encoding="utf-8") as file,
        TrainProgress(steps, 0) as progress,
    ):
        environment = {**server_environment(Path(lent), threads or None), "NO_COLOR": "1"}
        progress.phase = "LeRobot loads policy and data"
        with subprocess.Popen(
            command,
            env={**environment, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
        ) as process:
            assert process.stdout is not None  # as asked for above
            try:
                _follow(_written(process.stdout, file, last), progress, every)
            except BaseException:
                process.terminate()  # it ends without saving: its last checkpoint stays
                raise
    if process.returncode:
        raise LeRobotTrainingError(process.returncode, log, list(last))


def _written(lines: Iterable[str], file: TextIO, last: deque[str]) -> Iterator[str]:
    """Pass lines on, and keep them."""
    for line in lines:
        file.write(line)
        last.append(line.rstrip())
        yield line


def _follow(lines: Iterator[str], progress: TrainProgress, every: int) -> None:
    """Turn the trainer's log into progress.

    It writes steps above 999 as 1K, so lines are counted: one comes every `every` steps.
    """
    mark = time.monotonic()
    for line in lines:
        found = _LOGGED.search(line)
        if found is None:
            continue
        progress.phase = ""
        progress.step += every
        now = time.monotonic()
        progress.measured(float(found["loss"]), every / (now - mark))
        mark = now
