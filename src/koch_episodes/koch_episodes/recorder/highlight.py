# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Highlights: what the backlog holds, saved as an episode of its own when asked. No ROS.

What is worth keeping is often known only when it has happened, whether or not an episode ran.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

from koch_core.errors import KochError
from koch_episodes.bag.writer import EpisodeWriter, MakeWriter
from koch_episodes.recorder.backlog import Recent, TopicSource, judge
from koch_episodes.recorder.disk import DiskWatch
from koch_episodes.recorder.joint_watch import JointWatch
from koch_episodes.recorder.provenance import Provenance
from koch_episodes.recorder.quality import StreamMonitor, verdict
from koch_episodes.recorder.saved import StoreResult
from koch_episodes.recorder.store import EpisodeStore

_FLUSH_BYTES = 4 << 20
_ANSWER_S = 5.0


def write_recent(recent: Recent, writer: EpisodeWriter) -> list[StreamMonitor]:
    """Write what the buffer held into a bag; monitors that have seen it.

    Raises:
        OSError: The disk does not take it.
    """
    fresh = {
        id(old): StreamMonitor(old.name, expected_hz=old.expected_hz, max_age_s=old.max_age_s)
        for old in recent.streams
    }
    for monitor in fresh.values():
        monitor.begin_episode(recent.arrivals[0].log_ns)
    topics: dict[int, tuple[int, TopicSource]] = {}
    for arrival in recent.arrivals:
        source = arrival.source
        if id(source) not in topics:
            number = writer.add_topic(source.topic, type_hash=source.type_hash, qos=source.qos)
            watched = replace(
                source,
                monitor=fresh.get(id(source.monitor)),
                state_of=fresh.get(id(source.state_of)),
                joints=JointWatch() if source.joints is not None else None,
            )
            topics[id(source)] = number, watched
        number, watched = topics[id(source)]
        judge(arrival._replace(source=watched))
        publish_ns = max(0, arrival.publish_ns)
        writer.write(number, arrival.data, arrival.log_ns, publish_ns, arrival.sequence)
        if writer.pending > _FLUSH_BYTES:
            writer.flush()
    return list(fresh.values())


class Highlights:
    """Saves highlights beside the episodes. One thread calls it, another one writes.

    Args:
        store: Where they are put.
        ask: Asks for what the buffer holds.
        provenance: Makes custom data; its own, as an episode may be running.
        disk: Says when there is no room.
        make_writer: Opens a bag.
    """

    def __init__(
        self,
        store: EpisodeStore,
        ask: Callable[[], Future[Recent]],
        provenance: Provenance,
        disk: DiskWatch,
        make_writer: MakeWriter,
    ) -> None:
        self._store, self._ask, self._disk = store, ask, disk
        self._provenance = provenance
        self._make_writer = make_writer
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="highlight")
        self._saving: list[tuple[Future[StoreResult], Callable[[StoreResult], None]]] = []

    def save(self, task: str, done: Callable[[StoreResult], None]) -> None:
        """Save what the buffer holds now; `tick` hands the answer to `done`."""
        if problem := self._disk.problem():
            done(StoreResult(False, problem))
            return
        result = self._pool.submit(self._save, self._ask(), task, self._store.take_index())
        self._saving.append((result, done))

    def tick(self) -> None:
        """Answer those whose highlight is saved."""
        for item in [item for item in self._saving if item[0].done()]:
            self._saving.remove(item)
            item[1](item[0].result())

    def close(self) -> None:
        """Finish what is being saved."""
        self._pool.shutdown(wait=True)
        self.tick()

    def _save(self, asked: Future[Recent], task: str, index: int) -> StoreResult:
        writer: EpisodeWriter | None = None
        try:
            recent = asked.result(timeout=_ANSWER_S)
            if not recent.arrivals:
                why = "the highlight buffer holds nothing: no topic was heard, or highlight_s is 0"
                return StoreResult(False, why)
            custom = self._provenance.begin(task or self._provenance.default_task, index)
            writer = self._make_writer(self._store.highlight(index), custom)
            monitors = write_recent(recent, writer)
            end_ns = max(arrival.log_ns for arrival in recent.arrivals)
            reports = tuple(monitor.report(end_ns) for monitor in monitors)
            words = verdict(reports, [])[1]
            path = writer.finish(self._provenance.end("", words, reports))
        except (KochError, OSError, TimeoutError) as exc:
            if writer is not None:
                writer.abandon()
            return StoreResult(False, f"the highlight could not be saved: {exc}")
        limited = " (highlight_mb allows no more)" if recent.full else ""
        message = f"{path}: the last {recent.seconds:.1f} s{limited}"
        return StoreResult(True, message, str(path), words, index)
