# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The messages of a bag with acquisition stamps that can be believed.

`koch replay` and `koch run --replay` read bags here. A stamp that is zero, or far from where its
neighbours are, is one refused sample: it must not decide when a replay ends. A clock that was set
anew inside the bag makes two recordings of one, which only the converter takes apart.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from koch_core.errors import DecodeError
from koch_core.stream import NS_PER_S
from koch_episodes import cdr
from koch_episodes.bag.reader import Bag
from koch_episodes.bag.storage import RawMessage
from koch_episodes.bag.types import TypeDecoder
from koch_episodes.errors import EpisodeError

# No stream of a robot is so late, and no recorder stops for so long without its log time.
_FAR_NS = 5 * NS_PER_S
_NEIGHBOURS = 2  # on each side
Stamps = npt.NDArray[np.int64]
Logged = npt.NDArray[np.float64]  # broken ones do not fit into 63 bits; to 256 ns is enough here


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
        EpisodeError: A topic has no stamps, or the clock was set anew in between.
    """

    def __init__(self, bag: Bag, topics: Collection[str]) -> None:
        self._bag = bag
        self._topics = list(topics)
        self._types = TypeDecoder()
        for topic in self._topics:
            self._types.add(bag.topics[topic])
        self.notes: list[str] = []
        self._kept = {
            topic: self._judge(topic, stamps, logged)
            for topic, (stamps, logged) in self._stamps().items()
        }
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
                yield Stamped(message.topic, _header_ns(value), value)

    def _stamps(self) -> dict[str, tuple[Stamps, Logged]]:
        stamps: dict[str, list[int]] = {topic: [] for topic in self._topics}
        logged: dict[str, list[float]] = {topic: [] for topic in self._topics}
        for message in self._bag.messages(self._topics):
            stamps[message.topic].append(self._stamp_ns(message))
            logged[message.topic].append(float(message.log_ns))
        return {
            topic: (np.array(stamps[topic], np.int64), np.array(logged[topic], np.float64))
            for topic in self._topics
        }

    def _stamp_ns(self, message: RawMessage) -> int:
        if cdr.is_little_endian(message.data) and len(message.data) >= 12:
            return cdr.header_stamp_ns(message.data)
        return _header_ns(self._decoded(message))

    def _decoded(self, message: RawMessage) -> Any:
        kind = self._bag.topics[message.topic].type
        try:
            return self._types.decode(kind, message.data)
        except DecodeError as exc:
            raise EpisodeError(self._bag.name, f"{message.topic}: {exc}") from exc

    def _judge(self, topic: str, stamps: Stamps, logged: Logged) -> npt.NDArray[np.bool_]:
        """Mark the samples of a topic whose stamp can be believed."""
        kept = stamps > 0
        zero = len(stamps) - int(kept.sum())
        if zero * 2 > len(stamps):
            raise EpisodeError(
                self._bag.name,
                f"{topic}: {zero} of {len(stamps)} messages have no stamp",
                "Convert it ('koch convert' can go by the time of recording) and replay that.",
            )
        kept[kept] = ~_outliers(stamps[kept] - logged[kept])
        far = len(stamps) - zero - int(kept.sum())
        for count, what in ((zero, "zero"), (far, "far from their neighbours'")):
            if count:
                self.notes.append(
                    f"{topic}: {count} of {len(stamps)} stamps are {what}; these are left out"
                )
        self._require_one_clock(topic, stamps[kept], logged[kept])
        return kept

    def _require_one_clock(self, topic: str, stamps: Stamps, logged: Logged) -> None:
        steps = np.diff(stamps - logged)
        back = np.flatnonzero((np.diff(stamps) < -NS_PER_S) | (np.abs(steps) > _FAR_NS))
        if len(back):
            place = int(back[0])
            step_s = float(stamps[place + 1] - stamps[place]) / NS_PER_S
            after_s = float(stamps[place] - stamps[0]) / NS_PER_S
            raise EpisodeError(
                self._bag.name,
                f"{topic}: the clock jumps by {step_s:.3f} s after {after_s:.1f} s (a simulation "
                "that was reset, a clock that was set)",
                "Convert it, which splits it there, and replay an episode of the dataset.",
            )


def _outliers(lead_ns: Logged) -> npt.NDArray[np.bool_]:
    """Mark samples whose stamp runs ahead of its log time otherwise than the neighbours'."""
    if not len(lead_ns):
        return np.zeros(0, dtype=bool)
    padded = np.pad(lead_ns, _NEIGHBOURS, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * _NEIGHBOURS + 1)
    # An edge is padded with itself: there the inner neighbours decide.
    middle = np.median(windows, axis=1)
    if len(lead_ns) > 2 * _NEIGHBOURS:
        middle[:_NEIGHBOURS] = np.median(lead_ns[1 : 2 * _NEIGHBOURS + 2])
        middle[-_NEIGHBOURS:] = np.median(lead_ns[-2 * _NEIGHBOURS - 2 : -1])
    found: npt.NDArray[np.bool_] = np.abs(lead_ns - middle) > _FAR_NS
    return found


def _header_ns(value: Any) -> int:
    stamp = value.header.stamp
    return int(stamp.sec) * NS_PER_S + int(stamp.nanosec)
