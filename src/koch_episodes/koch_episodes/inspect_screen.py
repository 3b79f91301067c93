# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What `koch inspect` prints and draws of a bag or a dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from koch_core.errors import KochError
from koch_core.options import OptionError
from koch_core.stream import NS_PER_S
from koch_core.terminal import (
    Column,
    clip,
    limit,
    say,
    table,
)
from koch_core.working import Working
from koch_episodes.bag import is_bag
from koch_episodes.dataset import LeRobotDatasetReader, validate_dataset
from koch_episodes.dataset.findings import Report
from koch_episodes.dataset.format import Episode
from koch_episodes.dataset.recorded import how_made
from koch_episodes.decode import NAMED_TYPES
from koch_episodes.errors import DatasetError
from koch_episodes.goal_trace import POLICY_TOPIC, latency_lines, read_traces
from koch_episodes.inspect_bag import THUMBNAILS, BagFacts, Verdict, inspect_bag
from koch_episodes.inspect_plot import Curve, Following, Shot, draw, draw_latency

_MOST_EPISODES = 20
_STATE, _COMMAND = "/joint_states", "/joint_command"
# What the axes of a dataset's joints say, by the units that it was converted to.
_UNITS = {
    "lerobot": "±100, gripper 0 to 100",
    "degrees": "deg, gripper 0 to 100",
    "radians": "rad",
}
_TOPIC_COLUMNS = (
    Column("topic"),
    Column("count", 1, right=True),
    Column("Hz", 0, right=True),
    Column("gap ms", 3, right=True),
    Column("max ms", 2, right=True),
    Column("jitter", 4, right=True),
    Column("type", 6),
    Column("what", 5),
)


def _print_bag(facts: BagFacts) -> None:
    say(f"bag {facts.path}")
    for key in ("koch.task", "koch.index", "koch.outcome", "koch.fingerprint"):
        if key in facts.custom:
            say(f"  {key.removeprefix('koch.')}: {facts.custom[key]}")
    if len(facts.windows) > 1:
        say(f"  episodes by its events: {len(facts.windows)}")
    for line in facts.marked:
        say(f"  {line}")
    rows = []
    for name, topic in facts.topics.items():
        s = topic.stream
        gaps = (f"{1e3 * gap:.2f}" for gap in (s.median_gap_s, s.max_gap_s, s.jitter_s))
        rows.append(
            [
                name,
                str(s.count),
                f"{s.rate_hz:.2f}",
                *gaps,
                topic.type.split("/")[-1],
                topic.detail,
            ]
        )
    for line in table(_TOPIC_COLUMNS, rows, limit()):
        say(line)
    for line in facts.damage:
        say(f"  damage: {line}")
    say(f"verdict: {facts.verdict.value}" + "".join(f"\n  {r}" for r in facts.reasons))


def _working(what: str) -> Working:
    return Working(f"koch inspect: {what}", in_logs=False, at_once=what == "drawing")


def _inspect_bag(path: Path, image: Path | None) -> int:
    with _working("reading"):
        facts = inspect_bag(path)
    _print_bag(facts)
    if image is not None:
        with _working("drawing"):
            _draw_bag(facts, image)
        say(f"drawn: {image}")
    return 1 if facts.verdict is Verdict.BAD else 0


def _draw_bag(facts: BagFacts, out: Path) -> None:
    begin, _ = facts.span_ns
    measured = {n: t for n, t in facts.topics.items() if t.names or t.images}
    curves = {}
    for name, topic in measured.items():
        if topic.names and len(topic.values):
            order = np.argsort(topic.stamps_ns, kind="stable")
            times_s = (topic.stamps_ns[order] - begin) / NS_PER_S
            unit = "rad" if topic.type == NAMED_TYPES[0] else ""
            curves[name] = Curve(name, times_s, topic.values[order], topic.names, unit)
    pairs = {
        name: f"{name.removesuffix(_STATE)}{_COMMAND}" for name in curves if name.endswith(_STATE)
    }
    draw(
        out,
        f"{facts.path.name}: {facts.verdict.value}",
        {name: t.stamps_ns for name, t in measured.items()},
        _paired(curves, pairs),
        {
            name: [
                Shot((stamp_ns - begin) / NS_PER_S, image)
                for stamp_ns, image in zip(t.image_stamps_ns, t.images, strict=True)
            ]
            for name, t in measured.items()
            if t.images
        },
    )


def _paired(curves: Mapping[str, Curve], pairs: Mapping[str, str]) -> list[Curve | Following]:
    """Put each command over its state, where both are of the same joints; the rest as it is."""
    found: list[Curve | Following] = []
    left = dict(curves)
    for state, command in pairs.items():
        if state in left and command in left and _alike(left[state], left[command]):
            found.append(Following(left.pop(state), left.pop(command)))
    return [*found, *left.values()]


def _alike(one: Curve, other: Curve) -> bool:
    return tuple(one.names) == tuple(other.names) and one.unit == other.unit


def inspect_path(
    path: Path, image: Path | None, *, episode: int, episodes: str | None = None, validate: bool
) -> int:
    """Tell what a bag or dataset holds; 1 where something is wrong with it.

    Args:
        path: Of either.
        image: What is drawn; None for nothing.
        episode: Of a dataset, the one to draw.
        episodes: Of a dataset, numbers or an expression: what to list; the first is drawn.
        validate: Check a dataset by every rule.

    Raises:
        KochError: It is neither bag nor dataset, or cannot be read.
    """
    if not (is_bag(path) or (path / "meta").is_dir()):
        _refuse(path)
    if image is not None:  # before the reading, which takes its time
        image.parent.mkdir(parents=True, exist_ok=True)
    if (path / "meta" / "info.json").is_file() or not is_bag(path):
        shown = Shown(episode, episodes)
        return _inspect_dataset(path, image, shown, validate=validate)
    if episodes is not None:
        raise OptionError("--episodes", episodes, "nothing for a bag, all of which is shown")
    return _inspect_bag(path, image)


def inspect_latency(path: Path, image: Path | None) -> int:
    """Tell the way of a policy's goals from camera to bus; 1 where a bag has none.

    Args:
        path: Of a bag.
        image: What is drawn; None for nothing.

    Raises:
        KochError: It is no bag, or cannot be read.
    """
    if not is_bag(path):
        _refuse(path)
    with _working("reading"):
        found = read_traces(path)
    for arm, traces in found.items():
        say(f"bag {path}: {len(traces.total_s())} goals of the policy on {arm or 'no arm'}")
        for line in latency_lines(traces, limit()):
            say(line)
    if not found:
        say(f"bag {path}: no policy told the way of its goals ({POLICY_TOPIC})")
        return 1
    if image is not None:
        image.parent.mkdir(parents=True, exist_ok=True)
        draw_latency(image, path.name, {arm: traces.stages_s() for arm, traces in found.items()})
        say(f"drawn: {image}")
    return 0


def _refuse(path: Path) -> NoReturn:
    got = "a folder without either" if path.is_dir() else "a file" if path.exists() else "nothing"
    raise KochError(
        f"{path}: got {got}, expected a rosbag2 bag (metadata.yaml, *.mcap or *.db3) or a LeRobot "
        "dataset (meta/info.json)."
    )


@dataclass(frozen=True)
class Shown:
    """Which episodes of a dataset are shown.

    Attributes:
        episode: Place of the one that is drawn.
        selection: Numbers or an expression: those that are listed, the first of which is drawn.
    """

    episode: int = 0
    selection: str | None = None

    def of(self, reader: LeRobotDatasetReader) -> tuple[Sequence[Episode], int]:
        """The episodes to list, and the place of the one to draw."""
        if self.selection is None:
            return reader.episodes, self.episode
        chosen = reader.chosen(self.selection)
        return chosen, reader.episodes.index(chosen[0])


def _print_dataset(reader: LeRobotDatasetReader, episodes: Sequence[Episode]) -> None:
    info = reader.info
    seconds = len(reader) / reader.fps
    say(
        f"dataset {reader.root}: LeRobot {info.format.name}, robot {info.robot_type}, "
        f"{reader.fps} frames/s"
    )
    say(
        f"  {len(reader.episodes)} episodes, {len(reader)} frames, {seconds:.1f} s, "
        f"{len(reader.tasks)} task(s)"
    )
    for key, spec in reader.features.items():
        codec = (spec.info or {}).get("video.codec", "")
        names = "" if spec.is_image or not spec.names else " ".join(spec.names)
        shape = "x".join(map(str, spec.shape))
        say(_clipped(f"  {key:32s} {spec.dtype:8s} {shape:12s} {codec}{names}".rstrip()))
    for task in reader.tasks:
        say(f"  task: {task!r}")
    for episode in episodes[:_MOST_EPISODES]:
        say(
            f"  episode {episode.index}: {episode.length} frames, "
            f"{episode.length / reader.fps:.2f} s"
        )
    if len(episodes) > _MOST_EPISODES:
        say(f"  ... and {len(episodes) - _MOST_EPISODES} more")


def _draw_dataset(reader: LeRobotDatasetReader, number: int, out: Path) -> None:
    if not 0 <= number < len(reader.episodes):
        raise KochError(
            f"--episode {number}: the dataset has episodes 0..{len(reader.episodes) - 1}."
        )
    episode = reader.episode(number)
    draw(
        out,
        f"{reader.root.name}, episode {number}: {' / '.join(episode.tasks)}",
        {},
        _curves_of(reader, episode),
        _shots_of(reader, episode),
    )


def _curves_of(reader: LeRobotDatasetReader, episode: Episode) -> list[Curve | Following]:
    rows = slice(episode.from_index, episode.to_index)
    times_s = np.arange(episode.length) / reader.fps
    unit, pairs = "as stored", {"observation.state": "action"}
    try:
        unit = _UNITS.get(how_made(reader.root).units, unit)
    except DatasetError:  # actions are differences: nothing to lay over a state
        pairs = {}
    curves = {
        key: Curve(
            key,
            times_s,
            reader.column(key)[rows].reshape(episode.length, -1),
            spec.names or (key,),
            "" if key.endswith("environment_state") else unit,
        )
        for key, spec in reader.features.items()
        if spec.is_numeric and key.split(".")[0] in ("observation", "action")
    }
    return _paired(curves, pairs)


def _shots_of(reader: LeRobotDatasetReader, episode: Episode) -> dict[str, list[Shot]]:
    count = min(THUMBNAILS, episode.length)
    places = np.linspace(episode.from_index, episode.to_index - 1, count).round().astype(int)
    return {
        key: [
            Shot((place - episode.from_index) / reader.fps, reader.image(key, int(place)))
            for place in places
        ]
        for key in reader.image_keys
    }


def _clipped(line: str) -> str:
    """A line that a terminal shows as one."""
    width = limit()
    return line if width is None else clip(line, width)


def _print_report(report: Report) -> None:
    for finding in report.findings:
        say(f"  {finding}")
    errors = sum(1 + found.more for found in report.errors)
    say("valid: LeRobot can load it" if report.ok else f"not valid: {errors} error(s)")


def _inspect_dataset(path: Path, image: Path | None, shown: Shown, *, validate: bool) -> int:
    with _working("reading"):
        report = validate_dataset(path, decode=True) if validate else None
    try:
        reader = LeRobotDatasetReader(path)
        listed, drawn = shown.of(reader)
        _print_dataset(reader, listed)
        if image is not None:
            with _working("drawing"):
                _draw_dataset(reader, drawn, image)
            say(f"drawn: {image}")
    except KochError:
        if report is None:
            raise
    if report is not None:
        _print_report(report)
        return 0 if report.ok else 1
    return 0
