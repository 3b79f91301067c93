# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The highlight buffer: what it keeps and lets go, and what is saved of it."""

from __future__ import annotations

import struct
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from koch_episodes.bag import find_bags, open_bag
from koch_episodes.bag.storage import Topic
from koch_episodes.bag.writer import BagWriter
from koch_episodes.cdr import is_intervention
from koch_episodes.convert.options import ConvertOptions
from koch_episodes.convert.run import convert
from koch_episodes.dataset import LeRobotDatasetReader
from koch_episodes.recorder.backlog import Backlog, ReceivedMessage, TopicSource
from koch_episodes.recorder.bag_thread import BagWriterThread
from koch_episodes.recorder.disk import DiskWatch
from koch_episodes.recorder.highlight import Highlights
from koch_episodes.recorder.provenance import Provenance
from koch_episodes.recorder.quality import StreamMonitor
from koch_episodes.recorder.saved import StoreResult
from koch_episodes.recorder.store import EpisodeStore
from koch_rig.load import load_rig
from koch_rig.rig import Rig

SAMPLE = next(p / "docs/sample" for p in Path(__file__).resolve().parents if (p / "docs").is_dir())
NS = 1_000_000_000
T0 = 1_760_000_000 * NS


def _source(name: str, *, latched: bool = False) -> TopicSource:
    return TopicSource(Topic(f"/{name}", "std_msgs/msg/String", ""), "", (), latched=latched)


def _at(source: TopicSource, seconds: float, data: bytes = b"x") -> ReceivedMessage:
    log_ns = T0 + round(seconds * NS)
    return ReceivedMessage(source, data, log_ns, log_ns, 0)


def _event(kind: int) -> bytes:
    return b"\0\1\0\0" + struct.pack("<iIIBB", 1, 2, 1, 0, kind) + bytes(32)


def _texts(backlog: Backlog) -> list[str]:
    return [arrival.data.decode() for arrival in backlog.recent(()).arrivals]


def test_only_the_last_seconds_are_kept() -> None:
    backlog, source = Backlog(2.0, 10**6), _source("a")
    for k in range(50):
        backlog.add(_at(source, 0.1 * k, str(k).encode()))
    assert _texts(backlog) == [str(k) for k in range(29, 50)]
    assert backlog.recent(()).seconds == pytest.approx(2.0)


def test_memory_is_bounded_and_that_is_told() -> None:
    backlog, source = Backlog(1000.0, 10_000), _source("a")
    for k in range(100):
        backlog.add(_at(source, 0.1 * k, bytes(1000)))
        assert backlog.size <= 10_000
    recent = backlog.recent(())
    assert recent.full
    assert 5 <= len(recent.arrivals) <= 10
    assert recent.arrivals[-1].log_ns == T0 + round(9.9 * NS)


def test_a_message_larger_than_the_limit_is_not_kept() -> None:
    backlog = Backlog(10.0, 1000)
    backlog.add(_at(_source("a"), 0.0, bytes(5000)))
    assert backlog.size == 0
    assert _texts(backlog) == []


def test_topics_that_arrive_out_of_order_cost_nothing() -> None:
    backlog, one, two = Backlog(2.0, 10**6), _source("a"), _source("b")
    backlog.add(_at(one, 0.10, b"1"))
    backlog.add(_at(two, 0.08, b"2"))
    assert _texts(backlog) == ["1", "2"]


def test_values_that_hold_come_first_in_their_order() -> None:
    backlog, fast, held = Backlog(1.0, 10**6), _source("a"), _source("b", latched=True)
    backlog.add(_at(held, 0.0, b"old"))
    backlog.add(_at(held, 0.1, b"new"))
    for k in range(40):
        backlog.add(_at(fast, 0.1 * k, str(k).encode()))
    recent = backlog.recent(())
    assert [a.data for a in recent.arrivals[:2]] == [b"old", b"new"]
    assert {a.log_ns for a in recent.arrivals[:2]} == {recent.arrivals[2].log_ns}


def test_an_intervention_that_began_before_still_holds() -> None:
    backlog, fast = Backlog(1.0, 10**6), _source("a")
    events = _source("episodes/events")
    events.lasts = is_intervention
    for kind in (0, 3, 1):
        backlog.add(_at(events, 0.0, _event(kind)))
    for k in range(40):
        backlog.add(_at(fast, 0.1 * k))
    assert [a.data for a in backlog.recent(()).arrivals if a.source is events] == [_event(3)]


def test_a_clock_set_back_begins_anew() -> None:
    backlog, source = Backlog(2.0, 10**6), _source("a")
    backlog.add(_at(source, 100.0, b"before"))
    backlog.add(_at(source, 1.0, b"after"))
    assert _texts(backlog) == ["after"]


def test_without_seconds_nothing_is_kept() -> None:
    backlog = Backlog()
    backlog.add(_at(_source("a"), 0.0))
    assert _texts(backlog) == []


class Table:
    """Highlights of a thread whose queue a test drains."""

    def __init__(self, root: Path, rig: Rig, span_s: float = 5.0) -> None:
        self.store = EpisodeStore(root)
        self.thread = BagWriterThread(int, Backlog(span_s, 10**8))
        self.free = 10**12
        disk = DiskWatch(lambda: self.free, lambda: 1e6, 10**9, lambda: 0.0)
        self.highlights = Highlights(self.store, self._recent, Provenance(rig), disk, BagWriter)
        self.replies: list[StoreResult] = []

    def _recent(self) -> Future[Any]:
        asked = self.thread.recent()
        self.thread.drain()
        return asked

    def save(self) -> StoreResult:
        """Ask for a highlight and wait for it."""
        self.highlights.save("", self.replies.append)
        self.highlights.close()
        return self.replies[-1]


def test_a_highlight_is_an_episode_that_converts(tmp_path: Path) -> None:
    sample = SAMPLE / "episode_000000"
    table = Table(tmp_path / "root", load_rig(SAMPLE / "rig.yaml"), span_s=1.0)
    with open_bag(sample) as bag:
        sources = {
            name: TopicSource(topic, "", (), latched="description" in name)
            for name, topic in bag.topics.items()
        }
        for message in bag.messages([*sources]):
            info = {"source_timestamp": message.log_ns, "received_timestamp": message.log_ns}
            table.thread.callback(sources[message.topic])(message.data, info)
    saved = table.save()
    assert saved.success, saved.message
    assert Path(saved.path) == tmp_path / "root/highlights/episode_000000"
    for name, inputs in (("clip", Path(saved.path)), ("all", sample)):
        convert([inputs], tmp_path / name, ConvertOptions())
    clip, whole = (LeRobotDatasetReader(tmp_path / name) for name in ("clip", "all"))
    told, known = clip.column("observation.state"), whole.column("observation.state")
    assert 14 <= len(told) <= 16 < len(known)  # at 15 frames a second
    nearest = [np.abs(known - row).max(axis=1).min() for row in told]
    assert max(nearest) < 3.0  # [deg]; ticks fall elsewhere


def test_nothing_heard_is_said(tmp_path: Path, rig: Rig) -> None:
    reply = Table(tmp_path / "root", rig).save()
    assert not reply.success
    assert "holds nothing" in reply.message
    assert not (tmp_path / "root/highlights").exists()


def test_a_full_disk_is_said_before(tmp_path: Path, rig: Rig) -> None:
    table = Table(tmp_path / "root", rig)
    table.free = 0
    assert "disk" in table.save().message


def test_a_highlight_takes_a_number_of_its_own_and_hides_from_the_root(
    tmp_path: Path,
    rig: Rig,
    joint_topic: tuple[Topic, str],
    joint_state: Callable[..., bytes],
) -> None:
    table = Table(tmp_path / "root", rig)
    monitor = StreamMonitor("arm", expected_hz=0.0, max_age_s=1.0)
    source = TopicSource(joint_topic[0], "", (), True, monitor=monitor)
    table.thread.add_stream(monitor)
    table.thread.add_source(source)
    for k in range(100):
        now = T0 + k * NS // 100
        info = {"source_timestamp": now, "received_timestamp": now}
        table.thread.callback(source)(joint_state(now), info)
    reply = table.save()
    assert (reply.success, reply.verdict, reply.index) == (True, "green", 0)
    assert table.store.next_index == 1
    with open_bag(reply.path) as bag:
        assert sum(1 for _ in bag.messages(bag.topics)) == 100
        assert bag.custom["koch.outcome"] == "unlabelled"
    table.store.close()
    assert EpisodeStore(tmp_path / "root").next_index == 1
    (tmp_path / "root/episode_000001").symlink_to(reply.path)
    passed_over: list[str] = []
    assert [p.name for p in find_bags([tmp_path / "root"], passed_over)] == ["episode_000001"]
    assert "1 highlight(s)" in passed_over[0]
    assert find_bags([tmp_path / "root/highlights"]) == [Path(reply.path)]
