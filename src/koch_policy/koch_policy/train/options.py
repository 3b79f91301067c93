# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The command line of `koch train`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from koch_core.command_line import command_line, parsed
from koch_core.options import OptionModel, declared, option, same_as
from koch_episodes.dataset.selection import NUMBERS_OR_EXPRESSION
from koch_policy.errors import ConfigError
from koch_policy.models.registry import known_policies
from koch_policy.train.config import TrainConfig, preset_names
from koch_ros.shared_options import RIG

#: LeRobot's policies that its own trainer trains; what its release knows, it decides.
LEROBOT_POLICIES = ("groot", "pi0", "pi0_fast", "pi05", "smolvla", "tdmpc", "vqbet", "xvla")


@dataclass(frozen=True, kw_only=True)
class TrainOptions(OptionModel):
    """What `koch train` is asked for."""

    dataset: tuple[str, ...] = option(
        ...,
        "LeRobot dataset folder (repeatable: they are joined; of DIR:2 windows are drawn twice as "
        "often)",
        metavar="DIR[:WEIGHT]",
    )
    episodes: str | None = option(
        None,
        f"learn from these only: {NUMBERS_OR_EXPRESSION}; numbers count over all datasets",
        metavar="EPISODES",
    )
    policy: str | None = option(
        None,
        f"what is trained: {', '.join(known_policies())} (default: act); LeRobot's trainer trains "
        f"{', '.join(LEROBOT_POLICIES)}",
        choices=(*known_policies(), *LEROBOT_POLICIES),
        metavar="NAME",
    )
    out: Path = option(..., "output folder")
    start: Path | None = option(
        None,
        "go on from this checkpoint: its weights, network, view of the data and statistics",
        flags=("--from",),
        metavar="DIR",
    )
    teacher: Path | None = option(
        None, "learn this policy's chunks beside the demonstrations", metavar="DIR"
    )
    preset: str | None = option(None, "shipped override file, e.g. tiny")
    config: tuple[Path, ...] = option((), "override file (repeatable)")
    settings: tuple[str, ...] = option(
        (), "a value of the recipe (repeatable)", flags=("--set",), metavar="GROUP.KEY=VALUE"
    )
    lora: bool = option(False, "train low-rank adapters and freeze the rest; train.lora says more")
    resume: bool = option(False, "go on from OUT/checkpoints/last")
    rig: Path | None = same_as(RIG, None, text="rig file: names the data and gives degrees")
    units: str | None = option(
        None, "of the joints (default: the dataset's)", choices=("lerobot", "degrees", "radians")
    )
    zero_range: str | None = same_as(declared(TrainConfig)["zero_range"].option, None)
    cache: Path | None = option(None, "folder for decoded images")
    device: str = option("auto", "auto, cpu or cuda")
    threads: int = option(0, "CPU threads; 0: one without images, else all cores", low=0)

    @classmethod
    def refuse(cls, name: str, got: object, expected: str, hint: str = "") -> Exception:
        """The error of a wrong value."""
        return ConfigError(declared(cls)[name].flag, "", got, expected, hint)


def parse(argv: Sequence[str]) -> TrainOptions:
    """Parse the arguments."""
    parser = command_line(
        "koch train",
        "Train a policy on demonstrations. Ctrl-C saves; --resume goes on.",
        TrainOptions,
        epilog=f"Presets: {', '.join(preset_names())} (POLICY-PRESET).",
    )
    # A value of the recipe is asked for like an option, under LeRobot's name or ours.
    parser.elsewhere = {
        f"--{name.replace('_', '-')}": f"--set train.{name}=VALUE"
        for name in declared(TrainConfig)
        if name not in declared(TrainOptions)
    }
    options: TrainOptions = parsed(parser, argv, TrainOptions)
    return options
