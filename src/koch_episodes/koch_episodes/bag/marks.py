# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Marks: edits of a bag that leave the recording as it is.

A file ``koch_marks.json`` in the bag's folder (``NAME.koch_marks.json`` beside a storage file that
stands alone) says which episodes are left out, what of an episode is kept, and which task and
outcome it has. The converter, `koch inspect`, replay and the console's list obey it. The last
edit is undone by removing it from the list.

A moment is kept as a header stamp and as the time of recording, since `koch convert --stamps
receive` goes by the latter. Both are absolute, so that other topics or rates change nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from koch_core.files import locked, write_atomically
from koch_episodes.errors import BagError

FILE_NAME = "koch_marks.json"
VERSION = 1
_FIELDS = {"episode", "from", "to", "deleted", "task", "outcome"}


class Instant(NamedTuple):
    """A moment of a recording in both of its clocks, [ns]."""

    stamp_ns: int
    log_ns: int

    def of_clock(self, *, by_log: bool) -> int:
        """The moment in one of the clocks, [ns]."""
        return self.log_ns if by_log else self.stamp_ns


@dataclass(frozen=True)
class Mark:
    """What is said of an episode of a bag. What is None stays as it was.

    Attributes:
        episode: Place of the episode in the bag, from 0; None: all of them.
        begin: First moment that is kept.
        end: Last moment that is kept.
        deleted: Whether the episode is left out.
        task: Task text.
        outcome: Label.
    """

    episode: int | None = None
    begin: Instant | None = None
    end: Instant | None = None
    deleted: bool | None = None
    task: str | None = None
    outcome: str | None = None

    def then(self, later: Mark) -> Mark:
        """This mark with what a later one says."""
        said = {k: v for k, v in vars(later).items() if v is not None and k != "episode"}
        return replace(self, **said)


@dataclass(frozen=True)
class MarkEdit:
    """One edit, which is undone as a whole.

    Attributes:
        told: What was done, one line.
        marks: What it says of the bag's episodes.
    """

    told: str
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Marks:
    """All edits of a bag, in order."""

    edits: tuple[MarkEdit, ...] = ()

    def of(self, episode: int) -> Mark:
        """What all edits together say of an episode, the later one before the earlier."""
        found = Mark(episode)
        for edit in self.edits:
            for mark in edit.marks:
                if mark.episode in (None, episode):
                    found = found.then(mark)
        return found

    def over(self, custom: Mapping[str, str]) -> dict[str, str]:
        """Custom data of a bag of one episode, with the words that the marks have for it."""
        mark = self.of(0)
        said = {"koch.task": mark.task, "koch.outcome": mark.outcome}
        return {**custom, **{key: word for key, word in said.items() if word is not None}}

    @property
    def delete_all(self) -> bool:
        """Whether the whole bag is left out."""
        whole = [mark for edit in self.edits for mark in edit.marks if mark.deleted is not None]
        return bool(whole) and whole[-1].deleted is True and whole[-1].episode is None

    @property
    def digest(self) -> str:
        """A short hash of what they say; empty where there are none."""
        text = json.dumps([_plain(mark) for edit in self.edits for mark in edit.marks])
        return hashlib.sha256(text.encode()).hexdigest()[:16] if self.edits else ""


def marks_file(bag: Path) -> Path:
    """Where the marks of a bag are."""
    return bag.with_name(f"{bag.name}.{FILE_NAME}") if bag.is_file() else bag / FILE_NAME


def load_marks(bag: Path) -> Marks:
    """Read the marks of a bag; none where there is no such file.

    Raises:
        BagError: The file is damaged or of a newer version: what it says must not get lost.
    """
    path = marks_file(bag)
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        version = raw["version"]
        if version != VERSION:
            raise BagError(
                path, f"is of version {version}, known is {VERSION}", "Update koch_vla."
            )
        return Marks(tuple(_edit(each) for each in raw["edits"]))
    except FileNotFoundError:
        return Marks()
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as exc:
        why = f"holds no marks that can be read ({type(exc).__name__}: {exc})"
        raise BagError(path, why, "Repair it, or move it away to go on without marks.") from exc


def add_marks(bag: Path, told: str, marks: Sequence[Mark]) -> Marks:
    """Add an edit to those of a bag; at once, also against a second program that does so.

    Args:
        bag: Bag folder or storage file.
        told: What is done, one line.
        marks: What it says.

    Returns:
        All marks that the bag has now.

    Raises:
        BagError: The marks that are there cannot be read, or no file can be written there.
    """
    with _held(bag):
        earlier = load_marks(bag)
        found = Marks((*earlier.edits, MarkEdit(told, tuple(marks))))
        _write(bag, found)
    return found


def undo_marks(bag: Path, *, every: bool = False) -> list[str]:
    """Take back the last edit of a bag, or every one.

    Returns:
        What the edits said that were taken back, the last one first; empty where there is none.

    Raises:
        BagError: The marks cannot be read, or the file cannot be written.
    """
    if not marks_file(bag).exists():
        return []
    with _held(bag):
        edits = load_marks(bag).edits
        left = () if every else edits[:-1]
        _write(bag, Marks(left))
    return [edit.told for edit in reversed(edits[len(left) :])]


@contextmanager
def _held(bag: Path) -> Iterator[None]:
    """Let a second edit of the same bag wait, and name what the disk does not allow."""
    path = marks_file(bag)
    try:
        with locked(path.with_name(f".{path.name}.lock"), wait=True):
            yield
    except OSError as exc:
        why = f"cannot be written ({exc.strerror or exc})"
        raise BagError(path, why, "Marks need a folder that can be written, with space.") from exc


def _write(bag: Path, marks: Marks) -> None:
    path = marks_file(bag)
    if not marks.edits:
        path.unlink(missing_ok=True)
        return
    raw = {
        "version": VERSION,
        "edits": [
            {"told": edit.told, "marks": [_plain(mark) for mark in edit.marks]}
            for edit in marks.edits
        ],
    }
    write_atomically(path, json.dumps(raw, ensure_ascii=False, indent=1) + "\n")


def _plain(mark: Mark) -> dict[str, Any]:
    named = {**vars(mark), "from": mark.begin, "to": mark.end}
    return {
        key: value._asdict() if isinstance(value, Instant) else value
        for key, value in named.items()
        if value is not None and key in _FIELDS
    }


def _edit(raw: Mapping[str, Any]) -> MarkEdit:
    return MarkEdit(str(raw["told"]), tuple(_mark(each) for each in raw["marks"]))


def _mark(raw: Mapping[str, Any]) -> Mark:
    if unknown := raw.keys() - _FIELDS:
        raise ValueError(f"unknown {', '.join(sorted(unknown))}")
    moments: dict[str, Any] = {
        name: Instant(int(raw[key]["stamp_ns"]), int(raw[key]["log_ns"]))
        for name, key in (("begin", "from"), ("end", "to"))
        if key in raw
    }
    kinds: dict[str, type[Any]] = {"episode": int, "deleted": bool, "task": str, "outcome": str}
    for key, kind in kinds.items():
        if key in raw and type(raw[key]) is not kind:
            raise TypeError(f"{key} is {raw[key]!r}")
    return Mark(**{key: raw[key] for key in kinds if key in raw}, **moments)
