# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Pending edits of a dataset: a list that nothing obeys until all of it is applied at once.

The console collects it beside the dataset. The newest edit of an episode counts, and the last one
can be taken back. Imports neither pyarrow nor FFmpeg before a plan is asked for.
"""

from __future__ import annotations

import json
import math
import shlex
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from koch_core.files import write_atomically
from koch_core.wording import is_whole
from koch_episodes.dataset.edit.options import Apply, Delete, Relabel, Trim, real_folder
from koch_episodes.errors import DatasetEditError

if TYPE_CHECKING:
    from koch_episodes.dataset.edit.pieces import Plan

_KINDS = ("trim", "task", "outcome", "delete")


@dataclass(frozen=True)
class PendingEdit:
    """One change of one episode.

    Attributes:
        episode: Its number.
        kind: trim, task, outcome or delete.
        value: (from, to) in [s] of the episode, a text, or whether it is left out.
    """

    episode: int
    kind: str
    value: tuple[float, float] | str | bool

    def __post_init__(self) -> None:
        """Check the value.

        Raises:
            DatasetEditError: It is none of that kind.
        """
        fits = {"trim": _is_span, "delete": _is_switch, "task": _is_text, "outcome": _is_text}
        known = fits.get(self.kind)
        if known is None:
            raise DatasetEditError(f"edit: {self.kind!r} is no kind", f"Use {', '.join(_KINDS)}.")
        number = isinstance(self.episode, int) and not isinstance(self.episode, bool)
        if not number or not known(self.value):
            raise DatasetEditError(
                f"edit: {self.kind} of episode {self.episode!r:.40} to {self.value!r:.60}",
                "Give an episode's number; as value seconds [FROM, TO], a text, or true/false.",
            )

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> PendingEdit:
        """Read ``{"episode": 3, "trim": [0.5, 7.0]}``.

        Raises:
            DatasetEditError: It is something else.
        """
        kinds = [key for key in plain if key != "episode"]
        if len(kinds) != 1 or "episode" not in plain:
            raise DatasetEditError(
                f"edit: got {sorted(plain)}", f"Give 'episode' and one of {', '.join(_KINDS)}."
            )
        value = plain[kinds[0]]
        return cls(plain["episode"], kinds[0], tuple(value) if isinstance(value, list) else value)

    def plain(self) -> dict[str, Any]:
        """Return what `of` reads."""
        return {"episode": self.episode, self.kind: self.value}


def _is_span(value: object) -> bool:
    if not isinstance(value, tuple) or len(value) != 2:
        return False
    numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in value)
    return numbers and 0 <= value[0] < value[1] < math.inf


def _is_text(value: object) -> bool:
    return isinstance(value, str) and is_whole(value)


def _is_switch(value: object) -> bool:
    return isinstance(value, bool)


@dataclass(frozen=True)
class EpisodeChange:
    """What all edits together make of one episode; None leaves a thing as it is."""

    trim: tuple[float, float] | None = None
    task: str | None = None
    outcome: str | None = None
    delete: bool = False


def pending_file(root: Path) -> Path:
    """Where the pending edits of a dataset are: beside it, so that they are no part of it."""
    folder = real_folder(root)
    return folder.with_name(f"{folder.name}.edits.json")


def read_pending(path: Path) -> list[PendingEdit]:
    """Read a list of edits; none where there is no file.

    Raises:
        DatasetEditError: It is no list of edits.
    """
    if not path.is_file():
        return []
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["edits"]
        return [PendingEdit.of(item) for item in found]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as exc:
        raise DatasetEditError(
            f"{path}: no list of edits ({exc})", "Mend it, or delete it to begin again."
        ) from exc


def write_pending(path: Path, pending: Sequence[PendingEdit]) -> None:
    """Replace a list of edits; an empty one leaves no file."""
    if not pending:
        path.unlink(missing_ok=True)
        return
    write_atomically(path, json.dumps({"edits": [edit.plain() for edit in pending]}, indent=1))


def together(pending: Sequence[PendingEdit]) -> dict[int, EpisodeChange]:
    """What the edits make of each episode that has some."""
    found: dict[int, EpisodeChange] = {}
    for edit in pending:
        changed: dict[str, Any] = {edit.kind: edit.value}
        found[edit.episode] = replace(found.get(edit.episode, EpisodeChange()), **changed)
    return {
        number: change for number, change in sorted(found.items()) if change != EpisodeChange()
    }


# -- as the other edits ---------------------------------------------------------------------------


def _as_edits(root: Path, pending: Sequence[PendingEdit]) -> list[Trim | Relabel | Delete]:
    """The edits that do the same, numbers of episodes being those of the dataset before them.

    Episodes are left out last: it changes the numbers of the others.
    """
    by_episode = together(pending)
    gone = [number for number, change in by_episode.items() if change.delete]
    left = {number: change for number, change in by_episode.items() if not change.delete}
    edits: list[Trim | Relabel | Delete] = []
    for key in ("task", "outcome"):
        same: dict[str, list[int]] = defaultdict(list)
        for number, change in left.items():
            if (text := getattr(change, key)) is not None:
                same[text].append(number)
        for text, numbers in same.items():
            words: dict[str, Any] = {key: text}
            edits.append(Relabel(root=root, episodes=_numbers(numbers), **words))
    spans = ((number, change.trim) for number, change in left.items())
    if keep := tuple(f"{n}:{span[0]:g}-{span[1]:g}" for n, span in spans if span is not None):
        edits.append(Trim(root=root, keep=keep))
    if gone:
        edits.append(Delete(root=root, episodes=_numbers(gone)))
    return edits


def _numbers(episodes: Sequence[int]) -> str:
    return ",".join(map(str, episodes))


def commands(root: Path, pending: Sequence[PendingEdit], out: Path) -> list[str]:
    """Commands that make the same dataset, one edit after the other."""
    lines: list[str] = []
    for edit in _as_edits(root, pending):
        name, words = _words(edit)
        place = ("--in-place",) if lines else ("--out", str(out))
        lines.append(
            shlex.join(["koch", "dataset", name, str(out if lines else root), *words, *place])
        )
    return lines


def _words(edit: Trim | Relabel | Delete) -> tuple[str, list[str]]:
    if isinstance(edit, Trim):
        return "trim", [word for span in edit.keep for word in ("--keep", span)]
    words = [] if edit.episodes is None else ["--episodes", edit.episodes]
    if isinstance(edit, Delete):
        return "delete", words
    if edit.task is not None:
        return "relabel", [*words, "--task", edit.task]
    return "relabel", [*words, "--outcome", edit.outcome or ""]


def apply(options: Apply) -> list[Plan]:
    """Apply all pending edits at once, so that a video is cut once.

    Raises:
        DatasetEditError: No edit is pending, or an edit does not fit the dataset.
    """
    from koch_episodes.dataset.edit.edits import delete, relabel, trim
    from koch_episodes.dataset.edit.pieces import Plan, features_of, whole
    from koch_episodes.dataset.edit.source import SourceDataset

    path = options.edits or pending_file(options.root)
    edits = _as_edits(options.root, read_pending(path))
    if not edits:
        raise DatasetEditError(
            f"apply: no edit is pending in {path}", "Make some on the page of koch console."
        )
    source = SourceDataset(options.root)
    pieces = {episode.index: whole(source, episode) for episode in source.episodes}
    told: list[str] = []
    for edit in edits:
        edit = replace(edit, out=options.folder)
        if isinstance(edit, Trim):
            (plan,) = trim(edit)
            spans = {piece.episode.index: (piece.start, piece.stop) for piece in plan.pieces}
            pieces = {
                n: replace(piece, start=spans[n][0], stop=spans[n][1])
                for n, piece in pieces.items()
            }
        elif isinstance(edit, Relabel):
            (plan,) = relabel(edit)
            for piece in plan.pieces:
                number = piece.episode.index
                mine = pieces[number]
                pieces[number] = replace(
                    mine,
                    task=mine.task if piece.task is None else piece.task,
                    outcome=mine.outcome if piece.outcome is None else piece.outcome,
                )
        else:
            (plan,) = delete(edit)
            pieces = {p.episode.index: pieces[p.episode.index] for p in plan.pieces}
        told += plan.told
    return [Plan(options.folder, features_of(source), list(pieces.values()), told)]
