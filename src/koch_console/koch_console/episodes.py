# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Recorded episodes for the page: list, first image, one episode as curves and images. No ROS.

A browser names an episode; only names that were listed are looked up, so that no name is a path.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from koch_core.errors import DecodeError, KochError
from koch_episodes import cdr
from koch_episodes.bag import open_bag
from koch_episodes.bag.marks import Mark, Marks, add_marks, load_marks, marks_file, undo_marks
from koch_episodes.bag.metadata import FILE_NAME, read_information
from koch_episodes.dataset.edit.options import Delete, Relabel, Trim
from koch_episodes.dataset.edit.pending import PendingEdit
from koch_rig.joints import plain_joints

_IMAGE = "sensor_msgs/msg/CompressedImage"
_JOINTS = "sensor_msgs/msg/JointState"
_MOST_LISTED = 1000
_MOST_RANKED = 200
_KEPT_FIRST = 300
_KEPT_EPISODES = 2  # of a minute with two cameras: some 100 MB
_CURVE_STEP_S = 1.0 / 50.0


@dataclass
class Film:
    """Images of one camera, one behind the other, and where each begins.

    Attributes:
        data: All JPEGs.
        images: Time from the episode's start [s], first byte, length; in order of time.
    """

    data: bytearray = field(default_factory=bytearray)
    images: list[tuple[float, int, int]] = field(default_factory=list)


@dataclass
class RecordedEpisode:
    """One episode as the player needs it."""

    facts: Mapping[str, Any]
    start_s: float = 0.0
    curves: dict[str, dict[str, Any]] = field(default_factory=dict)
    films: dict[str, Film] = field(default_factory=dict)

    def describe(self) -> Mapping[str, Any]:
        """All but the images themselves."""
        films = {name: film.images for name, film in self.films.items()}
        kept = [end and round(max(0.0, end - self.start_s), 3) for end in self.facts["kept"]]
        return {**self.facts, "curves": self.curves, "films": films, "kept": kept}


class RecordingError(KochError):
    """A recording is not there, or an edit does not fit it."""


class Episodes:
    """The episodes of one folder; methods may be called from any thread.

    Args:
        root: The recorder's folder; it may not exist yet.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock = threading.Lock()
        self._facts: dict[str, tuple[float, Mapping[str, Any]]] = {}  # by name, with their age
        self._first: OrderedDict[str, bytes] = OrderedDict()
        self._open: OrderedDict[str, RecordedEpisode] = OrderedDict()
        self._ranked: tuple[object, list[dict[str, Any]]] = None, []
        #: Grows with each edit, so that every open page looks again.
        self.edited = 0

    def facts(self) -> list[Mapping[str, Any]]:
        """Facts of all whole episodes, the newest first."""
        with self._lock:
            found: dict[str, tuple[float, Mapping[str, Any]]] = {}
            for path in self._folders():
                with contextlib.suppress(OSError):  # discarded just now
                    changed_s = (path / FILE_NAME).stat().st_mtime
                    with contextlib.suppress(FileNotFoundError):
                        changed_s += marks_file(path).stat().st_mtime
                    known = self._facts.get(path.name)
                    if known is None or known[0] != changed_s:
                        known = changed_s, _facts(path)
                        # Another episode may have the name of one that was discarded.
                        self._first.pop(path.name, None)
                        self._open.pop(path.name, None)
                    found[path.name] = known
            self._facts = found
            return [facts for _, facts in found.values()]

    def _folders(self) -> list[Path]:
        names = sorted(self.root.glob(f"*/{FILE_NAME}"), reverse=True)
        return [path.parent for path in names if path.parent.suffix != ".partial"][:_MOST_LISTED]

    def first_image(self, name: str) -> bytes | None:
        """The first image of an episode's first camera; None where there is none."""
        if self._known(name) is None:
            return None
        with self._lock:
            if name not in self._first:
                self._first[name] = _first_image(self.root / name)
                while len(self._first) > _KEPT_FIRST:
                    self._first.popitem(last=False)
            return self._first[name] or None

    def open(self, name: str) -> RecordedEpisode | None:
        """Read an episode; None where there is none of that name, or it cannot be read."""
        facts = self._known(name)
        if facts is None:
            return None
        with self._lock:  # one at a time: a dozen at once would fill the memory
            if name not in self._open:
                try:
                    self._open[name] = _read(self.root / name, facts)
                except KochError:
                    return None
                while len(self._open) > _KEPT_EPISODES:
                    self._open.popitem(last=False)
            self._open.move_to_end(name)
            return self._open[name]

    def quality(self) -> list[dict[str, Any]]:
        """Figures of the newest recordings, the most doubtful first. Takes 0.1 to 0.2 s for each.

        Raises:
            KochError: One cannot be read.
        """
        from koch_episodes.dataset.edit.bag_doctor import look_at_bags
        from koch_episodes.dataset.edit.doctor import ranked

        usable = [facts for facts in self.facts() if "problem" not in facts]
        names = [facts["name"] for facts in usable if not facts["deleted"]][:_MOST_RANKED]
        names.sort()  # of two that are the same the later one is the duplicate
        with self._lock:
            state = [(name, self._facts[name][0]) for name in names if name in self._facts]
        if self._ranked[0] != state:
            looks, complaints = look_at_bags([self.root / name for name in names], images=False)
            bags = {look.episode.index: look.bag.name for look in looks}
            rows = ranked(looks, complaints) if looks else []
            self._ranked = state, [{**vars(row), "name": bags[row.episode]} for row in rows]
        return self._ranked[1]

    # -- marks: the recording itself stays as it is ---------------------------------------------

    def edit(self, name: str, plain: Mapping[str, Any]) -> None:
        """Mark a recording as `koch dataset trim|relabel|delete` does.

        Raises:
            KochError: It is no edit, or does not fit the recording.
        """
        from koch_episodes.dataset.edit.bags import edit_bags

        bag = self._bag(name)
        edit = PendingEdit.of({**plain, "episode": 0})
        if edit.kind == "delete" and not edit.value:
            add_marks(bag, "keep after all", [Mark(deleted=False)])
        else:
            for marked in edit_bags([bag], _options(bag, edit)):
                marked.make()
        self.edited += 1

    def undo(self, name: str) -> None:
        """Take back the newest mark of a recording.

        Raises:
            KochError: It has none, or they cannot be read.
        """
        if not undo_marks(self._bag(name)):
            raise RecordingError("There is nothing to undo.")
        self.edited += 1

    def _bag(self, name: str) -> Path:
        if self._known(name) is None:
            raise RecordingError(f"There is no recording {name!r:.80} in {self.root}.")
        return self.root / name

    def _known(self, name: str) -> Mapping[str, Any] | None:
        if name not in self._facts:
            self.facts()
        known = self._facts.get(name)
        return None if known is None else known[1]


def _options(bag: Path, edit: PendingEdit) -> Trim | Relabel | Delete:
    if isinstance(edit.value, tuple):
        return Trim(root=bag, keep=(f"0:{edit.value[0]:g}-{edit.value[1]:g}",))
    if edit.kind == "delete":
        return Delete(root=bag)
    words: dict[str, Any] = {edit.kind: edit.value}
    return Relabel(root=bag, **words)


def _kept(marks: Marks) -> list[float | None]:
    """First and last moment that the marks keep, seconds since 1970; None: as recorded."""
    mark = marks.of(0)
    return [None if end is None else 1e-9 * end.stamp_ns for end in (mark.begin, mark.end)]


def _facts(path: Path) -> Mapping[str, Any]:
    """What `metadata.yaml` says of an episode."""
    try:
        info = read_information(path)
        marks = load_marks(path)
        custom = marks.over(info["custom_data"])
        length_s = 1e-9 * info["duration"]["nanoseconds"]
        began_s = 1e-9 * info["starting_time"]["nanoseconds_since_epoch"]
        quality = json.loads(custom.get("koch.quality", "{}"))
        reasons = [
            f"{name}: {item['reason']}" for name, item in quality.items() if item.get("reason")
        ]
    except (KochError, OSError, AttributeError, KeyError, TypeError, ValueError) as exc:
        # One bag of another program must not hide the list.
        return {"name": path.name, "problem": f"metadata cannot be read: {exc!s:.200}"}
    return {
        "name": path.name,
        "task": custom.get("koch.task", ""),
        "outcome": custom.get("koch.outcome", ""),
        "deleted": marks.delete_all,
        "marked": [edit.told for edit in marks.edits],
        "kept": _kept(marks),
        "verdict": custom.get("koch.verdict", ""),
        "reasons": reasons,
        "length_s": round(length_s, 1),
        "began_s": began_s,
    }


def _first_image(path: Path) -> bytes:
    try:
        with open_bag(path) as bag:
            topics = sorted(name for name, topic in bag.topics.items() if topic.type == _IMAGE)
            for message in bag.messages(topics[:1]):
                return cdr.compressed_image(message.data)
    except KochError:
        return b""  # a bag that cannot be read has no image; its line in the list says the rest
    return b""


def _read(path: Path, facts: Mapping[str, Any]) -> RecordedEpisode:
    episode = RecordedEpisode(facts)
    readers: dict[str, cdr.JointStateReader] = {}
    with open_bag(path) as bag:
        kinds = {
            name: topic.type
            for name, topic in bag.topics.items()
            if topic.type in (_IMAGE, _JOINTS)
        }
        start_ns: int | None = None
        for message in bag.messages(kinds):
            stamp_ns = cdr.header_stamp_ns(message.data)
            start_ns = stamp_ns if start_ns is None else start_ns
            time_s = round(1e-9 * (stamp_ns - start_ns), 4)
            with contextlib.suppress(DecodeError):  # as the converter: it counts as not come
                if kinds[message.topic] == _IMAGE:
                    _add_image(episode, message.topic, time_s, message.data)
                else:
                    reader = readers.setdefault(message.topic, cdr.JointStateReader())
                    _add_joints(episode, message.topic, time_s, *reader.read(message.data))
    episode.start_s = 1e-9 * (start_ns or 0)
    for film in episode.films.values():
        film.images.sort()
    return episode


def _add_image(episode: RecordedEpisode, topic: str, time_s: float, data: bytes) -> None:
    film = episode.films.setdefault(topic.split("/image_raw")[0].rpartition("/")[2], Film())
    jpeg = cdr.compressed_image(data)
    film.images.append((time_s, len(film.data), len(jpeg)))
    film.data += jpeg


def _add_joints(
    episode: RecordedEpisode, topic: str, time_s: float, names: Sequence[str], positions: Any
) -> None:
    curve = episode.curves.setdefault(
        topic.lstrip("/"), {"names": list(plain_joints(names)), "times": [], "values": []}
    )
    if curve["times"] and time_s - curve["times"][-1] < _CURVE_STEP_S - 1e-3:
        return
    if len(positions) == len(curve["names"]):
        curve["times"].append(time_s)
        curve["values"].append([round(float(value), 4) for value in positions])


def range_of(header: str, size: int) -> tuple[int, int] | None:
    """First byte and end that `bytes=A-B`, `bytes=A-` or `bytes=-N` asks for; None: no such."""
    unit, _, span = header.partition("=")
    first, dash, last = span.partition("-")
    if unit.strip() != "bytes" or not dash or not (first + last).isascii():
        return None
    if not all(part.isdigit() and len(part) < 16 for part in (first, last) if part):
        return None
    if not first:
        begin, end = max(0, size - int(last or 0)), size
    else:
        begin, end = int(first), min(size, int(last) + 1 if last else size)
    return (begin, end) if begin < end else None
