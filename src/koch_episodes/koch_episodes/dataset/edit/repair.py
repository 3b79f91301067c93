# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What is sound of a damaged dataset: each episode as far as its rows and images go.

A crash, a full disk or a hand in the files leaves tables that contradict one another. Here nothing
is guessed: a frame is kept where its row says which it is, its numbers are finite and each camera
has its image. Of an episode the longest such run stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from koch_core.errors import KochError
from koch_episodes.dataset.edit.cut import frames_from
from koch_episodes.dataset.edit.options import Repair
from koch_episodes.dataset.edit.pieces import Piece, Plan, StatsFrom, features_of
from koch_episodes.dataset.edit.source import SourceDataset, StoredRows, read_koch
from koch_episodes.dataset.format import Episode, load_info
from koch_episodes.dataset.layout import KOCH, FeatureSpec, data_files
from koch_episodes.dataset.load import MALFORMED, column_array, load_columns, stored_image
from koch_episodes.errors import DatasetFormatError, VideoError

_LEAST = 2  # frames of an episode
_KEYS = ("episode_index", "frame_index", "task_index")


class DamagedDataset(SourceDataset):
    """A dataset of which only what is sound is read; `told` says what is not.

    Raises:
        DatasetFormatError: Not even info.json or the episode table can be read, or the episodes
            were numbered again and their frames not.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.told: list[str] = []
        self.info = load_info(root)
        try:
            listed = sorted(self.info.format.episodes(root, self.info), key=lambda e: e.index)
        except MALFORMED as exc:
            raise DatasetFormatError(root, f"no readable episode table ({exc})", "one") from exc
        files = self._sound_files(listed)
        columns: dict[str, npt.NDArray[Any]] = {key: np.empty(0, np.int64) for key in _KEYS}
        if files:
            columns = load_columns(root, self.info, files, _KEYS)
        self.info.format.check_owners(root, self.info, listed, columns["episode_index"])
        self._stored = StoredRows(files)
        self._stats = lambda index: {}
        self._find(listed, columns)
        self._find_tasks(columns)
        self.koch = {}
        try:
            self.koch = read_koch(root)
        except DatasetFormatError:
            self.told.append(f"{KOCH}: unreadable, left out: units, rig and bags are lost")

    def _sound_files(self, listed: Sequence[Episode]) -> list[Path]:
        wanted = self.info.format.frame_files(self.root, self.info, listed)
        needed = {key for key, spec in self.info.features.items() if not spec.is_video}
        sound = []
        for path in dict.fromkeys(wanted):
            name = path.relative_to(self.root)
            try:
                lacking = needed - set(pq.read_schema(path).names)
            except (OSError, pa.ArrowException) as exc:
                self.told.append(f"{name}: unreadable ({str(exc).splitlines()[0]})")
                continue
            if lacking:
                self.told.append(f"{name}: has no column {', '.join(sorted(lacking))}")
                continue
            sound.append(path)
        for path in data_files(self.root):
            if path not in wanted:
                name = path.relative_to(self.root)
                self.told.append(f"{name}: of no episode in the table, left out")
        return sound

    def _find(self, listed: Sequence[Episode], columns: dict[str, npt.NDArray[Any]]) -> None:
        """Put the rows of each episode in order, each frame once, and note the longest run."""
        owners, steps = columns["episode_index"], columns["frame_index"]
        episodes, parts, start = [], [np.empty(0, np.int64)], 0
        known: set[int] = set()
        for episode in listed:
            if episode.index in known:
                self.told.append(f"episode {episode.index}: twice in the table")
                continue
            known.add(episode.index)
            rows, offset = _longest_run(np.flatnonzero(owners == episode.index), steps)
            length = len(rows)
            if length < _LEAST:
                self.told.append(f"episode {episode.index}: has no frames, left out")
                continue
            if length != episode.length:
                self.told.append(
                    f"episode {episode.index}: {length} consecutive frames, the table says "
                    f"{episode.length}"
                )
            videos = {
                key: replace(place, from_s=place.from_s + offset / self.info.fps)
                for key, place in episode.videos.items()
            }
            episodes.append(
                replace(
                    episode,
                    length=length,
                    from_index=start,
                    to_index=start + length,
                    videos=videos,
                )
            )
            parts.append(rows)
            start += length
        for number in sorted(set(np.unique(owners).tolist()) - known):
            self.told.append(f"episode {number}: frames, but no row in the table, left out")
        self.episodes = tuple(episodes)
        self._places = np.concatenate(parts)

    def _find_tasks(self, columns: dict[str, npt.NDArray[Any]]) -> None:
        """Read the task texts; a number that stands for none gets the one that is left for it."""
        try:
            tasks = list(self.info.format.tasks(self.root))
        except (*MALFORMED, KochError) as exc:
            self.told.append(f"the task table cannot be read ({exc})")
            tasks = []
        before = columns["task_index"][self._places].astype(np.int64)
        index = before.copy()
        named = {
            episode.index: (
                set(np.unique(index[episode.from_index : episode.to_index]).tolist()),
                set(episode.tasks),
            )
            for episode in self.episodes
        }
        known = dict(enumerate(tasks))
        left = _left_texts(named.values(), known)
        for episode in self.episodes:
            part = index[episode.from_index : episode.to_index]
            for number in sorted(named[episode.index][0] - set(known)):
                text = left.get(number)
                if text is None:
                    text = episode.tasks[0] if episode.tasks else ""
                    if len(set(episode.tasks)) > 1:
                        self.told.append(
                            f"episode {episode.index}: its tasks cannot be told apart"
                        )
                self.told.append(f"episode {episode.index}: task number {number}: {text!r}")
                tasks.append(text)
                part[before[episode.from_index : episode.to_index] == number] = len(tasks) - 1
        self.tasks = tuple(tasks)
        self._task_index = index


def _left_texts(
    named: Iterable[tuple[set[int], set[str]]], known: Mapping[int, str]
) -> dict[int, str]:
    """Find the text of each lost task number, where the episodes leave one only.

    Args:
        named: Numbers in the frames of each episode, and the texts that its row names.
        known: Texts of the numbers that are not lost.
    """
    could: dict[int, set[str]] = {}
    for numbers, texts in named:
        free = texts - {known[number] for number in numbers & set(known)}
        for number in numbers - set(known):
            could[number] = could[number] & free if number in could else set(free)
    found: dict[int, str] = {}
    while sure := {number: next(iter(t)) for number, t in could.items() if len(t) == 1}:
        found |= sure
        could = {n: t - set(sure.values()) for n, t in could.items() if n not in sure}
    return found


def repair(options: Repair) -> list[Plan]:
    """Plan a dataset of all that is sound, all numbers and statistics worked out again.

    Raises:
        DatasetFormatError: There is nothing to begin with.
    """
    source = DamagedDataset(options.root)
    pieces = []
    for episode in source.episodes:
        piece = _sound_piece(source, episode)
        if piece is not None:
            pieces.append(piece)
    features = features_of(source)
    return [Plan(options.folder, features, pieces, source.told, stats=StatsFrom.IMAGES)]


def _sound_piece(source: DamagedDataset, episode: Episode) -> Piece | None:
    good = np.ones(episode.length, dtype=np.bool_)
    keys = [key for key, spec in source.features.items() if spec.is_numeric]
    try:
        rows = source.rows(episode, keys)
        for key in keys:
            values = column_array(rows[key], source.features[key].shape)
            if values.dtype.kind == "f":
                good &= np.isfinite(values.reshape(episode.length, -1)).all(axis=1)
    except (*MALFORMED, KochError) as exc:
        source.told.append(f"episode {episode.index}: {exc}, left out")
        return None
    if not good.all():
        source.told.append(f"episode {episode.index}: {int((~good).sum())} frames are not finite")
    for key, place in episode.videos.items():
        try:
            shown = frames_from(place, episode.length, source.info.fps)
        except VideoError as exc:
            source.told.append(f"episode {episode.index}: {exc} Left out")
            return None
        if not shown.all():
            source.told.append(
                f"episode {episode.index}: {key} lacks {int((~shown).sum())} images"
            )
        good &= shown
    for key in (key for key, spec in source.features.items() if _in_table(spec)):
        shown = _whole_images(source, episode, key)
        if not shown.all():
            source.told.append(
                f"episode {episode.index}: {key} has {int((~shown).sum())} damaged images"
            )
        good &= shown
    start, stop = _longest(good)
    if stop - start < _LEAST:
        source.told.append(f"episode {episode.index}: nothing is left of it")
        return None
    return Piece(source, episode, start, stop)


def _in_table(spec: FeatureSpec) -> bool:
    return spec.is_image and not spec.is_video and not spec.is_depth


def _whole_images(source: DamagedDataset, episode: Episode, key: str) -> npt.NDArray[np.bool_]:
    """Tell for each frame whether its cell holds an image of the declared size."""
    cells = source.rows(episode, [key])[key]
    whole = np.zeros(episode.length, dtype=np.bool_)
    for k in range(episode.length):
        try:
            image = stored_image(cells[k].as_py(), source.root, key)
        except DatasetFormatError:
            continue
        whole[k] = image.shape[:2] == source.features[key].shape[:2]
    return whole


def _longest_run(
    rows: npt.NDArray[np.int64], steps: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.int64], int]:
    """Of an episode's rows, return the longest run of consecutive frames and its first number."""
    frames, first = np.unique(steps[rows], return_index=True)
    runs = np.split(np.arange(len(frames)), np.flatnonzero(np.diff(frames) != 1) + 1)
    longest = max(runs, key=len)
    return rows[first][longest], int(frames[longest[0]]) if len(longest) else 0


def _longest(good: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """Return begin and end of the longest run of frames that are good."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], good.astype(np.int8), [0]])))
    runs = [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]
    return max(runs, key=lambda run: run[1] - run[0], default=(0, 0))
