# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What is inside a bag: topics, rates, gaps, jitter, joint curves, a few images, a verdict."""

from __future__ import annotations

import enum
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from koch_core.errors import DecodeError, KochError
from koch_core.health import StreamStatistics
from koch_episodes.bag import Bag, RawMessage, Topic, open_bag
from koch_episodes.bag.types import TypeDecoder
from koch_episodes.convert.events import Window, obey_marks, windows_of
from koch_episodes.convert.lag import delays_of
from koch_episodes.convert.mapping import FeatureSource
from koch_episodes.convert.options import StampFrom
from koch_episodes.convert.survey import Survey, SurveyedStream, streams_of, survey_bag
from koch_episodes.convert.topics import Form, TopicReader, rgb_of
from koch_episodes.decode import IMAGE_TYPES, NAMED_TYPES
from koch_episodes.goal_trace import ARM_TOPIC, POLICY_TOPIC
from koch_episodes.recorder.topics import ENERGY_TOPIC

THUMBNAILS = 4
_TRACES = (POLICY_TOPIC, ARM_TOPIC)
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
        detail: Image size or element names.
        names: Element names of a JointState or NamedVector.
        values: Its values over time, float64, shape (n, len(names)).
        images: Up to four RGB images from first to last.
        image_stamps_ns: Their stamps, int64.
        logs_ns: When the messages of `stamps_ns` were recorded, int64.
    """

    type: str
    stamps_ns: npt.NDArray[np.int64]
    stream: StreamStatistics
    broken: Mapping[str, int] = field(default_factory=dict)
    detail: str = ""
    names: tuple[str, ...] = ()
    values: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))
    images: list[npt.NDArray[np.uint8]] = field(default_factory=list)
    image_stamps_ns: list[int] = field(default_factory=list)
    logs_ns: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def is_measured(self) -> bool:
        """Whether it is a stream of numbers or images, which has a rate and is drawn."""
        return self.type in (*IMAGE_TYPES, *NAMED_TYPES)


@dataclass(eq=False)
class BagFacts:
    """Everything `koch inspect` tells about a bag.

    Attributes:
        recorded: Its episodes as they were recorded.
        windows: Its episodes as its marks want them.
        clock_faults: What is wrong with the clocks of streams, part of the reasons.
        marked: What the marks say, one line for each edit.
        runs: How often the clock begins.
    """

    path: Path
    topics: dict[str, TopicFacts]
    recorded: list[Window]
    windows: list[Window]
    marked: list[str]
    runs: int
    custom: Mapping[str, str]
    damage: list[str]
    reasons: list[str]
    verdict: Verdict
    clock_faults: Sequence[str] = ()

    @property
    def span_ns(self) -> tuple[int, int]:
        """First and last stamp of the streams; seconds count from the first one."""
        stamps = [t.stamps_ns for t in self.topics.values() if t.is_measured and len(t.stamps_ns)]
        first = min((int(each.min()) for each in stamps), default=0)
        return first, max((int(each.max()) for each in stamps), default=first)


class _Collector:
    """Reads the usable messages of one topic, in bounded memory for images.

    Args:
        topic: Of the bag.
        stream: Which messages are of use, None for a topic that is only counted.
        types: Shared type decoder.
    """

    def __init__(self, topic: Topic, stream: SurveyedStream | None, types: TypeDecoder) -> None:
        self._topic = topic
        self._stream = stream
        self._logs = array("q")
        self._values = array("d")
        self._failed: Counter[str] = Counter()
        self._kept: list[tuple[int, bytes]] = []  # number among the usable, data
        self._seen = self._number = 0
        self._stride = 1
        self._usable: frozenset[int] = frozenset()
        self._reader: TopicReader | None = None
        if stream is not None:
            self._reader = TopicReader(topic, stream.source, types)
            self._usable = frozenset(stream.numbers.tolist())

    def take(self, message: RawMessage) -> None:
        """Note one message."""
        number, self._number = self._number, self._number + 1
        if self._reader is None:
            self._logs.append(message.log_ns)
        elif number in self._usable:
            if self._reader.is_image:
                self._take_image(message)
            else:
                self._values.extend(self._reader.vector(message))

    def _take_image(self, message: RawMessage) -> None:
        if self._seen % self._stride == 0:
            self._kept.append((self._seen, message.data))
            if len(self._kept) == 4 * THUMBNAILS:  # thin out: never more than 16 are held
                self._kept = self._kept[::2]
                self._stride *= 2
        self._seen += 1

    def facts(self, shape: tuple[Any, ...]) -> TopicFacts:
        """Measure what was collected; `shape`: (height, width) [px] or element names."""
        thumbnails = self._thumbnails()  # finds broken ones too
        stream = self._stream
        if stream is None:
            logs = np.array(self._logs, dtype=np.int64)
            return TopicFacts(self._topic.type, logs, StreamStatistics.of(logs))
        is_image = self._reader is not None and self._reader.is_image
        names = () if is_image else tuple(map(str, shape))
        values = np.array(self._values).reshape(-1, max(1, len(names)))
        return TopicFacts(
            self._topic.type,
            stream.stamps,
            StreamStatistics.of(stream.stamps, stream.runs),
            stream.refused + self._failed,
            f"{shape[1]}x{shape[0]}" if is_image and shape else " ".join(names),
            names,
            values,
            [image for _, image in thumbnails],
            [int(stream.stamps[place]) for place, _ in thumbnails],
            stream.logs,
        )

    def _thumbnails(self) -> list[tuple[int, npt.NDArray[np.uint8]]]:
        if self._reader is None or not self._kept:
            return []
        places = np.linspace(0, len(self._kept) - 1, min(THUMBNAILS, len(self._kept)))
        found = []
        for place in sorted({round(float(p)) for p in places}):
            number, data = self._kept[place]
            message = RawMessage(self._topic.name, 0, data)
            try:
                found.append((number, rgb_of(self._reader.image(message))))
            except DecodeError as exc:
                self._failed[exc.why] += 1
        return found


def inspect_bag(path: Path) -> BagFacts:
    """Read a bag and measure it; what is usual is decided by all of it, as in a conversion.

    Raises:
        BagError: There is no readable bag.
    """
    with open_bag(path) as bag:
        sources = [
            FeatureSource(name)
            for name, topic in sorted(bag.topics.items())
            if topic.type in (*IMAGE_TYPES, *NAMED_TYPES) and not name.endswith(_TRACES)
        ]
        survey = _survey(bag, sources)
        shapes = {reading.topic: _usual(seen.counts()) for reading, seen in survey.seen.items()}
        named = [
            replace(s, names=shapes[s.topic]) if bag.topics[s.topic].type in NAMED_TYPES else s
            for s in sources
        ]
        streams, runs = streams_of(
            survey, named, StampFrom.AUTO, lambda s, form: _why_odd(shapes[s.topic], form), {}
        )
        topics = _topic_facts(bag, streams, shapes)
        recorded = windows_of(survey.events, bag.custom, runs, [], by_log=False)
        marked: list[str] = []
        windows = obey_marks(recorded, bag.marks, marked, by_log=False)
        images = frozenset(n for n, t in bag.topics.items() if t.type in IMAGE_TYPES)
        faults = [delay.fault for delay in delays_of(streams, images) if delay.fault]
        verdict, reasons = _judged(topics, bag, faults, runs.count)
        return BagFacts(
            path,
            topics,
            recorded,
            windows,
            marked,
            runs.count,
            bag.marks.over(bag.custom) if len(windows) == 1 else dict(bag.custom),
            list(bag.damage),
            reasons,
            verdict,
            faults,
        )


def _topic_facts(
    bag: Bag, streams: Sequence[SurveyedStream], shapes: Mapping[str, tuple[Any, ...]]
) -> dict[str, TopicFacts]:
    """Read the bag once more, for what is shown of each topic."""
    types = TypeDecoder()
    by_topic = {stream.source.topic: stream for stream in streams}
    collectors = {
        name: _Collector(bag.topics[name], by_topic.get(name), types)
        for name in sorted(bag.topics)
    }
    for message in bag.messages(bag.topics):
        collectors[message.topic].take(message)
    return {name: c.facts(shapes.get(name, ())) for name, c in collectors.items()}


def _judged(
    topics: Mapping[str, TopicFacts], bag: Bag, faults: Sequence[str], clock_runs: int
) -> tuple[Verdict, list[str]]:
    """Judge the topics, and add what speaks against the bag as a whole."""
    verdict, reasons = judge(topics, bag.damage)
    if faults and verdict is Verdict.GOOD:
        verdict = Verdict.DOUBTFUL
    reasons += faults
    if clock_runs > 1:
        reasons.append(f"the clock was set back {clock_runs - 1} time(s)")
    reasons += [f"passed over: {line}" for line in bag.passed_over]
    reasons += [
        f"{name}: {form} messages, not ROS 2's (cdr); not read"
        for name, form in bag.foreign.items()
    ]
    return verdict, reasons


def _survey(bag: Bag, sources: list[FeatureSource]) -> Survey:
    try:
        return survey_bag(bag, sources)
    except KochError as exc:  # events of a type that is not known
        bag.note(str(exc))
        return survey_bag(bag, sources, events=False)


def _usual(counts: Counter[Form]) -> tuple[Any, ...]:
    shapes: Counter[tuple[Any, ...]] = Counter()
    for form, count in counts.items():
        if not form.why:
            shapes[form.size or form.names] += count
    return shapes.most_common(1)[0][0] if shapes else ()


def _why_odd(shape: tuple[Any, ...], form: Form) -> str:
    if form.size is not None:
        height, width = form.size
        return "" if form.size == shape else f"image of {width}x{height} px, not as the others"
    if set(shape) - set(form.names):
        return "other elements than most have"
    return f"value not finite: {', '.join(form.broken)}" if form.broken else ""


def judge(topics: Mapping[str, TopicFacts], damage: list[str]) -> tuple[Verdict, list[str]]:
    """Return a verdict and its reasons, worst first."""
    bad, doubtful = [], []
    for name, facts in topics.items():
        stream = facts.stream
        if facts.broken:
            why = max(facts.broken, key=lambda reason: facts.broken[reason])
            bad.append(f"{name}: {sum(facts.broken.values())} unreadable message(s) ({why})")
        if not facts.is_measured or name.endswith(ENERGY_TOPIC):
            continue  # events and parameters have no rate, and chunks come as it suits a policy
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
