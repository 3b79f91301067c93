# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What of a dataset would teach a policy something wrong, each with the command that repairs it.

The validator tells whether programs can read a dataset; here the demonstrations are judged. Most
checks compare an episode with the others, so that no unit has to be known.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shlex
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from koch_core.errors import DecodeError
from koch_core.yuv import rgb_of_frame
from koch_episodes.dataset.edit.cut import frames_of, plan_cut
from koch_episodes.dataset.edit.edits import moving_frames
from koch_episodes.dataset.edit.source import SourceDataset
from koch_episodes.dataset.format import Episode
from koch_episodes.dataset.load import column_array, stored_image
from koch_episodes.dataset.validate import validate_dataset
from koch_episodes.errors import DatasetFormatError, VideoError

Values = npt.NDArray[np.float64]
_IDLE_S = 1.0  # a rest at an end that is worth cutting
_FROZEN_S = 0.5  # a camera that shows one image for so long while the arm moves
_LOOKS = 12  # places of an episode whose images are looked at
_SAME = 0.05  # mean difference of images in grey levels, below which they are one image
_DARK, _FLAT = 8.0, 2.0  # mean and spread of an image without content, in grey levels
_MUCH = 5.0  # times the usual: jerk, or the length of an episode
_GAP_S = 0.3  # values that stand exactly still for longer, and then leap, were held over a gap
_LEAP = 3.0  # times a fast step, behind a gap
_JUMP = 12.0  # times the usual fast step of an action
_SHOTS = 4  # images of an episode on a page
_FEW = 4  # episodes that have a "usual"


@dataclass(frozen=True)
class Complaint:
    """One thing that is wrong with a dataset.

    Attributes:
        kind: A word for programs.
        weight: Seconds of demonstration that suffer; the order of the list.
        episodes: Which.
        text: What was found.
        remedy: The command that repairs it.
        bags: Of each episode, where bags are judged.
    """

    kind: str
    weight: float
    episodes: tuple[int, ...]
    text: str
    remedy: str
    bags: tuple[str, ...] = ()


@dataclass
class EpisodeLook:
    """What the checks need of one episode."""

    episode: Episode
    seconds: float
    actions: Values
    states: Values
    task: str
    ends: tuple[float, float]
    images: list[str] = field(default_factory=list)

    @property
    def jerk(self) -> float:
        """Mean size of the third difference of the actions, as a share of their range."""
        if len(self.actions) < 4:
            return 0.0
        spread = np.ptp(self.actions, axis=0).max(initial=0.0)
        return float(np.abs(np.diff(self.actions, 3, axis=0)).mean() / spread) if spread else 0.0

    def offset(self, ranges: Values) -> float:
        """Largest median difference of action and state, as a share of a state's range."""
        if self.actions.shape != self.states.shape or not self.actions.size:
            return 0.0
        apart = np.abs(np.median(self.actions - self.states, axis=0))
        return float((apart[ranges > 0] / ranges[ranges > 0]).max(initial=0.0))

    @property
    def gap_s(self) -> float:
        """The longest gap that a stream left: its last value stands, and then leaps [s]."""
        longest = max(map(_longest_hold, (self.actions, self.states)))
        gap_s = longest * self.seconds / max(1, len(self.actions))
        return gap_s if gap_s > _GAP_S else 0.0

    @property
    def silent_s(self) -> float:
        """The longest time in which a stream said nothing, where that can be told [s]."""
        return self.gap_s


def _longest_hold(values: Values) -> int:
    """Frames for which all values stand exactly still before they leap."""
    steps = np.abs(np.diff(values, axis=0)).max(axis=1, initial=0.0)
    moves = np.flatnonzero(steps)
    if moves.size < 2:  # a stream that stands still all the time has no gap that could be told
        return 0
    fast = float(np.quantile(steps[moves], 0.9))
    held = np.diff(moves, prepend=-1)
    leaps = steps[moves] > _LEAP * fast
    return int(held[leaps].max(initial=0))


Command = Callable[..., str]
"""Edit, episodes and more words to the command that does it."""
Check = Callable[[Command, Sequence[EpisodeLook]], Iterator[Complaint]]


def examine(root: Path, *, images: bool = True) -> list[Complaint]:
    """Look for what is wrong with the demonstrations of a dataset, the worst first.

    Args:
        root: Dataset folder.
        images: Whether to decode some images of each episode.

    Raises:
        DatasetFormatError: It is no readable dataset.
    """
    return look_at(root, images=images)[1]


def look_at(root: Path, *, images: bool = True) -> tuple[list[EpisodeLook], list[Complaint]]:
    """Return the episodes that can be read, and what `examine` says."""
    found = list(_unsound(root))
    try:
        source = SourceDataset(root)
    except DatasetFormatError:
        if found:
            return [], found
        raise
    looks = [_look(source, episode, images=images) for episode in source.episodes]

    def command(edit: str, mine: Sequence[EpisodeLook], *words: str) -> str:
        numbers = ",".join(str(look.episode.index) for look in mine)
        return _command(edit, root, "--episodes", numbers, *words, "--in-place")

    return looks, by_worst([*found, *judged(looks, command)])


def judged(looks: Sequence[EpisodeLook], command: Command) -> list[Complaint]:
    """What is wrong with some episodes that can be compared: their vectors are of one length."""
    return [complaint for check in _CHECKS for complaint in check(command, looks)]


def by_worst(found: Iterable[Complaint]) -> list[Complaint]:
    """Put complaints in order, the worst first."""
    return sorted(found, key=lambda complaint: -complaint.weight)


@dataclass(frozen=True)
class EpisodeQuality:
    """Figures of one episode, to be compared with those of the others.

    Attributes:
        episode: Its number; of bags their place in the order in which they were given.
        seconds: Length [s].
        jerk: Times the usual jerk of the dataset's episodes; 1 where there is none to compare.
        idle_fraction: Part of it that rests at its ends.
        offset_fraction: Largest median difference of action and state, as part of a joint's range.
        gap_s: Longest gap of a stream, [s]; in a dataset its last value was held meanwhile.
        complaints: Texts of what `examine` says of it.
        weight: Seconds of it that suffer.
    """

    episode: int
    seconds: float
    jerk: float
    idle_fraction: float
    offset_fraction: float
    gap_s: float
    complaints: tuple[str, ...]
    weight: float


def rank(root: Path, *, images: bool = False) -> list[EpisodeQuality]:
    """Put the episodes of a dataset in order, the most doubtful first.

    Raises:
        DatasetFormatError: It is no readable dataset.
    """
    return ranked(*look_at(root, images=images))


def ranked(looks: Sequence[EpisodeLook], complaints: Sequence[Complaint]) -> list[EpisodeQuality]:
    """The same of episodes that were looked at, and of what was said of them."""
    usual = float(np.median([look.jerk for look in looks])) if looks else 0.0
    # Ranges over all episodes: one in which the arm stands still has none of its own.
    ranges: dict[int, Values] = {}
    for look in looks:
        mine, width = np.ptp(look.states, axis=0), look.states.shape[1]
        ranges[width] = np.maximum(mine, ranges.get(width, mine))
    found = []
    for look in looks:
        mine = [item for item in complaints if look.episode.index in item.episodes]
        found.append(
            EpisodeQuality(
                look.episode.index,
                round(look.seconds, 2),
                round(look.jerk / usual, 2) if usual else 1.0,
                round(sum(look.ends) / look.seconds, 3) if look.seconds else 0.0,
                round(look.offset(ranges[look.states.shape[1]]), 3),
                round(look.silent_s, 2),
                tuple(f"{item.kind}: {item.text}" for item in mine),
                round(sum(item.weight / len(item.episodes) for item in mine), 3),
            )
        )
    return sorted(found, key=lambda item: (-item.weight, -item.jerk))


def _unsound(root: Path) -> Iterator[Complaint]:
    if errors := validate_dataset(root).errors:
        text = (
            f"{len(errors)} rule(s) of the format are broken; {errors[0].where}: {errors[0].text}"
        )
        yield Complaint("format", 1e9, (), text, _command("repair", root, "--out", "NEW"))


def _look(source: SourceDataset, episode: Episode, *, images: bool) -> EpisodeLook:
    fps = source.info.fps
    first, last = moving_frames(source, episode, 0)
    look = EpisodeLook(
        episode,
        episode.length / fps,
        _vectors(source, episode, "action"),
        _vectors(source, episode, "observation.state"),
        source.tasks_of(episode)[0],
        (first / fps, (episode.length - last) / fps),
    )
    if images:
        for key, spec in source.features.items():
            if spec.is_image and not spec.is_depth:
                look.images += _image_faults(source, episode, key, look)
    return look


def _vectors(source: SourceDataset, episode: Episode, key: str) -> Values:
    spec = source.features.get(key)
    if spec is None or not spec.is_numeric:
        return np.zeros((episode.length, 0))
    column = source.rows(episode, [key])[key]
    return column_array(column, spec.shape).reshape(episode.length, -1).astype(np.float64)


def _image_faults(
    source: SourceDataset, episode: Episode, key: str, look: EpisodeLook
) -> list[str]:
    """Look at pairs of images; each pair lies as far apart as a camera may be frozen."""
    apart = max(1, round(_FROZEN_S * source.info.fps))
    if episode.length <= apart:
        return []
    places = np.unique(np.linspace(0, episode.length - 1 - apart, _LOOKS).astype(int))
    wanted = sorted({*places.tolist(), *(places + apart).tolist()})
    try:
        shown = _images(source, episode, key, wanted)
    except (VideoError, DecodeError, DatasetFormatError) as exc:
        return [f"{key}: {exc}"]
    faults = []
    empty = [k for k in wanted if _is_empty(shown[k])]
    if empty:
        faults.append(f"{key}: {len(empty)} of {len(wanted)} images looked at show nothing")
    moves = np.ptp(look.states, axis=0).max(initial=0.0)
    frozen = 0
    for k in places.tolist():
        moved = np.ptp(look.states[k : k + apart + 1], axis=0).max(initial=0.0)
        same = np.abs(shown[k].astype(np.int16) - shown[k + apart]).mean() < _SAME
        frozen += bool(same and moved > 0.05 * moves > 0 and k not in empty)
    if frozen:
        faults.append(f"{key}: stands still {frozen} of {len(places)} times while the arm moves")
    return faults


def _is_empty(image: npt.NDArray[np.uint8]) -> bool:
    return bool(image.mean() < _DARK or image.std() < _FLAT)


def empty_or_frozen(
    images: Sequence[npt.NDArray[np.uint8]], places: Sequence[int], states: Values
) -> Iterator[str]:
    """Say what is wrong with a few images of an episode, taken at some frames of it."""
    if empty := sum(map(_is_empty, images)):
        yield f"{empty} of {len(images)} images looked at show nothing"
    moves = np.ptp(states, axis=0).max(initial=0.0) if len(states) else 0.0
    frozen = 0
    for k in range(1, len(images)):
        moved = np.ptp(states[places[k - 1] : places[k] + 1], axis=0).max(initial=0.0)
        same = np.abs(images[k].astype(np.int16) - images[k - 1]).mean() < _SAME
        frozen += bool(same and moved > 0.05 * moves > 0 and not _is_empty(images[k]))
    if frozen:
        yield f"stands still {frozen} of {len(images) - 1} times while the arm moves"


def _images(
    source: SourceDataset, episode: Episode, key: str, wanted: Sequence[int]
) -> dict[int, npt.NDArray[np.uint8]]:
    spec = source.features[key]
    if not spec.is_video:
        cells = source.rows(episode, [key])[key]
        where = f"{source.root}, episode {episode.index}"
        return {k: stored_image(cells[k].as_py(), where, f"{key!r} of frame {k}") for k in wanted}
    numbers = plan_cut(episode.videos[key], 0, episode.length, source.info.fps, spec.info).numbers
    frames = frames_of(episode.videos[key].path, tuple(numbers[k] for k in wanted))
    return {k: rgb_of_frame(frame) for k, (frame, _) in zip(wanted, frames, strict=True)}


def dataset_shots(root: Path) -> Callable[[EpisodeLook], list[npt.NDArray[np.uint8]]]:
    """Return what takes a few images of an episode, of each camera; none where they are broken."""
    source = SourceDataset(root)

    def shots(look: EpisodeLook) -> list[npt.NDArray[np.uint8]]:
        found: list[npt.NDArray[np.uint8]] = []
        places = np.unique(np.linspace(0, look.episode.length - 1, _SHOTS).astype(int)).tolist()
        for key, spec in source.features.items():
            if spec.is_image and not spec.is_depth:
                with contextlib.suppress(VideoError, DecodeError, DatasetFormatError):
                    found += _images(source, look.episode, key, places).values()
        return found

    return shots


# -- checks -----------------------------------------------------------------------------------


def _numbers(looks: Sequence[EpisodeLook]) -> tuple[int, ...]:
    return tuple(look.episode.index for look in looks)


def _command(edit: str, root: Path, *words: str) -> str:
    return shlex.join(["koch", "dataset", edit, str(root), *words])


def _seconds(looks: Sequence[EpisodeLook]) -> float:
    return sum(look.seconds for look in looks)


def _complaint(
    command: Command,
    kind: str,
    looks: Sequence[EpisodeLook],
    text: str,
    edit: Sequence[str] = ("delete",),
    lost_s: float | None = None,
) -> Complaint:
    """What is said of some episodes; their whole length is at stake where nothing else is said."""
    remedy = command(edit[0], looks, *edit[1:])
    lost_s = _seconds(looks) if lost_s is None else lost_s
    return Complaint(kind, lost_s, _numbers(looks), text, remedy)


def _duplicates(command: Command, looks: Sequence[EpisodeLook]) -> Iterator[Complaint]:
    same: dict[str, list[EpisodeLook]] = defaultdict(list)
    for look in looks:
        data = np.ascontiguousarray(np.concatenate([look.actions, look.states], axis=1))
        if data.size and np.ptp(data, axis=0).any():
            same[hashlib.sha256(data.tobytes()).hexdigest()].append(look)
    again = [look for group in same.values() for look in group[1:]]
    if again:
        text = f"{len(again)} episode(s) have the same numbers as another one"
        yield _complaint(command, "duplicate", again, text, lost_s=2 * _seconds(again))


def _rests(command: Command, looks: Sequence[EpisodeLook]) -> Iterator[Complaint]:
    mine = [look for look in looks if max(look.ends) > _IDLE_S]
    if mine:
        total = sum(sum(look.ends) for look in mine)
        text = f"{len(mine)} episode(s) begin or end with rests, {total:.1f} s in all"
        yield _complaint(command, "idle", mine, text, ("trim", "--idle"), total)


def _gaps(command: Command, looks: Sequence[EpisodeLook]) -> Iterator[Complaint]:
    mine = [look for look in looks if look.gap_s]
    if mine:
        worst = max(mine, key=lambda look: look.gap_s)
        text = (
            f"joints of {len(mine)} episode(s) stand still and then leap, as over a gap; episode "
            f"{worst.episode.index} for {worst.gap_s:.2f} s"
        )
        yield Complaint("gap", _seconds(mine), _numbers(mine), text, command("delete", mine))


def _images_broken(command: Command, looks: Sequence[EpisodeLook]) -> Iterator[Complaint]:
    mine = [look for look in looks if look.images]
    if mine:
        first = f"{mine[0].images[0]} (episode {mine[0].episode.index})"
        text = f"images of {len(mine)} episode(s): {first}"
        yield _complaint(command, "images", mine, text, lost_s=2 * _seconds(mine))


def _jumps(command: Command, looks: Sequence[EpisodeLook]) -> Iterator[Complaint]:
    """Steps of an action far beyond the fast ones of all episodes."""
    steps = [np.abs(np.diff(look.actions, axis=0)) for look in looks]
    usual = np.quantile(np.concatenate(steps), 0.99, axis=0) if steps else np.zeros(0)
    mine = [
        look
        for look, mine in zip(looks, steps, strict=True)
        if mine.size and bool(((mine > _JUMP * usual) & (usual > 0)).any())
    ]
    if mine:
        text = (
            f"actions of {len(mine)} episode(s) jump by over {_JUMP:g} times the usual fast step"
        )
        yield _complaint(command, "jump", mine, text)


def _unusual(
    command: Command, looks: Sequence[EpisodeLook], kind: str, values: Sequence[float], what: str
) -> Iterator[Complaint]:
    usual = float(np.median(values)) if len(values) >= _FEW else 0.0
    mine = [
        look for look, value in zip(looks, values, strict=True) if usual and value > _MUCH * usual
    ]
    if mine:
        text = f"{len(mine)} episode(s) are over {_MUCH:g} times as {what} as usual"
        yield _complaint(command, kind, mine, text)


def _jerky(command: Command, looks: Sequence[EpisodeLook]) -> Iterator[Complaint]:
    yield from _unusual(command, looks, "jerk", [look.jerk for look in looks], "jerky")


def _long(command: Command, looks: Sequence[EpisodeLook]) -> Iterator[Complaint]:
    yield from _unusual(command, looks, "length", [look.seconds for look in looks], "long")


def _offsets(command: Command, looks: Sequence[EpisodeLook]) -> Iterator[Complaint]:
    """Episodes in which action and state differ at rest by other amounts: another calibration."""
    fit = [
        look
        for look in looks
        if look.actions.shape == look.states.shape and look.actions.size and len(look.actions) > 1
    ]
    if len(fit) < _FEW:
        return
    offsets = np.stack([np.median(look.actions - look.states, axis=0) for look in fit])
    spread = np.stack([np.ptp(look.states, axis=0) for look in fit]).max(axis=0)
    off = np.abs(offsets - np.median(offsets, axis=0))
    slack = _MUCH * np.maximum(np.median(off, axis=0), 0.01 * spread)
    mine = [look for look, row in zip(fit, off, strict=True) if bool((row > slack).any())]
    if mine:
        text = (
            f"action and state of {len(mine)} episode(s) are apart by other amounts than in the "
            "others, as after another calibration"
        )
        yield _complaint(command, "calibration", mine, text)


def _labels(command: Command, looks: Sequence[EpisodeLook]) -> Iterator[Complaint]:
    """Task texts that differ only in case, spaces or marks."""
    alike: dict[str, dict[str, list[EpisodeLook]]] = defaultdict(lambda: defaultdict(list))
    for look in looks:
        alike[re.sub(r"\W+", "", look.task.casefold())][look.task].append(look)
    for texts in alike.values():
        most = max(texts, key=lambda text: len(texts[text]))
        for text, mine in texts.items():
            if text != most:
                said = f"task {text!r} of {len(mine)} episode(s) is written {most!r} elsewhere"
                relabel = ("relabel", "--rename", f"{text}={most}")
                yield _complaint(command, "label", mine, said, relabel)


_CHECKS: tuple[Check, ...] = (
    _duplicates,
    _images_broken,
    _rests,
    _gaps,
    _jumps,
    _jerky,
    _long,
    _offsets,
    _labels,
)


def to_json(complaints: Sequence[Complaint]) -> list[dict[str, Any]]:
    """Return plain values."""
    return [
        {**vars(each), "episodes": list(each.episodes), "bags": list(each.bags)}
        for each in complaints
    ]
