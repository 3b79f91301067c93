# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What a conversion was asked to do."""

from __future__ import annotations

import enum
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from koch_episodes.dataset.layout import Codec, Version
from koch_episodes.errors import OptionError
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


@dataclass(frozen=True)
class ConvertOptions:
    """Everything that decides what a dataset will contain; travels to the worker processes.

    Attributes:
        rig: Rig file, or None: the one stored in each bag.
        map: Mapping YAML for bags of other robots, or None.
        fps: Frames per second; None: the rig's or map's.
        units: Units of joint positions of a rig's arms.
        action_from: Source of the action of a rig.
        tcp_pose: Add ``observation.tcp_pose`` (xyz and 6D rotation in the arm's base frame).
        delta_actions: Store action minus observation.state.
        rewards: Add ``next.reward``, ``next.done`` and ``next.success``, by the outcome.
        split_at_gaps: Make one episode of every piece between gaps; False: leave out episodes
            that have a gap.
        min_seconds: Leave out pieces between gaps that are shorter, [s]; episodes without gaps
            are kept whatever their length.
        trim_idle_s: Shorten rests to this time, [s]; None: leave them as they were.
        stamps: Which clock to believe.
        codec: Video codec.
        crf: Constant rate factor; None: the codec's default.
        gop: Key frame distance; None: the codec's default.
        preset: Encoder preset; None: the codec's default.
        version: Dataset layout.
        task: Task text that overrides all others.
        outcomes: Keep only episodes with these outcomes; empty: all but discarded ones.
        encoder_threads: Threads per encoder; no influence on the content wanted.
    """

    rig: Path | None = None
    map: Path | None = None
    fps: int | None = None
    units: Units = Units.LEROBOT
    action_from: ActionFrom = ActionFrom.COMMAND
    tcp_pose: bool = False
    delta_actions: bool = False
    rewards: bool = False
    split_at_gaps: bool = True
    min_seconds: float = 1.0
    trim_idle_s: float | None = None
    stamps: StampFrom = StampFrom.AUTO
    codec: Codec = Codec.H264
    crf: int | None = None
    gop: int | None = None
    preset: str | None = None
    version: Version = Version.V30
    task: str | None = None
    outcomes: tuple[str, ...] = ()
    encoder_threads: int = field(default=1, compare=False)

    def __post_init__(self) -> None:
        """Check what an encoder or a file would choke on, or silently take for something else.

        Raises:
            OptionError: A value is out of its range.
        """
        if not 0.0 <= self.min_seconds < math.inf:
            raise OptionError("--min-seconds", self.min_seconds, "seconds, 0 or more")
        if self.trim_idle_s is not None and not 0.0 <= self.trim_idle_s < math.inf:
            raise OptionError("--trim-idle", self.trim_idle_s, "seconds, 0 or more")
        if self.fps is not None and self.fps < 1:
            raise OptionError("--fps", self.fps, "1 or more")
        try:
            (self.task or "").encode()
        except UnicodeEncodeError as exc:
            raise OptionError("--task", self.task, "text in UTF-8") from exc
        self._check_map()
        self._check_encoder()

    def _check_map(self) -> None:
        """Refuse what is said of a rig beside a --map (--units states what its values are)."""
        if self.map is None:
            return
        if self.rig is not None:
            raise OptionError("--rig", str(self.rig), "nothing beside --map")
        if self.action_from is not ActionFrom.COMMAND:
            got = self.action_from.value
            raise OptionError("--action-from", got, "nothing beside --map, which names topics")

    def _check_encoder(self) -> None:
        given = {"--crf": self.crf, "--gop": self.gop, "--preset": self.preset}
        if self.codec is Codec.COPY:
            for option, value in given.items():
                if value is not None:
                    raise OptionError(option, value, "nothing: --vcodec copy encodes nothing")
            return
        presets, worst = _ENCODERS[self.codec]
        if self.crf is not None and not 0 <= self.crf <= worst:
            raise OptionError("--crf", self.crf, f"0 to {worst} for {self.codec.value}")
        if self.gop is not None and self.gop < 1:
            raise OptionError("--gop", self.gop, "1 or more")
        if self.preset is not None and self.preset not in presets:
            raise OptionError("--preset", self.preset, "one of " + ", ".join(presets))

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
