# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What is inside a bag: topics, rates, gaps, jitter, joint curves, a few pictures, a verdict."""

from __future__ import annotations

import enum
from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from koch_episodes.bag import Bag, RawMessage, open_bag
from koch_episodes.bag.types import TypeDecoder
from koch_episodes.convert.events import Window, windows_of
from koch_episodes.convert.mapping import Source
from koch_episodes.convert.options import StampFrom
from koch_episodes.convert.topics import TopicReader, rgb_of, size_of
from koch_episodes.convert.track import StreamFacts
from koch_episodes.decode import IMAGE_TYPES, NAMED_TYPES
from koch_episodes.errors import DecodeError
from koch_rig.errors import KochError

THUMBNAILS = 4
_GAP_AMBER, _GAP_RED_S = 3.5, 0.5  # times the median distance; seconds


class Verdict(enum.Enum):
    """Whether a recording is fit for training."""

    GOOD = "good"
    DOUBTFUL = "doubtful"
    BAD = "bad"


@dataclass(eq=False)
class TopicFacts:
    """One topic.

    Attributes:
        type: ROS type.
        stamps_ns: Header stamps (log times where there is no header), int64.
        stream: Measures of the stamps.
        broken: Why messages could not be read, to how many.
        detail: Picture size or element names.
        names: Element names of a JointState or NamedVector.
        values: Its values over time, float64, shape (n, len(names)).
        pictures: Up to four RGB pictures from first to last.
    """

    type: str
    stamps_ns: npt.NDArray[np.int64]
    stream: StreamFacts
    broken: Mapping[str, int] = field(default_factory=dict)
    detail: str = ""
    names: tuple[str, ...] = ()
    values: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))
    pictures: list[npt.NDArray[np.uint8]] = field(default_factory=list)


@dataclass(eq=False)
class BagFacts:
    """Everything `koch inspect` tells about a bag."""

    path: Path
    topics: dict[str, TopicFacts]
    windows: list[Window]
    custom: Mapping[str, str]
    damage: list[str]
    reasons: list[str]
    verdict: Verdict


class _Collector:
    """Reads one topic of the bag once, in bounded memory for pictures."""

    def __init__(self, bag: Bag, name: str, types: TypeDecoder) -> None:
        self._topic = bag.topics[name]
        self.stamps = array("q")
        self.values = array("d")
        self.names: tuple[str, ...] = ()
        self.detail = ""
        self.broken: Counter[str] = Counter()
        self._kept: list[tuple[int, bytes]] = []
        self._seen = 0
        self._stride = 1
        self._reader: TopicReader | None = None
        if self._topic.type in (*IMAGE_TYPES, *NAMED_TYPES):
            self._reader = TopicReader(self._topic, Source(name), types, StampFrom.AUTO)

    def take(self, message: RawMessage) -> None:
        """Note one message."""
        if self._reader is None:
            self.stamps.append(message.log_ns)
            return
        try:
            if self._reader.is_picture:
                self._take_picture(self._reader, message)
            else:
                self._take_vector(self._reader, message)
        except DecodeError as exc:
            self.broken[exc.why] += 1

    def _take_picture(self, reader: TopicReader, message: RawMessage) -> None:
        stamp, picture = reader.picture(message)
        height, width = size_of(picture)
        self.stamps.append(stamp)
        self.detail = f"{width}x{height}"
        if self._seen % self._stride == 0:
            self._kept.append((self._seen, message.data))
            if len(self._kept) == 4 * THUMBNAILS:  # thin out: never more than 16 are held
                self._kept = self._kept[::2]
                self._stride *= 2
        self._seen += 1

    def _take_vector(self, reader: TopicReader, message: RawMessage) -> None:
        if not self.names:
            self.names = reader.names(message)
            self.detail = " ".join(self.names)
            reader.source = Source(self._topic.name, names=self.names)
        stamp, vector = reader.vector(message)
        self.stamps.append(stamp)
        self.values.extend(vector)

    def facts(self) -> TopicFacts:
        """Measure what was collected."""
        stamps = np.array(self.stamps, dtype=np.int64)
        values = np.array(self.values).reshape(-1, max(1, len(self.names)))
        pictures = self._thumbnails()  # finds broken ones too
        return TopicFacts(
            self._topic.type,
            stamps,
            StreamFacts.of(stamps),
            self.broken,
            self.detail,
            self.names,
            values,
            pictures,
        )

    def _thumbnails(self) -> list[npt.NDArray[np.uint8]]:
        if self._reader is None or not self._kept:
            return []
        places = np.linspace(0, len(self._kept) - 1, min(THUMBNAILS, len(self._kept)))
        found = []
        for place in sorted({round(float(p)) for p in places}):
            message = RawMessage(self._topic.name, 0, self._kept[place][1])
            try:
                found.append(rgb_of(self._reader.picture(message)[1]))
            except DecodeError as exc:
                self.broken[exc.why] += 1
        return found


def inspect_bag(path: Path) -> BagFacts:
    """Read a bag once and measure it.

    Raises:
        BagError: There is no readable bag.
    """
    with open_bag(path) as bag:
        types = TypeDecoder()
        collectors = {name: _Collector(bag, name, types) for name in sorted(bag.topics)}
        for message in bag.messages(bag.topics):
            collectors[message.topic].take(message)
        topics = {name: collector.facts() for name, collector in collectors.items()}
        try:
            windows = windows_of(bag)
        except KochError as exc:
            bag.note(str(exc))
            windows = []
        verdict, reasons = judge(topics, bag.damage)
        reasons += [
            f"{name}: {form} messages, not ROS 2's (cdr); not read"
            for name, form in bag.foreign.items()
        ]
        return BagFacts(
            path, topics, windows, dict(bag.custom), list(bag.damage), reasons, verdict
        )


def judge(topics: Mapping[str, TopicFacts], damage: list[str]) -> tuple[Verdict, list[str]]:
    """Return a verdict and its reasons, worst first."""
    bad, doubtful = [], []
    for name, facts in topics.items():
        stream = facts.stream
        if facts.broken:
            why = max(facts.broken, key=lambda reason: facts.broken[reason])
            bad.append(f"{name}: {sum(facts.broken.values())} unreadable message(s) ({why})")
        if facts.type not in (*IMAGE_TYPES, *NAMED_TYPES):
            continue  # events and parameters have no rate
        if stream.count < 2:
            bad.append(f"{name}: {stream.count} message(s)")
        elif stream.max_gap_s > _GAP_RED_S:
            bad.append(f"{name}: gap of {stream.max_gap_s:.2f} s")
        elif stream.max_gap_s > _GAP_AMBER * max(stream.median_gap_s, 1e-9):
            doubtful.append(
                f"{name}: gap of {stream.max_gap_s * 1e3:.0f} ms, usually "
                f"{stream.median_gap_s * 1e3:.0f} ms"
            )
    if not topics:
        bad.append("no topics")
    bad += damage
    if bad:
        return Verdict.BAD, bad + doubtful
    return (Verdict.DOUBTFUL if doubtful else Verdict.GOOD), doubtful
