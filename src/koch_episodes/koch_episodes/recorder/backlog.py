# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What arrives for the recorder, and the last seconds of it in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from koch_core.errors import DecodeError
from koch_core.health import LossCounter
from koch_core.stream import NS_PER_S, to_ns
from koch_episodes.bag.qos import OfferedQos
from koch_episodes.bag.storage import Topic
from koch_episodes.cdr import header_stamp_ns, is_little_endian, stream_state
from koch_episodes.recorder.joint_watch import JointWatch
from koch_episodes.recorder.quality import StreamMonitor

LATCHED_KEPT = 64
_OVERHEAD = 256  # bytes that a message costs beside its data


@dataclass(eq=False)
class TopicSource:
    """One recorded topic.

    Attributes:
        topic: Name, type, definition.
        type_hash: RIHS01 hash or empty.
        qos: What its publishers offer.
        stamped: Messages begin with a header.
        latched: Stored samples, and values that hold, come once; each bag begins with them.
        monitor: Present for streams of the rig.
        joints: Present for joint states of the rig.
        state_of: Present for a StreamState: the stream of which it speaks.
        lasts: Tells which of its messages still hold when the highlight buffer lets them go.
    """

    topic: Topic
    type_hash: str
    qos: tuple[OfferedQos, ...]
    stamped: bool = False
    latched: bool = False
    monitor: StreamMonitor | None = None
    joints: JointWatch | None = None
    state_of: StreamMonitor | None = None
    lasts: Callable[[bytes], bool] = lambda data: False
    losses: LossCounter = field(default_factory=LossCounter)
    kept: list[bytes] = field(default_factory=list)

    def keep(self, data: bytes) -> None:
        """Remember a latched message for the next bag."""
        if data in self.kept:
            return
        self.kept.append(data)
        del self.kept[:-LATCHED_KEPT]


class ReceivedMessage(NamedTuple):
    """One message as it came.

    Attributes:
        source: Its topic.
        data: Serialised.
        log_ns: When it arrived, [ns].
        publish_ns: When it was sent, [ns].
        sequence: The publisher's number, 0 where unknown.
        missing: Messages lost in front of it.
    """

    source: TopicSource
    data: bytes
    log_ns: int
    publish_ns: int
    sequence: int
    missing: int = 0


def judge(arrival: ReceivedMessage) -> None:
    """Let the monitors of a message's topic see it."""
    source, data = arrival.source, arrival.data
    monitor = source.monitor
    if monitor is not None:
        stamped = source.stamped and is_little_endian(data)
        stamp_ns = header_stamp_ns(data) if stamped else arrival.log_ns
        monitor.add(stamp_ns, arrival.log_ns, arrival.missing)
        if source.joints is not None and (changed := source.joints.check(data)):
            monitor.names_changed = changed
    if source.state_of is not None:
        try:
            source.state_of.mark(*stream_state(data))
        except DecodeError as exc:
            source.state_of.mark(arrival.log_ns, f"its state cannot be read ({exc.why})")


@dataclass(frozen=True)
class Recent:
    """What the buffer holds at one moment.

    Attributes:
        arrivals: In the order of arrival; values that hold since before come first.
        streams: Monitors of all streams of the rig, those without messages too.
        full: The limit of memory cut the time short.
    """

    arrivals: tuple[ReceivedMessage, ...] = ()
    streams: tuple[StreamMonitor, ...] = ()
    full: bool = False

    @property
    def seconds(self) -> float:
        """From the first message to the last, [s]."""
        times = [arrival.log_ns for arrival in self.arrivals]
        return (max(times) - min(times)) / NS_PER_S if times else 0.0


class Backlog:
    """The last seconds of all topics. One thread.

    Args:
        span_s: How long a message is kept, [s]; 0: none is.
        limit_bytes: Most that may be kept; the oldest go first.
    """

    def __init__(self, span_s: float = 0.0, limit_bytes: int = 0) -> None:
        self._span_ns, self._limit = to_ns(span_s), limit_bytes
        self._newest_ns = 0
        self._clear()

    def _clear(self) -> None:
        self._arrivals: deque[ReceivedMessage] = deque()
        self._held: dict[int, deque[ReceivedMessage]] = {}
        self._bytes = 0
        self._full_ns = 0

    @property
    def size(self) -> int:
        """Bytes that are kept."""
        return self._bytes

    def add(self, arrival: ReceivedMessage) -> None:
        """Keep a message, and let go of those that have become too old or too many."""
        if not self._span_ns:
            return
        if arrival.log_ns < self._newest_ns - self._span_ns:  # the clock was set back
            self._clear()
            self._newest_ns = arrival.log_ns
        self._newest_ns = max(self._newest_ns, arrival.log_ns)
        self._arrivals.append(arrival)
        self._bytes += len(arrival.data) + _OVERHEAD
        begin_ns = self._newest_ns - self._span_ns
        while self._arrivals and self._arrivals[0].log_ns < begin_ns:
            self._drop()
        while self._bytes > self._limit:
            self._full_ns = self._drop()

    def _drop(self) -> int:
        """Let the oldest message go, but not a value that still holds; when it came."""
        old = self._arrivals.popleft()
        self._bytes -= len(old.data) + _OVERHEAD
        if old.source.latched or old.source.lasts(old.data):
            held = self._held.setdefault(id(old.source), deque(maxlen=LATCHED_KEPT))
            if all(old.data != one.data for one in held):
                held.append(old)
        return old.log_ns

    def recent(self, streams: Sequence[StreamMonitor]) -> Recent:
        """All that is kept now."""
        if not self._arrivals:
            return Recent(streams=tuple(streams))
        begin_ns = min(arrival.log_ns for arrival in self._arrivals)
        held = (arrival for of_topic in self._held.values() for arrival in of_topic)
        first = (arrival._replace(log_ns=begin_ns, sequence=0, missing=0) for arrival in held)
        full = self._full_ns >= self._newest_ns - self._span_ns
        return Recent((*first, *self._arrivals), tuple(streams), full)
