# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What of recorded bags would teach a policy something wrong, before anything is converted.

The checks of a dataset's episodes apply to those of bags as well: joints and commands are taken at
30 Hz. What only a bag can tell comes on top: gaps, clocks, damage, calibrations.
"""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from koch_core.stream import NS_PER_S
from koch_episodes.bag import find_bags
from koch_episodes.convert.columns import CALIBRATION
from koch_episodes.dataset.edit.doctor import (
    Complaint,
    EpisodeLook,
    Values,
    by_worst,
    empty_or_frozen,
    judged,
)
from koch_episodes.dataset.edit.edits import moving_span
from koch_episodes.dataset.format import Episode
from koch_episodes.inspect_bag import BagFacts, TopicFacts, inspect_bag

_HZ = 30.0
_GAP_S = 0.3  # a stream that is silent for longer has stopped
_APART_RAD = 0.15  # of command and joint at rest; a servo under load stays 0.05 rad behind
_STILL_RAD = 0.002  # from sample to sample at 30 Hz
_COMMAND, _STATE = "/joint_command", "/joint_states"


@dataclass
class BagLook(EpisodeLook):
    """What the checks need of one episode of a bag.

    Attributes:
        bag: The bag.
        place: Number of the episode in it, None where it has one only.
        gaps: Topic to the begin and end of its longest gap, [s].
        faults: What is wrong with clocks and files.
        calibrations: Arm to the text of its file.
        apart_rad: Joint to the distance of its command at rest, [rad].
    """

    bag: Path = Path()
    place: int | None = None
    gaps: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    faults: Sequence[str] = ()
    damage: Sequence[str] = ()
    calibrations: Mapping[str, str] = field(default_factory=dict)
    apart_rad: Mapping[str, float] = field(default_factory=dict)

    @property
    def silent_s(self) -> float:
        """See EpisodeLook: a bag has the stamps of all its streams."""
        return max([self.gap_s, *(end - begin for begin, end in self.gaps.values())])

    @property
    def name(self) -> str:
        """The bag, and the number of the episode in it where there are several."""
        return str(self.bag) if self.place is None else f"{self.bag}, episode {self.place}"


def look_at_bags(
    roots: Sequence[Path], *, images: bool = True
) -> tuple[list[BagLook], list[Complaint]]:
    """Look for what is wrong with the episodes of all bags at or below some paths.

    Args:
        roots: Bags and folders of bags; they are compared with one another.
        images: Whether to look at images.

    Returns:
        The episodes in the order of their numbers in complaints; and the complaints, worst first.

    Raises:
        BagError: A path holds no bag.
    """
    looks: list[BagLook] = []
    for bag in find_bags(roots):
        looks += _looks(bag, len(looks), images=images)
    alike: dict[tuple[int, int], list[BagLook]] = defaultdict(list)
    for look in looks:  # those of other rigs are compared among themselves
        alike[look.actions.shape[1], look.states.shape[1]].append(look)
    found = [each for group in alike.values() for each in judged(group, _command)]
    for check in (_gaps, _faults, _damages, _calibrations, _apart):
        found += check(looks)
    return looks, by_worst(_with_bags(each, looks) for each in found)


def _with_bags(complaint: Complaint, looks: Sequence[BagLook]) -> Complaint:
    return replace(complaint, bags=tuple(looks[k].name for k in complaint.episodes))


def bag_shots(look: EpisodeLook) -> list[npt.NDArray[np.uint8]]:
    """A few images of an episode of a bag, of each camera."""
    assert isinstance(look, BagLook)
    facts = inspect_bag(look.bag)
    return [image for topic in facts.topics.values() for image in topic.images]


def _command(edit: str, looks: Sequence[EpisodeLook], *words: str) -> str:
    """The command that edits episodes of bags; where a bag has several, those of the first."""
    mine = [look for look in looks if isinstance(look, BagLook)]
    first = mine[0]
    if first.place is not None:
        numbers = [str(look.place) for look in mine if look.bag == first.bag]
        return shlex.join(
            ["koch", "dataset", edit, str(first.bag), "--episodes", ",".join(numbers), *words]
        )
    bags = dict.fromkeys(str(look.bag) for look in mine if look.place is None)
    return shlex.join(["koch", "dataset", edit, *bags, *words])


# -- looking ------------------------------------------------------------------------------------


def _looks(bag: Path, number: int, *, images: bool) -> list[BagLook]:
    facts = inspect_bag(bag)
    found: list[BagLook] = []
    for place, window in enumerate(facts.windows):
        first, last = facts.span_ns
        first, last = max(first, window.first_ns), min(last, window.end_ns)
        if window.deleted or last <= first:
            continue
        look = _look(facts, number + len(found), first, last)
        look.task, look.place = window.task, place if len(facts.windows) > 1 else None
        look.episode = Episode(
            look.episode.index, len(look.actions), 0, len(look.actions), (), {}, window.outcome
        )
        if images:
            look.images = _image_faults(facts, look, first, last)
        found.append(look)
    return found


def _look(facts: BagFacts, number: int, first: int, last: int) -> BagLook:
    ticks = np.arange(first, last + 1, round(NS_PER_S / _HZ))
    named = {n: t for n, t in sorted(facts.topics.items()) if t.names and len(t.values) > 1}
    commands = {n: t for n, t in named.items() if n.endswith(_COMMAND)}
    states = {
        n: t
        for n, t in named.items()
        if n.endswith(_STATE) and (not commands or n.replace(_STATE, _COMMAND) in commands)
    }
    actions = _table(list((commands or states or named).values()), ticks)
    begin, stop = moving_span(actions, 0)
    custom = facts.custom
    return BagLook(
        Episode(number, len(ticks), 0, len(ticks), (), {}),
        (last - first) / NS_PER_S,
        actions,
        _table(list((states or named).values()), ticks),
        "",
        (begin / _HZ, (len(ticks) - stop) / _HZ),
        bag=facts.path,
        gaps=_gaps_of(facts, first, last),
        faults=facts.clock_faults,
        damage=facts.damage,
        calibrations={k: v for k, v in custom.items() if k.startswith(CALIBRATION)},
        apart_rad=_apart_of(commands, states, ticks),
    )


def _table(topics: Sequence[TopicFacts], ticks: npt.NDArray[np.int64]) -> Values:
    """Values of some topics at some times, linear between samples, shape (T, N)."""
    columns = [np.zeros((len(ticks), 0))]
    for topic in topics:
        order = np.argsort(topic.stamps_ns, kind="stable")
        times = (topic.stamps_ns[order] - ticks[0]).astype(np.float64)
        values = topic.values[order]
        columns += [np.interp(ticks - ticks[0], times, each)[:, None] for each in values.T]
    return np.concatenate(columns, axis=1)


def _gaps_of(facts: BagFacts, first: int, last: int) -> dict[str, tuple[float, float]]:
    found = {}
    for name, topic in facts.topics.items():
        inside = (topic.stamps_ns >= first) & (topic.stamps_ns <= last)
        stamps = np.sort(topic.stamps_ns[inside])
        if not topic.is_measured or len(stamps) < 2:
            continue
        gaps = np.diff(stamps)
        place = int(gaps.argmax())
        if gaps[place] > _GAP_S * NS_PER_S and gaps[place] > 5 * np.median(gaps):
            ends = stamps[place], stamps[place + 1]
            found[name] = (float(ends[0] - first) / NS_PER_S, float(ends[1] - first) / NS_PER_S)
    return found


def _apart_of(
    commands: Mapping[str, TopicFacts],
    states: Mapping[str, TopicFacts],
    ticks: npt.NDArray[np.int64],
) -> dict[str, float]:
    """How far each joint rests from its command; joints that never rest are left out."""
    found: dict[str, float] = {}
    for name, command in commands.items():
        state = states.get(name.replace(_COMMAND, _STATE))
        if state is None or state.names != command.names:
            continue
        wanted, real = _table([command], ticks), _table([state], ticks)
        still = (np.abs(np.diff(wanted, axis=0)) < _STILL_RAD).all(axis=1)
        still &= (np.abs(np.diff(real, axis=0)) < _STILL_RAD).all(axis=1)
        if still.sum() < _HZ / 3:
            continue
        apart = np.median((real - wanted)[1:][still], axis=0)
        arm = name.removesuffix(_COMMAND).strip("/")
        found |= {f"{arm}/{joint}": float(d) for joint, d in zip(state.names, apart, strict=True)}
    return found


def _image_faults(facts: BagFacts, look: BagLook, first: int, last: int) -> list[str]:
    faults = []
    for name, topic in facts.topics.items():
        pairs = zip(topic.image_stamps_ns, topic.images, strict=True)
        shown = [(stamp, image) for stamp, image in pairs if first <= stamp <= last]
        places = [round((stamp - first) / NS_PER_S * _HZ) for stamp, _ in shown]
        images = [image for _, image in shown]
        faults += [f"{name}: {what}" for what in empty_or_frozen(images, places, look.states)]
        if topic.images == [] and topic.broken:
            faults.append(f"{name}: {next(iter(topic.broken))}")
    return faults


# -- checks of bags alone -----------------------------------------------------------------------


def _numbers(looks: Sequence[BagLook]) -> tuple[int, ...]:
    return tuple(look.episode.index for look in looks)


def _bags(looks: Sequence[BagLook]) -> tuple[str, ...]:
    return tuple(str(look.bag) for look in looks)


def _gaps(looks: Sequence[BagLook]) -> Iterator[Complaint]:
    for look in looks:
        if not look.gaps:
            continue
        topic, (begin, end) = max(look.gaps.items(), key=lambda item: item[1][1] - item[1][0])
        text = f"{look.bag.name}: {topic} is silent for {end - begin:.2f} s at {begin:.2f} s"
        place = look.place or 0
        longer = f"{place}:0-{begin:.3f}" if begin > look.seconds - end else f"{place}:{end:.3f}-"
        remedy = shlex.join(["koch", "dataset", "trim", str(look.bag), "--keep", longer])
        weight = min(begin, look.seconds - end) + end - begin
        yield Complaint("gap", weight, _numbers([look]), text, remedy)


def _faults(looks: Sequence[BagLook]) -> Iterator[Complaint]:
    alike: dict[str, list[BagLook]] = defaultdict(list)
    for look in looks:
        for fault in look.faults:
            alike[fault.partition(":")[0]].append(look)
    for topic, mine in alike.items():
        fault = next(f for f in mine[0].faults if f.startswith(topic))
        text = f"clock of {len(mine)} episode(s): {fault}"
        bags = dict.fromkeys(_bags(mine))
        remedy = shlex.join(["koch", "convert", *bags, "--stamps", "receive", "--out", "NEW"])
        yield Complaint("clock", sum(look.seconds for look in mine), _numbers(mine), text, remedy)


def _damages(looks: Sequence[BagLook]) -> Iterator[Complaint]:
    mine = [look for look in looks if look.damage]
    if mine:
        text = f"{len(mine)} episode(s) are damaged; {mine[0].bag.name}: {mine[0].damage[0]}"
        remedy = _command("delete", mine)
        weight = 2 * sum(look.seconds for look in mine)
        yield Complaint("damage", weight, _numbers(mine), text, remedy)


def _calibrations(looks: Sequence[BagLook]) -> Iterator[Complaint]:
    """Sessions between which an arm was calibrated again."""
    alike: dict[tuple[tuple[str, str], ...], list[BagLook]] = defaultdict(list)
    for look in looks:
        if look.calibrations:
            alike[tuple(sorted(look.calibrations.items()))].append(look)
    if len(alike) < 2:
        return
    most = max(alike, key=lambda key: len(alike[key]))
    mine = [look for key, group in alike.items() if key != most for look in group]
    arms = {
        key.removeprefix(CALIBRATION)
        for look in mine
        for key, text in look.calibrations.items()
        if dict(most).get(key) != text
    }
    listed = ", ".join(sorted(arms))
    text = (
        f"{len(mine)} episode(s) were recorded with another calibration of {listed} "
        "than most; in LeRobot's units one number then means two poses"
    )
    bags = dict.fromkeys(_bags(mine))
    remedy = shlex.join(["koch", "convert", *bags, "--out", "OTHER"])
    weight = sum(look.seconds for look in mine)
    yield Complaint("calibration", weight, _numbers(mine), text, remedy)


def _apart(looks: Sequence[BagLook]) -> Iterator[Complaint]:
    mine = [look for look in looks if _furthest(look)[1] > _APART_RAD]
    if mine:
        joint, apart = max((_furthest(look) for look in mine), key=lambda item: item[1])
        text = (
            f"joints of {len(mine)} episode(s) rest apart from their commands, "
            f"{joint} by {apart:.2f} rad: a load, a slipped horn, or another calibration"
        )
        arm = joint.partition("/")[0]
        remedy = shlex.join(["koch", "calibrate", arm])
        weight = sum(look.seconds for look in mine)
        yield Complaint("offset", weight, _numbers(mine), text, remedy)


def _furthest(look: BagLook) -> tuple[str, float]:
    found = max(look.apart_rad.items(), key=lambda item: abs(item[1]), default=("", 0.0))
    return found[0], abs(found[1])
