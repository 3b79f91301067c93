# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Which stretches of a bag are episodes: the whole bag, or what /episodes/events says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from koch_core.expression import Value
from koch_core.stream import NS_PER_S, stamp_ns
from koch_episodes.bag import RawMessage
from koch_episodes.bag.clock import Runs
from koch_episodes.bag.marks import Mark, Marks
from koch_episodes.bag.storage import EVENTS_TYPE
from koch_episodes.bag.types import TypeDecoder
from koch_episodes.dataset.selection import WINDOW_KINDS, EpisodeField

START, STOP, DISCARD, INTERVENTION_BEGIN, INTERVENTION_END, LABEL, UNDO = range(7)
DATASET = "koch.dataset"  # custom data of a bag that was made of a dataset: the dataset's name
_ALWAYS_NS = 1 << 62
LAST_RUN = 1 << 30


class Event(NamedTuple):
    """One message of the recorder about an episode.

    Attributes:
        place: In the bag.
        log_ns: Arrival at the recorder, [ns].
        stamp_ns: Header stamp, [ns].
        kind: START, STOP, DISCARD, INTERVENTION_BEGIN, INTERVENTION_END, LABEL or UNDO.
        episode_index: The recorder's episode number.
        task: Task text.
        outcome: Label.
        topic: Where it was sent.
    """

    place: int
    log_ns: int
    stamp_ns: int
    kind: int
    episode_index: int
    task: str
    outcome: str
    topic: str


class Moment(NamedTuple):
    """A time that a clock shows in one of its runs."""

    run: int
    time_ns: int


@dataclass(frozen=True)
class Window:
    """An episode as a stretch of time; the clock may be set back while it lasts.

    Attributes:
        start_ns: First possible tick, [ns].
        end_ns: Last possible tick, [ns].
        task: Task text, empty where unknown.
        outcome: ``success``, ``failure``, ``discarded``, a word of the user's, or empty.
        index: The recorder's episode number, None where unknown.
        grid_ns: A time on which a tick falls, [ns]: the start event's, so that two bags of the
            same episode have the same frames; None where there was no such event.
        start_run: Run of the clock to which start and grid belong.
        end_run: Run of the clock to which the end belongs.
        keep_ns: First tick that the bag's marks keep, [ns]; of the start's run of the clock.
        deleted: Whether the bag's marks leave it out.
    """

    start_ns: int = -_ALWAYS_NS
    end_ns: int = _ALWAYS_NS
    task: str = ""
    outcome: str = ""
    index: int | None = None
    grid_ns: int | None = None
    start_run: int = 0
    end_run: int = LAST_RUN
    keep_ns: int = -_ALWAYS_NS
    deleted: bool = False

    @property
    def first_ns(self) -> int:
        """First possible tick, by the recording and by its marks, [ns]."""
        return max(self.start_ns, self.keep_ns)

    def within(self, run: int) -> Window | None:
        """The part of the episode in one run of the clock; None where it has none."""
        if not self.start_run <= run <= self.end_run:
            return None
        begins, ends = run == self.start_run, run == self.end_run
        return replace(
            self,
            start_ns=self.start_ns if begins else -_ALWAYS_NS,
            grid_ns=self.grid_ns if begins else None,
            keep_ns=self.keep_ns if begins else -_ALWAYS_NS,
            end_ns=self.end_ns if ends else _ALWAYS_NS,
            start_run=run,
            end_run=run,
        )

    def first_tick(self, ready_ns: int, fps: int) -> int:
        """The first tick at which every stream has begun, at `ready_ns` or after it, [ns].

        Marks that cut the begin off leave the other ticks where they would be without them.
        """
        ready_ns = max(ready_ns, self.start_ns)
        grid_ns = ready_ns if self.grid_ns is None else self.grid_ns
        ticks = -((grid_ns - max(ready_ns, self.keep_ns)) * fps // NS_PER_S)
        return grid_ns + round(ticks * NS_PER_S / fps)


def read_event(types: TypeDecoder, message: RawMessage, place: int) -> Event:
    """Deserialise an event.

    Raises:
        DecodeError: It is broken.
    """
    event = types.decode(EVENTS_TYPE, message.data)
    stamp = stamp_ns(event.header.stamp)
    return Event(
        place,
        message.log_ns,
        stamp,
        int(event.kind),
        int(event.episode_index),
        str(event.task),
        str(event.outcome),
        message.topic,
    )


def windows_of(
    events: Sequence[Event],
    custom: Mapping[str, str],
    runs: Runs,
    notes: list[str],
    *,
    by_log: bool,
) -> list[Window]:
    """Return the episodes of a bag in order of time, discarded ones included.

    A bag written by the episode recorder is one episode, to its stop event: what came while the
    bag was closed is in no other bag's episode either. Another bag is split by the start and stop
    events in it; without such events it is one episode too.

    Args:
        events: Of the bag.
        custom: The recorder's custom data.
        runs: Of the clock; an event belongs to one, as samples do.
        notes: Where to tell of events that are no damage, but not as usual.
        by_log: The streams are timed by the recorder's clock: so are the events then.
    """
    found = _said_by(events, runs, notes, by_log=by_log)
    if "koch.index" in custom:
        number = custom["koch.index"]
        index = int(number) if number.isdigit() else None
        said = next((window for window in found if window.index == index), Window())
        return [
            replace(
                said,
                start_ns=-_ALWAYS_NS,
                start_run=0,
                grid_ns=said.grid_ns if said.start_run == 0 else None,
                task=custom.get("koch.task", ""),
                outcome=custom.get("koch.outcome", ""),
                index=index,
            )
        ]
    return found or [Window(task=custom.get("koch.task", ""))]


def obey_marks(
    windows: Sequence[Window], marks: Marks, notes: list[str], *, by_log: bool
) -> list[Window]:
    """Return the episodes of a bag as its marks want them.

    Args:
        windows: The episodes, in order of time.
        marks: Of the bag.
        notes: A line is added for each edit.
        by_log: As in `windows_of`.
    """
    notes += [f"marked: {edit.told}" for edit in marks.edits]
    return [_marked(window, marks.of(k), by_log) for k, window in enumerate(windows)]


def _marked(window: Window, mark: Mark, by_log: bool) -> Window:
    if mark.begin is not None:
        window = replace(window, keep_ns=mark.begin.of_clock(by_log=by_log))
    if mark.end is not None:
        end_ns = min(window.end_ns, mark.end.of_clock(by_log=by_log))
        window = replace(window, end_ns=end_ns, end_run=window.start_run)
    return replace(
        window,
        deleted=bool(mark.deleted),
        task=window.task if mark.task is None else mark.task,
        outcome=window.outcome if mark.outcome is None else mark.outcome,
    )


def _said_by(
    events: Sequence[Event], runs: Runs, notes: list[str], *, by_log: bool
) -> list[Window]:
    """The episodes that start and stop events of a bag tell of."""
    for event in events:
        note = f"{event.topic}: timed by the recorder's clock"
        if event.stamp_ns <= 0 and note not in notes:
            notes.append(note)
    found: list[Window] = []
    for moment, event in _in_order(events, runs, by_log=by_log):
        _apply(found, moment, event)
    return found


def _in_order(events: Sequence[Event], runs: Runs, *, by_log: bool) -> list[tuple[Moment, Event]]:
    """Events with their times: several senders overtake each other."""
    times = [event.log_ns if by_log or event.stamp_ns <= 0 else event.stamp_ns for event in events]
    places = np.array([event.place for event in events], dtype=np.int64)
    in_run = runs.at(places, np.array(times, dtype=np.int64)).tolist()
    said = [Moment(*pair) for pair in zip(in_run, times, strict=True)]
    # Of one time the order of the bag counts.
    order = sorted(range(len(events)), key=lambda number: said[number])
    return [(said[number], events[number]) for number in order]


def window_numbers(windows: Sequence[Window]) -> list[int]:
    """The number of each episode of a bag: the recorder's, or the place in the bag."""
    return [
        place if window.index is None else window.index for place, window in enumerate(windows)
    ]


def window_fields(
    windows: Sequence[Window], source: str, **more: Sequence[float]
) -> dict[str, EpisodeField]:
    """What an expression can ask of recorded episodes, as the bag's marks have them.

    Args:
        windows: The episodes. Their index is that of `window_numbers`.
        source: The bag's name.
        more: Further fields of WINDOW_KINDS with the value of each episode.
    """
    columns: dict[str, Sequence[Value]] = {
        "index": [float(number) for number in window_numbers(windows)],
        "task": [window.task for window in windows],
        "outcome": [window.outcome for window in windows],
        "source": [source] * len(windows),
        **more,
    }
    return {
        name: EpisodeField.of(kind, columns[name])
        for name, kind in WINDOW_KINDS.items()
        if name in columns
    }


class Interventions:
    """When a human drove instead of the policy, by the policy node's events.

    Args:
        events: Of the bag.
        runs: Of the clock.
        by_log: As in `windows_of`.
    """

    def __init__(self, events: Sequence[Event], runs: Runs, *, by_log: bool) -> None:
        told = [event for event in events if tells_intervention(event)]
        self._changes = [
            (moment, event.kind == INTERVENTION_BEGIN)
            for moment, event in _in_order(told, runs, by_log=by_log)
        ]

    def at(self, run: int, ticks_ns: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Tell for each tick of one run of the clock whether a human drove, shape (T,).

        Before the first event the other one drove; the last one lasts to the end.
        """
        human = bool(self._changes) and not self._changes[0][1]
        result = np.full(len(ticks_ns), human)
        for moment, human in self._changes:
            if moment.run < run:
                result[:] = human
            elif moment.run == run:
                result[ticks_ns >= moment.time_ns] = human
        return result


def tells_intervention(event: Event) -> bool:
    """Whether an event says that a human took over or gave back."""
    return event.kind in (INTERVENTION_BEGIN, INTERVENTION_END)


def _apply(windows: list[Window], moment: Moment, event: Event) -> None:
    if event.kind == START:
        if windows and (windows[-1].end_run, windows[-1].end_ns) > moment:
            windows[-1] = replace(windows[-1], end_run=moment.run, end_ns=moment.time_ns - 1)
        windows.append(
            Window(
                moment.time_ns,
                task=event.task,
                outcome=event.outcome,
                index=event.episode_index,
                grid_ns=moment.time_ns,
                start_run=moment.run,
            )
        )
        return
    place = next(
        (p for p in reversed(range(len(windows))) if windows[p].index == event.episode_index), None
    )
    if place is None:
        return
    window = windows[place]
    if event.kind in (STOP, DISCARD) and window.end_run == LAST_RUN:
        window = replace(window, end_run=moment.run, end_ns=moment.time_ns)
    if event.kind == DISCARD:
        window = replace(window, outcome="discarded")
    elif event.kind in (STOP, LABEL, UNDO):
        kept = "" if window.outcome == "discarded" and event.kind == UNDO else window.outcome
        window = replace(window, outcome=event.outcome or kept)
    windows[place] = window
