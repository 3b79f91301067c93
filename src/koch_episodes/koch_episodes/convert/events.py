# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Which stretches of a bag are episodes: the whole bag, or what /episodes/events says."""

from __future__ import annotations

from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any

from koch_episodes.bag import Bag
from koch_episodes.bag.types import TypeDecoder
from koch_episodes.errors import DecodeError
from koch_episodes.stream import NS_PER_S

EVENTS_TYPE = "koch_interfaces/msg/EpisodeEvent"
START, STOP, DISCARD, LABEL, UNDO = 0, 1, 2, 5, 6
_ALWAYS_NS = 1 << 62


@dataclass(frozen=True)
class Window:
    """An episode as a stretch of time.

    Attributes:
        start_ns: First possible tick, [ns].
        end_ns: Last possible tick, [ns].
        task: Task text, empty where unknown.
        outcome: ``success``, ``failure``, ``discarded``, a word of the user's, or empty.
        index: The recorder's episode number, None where unknown.
        grid_ns: A time on which a tick falls, [ns]: the start event's, so that two bags of the
            same episode have the same frames; None where there was no such event.
    """

    start_ns: int = -_ALWAYS_NS
    end_ns: int = _ALWAYS_NS
    task: str = ""
    outcome: str = ""
    index: int | None = None
    grid_ns: int | None = None

    def first_tick(self, ready_ns: int, fps: int) -> int:
        """The first tick at which every stream has begun, at `ready_ns` or after it, [ns]."""
        ready_ns = max(ready_ns, self.start_ns)
        if self.grid_ns is None:
            return ready_ns
        ticks = -((self.grid_ns - ready_ns) * fps // NS_PER_S)
        return self.grid_ns + round(ticks * NS_PER_S / fps)


def windows_of(bag: Bag, notes: list[str] | None = None) -> list[Window]:
    """Return the episodes of a bag in order of time, discarded ones included.

    A bag written by the episode recorder is one episode, to its stop event: what came while the
    bag was closed is in no other bag's episode either. Another bag is split by the start and stop
    events in it; without such events it is one episode too.

    Args:
        bag: The bag.
        notes: Where to tell of events that are no damage, but not as usual.
    """
    found = _said_by_events(bag, [] if notes is None else notes)
    if "koch.index" in bag.custom:
        number = bag.custom["koch.index"]
        index = int(number) if number.isdigit() else None
        said = next((window for window in found if window.index == index), Window())
        return [
            Window(
                end_ns=said.end_ns,
                task=bag.custom.get("koch.task", ""),
                outcome=bag.custom.get("koch.outcome", ""),
                index=index,
                grid_ns=said.grid_ns,
            )
        ]
    return found or [Window(task=bag.custom.get("koch.task", ""))]


def _said_by_events(bag: Bag, notes: list[str]) -> list[Window]:
    """The episodes that start and stop events of a bag tell of."""
    topics = [topic for topic in bag.topics.values() if topic.type == EVENTS_TYPE]
    if not topics:
        return []
    types = TypeDecoder()
    for topic in topics:
        types.add(topic)
    events: list[tuple[int, Any]] = []
    for message in bag.messages([topic.name for topic in topics]):
        try:
            event = types.decode(EVENTS_TYPE, message.data)
        except DecodeError as exc:
            bag.note(f"{message.topic}: {exc}")
            continue
        stamp = int(event.header.stamp.sec) * NS_PER_S + int(event.header.stamp.nanosec)
        note = f"{message.topic}: timed by the recorder's clock"
        if stamp == 0 and note not in notes:
            notes.append(note)
        events.append((stamp or message.log_ns, event))
    found: list[Window] = []
    for stamp, event in sorted(events, key=itemgetter(0)):  # several senders overtake each other
        _apply(found, stamp, event)
    return found


def _apply(windows: list[Window], stamp: int, event: Any) -> None:
    if event.kind == START:
        if windows and windows[-1].end_ns > stamp:
            windows[-1] = replace(windows[-1], end_ns=stamp - 1)
        windows.append(
            Window(
                stamp,
                task=event.task,
                outcome=event.outcome,
                index=int(event.episode_index),
                grid_ns=stamp,
            )
        )
        return
    place = next(
        (p for p in reversed(range(len(windows))) if windows[p].index == int(event.episode_index)),
        None,
    )
    if place is None:
        return
    window = windows[place]
    if event.kind in (STOP, DISCARD) and window.end_ns == _ALWAYS_NS:
        window = replace(window, end_ns=stamp)
    if event.kind == DISCARD:
        window = replace(window, outcome="discarded")
    elif event.kind in (STOP, LABEL, UNDO):
        kept = "" if window.outcome == "discarded" and event.kind == UNDO else window.outcome
        window = replace(window, outcome=event.outcome or kept)
    windows[place] = window
