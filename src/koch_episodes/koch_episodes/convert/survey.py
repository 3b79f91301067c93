# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The first pass over a bag: when every message came, and of what form it is. Nothing is kept.

Everything that is decided about a bag is decided by this: the clock of a stream, the runs of that
clock, the image size, the element names. Never by the first message: a driver sends a few odd
ones before it is ready. Forty bytes per message are held, whatever the messages hold.
"""

from __future__ import annotations

import json
import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from koch_core.errors import DecodeError
from koch_episodes.bag import Bag, RawMessage
from koch_episodes.bag.clock import REFUSED, Runs, Times
from koch_episodes.bag.storage import EVENTS_TYPE
from koch_episodes.bag.types import TypeDecoder
from koch_episodes.cdr import stream_state
from koch_episodes.convert.events import Event, read_event
from koch_episodes.convert.mapping import FeatureSource
from koch_episodes.convert.options import StampFrom
from koch_episodes.convert.topics import Form, TopicReader, TopicReading

Numbers = npt.NDArray[np.int64]

STATE_TYPE = "koch_interfaces/msg/StreamState"
_COLUMNS = ("places", "logs", "stamps", "form", "marks")
_MARKED_BYTES = 4096  # of each end of a message
_MOST_FORMS = 200
_MOST_REASONS = 8
_ZERO_STAMP = "header stamp is zero or negative"
_ZERO_LOG = "log time is zero or negative"
_ODD_STAMP = "stamp far off those of its neighbours"


@dataclass(eq=False)
class Seen:
    """All messages of one reading in the order of the bag.

    Attributes:
        forms: The different forms.
        places: Of each message in the bag, int64.
        logs: Log times, [ns], int64.
        stamps: Header stamps, [ns], int64; 0 where a message has none.
        form: Index into `forms`, int64.
        marks: Checksums of the content, int64.
    """

    forms: list[Form] = field(default_factory=list)
    places: Any = field(default_factory=lambda: array("q"))
    logs: Any = field(default_factory=lambda: array("q"))
    stamps: Any = field(default_factory=lambda: array("q"))
    form: Any = field(default_factory=lambda: array("q"))
    marks: Any = field(default_factory=lambda: array("q"))
    _known: dict[Form, int] = field(default_factory=dict)

    def add(self, place: int, log_ns: int, stamp_ns: int, form: Form, mark: int = 0) -> None:
        """Note a message."""
        number = self._known.get(form)
        if number is None:
            if len(self.forms) >= _MOST_FORMS:
                form = Form("one of too many different forms")
            number = self._known.setdefault(form, len(self.forms))
            if number == len(self.forms):
                self.forms.append(form)
        self.places.append(place)
        self.logs.append(log_ns)
        self.stamps.append(stamp_ns)
        self.form.append(number)
        self.marks.append(mark)

    def column(self, name: str) -> Numbers:
        """One of the columns as an array."""
        return np.array(getattr(self, name), dtype=np.int64)

    def counts(self) -> Counter[Form]:
        """How many messages are of each form."""
        found = np.bincount(self.column("form"), minlength=len(self.forms))
        return Counter(dict(zip(self.forms, map(int, found), strict=True)))


class State(NamedTuple):
    """What a publisher said of its samples, see `StreamBuffer.mark`.

    Attributes:
        place: In the bag.
        folder: What the names of its topics begin with.
        since_ns: Header stamp of the first sample that it applies to, [ns].
        reason: Why samples from then on are unusable; empty: they are usable.
    """

    place: int
    folder: str
    since_ns: int
    reason: str


@dataclass(eq=False)
class Survey:
    """What one pass over a bag found.

    Attributes:
        seen: Reading to its messages.
        events: Episode events.
        states: What publishers said of their own samples.
        damage: What of the bag could not be read.
    """

    seen: dict[TopicReading, Seen]
    events: list[Event]
    states: list[State]
    damage: list[str]


def survey_bag(bag: Bag, sources: Iterable[FeatureSource], *, events: bool = True) -> Survey:
    """Read a bag once.

    Args:
        bag: The bag; it has all topics of the sources.
        sources: What is wanted of it.
        events: Whether to read the episode events too.

    Raises:
        MessageTypeError: A topic's type cannot fill a feature.
    """
    types = TypeDecoder()
    by_topic: dict[str, list[tuple[TopicReader, Seen]]] = {}
    seen: dict[TopicReading, Seen] = {}
    for source in sources:
        reading = TopicReading.of(source)
        if reading not in seen:
            seen[reading] = Seen()
            reader = TopicReader(bag.topics[source.topic], source, types)
            by_topic.setdefault(source.topic, []).append((reader, seen[reading]))
    telling = [t for t in bag.topics.values() if events and t.type == EVENTS_TYPE]
    for topic in telling:
        types.add(topic)
    read: list[Event] = []
    told = {topic.name for topic in telling}
    states: list[State] = []
    stating = {t.name for t in bag.topics.values() if t.type == STATE_TYPE}
    for place, message in enumerate(bag.messages([*by_topic, *told, *stating])):
        for reader, found in by_topic.get(message.topic, ()):
            found.add(place, message.log_ns, *_look(reader, message), _mark(message.data))
        if message.topic in told:
            try:
                read.append(read_event(types, message, place))
            except DecodeError as exc:
                bag.note(f"{message.topic}: {exc.why}")
        elif message.topic in stating:
            try:
                folder = message.topic.rpartition("/")[0] + "/"
                states.append(State(place, folder, *stream_state(message.data)))
            except DecodeError as exc:
                bag.note(f"{message.topic}: {exc.why}")
    return Survey(seen, read, states, list(bag.damage))


def _look(reader: TopicReader, message: RawMessage) -> tuple[int, Form]:
    try:
        return reader.look(message)
    except DecodeError as exc:
        return 0, Form(exc.why)


def _mark(data: bytes) -> int:
    """Return a checksum of a message, of a large one of its ends."""
    if len(data) <= 2 * _MARKED_BYTES:
        return zlib.crc32(data)
    return zlib.crc32(data[-_MARKED_BYTES:], zlib.crc32(data[:_MARKED_BYTES]))


@dataclass(eq=False)
class SurveyedStream:
    """The usable samples of one source, in the order of the bag.

    Attributes:
        source: What the mapping says.
        numbers: Which of the topic's messages they are, int64, shape (n,).
        stamps: Acquisition times, offset applied, [ns], int64, shape (n,).
        logs: Arrival at the recorder, [ns], int64, shape (n,).
        places: Places in the bag, int64, shape (n,).
        runs: Run of the clock, int64, shape (n,).
        clock: Header or receive.
        refused: Why other messages are not used, to how many.
        notes: What the user should know.
        states: Run, first stamp [ns] and reason of what its publisher said of its samples.
    """

    source: FeatureSource
    numbers: Numbers
    stamps: Numbers
    logs: Numbers
    places: Numbers
    runs: Numbers
    clock: StampFrom
    refused: Counter[str]
    notes: list[str] = field(default_factory=list)
    states: list[tuple[int, int, str]] = field(default_factory=list)


Fits = Callable[[FeatureSource, Form], str]
"""Why a sound message of a form does not fit a source; empty where it does."""


def streams_of(
    survey: Survey,
    sources: Sequence[FeatureSource],
    stamps: StampFrom,
    fits: Fits,
    broken: Mapping[tuple[str, int], str],
) -> tuple[list[SurveyedStream], Runs]:
    """Decide the clock of every stream and the runs of it, and which messages are of use.

    Args:
        survey: Of the bag.
        sources: The mapping's.
        stamps: Which clock to believe, where a source leaves it open.
        fits: Which messages are none for a source.
        broken: Topic and number of images that cannot be decoded, to why.
    """
    found = [_timed(survey.seen[TopicReading.of(s)], s, stamps, fits, broken) for s in sources]
    runs = Runs([Times(stream.places, stream.stamps, stream.logs) for stream in found])
    for stream, numbers in zip(found, runs.of_streams, strict=True):
        good = numbers != REFUSED
        if not good.all():
            stream.refused[_ODD_STAMP] += int((~good).sum())
        for name in ("numbers", "stamps", "logs", "places"):
            setattr(stream, name, getattr(stream, name)[good])
        stream.runs = numbers[good]
        mine = [s for s in survey.states if stream.source.topic.startswith(s.folder)]
        places = np.array([state.place for state in mine], dtype=np.int64)
        since = np.array([state.since_ns for state in mine], dtype=np.int64)
        in_run = runs.at(places, since).tolist()
        stream.states = [(r, s.since_ns, s.reason) for r, s in zip(in_run, mine, strict=True)]
    return found, runs


def _timed(
    seen: Seen,
    source: FeatureSource,
    stamps: StampFrom,
    fits: Fits,
    broken: Mapping[tuple[str, int], str],
) -> SurveyedStream:
    clock, notes = clock_of(seen, source.stamp if source.stamp is not StampFrom.AUTO else stamps)
    form, numbers = seen.column("form"), np.arange(len(seen.form))
    whys = [one.why or fits(source, one) for one in seen.forms]
    refused: Counter[str] = Counter()
    good = np.ones(len(form), dtype=np.bool_)
    for number, why in enumerate(whys):
        if why:
            mine = form == number
            refused[why] += int(mine.sum())
            good &= ~mine
    for (topic, number), why in broken.items():
        if topic == source.topic and good[number]:
            refused[why] += 1
            good[number] = False
    header = clock is StampFrom.HEADER
    times = seen.column("stamps" if header else "logs")
    if (timeless := int((good & (times <= 0)).sum())) > 0:
        refused[_ZERO_STAMP if header else _ZERO_LOG] += timeless
        good &= times > 0
    offset_ns = round(source.offset_s * 1e9)
    return SurveyedStream(
        source,
        numbers[good],
        times[good] + offset_ns,
        seen.column("logs")[good],
        seen.column("places")[good],
        np.zeros(int(good.sum()), np.int64),
        clock,
        refused,
        [f"{source.topic}: {note}" for note in notes],
    )


def clock_of(seen: Seen, wanted: StampFrom) -> tuple[StampFrom, list[str]]:
    """Return the clock of a stream, decided by most of its messages, and what to say of it."""
    if wanted is StampFrom.HEADER:
        return wanted, []
    if wanted is StampFrom.AUTO:
        sound = np.array([not form.why for form in seen.forms], dtype=np.bool_)
        stamps = seen.column("stamps")
        given = stamps[sound[seen.column("form")]] if len(seen.forms) else stamps[:0]
        stamped = int(np.count_nonzero(given > 0))
        if 2 * stamped > len(given) or not len(given):
            return StampFrom.HEADER, []
    return StampFrom.RECEIVE, ["timed by the recorder's clock"]


def bounded(refused: Mapping[str, int]) -> dict[str, int]:
    """The most frequent reasons; what is rarer in one number, so that no report floods."""
    most = Counter(refused).most_common()
    kept = dict(most[:_MOST_REASONS])
    if rest := sum(count for _, count in most[_MOST_REASONS:]):
        kept["other reasons"] = rest
    return kept


def save_survey(survey: Survey, path: Path, digest: str) -> None:
    """Write a survey for the process that converts the bag; at once, by another name first.

    Raises:
        OSError: It cannot be written.
    """
    head = {
        "digest": digest,
        "events": survey.events,
        "states": survey.states,
        "damage": survey.damage,
        "seen": [[reading, seen.forms] for reading, seen in survey.seen.items()],
    }
    arrays: dict[str, Any] = {
        f"{name}_{number}": seen.column(name)
        for number, seen in enumerate(survey.seen.values())
        for name in _COLUMNS
    }
    other = path.with_suffix(".part")
    with other.open("wb") as file:
        np.savez(file, head=np.array(json.dumps(head)), **arrays)
    other.replace(path)


def load_survey(path: Path, digest: str) -> Survey | None:
    """Read a survey; None where there is none, or one of something else."""
    try:
        with np.load(path, allow_pickle=False) as raw:
            head = json.loads(str(raw["head"]))
            if head["digest"] != digest:
                return None
            seen = {}
            for number, (reading, forms) in enumerate(head["seen"]):
                columns = {name: raw[f"{name}_{number}"] for name in _COLUMNS}
                seen[TopicReading(*reading)] = Seen([_form(*form) for form in forms], **columns)
            events = [Event(*event) for event in head["events"]]
            states = [State(*state) for state in head["states"]]
            return Survey(seen, events, states, list(head["damage"]))
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile):
        return None


def _form(why: str, size: Any, packing: str, names: Any, broken: Any) -> Form:
    return Form(why, tuple(size) if size else None, packing, tuple(names), tuple(broken))
