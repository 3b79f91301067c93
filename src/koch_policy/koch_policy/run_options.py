# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The options of `koch run`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from koch_core.options import OptionError, OptionModel, option, same_as
from koch_policy.files import is_address, is_hub_name
from koch_ros.shared_options import (
    ALLOW_MISMATCH,
    CHECKPOINT,
    RIG,
    RUNTIME,
    SHADOW,
    STRATEGY,
    TASK,
)

LINES = "another task, or q end, s/f end with success/failure"


@dataclass(frozen=True, kw_only=True)
class RunOptions(OptionModel):
    """What `koch run` is asked for."""

    policy: str | None = same_as(CHECKPOINT, None, parse=None)
    rig: Path | None = same_as(RIG, None, text="rig file (default: $KOCH_RIG, else the shipped)")
    task: str | None = same_as(TASK, None)
    interactive: bool = option(False, f"read lines while the policy runs: {LINES}")
    strategy: str = same_as(STRATEGY, "")
    shadow: bool = same_as(SHADOW, False)
    max_duration: float = option(
        0.0, "end a run after this time; 0: never", low=0.0, metavar="S",
        flags=("--max-duration", "--episode-time-s"),
    )  # fmt: skip
    num_episodes: int = option(
        0, "so many runs, judged one by one, with a table at the end", low=0, metavar="N"
    )
    reset_time_s: float = option(
        0.0, "pause before each of them [s]; 0: until a key", low=0.0, metavar="S"
    )
    out: Path = option(Path("outputs/run"), "folder of their table, images and trials.json")
    once: bool = option(False, "one run, then exit")
    record: bool = option(False, "record each run as an episode")
    label: str = option("", "outcome of recorded runs, where no key tells")
    json: Path | None = option(None, "write the results here", metavar="FILE")
    runtime: str = same_as(RUNTIME, "auto")
    allow_mismatch: bool = same_as(ALLOW_MISMATCH, False)
    settings: tuple[str, ...] = option(
        (), "any other parameter of the policy node", flags=("--set",), metavar="NAME=VALUE"
    )
    replay: Path | None = option(None, "offline: over a bag or a dataset folder", metavar="PATH")
    episode: int = option(0, "of the dataset to replay", low=0)
    plot: Path | None = option(None, "image of the replay (default: replay.png)")

    def __post_init__(self) -> None:
        """Check what does not go together.

        Raises:
            OptionError: A value means nothing.
        """
        super().__post_init__()
        if not self.num_episodes:
            for flag, given in (("--reset-time-s", self.reset_time_s), ("--out", self.out)):
                if given not in (0.0, Path("outputs/run")):
                    raise OptionError(flag, str(given), "--num-episodes N beside it")
        elif self.once or self.interactive or self.shadow or self.label or self.replay is not None:
            raise OptionError(
                "--num-episodes",
                self.num_episodes,
                "none of --once, --interactive, --shadow, --label, --replay beside it",
            )
        if self.replay is not None and self.policy is None:
            raise OptionError("--replay", str(self.replay), "--policy DIR beside it")
        if self.policy is not None and not self.is_folder and not self.is_name:
            raise OptionError(
                f"--policy {self.policy}",
                "no such folder",
                "a checkpoint, or a training output that has checkpoints/last"
                + ("" if self.runtime == "lerobot" else " (a name on the Hub: --runtime lerobot)"),
            )

    @property
    def is_folder(self) -> bool:
        """Whether the policy is a folder here."""
        return self.policy is not None and Path(self.policy).expanduser().is_dir()

    @property
    def is_name(self) -> bool:
        """Whether the policy is an address, or a name that LeRobot is to fetch from the Hub."""
        if is_address(self.policy or ""):
            return True
        is_name = is_hub_name(self.policy or "") and not self.is_folder
        return self.runtime == "lerobot" and is_name
