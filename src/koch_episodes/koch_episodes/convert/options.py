# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What a conversion was asked to do."""

from __future__ import annotations

import enum
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from koch_core.expression import Expression
from koch_core.options import OptionError, OptionModel, option
from koch_episodes.dataset.format import FORMATS, format_names
from koch_episodes.dataset.layout import Codec, Version
from koch_episodes.dataset.selection import (
    NUMBERS_OR_EXPRESSION,
    WINDOW_KINDS,
    as_expression,
)
from koch_rig.action_layout import JOINT
from koch_rig.units import Units

_X264 = "ultrafast superfast veryfast faster fast medium slow slower veryslow placebo"
# Presets and the largest constant rate factor.
_ENCODERS: Mapping[Codec, tuple[tuple[str, ...], int]] = {
    Codec.H264: (tuple(_X264.split()), 51),
    Codec.AV1: (tuple(str(n) for n in range(14)), 63),
}


class ActionFrom(enum.Enum):
    """Whose joint positions are the action."""

    COMMAND = "command"  # what was really sent to the motors
    LEADER = "leader"  # the human's hand, as LeRobot records it


class StampFrom(enum.Enum):
    """Which clock orders the messages."""

    AUTO = "auto"  # the header's, or the recorder's where a topic has none
    HEADER = "header"
    RECEIVE = "receive"


#: A rest that is no longer than a policy's reaction teaches nothing wrong, [s].
_REST_S = 0.2


@dataclass(frozen=True, kw_only=True)
class ConvertRun(OptionModel):
    """What `koch convert` reads and writes, and how; no influence on the content."""

    inputs: tuple[Path, ...] = option(
        ..., "bag, storage file, or folder of bags", flags=("inputs",), metavar="IN"
    )
    out: Path = option(..., "dataset folder", metavar="DIR")
    to_bag: bool = option(False, "the other way: IN is a dataset, and DIR will hold its bags")
    jobs: int | None = option(
        None,
        "worker processes (default: one per core, at most 4, for av1 2: 600 MB in all)",
        low=1,
    )
    append: bool = option(False, "add to the dataset at --out")
    resume: bool = option(
        False, "go on where a run was interrupted, or join what workers have converted"
    )
    worker: bool = option(
        False,
        "convert beside other workers with the same arguments, on any computers that share the "
        "folder of --out; makes no dataset, which --resume does when they are done",
    )
    allow_overlap: bool = option(False, "also convert bags that share messages with another one")

    def common(self, jobs: int) -> dict[str, Any]:
        """Return what workers and the joining have in common, as arguments of both."""
        return {"jobs": jobs, "append": self.append, "allow_overlap": self.allow_overlap}


def check_encoder(codec: Codec, crf: int | None, gop: int | None, preset: str | None) -> None:
    """Refuse what a codec does not know.

    Raises:
        OptionError: Naming the option.
    """
    if codec is Codec.COPY:
        for flag, value in {"--crf": crf, "--gop": gop, "--preset": preset}.items():
            if value is not None:
                raise OptionError(flag, value, "nothing: --vcodec copy encodes nothing")
        return
    presets, worst = _ENCODERS[codec]
    if crf is not None and not 0 <= crf <= worst:
        raise OptionError("--crf", crf, f"0 to {worst} for {codec.value}")
    if preset is not None and preset not in presets:
        raise OptionError("--preset", preset, "one of " + ", ".join(presets))


@dataclass(frozen=True)
class ConvertOptions(OptionModel):
    """Everything that decides what a dataset will contain; travels to the worker processes.

    Raises:
        OptionError: A value is out of its range, or does not go with another.
    """

    rig: Path | None = option(None, "rig file (default: the one in each bag)")
    map: Path | None = option(None, "feature mapping for bags of other robots", metavar="YAML")
    fps: int | None = option(None, "frames per second (default: the rig's or map's)", low=1)
    units: Units = option(Units.LEROBOT, "of the joint positions of a rig's arms")
    action_from: ActionFrom = option(ActionFrom.COMMAND, "source of the action of a rig")
    tcp_pose: bool = option(
        False,
        "add observation.tcp_pose: xyz [m] and 6D rotation in the arm's base frame",
        flags=("--include-tcp-pose",),
    )
    delta_actions: bool = option(False, "store action minus observation.state")
    action_space: str = option(
        JOINT,
        "what the action is stored as: joints, or the hand's pose in its arm's base frame",
        choices=(JOINT, "tcp", "tcp_quaternion"),
    )
    rewards: bool = option(
        False,
        "add next.reward, next.done and next.success, by the episodes' outcome",
        flags=("--include-rewards",),
    )
    split_at_gaps: bool = option(
        True, "pieces between gaps become episodes (--no-...: episodes with a gap are left out)"
    )
    min_seconds: float = option(
        1.0,
        "leave out pieces between gaps that are shorter (default: 1; 0: all of two frames); "
        "episodes without gaps are kept whatever their length",
        low=0.0,
    )
    trim_idle_s: float | None = option(
        None,
        f"shorten rests, during which no action moves, to this time (default: {_REST_S} s)",
        low=0.0,
        flags=("--trim-idle",),
        metavar="S",
        bare=_REST_S,
    )
    stamps: StampFrom = option(StampFrom.AUTO, "clock that orders messages")
    codec: Codec = option(Codec.H264, "video codec", flags=("--vcodec",))
    crf: int | None = option(None, "constant rate factor (default: the codec's)")
    gop: int | None = option(
        None, "frames from key frame to key frame (default: the codec's)", low=1
    )
    preset: str | None = option(None, "speed preset of the encoder (default: the codec's)")
    version: str = option(
        Version.V30.value,
        "dataset format: v3.0, v2.1, or one that a plug-in registers",
        flags=("--format",),
    )
    task: str | None = option(None, "task text that overrides all others")
    outcomes: tuple[str, ...] = option(
        (),
        "keep only episodes with this label (repeatable; default: all but discarded ones)",
        flags=("--outcome",),
        metavar="LABEL",
    )
    episodes: str | None = option(
        None,
        f"keep only these: {NUMBERS_OR_EXPRESSION}; index is the recorder's number, else the "
        "place in the bag",
        metavar="EPISODES",
    )
    encoder_threads: int = field(default=1, compare=False)  # the content is the same

    def __post_init__(self) -> None:
        """Check what an encoder or a file would choke on, or silently take for something else."""
        super().__post_init__()
        try:
            (self.task or "").encode()
        except UnicodeEncodeError as exc:
            raise OptionError("--task", self.task, "text in UTF-8") from exc
        if self.version not in FORMATS:
            raise OptionError("--format", self.version, format_names())
        self._check_map()
        if self.delta_actions and self.action_space != JOINT:
            got = self.action_space
            raise OptionError("--action-space", got, "nothing beside --delta-actions")
        check_encoder(self.codec, self.crf, self.gop, self.preset)
        if self.episodes is not None:
            text = as_expression(self.episodes, "--episodes")
            Expression(text, "--episodes").check(WINDOW_KINDS, "a bag")

    def _check_map(self) -> None:
        """Refuse what is said of a rig beside a --map (--units states what its values are)."""
        if self.map is None:
            return
        if self.rig is not None:
            raise OptionError("--rig", str(self.rig), "nothing beside --map")
        if self.action_from is not ActionFrom.COMMAND:
            got = self.action_from.value
            raise OptionError("--action-from", got, "nothing beside --map, which names topics")

    def to_json(self) -> dict[str, Any]:
        """Return plain values, without what does not change the content."""
        raw = asdict(self)
        del raw["encoder_threads"]
        return {
            key: value.value
            if isinstance(value, enum.Enum)
            else str(value)
            if isinstance(value, Path)
            else value
            for key, value in raw.items()
        }

    def digest(self, contents: Mapping[str, str]) -> str:
        """Return a short hash of options and file contents, to recognise finished work."""
        text = json.dumps([self.to_json(), dict(contents)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
