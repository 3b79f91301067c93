# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The messages of a bag with acquisition stamps that can be believed.

`koch replay` and `koch run --replay` read bags here, by the converter's rule (`bag.clock`). A
stamp that is zero, or off the line of its stream, is one refused sample: it must not say when a
replay ends. A clock that was set again inside the bag makes two recordings of one, which only the
converter takes apart.

What the bag's marks cut off is left out, as in a conversion. They are followed where the bag is
one episode: a bag that `ros2 bag record` made may hold several, which only the converter tells
apart.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from koch_core.errors import DecodeError
from koch_core.stream import NS_PER_S, stamp_ns
from koch_episodes import cdr
from koch_episodes.bag.clock import REFUSED, Numbers, Runs, Times
from koch_episodes.bag.reader import Bag
from koch_episodes.bag.storage import EVENTS_TYPE, RawMessage
from koch_episodes.bag.types import TypeDecoder
from koch_episodes.errors import EpisodeError

# No stream of a robot is so late, and no recorder stops for so long without its log time.
_FAR_NS = 5 * NS_PER_S
_EVER = (-(1 << 62), 1 << 62)


class Stamped(NamedTuple):
    """A message and the time at which its content was acquired."""

    topic: str
    stamp_ns: int
    value: Any


class StampedBag:
    """Some topics of an open bag, all with a header.

    Attributes:
        notes: What was passed over, and the bag's damage; one line each.

    Raises:
        EpisodeError: A topic has no stamps, the clock was set again in between, or the bag is
            marked as deleted.
    """

    def __init__(self, bag: Bag, topics: Collection[str]) -> None:
        self._bag = bag
        self._topics = list(topics)
        self._types = TypeDecoder()
        for topic in self._topics:
            self._types.add(bag.topics[topic])
        self.notes: list[str] = []
        self._first_ns, self._last_ns = self._span()
        self._kept = self._judged(self._times())
        self.notes += [f"{bag.name} is damaged: {line}" for line in bag.damage]

    def messages(self) -> Iterator[Stamped]:
        """Yield what was kept, in the bag's order.

        Raises:
            EpisodeError: A message cannot be decoded.
        """
        places = dict.fromkeys(self._topics, -1)
        for message in self._bag.messages(self._topics):
            places[message.topic] += 1
            if self._kept[message.topic][places[message.topic]]:
                value = self._decoded(message)
                yield Stamped(message.topic, stamp_ns(value.header.stamp), value)

    def _span(self) -> tuple[int, int]:
        """First and last stamp that the bag's marks keep, [ns]."""
        mark = self._bag.marks.of(0)
        if self._bag.marks.delete_all:
            advice = f"'koch dataset undo {self._bag.path}' takes the last mark back."
            raise EpisodeError(self._bag.name, "is marked as deleted", advice)
        told = any(topic.type == EVENTS_TYPE for topic in self._bag.topics.values())
        if told and "koch.index" not in self._bag.custom:
            if self._bag.marks.edits:
                self.notes.append("its marks are of single episodes; all of the bag is played")
            return _EVER
        self.notes += [f"marked: {edit.told}" for edit in self._bag.marks.edits]
        first = _EVER[0] if mark.begin is None else mark.begin.stamp_ns
        return first, _EVER[1] if mark.end is None else mark.end.stamp_ns

    def _times(self) -> dict[str, Times]:
        columns: dict[str, list[tuple[int, int, int]]] = {topic: [] for topic in self._topics}
        for place, message in enumerate(self._bag.messages(self._topics)):
            columns[message.topic].append((place, self._stamp_ns(message), message.log_ns))
        return {
            topic: Times(*np.array(rows, np.int64).reshape(-1, 3).T)
            for topic, rows in columns.items()
        }

    def _stamp_ns(self, message: RawMessage) -> int:
        if cdr.is_little_endian(message.data) and len(message.data) >= 12:
            return cdr.header_stamp_ns(message.data)
        return stamp_ns(self._decoded(message).header.stamp)

    def _decoded(self, message: RawMessage) -> Any:
        kind = self._bag.topics[message.topic].type
        try:
            return self._types.decode(kind, message.data)
        except DecodeError as exc:
            raise EpisodeError(self._bag.name, f"{message.topic}: {exc}") from exc

    def _judged(self, every: dict[str, Times]) -> dict[str, npt.NDArray[np.bool_]]:
        """Mark the samples of each topic whose stamp can be believed."""
        kept = {topic: times.stamps > 0 for topic, times in every.items()}
        stamped = {}
        for topic, times in every.items():
            good = kept[topic]
            zero = int((~good).sum())
            if zero * 2 > len(good):
                raise EpisodeError(
                    self._bag.name,
                    f"{topic}: {zero} of {len(good)} messages have no stamp",
                    "Convert it ('koch convert' can go by the time of recording) and replay that.",
                )
            stamped[topic] = Times(times.places[good], times.stamps[good], times.logs[good])
            self._note(topic, zero, len(good), "zero")
        runs = Runs(list(stamped.values()))
        for (topic, times), run in zip(stamped.items(), runs.of_streams, strict=True):
            on_line = run != REFUSED
            self._note(topic, int((~on_line).sum()), len(kept[topic]), "off the others' line")
            self._require_one_clock(topic, times, run)
            kept[topic][kept[topic]] = on_line
            kept[topic] &= every[topic].stamps >= self._first_ns
            kept[topic] &= every[topic].stamps <= self._last_ns
        return kept

    def _note(self, topic: str, count: int, total: int, what: str) -> None:
        if count:
            self.notes.append(f"{topic}: {count} of {total} stamps are {what}; these are left out")

    def _require_one_clock(self, topic: str, times: Times, run: Numbers) -> None:
        """Refuse stamps of two runs of the clock, and those that leap away from the log times."""
        good = run != REFUSED
        stamps, logs, run = times.stamps[good], times.logs[good], run[good]
        leaps = (np.abs(np.diff(stamps - logs)) > _FAR_NS) & (logs[1:] > 0) & (logs[:-1] > 0)
        jumps = np.flatnonzero(leaps | (np.diff(run) != 0))
        if len(jumps):
            place = int(jumps[0])
            step_s = float(stamps[place + 1] - stamps[place]) / NS_PER_S
            after_s = float(stamps[place] - stamps[0]) / NS_PER_S
            raise EpisodeError(
                self._bag.name,
                f"{topic}: the clock jumps by {step_s:.3f} s after {after_s:.1f} s (a simulation "
                "that was reset, a clock that was set)",
                "Convert it, which splits it there, and replay an episode of the dataset.",
            )
