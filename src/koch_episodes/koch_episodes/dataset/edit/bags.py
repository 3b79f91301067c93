# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Edits of bags: each becomes a mark beside the bag, and the recording stays as it is.

Episodes of a bag are counted from 0 in order of time; a bag of the recorder is one episode.
Seconds count from an episode's begin in the recording, whatever earlier marks say: a trim takes
the place of an earlier one at the same end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from koch_core.options import OptionError
from koch_core.stream import NS_PER_S
from koch_episodes.bag import find_bags
from koch_episodes.bag.marks import Instant, Mark, add_marks, load_marks, undo_marks
from koch_episodes.convert.events import Window, window_fields
from koch_episodes.dataset.edit.edits import keep_of, moving_span
from koch_episodes.dataset.edit.options import Delete, Relabel, Target, Trim, Undo
from koch_episodes.dataset.selection import EpisodeField, NothingSelectedError, chosen_numbers
from koch_episodes.errors import BagError, DatasetEditError
from koch_episodes.inspect_bag import BagFacts, inspect_bag

_ACTION_HZ = 30.0  # at which rests are judged, as frames of a dataset are


@dataclass(frozen=True)
class BagEdit:
    """What an edit says of one bag.

    Attributes:
        bag: The bag.
        told: One line for people.
        marks: What is written; empty: nothing to do.
    """

    bag: Path
    told: str
    marks: tuple[Mark, ...]

    def make(self) -> None:
        """Write the marks.

        Raises:
            BagError: They cannot be written.
        """
        if self.marks:
            add_marks(self.bag, self.told, self.marks)


def edit_bags(roots: Sequence[Path], options: Target) -> list[BagEdit]:
    """Turn options into marks of each bag at or below some paths; nothing is written.

    Raises:
        KochError: A bag cannot be read, or what is asked for makes no sense for it.
    """
    if options.out is not None:
        expected = "nothing: a bag is marked and stays where it is"
        raise OptionError("--out", str(options.out), expected)
    bags = find_bags(roots)
    if isinstance(options, Delete) and options.episodes is None and not options.outcome:
        for root in roots:
            if root not in bags:
                what = f"delete: {root} is a folder of bags, and no episodes are named"
                raise DatasetEditError(what, "Name bags, or give --episodes or --outcome.")
    edits = []
    for bag in bags:
        try:
            edits.append(_edit_bag(bag, options))
        except NothingSelectedError:
            edits.append(BagEdit(bag, "no episode is selected", ()))
            if len(edits) == len(bags) and not any(edit.marks for edit in edits):
                raise
    return edits


def _edit_bag(bag: Path, options: Target) -> BagEdit:
    if isinstance(options, Trim):
        return _trim(bag, options)
    if isinstance(options, Delete):
        return _delete(bag, options)
    if isinstance(options, Relabel):
        return _relabel(bag, options)
    raise DatasetEditError(
        f"{bag} is a bag, and bags can be trimmed, deleted and relabelled only",
        "Convert it with 'koch convert', and edit the dataset.",
    )


def are_bags(path: Path) -> bool:
    """Whether a path is a bag or a folder of bags, and no dataset."""
    if (path / "meta").is_dir():
        return False
    try:
        return bool(find_bags([path]))
    except BagError:
        return False


def undo(options: Undo) -> list[tuple[Path, list[str]]]:
    """Take back the last edit of each bag, or all; what they had said, for each bag."""
    bags = find_bags(options.roots)
    if not options.dry_run:
        return [(bag, undo_marks(bag, every=options.all)) for bag in bags]
    told = [(bag, [edit.told for edit in reversed(load_marks(bag).edits)]) for bag in bags]
    return [(bag, lines if options.all else lines[:1]) for bag, lines in told]


def describe_bag(bag: Path, selection: str | None = None) -> dict[str, Any]:
    """What `koch dataset info` tells of a bag, as plain values.

    Args:
        bag: The bag.
        selection: Numbers or an expression; of the episodes only those are told.
    """
    facts = inspect_bag(bag)
    try:
        chosen = _chosen(facts, selection)
    except NothingSelectedError:  # another bag's episodes may be
        chosen = []
    episodes = []
    for number, (recorded, window) in enumerate(zip(facts.recorded, facts.windows, strict=True)):
        if number not in chosen:
            continue
        first, last = _span(facts, recorded)
        kept = max(first, window.keep_ns), min(last, window.end_ns)
        episodes.append(
            {
                "episode": number,
                "task": window.task,
                "outcome": window.outcome,
                "deleted": window.deleted,
                "seconds": round((last - first) / NS_PER_S, 3),
                "keep": [round((moment - first) / NS_PER_S, 3) for moment in kept],
            }
        )
    return {
        "root": str(bag),
        "verdict": facts.verdict.value,
        "topics": {
            name: {"type": topic.type, "count": topic.stream.count, "hz": topic.stream.rate_hz}
            for name, topic in facts.topics.items()
        },
        "episodes": episodes,
        "edits": [edit.told for edit in load_marks(bag).edits],
    }


def _chosen(facts: BagFacts, text: str | None, *, option: str = "--episodes") -> list[int]:
    """The places of the episodes that a text means."""
    fields = partial(bag_fields, facts)
    known = range(len(facts.recorded))
    return chosen_numbers(facts.path, known, text, fields=fields, option=option)


def bag_fields(facts: BagFacts) -> dict[str, EpisodeField]:
    """What an expression can ask of a bag's episodes; as the marks have them."""
    spans = [_span(facts, window) for window in facts.recorded]
    seconds = [(last - first) / NS_PER_S for first, last in spans]
    return window_fields(facts.windows, facts.path.name, duration_s=seconds)


def _span(facts: BagFacts, window: Window) -> tuple[int, int]:
    """First and last stamp of an episode, [ns]."""
    first, last = facts.span_ns
    return max(first, window.start_ns), min(last, window.end_ns)


# -- trim -------------------------------------------------------------------------------------


def _trim(bag: Path, options: Trim) -> BagEdit:
    if not (options.start or options.end or options.keep or options.idle is not None):
        raise DatasetEditError("trim: nothing to cut", "Give --start, --end, --keep or --idle.")
    facts = inspect_bag(bag)
    mine = _chosen(facts, options.episodes)
    kept = {}
    for word in options.keep:
        named, begin, end = keep_of(word)
        (episode,) = _chosen(facts, named, option="--keep")
        kept[episode] = begin, end
    if options.keep and options.episodes is None and not (options.start or options.end):
        mine = list(kept) if options.idle is None else mine
    marks, told = [], []
    for number in mine:
        mark, line = _trimmed(facts, number, options, kept.get(number))
        marks.append(mark)
        told.append(line)
    return BagEdit(bag, f"trim: {'; '.join(told)}", tuple(marks))


def _trimmed(
    facts: BagFacts, number: int, options: Trim, kept: tuple[float, float | None] | None
) -> tuple[Mark, str]:
    """Return the mark of one episode, and what it says."""
    window = facts.recorded[number]
    if window.start_run != min(window.end_run, facts.runs - 1):
        raise DatasetEditError(
            f"trim: {facts.path}, episode {number}: the clock is set back in it",
            "Convert it, which splits it there, and trim the dataset.",
        )
    first, last = _span(facts, window)
    begin_s, end_s = options.start, (last - first) / NS_PER_S - options.end
    if kept is not None:
        begin_s = max(begin_s, kept[0])
        end_s = end_s if kept[1] is None else min(end_s, kept[1])
    if options.idle is not None:
        moves_s, rests_s = _moving(facts, first, last, options.idle)
        begin_s, end_s = max(begin_s, moves_s), min(end_s, rests_s)
    if end_s <= begin_s:
        raise DatasetEditError(
            f"trim: nothing is left of {facts.path}, episode {number}, which has "
            f"{(last - first) / NS_PER_S:g} s",
            f"Leave it out with 'koch dataset delete {facts.path} --episodes {number}'.",
        )
    cuts_end = end_s < (last - first) / NS_PER_S
    mark = Mark(
        number,
        begin=_instant(facts, first + round(begin_s * NS_PER_S)) if begin_s > 0 else None,
        end=_instant(facts, first + round(end_s * NS_PER_S)) if cuts_end else None,
    )
    return mark, f"episode {number}: {begin_s:.3f} to {end_s:.3f} s are kept"


def _instant(facts: BagFacts, stamp_ns: int) -> Instant:
    """A moment in both clocks: that of recording goes with the sample nearest in time."""
    streams = [t for t in facts.topics.values() if t.is_measured and len(t.stamps_ns)]
    near = [int(np.argmin(np.abs(each.stamps_ns - stamp_ns))) for each in streams]
    off = [abs(int(s.stamps_ns[k]) - stamp_ns) for s, k in zip(streams, near, strict=True)]
    best = int(np.argmin(off))
    delay = int(streams[best].logs_ns[near[best]]) - int(streams[best].stamps_ns[near[best]])
    return Instant(stamp_ns, stamp_ns + delay)


def _moving(facts: BagFacts, first: int, last: int, rest_s: float) -> tuple[float, float]:
    """Return when commands begin and end to move, [s] from the episode's begin.

    Joint commands count; of a bag without them, all joint states and vectors.
    """
    named = {n: t for n, t in facts.topics.items() if t.names and len(t.values) > 1}
    commands = {n: t for n, t in named.items() if n.endswith("/joint_command")}
    ticks = np.arange(first, last + 1, round(NS_PER_S / _ACTION_HZ))
    columns: list[npt.NDArray[np.float64]] = []
    for topic in (commands or named).values():
        order = np.argsort(topic.stamps_ns, kind="stable")
        times = (topic.stamps_ns[order] - first).astype(np.float64)
        columns += [np.interp(ticks - first, times, column) for column in topic.values[order].T]
    if not columns:
        raise DatasetEditError(
            f"trim: {facts.path} has no numbers that could rest", "Give --start and --end."
        )
    begin, stop = moving_span(np.stack(columns, axis=1), round(rest_s * _ACTION_HZ))
    if stop == len(ticks):
        return begin / _ACTION_HZ, (last - first) / NS_PER_S
    return begin / _ACTION_HZ, (stop - 1) / _ACTION_HZ


# -- delete, relabel --------------------------------------------------------------------------


def _delete(bag: Path, options: Delete) -> BagEdit:
    if options.episodes is None and not options.outcome:
        return BagEdit(bag, "delete: the whole bag", (Mark(deleted=True),))
    facts = inspect_bag(bag)
    numbers = _chosen(facts, options.episodes)
    if options.outcome:
        numbers = [n for n in numbers if facts.windows[n].outcome in options.outcome]
    if not numbers:
        return BagEdit(bag, "delete: no episode ended so", ())
    after = [window.deleted or n in numbers for n, window in enumerate(facts.windows)]
    if all(after):
        return BagEdit(bag, "delete: all episodes", (Mark(deleted=True),))
    told = f"delete: episodes {', '.join(map(str, numbers))}"
    return BagEdit(bag, told, tuple(Mark(n, deleted=True) for n in numbers))


def _relabel(bag: Path, options: Relabel) -> BagEdit:
    if options.task is None and options.outcome is None and not options.rename:
        raise DatasetEditError("relabel: nothing to change", "Give --task, --rename or --outcome.")
    words = [f"task {options.task!r}"] if options.task is not None else []
    words += [f"outcome {options.outcome!r}"] if options.outcome is not None else []
    if options.episodes is None and not options.rename:
        mark = Mark(task=options.task, outcome=options.outcome)
        return BagEdit(bag, f"relabel: {', '.join(words)}", (mark,))
    facts = inspect_bag(bag)
    windows = facts.windows
    numbers = _chosen(facts, options.episodes)
    renamed = _renaming(windows, options.rename)
    marks = []
    for number in numbers:
        task = options.task or renamed.get(windows[number].task)
        if task is not None or options.outcome is not None:
            marks.append(Mark(number, task=task, outcome=options.outcome))
    words += [f"task {old!r} becomes {new!r}" for old, new in renamed.items()]
    listed = ", ".join(str(mark.episode) for mark in marks) or "(none)"
    return BagEdit(bag, f"relabel: episodes {listed}: {', '.join(words)}", tuple(marks))


def _renaming(windows: Sequence[Window], words: Sequence[str]) -> Mapping[str, str]:
    """Return the tasks of a bag that are renamed; a bag without such a task is left as it is."""
    found = {}
    for word in words:
        if "=" not in word:
            raise OptionError("--rename", word, "OLD=NEW")
        for task in sorted({window.task for window in windows}, key=len, reverse=True):
            if word.startswith(f"{task}="):  # a task may hold a '=' itself
                found[task] = word[len(task) + 1 :]
                break
    return found
