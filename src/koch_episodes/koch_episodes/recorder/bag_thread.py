# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The thread between subscriptions and bag: it owns the monitors and the bag that is written.

A subscription's callback only appends to a queue. Twenty times a second the thread takes what is
there, keeps the figures, and hands it to the bag. Beginning and end of an episode go through the
same queue, so that every message is on the right side of them.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from koch_core.stream import to_ns
from koch_episodes.bag.writer import EpisodeWriter
from koch_episodes.recorder.backlog import Backlog, ReceivedMessage, Recent, TopicSource, judge
from koch_episodes.recorder.quality import Health, StreamMonitor, StreamReport

_PERIOD_S = 0.05
_FLUSH_NS = to_ns(0.3)
_FLUSH_BYTES = 4 << 20
_SYNC_S = 1.0
_RATE_S = 5.0
_NOBODY = b""


@dataclass(frozen=True)
class Summary:
    """A closed bag.

    Attributes:
        path: Its folder; the partial one when it could not be finished.
        reports: One per stream.
        error: Why writing ended early, or empty.
        whole: The bag is finished.
    """

    path: Path
    reports: tuple[StreamReport, ...]
    error: str
    whole: bool


@dataclass(frozen=True)
class _Begin:
    writer: EpisodeWriter


@dataclass(frozen=True)
class _Look:
    result: Future[Recent]


@dataclass(frozen=True)
class _End:
    custom: Callable[[tuple[StreamReport, ...], str], Mapping[str, str]]
    result: Future[Summary]


class BagWriterThread:
    """Takes messages from any thread and writes them into the bag of the moment.

    Args:
        node_ns: The node's time at a `time.time_ns` instant; another one where time is simulated.
        backlog: Keeps the last seconds, whether or not a bag is open.
    """

    def __init__(
        self, node_ns: Callable[[int], int] = int, backlog: Backlog | None = None
    ) -> None:
        self._backlog = backlog or Backlog()
        self._queue: deque[tuple[Any, bytes, Any]] = deque()
        self._node_ns = node_ns
        self._sources: list[TopicSource] = []
        self._streams: list[StreamMonitor] = []
        self._writer: EpisodeWriter | None = None
        self._channels: dict[int, int] = {}
        self._flushed_ns = 0
        self._error = ""
        self._bytes = 0
        self._rates: deque[tuple[float, int]] = deque()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="intake", daemon=True)
        self._syncer = threading.Thread(target=self._sync, name="sync", daemon=True)

    # -- from any thread ------------------------------------------------------------------------

    def start(self) -> None:
        """Let the threads run."""
        self._thread.start()
        self._syncer.start()

    def callback(self, source: TopicSource) -> Callable[[bytes, Any], None]:
        """A subscription's callback: raw message and message info."""
        append = self._queue.append

        def take(data: bytes, info: Any) -> None:
            append((source, data, info))

        return take

    def put(self, source: TopicSource, data: bytes) -> None:
        """Record a message of our own."""
        now_ns = time.time_ns()
        info = {"source_timestamp": now_ns, "received_timestamp": now_ns}
        self._queue.append((source, data, info))

    def add_source(self, source: TopicSource) -> None:
        """Record a topic from now on."""
        with self._lock:
            self._sources.append(source)

    def add_stream(self, monitor: StreamMonitor) -> None:
        """Judge a stream of the rig from now on, whether or not it has a source yet."""
        with self._lock:
            self._streams.append(monitor)

    def begin(self, writer: EpisodeWriter) -> None:
        """Write what comes from now on into a bag."""
        self._queue.append((_Begin(writer), b"", None))

    def end(
        self, custom: Callable[[tuple[StreamReport, ...], str], Mapping[str, str]]
    ) -> Future[Summary]:
        """Close the bag behind what has come until now.

        Args:
            custom: Makes the final custom data of the reports and the write error.
        """
        result: Future[Summary] = Future()
        self._queue.append((_End(custom, result), b"", None))
        return result

    def recent(self) -> Future[Recent]:
        """The last seconds until now, see `Backlog`."""
        result: Future[Recent] = Future()
        self._queue.append((_Look(result), b"", None))
        return result

    @property
    def error(self) -> str:
        """Why nothing is written any more; empty while all is well."""
        return self._error

    def health(self) -> list[Health]:
        """Judge all streams of the rig now."""
        now_ns = self._node_ns(time.time_ns())
        with self._lock:
            return [monitor.health(now_ns) for monitor in self._streams]

    def bytes_per_s(self) -> float:
        """What recording takes of the disk, from the last seconds; 0 where unknown."""
        rates = list(self._rates)
        if len(rates) < 2:
            return 0.0
        (t0, b0), (t1, b1) = rates[0], rates[-1]
        return (b1 - b0) / (t1 - t0) if t1 > t0 else 0.0

    def close(self) -> None:
        """End the threads; a bag that is still open stays partial."""
        self._closing.set()
        for thread in (self._thread, self._syncer):
            if thread.is_alive():
                thread.join(timeout=10.0)
        if self._writer is not None:
            self._writer.abandon()

    # -- in the intake's thread -----------------------------------------------------------------

    def _run(self) -> None:
        while not self._closing.wait(_PERIOD_S):
            self.drain()
        self.drain()

    def drain(self) -> None:
        """Take everything that has come; flush when it is time."""
        queue = self._queue
        with self._lock:
            for _ in range(len(queue)):
                source, data, info = queue.popleft()
                if type(source) is TopicSource:
                    self._take(source, data, info)
                elif isinstance(source, _Begin):
                    self._begin(source.writer)
                elif isinstance(source, _Look):
                    source.result.set_result(self._backlog.recent(self._streams))
                else:
                    self._end(source)
            if self._writer is not None:
                self._flush(self._writer)
        self._measure()

    def _take(self, source: TopicSource, data: bytes, info: Any) -> None:
        arrived_ns = self._node_ns(info["received_timestamp"])
        sequence = info.get("publication_sequence_number") or 0
        gid = info.get("publisher_gid")
        missing = source.losses.add(sequence, gid["data"] if gid else _NOBODY)
        publish_ns = self._node_ns(info["source_timestamp"])
        arrival = ReceivedMessage(source, data, arrived_ns, publish_ns, sequence, missing)
        judge(arrival)
        self._backlog.add(arrival)
        if source.latched:
            source.keep(data)
        self._bytes += len(data) + 31
        if self._writer is not None and not self._error:
            self._write(source, data, arrived_ns, publish_ns, sequence)

    def _write(
        self, source: TopicSource, data: bytes, log_ns: int, publish_ns: int, sequence: int
    ) -> None:
        assert self._writer is not None
        channel = self._channels.get(id(source)) or self._channel(source)
        if channel:
            self._writer.write(channel, data, log_ns, max(0, publish_ns), sequence)

    def _channel(self, source: TopicSource) -> int:
        assert self._writer is not None
        try:
            number = self._writer.add_topic(
                source.topic, type_hash=source.type_hash, qos=source.qos
            )
        except OSError as exc:
            self._fail(exc)
            return 0
        self._channels[id(source)] = number
        return number

    def _begin(self, writer: EpisodeWriter) -> None:
        self._writer, self._error = writer, ""
        self._channels = {}
        self._flushed_ns = time.time_ns()
        now_ns = self._node_ns(self._flushed_ns)
        for monitor in self._streams:
            monitor.begin_episode(now_ns)
        for source in self._sources:
            if source.joints is not None:
                source.joints.reset()
            if not self._error and self._channel(source):
                for data in source.kept:
                    self._write(source, data, now_ns, now_ns, 0)

    def _flush(self, writer: EpisodeWriter) -> None:
        now_ns = time.time_ns()
        if self._error:
            return
        if now_ns - self._flushed_ns >= _FLUSH_NS or writer.pending > _FLUSH_BYTES:
            try:
                writer.flush()
            except OSError as exc:
                self._fail(exc)
            self._flushed_ns = now_ns

    def _fail(self, exc: OSError) -> None:
        self._error = f"cannot write: {exc.strerror or exc}"

    def _end(self, end: _End) -> None:
        writer, self._writer = self._writer, None
        if writer is None:
            end.result.set_exception(RuntimeError("no bag is open"))
            return
        now_ns = self._node_ns(time.time_ns())
        reports = tuple(monitor.report(now_ns) for monitor in self._streams)
        try:
            path = writer.finish(end.custom(reports, self._error))
            end.result.set_result(Summary(path, reports, self._error, True))
        except OSError as exc:
            self._fail(exc)
            writer.abandon()
            end.result.set_result(Summary(writer.partial, reports, self._error, False))
        except Exception as exc:  # top of the thread's work: anyone who waits must hear of it
            writer.abandon()
            end.result.set_exception(exc)

    def _measure(self) -> None:
        now_s = time.monotonic()
        rates = self._rates
        if not rates or now_s - rates[-1][0] >= 0.5:
            rates.append((now_s, self._bytes))
            while now_s - rates[0][0] > _RATE_S:
                rates.popleft()

    def _sync(self) -> None:
        """Bring flushed data onto the disk, beside the intake, which a slow disk must not stop."""
        while not self._closing.wait(_SYNC_S):
            writer = self._writer
            if writer is None:
                continue
            try:
                writer.sync()
            except (OSError, ValueError):  # ValueError: the file was closed meanwhile
                continue
