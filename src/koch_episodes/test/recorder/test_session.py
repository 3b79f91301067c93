# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The life of episodes: start gate, duration, stop, discard, undo, label, full disk."""

from __future__ import annotations

import errno
import os
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from koch_episodes.bag import open_bag
from koch_episodes.bag.storage import Topic
from koch_episodes.recorder.backlog import TopicSource
from koch_episodes.recorder.bag_thread import BagWriterThread
from koch_episodes.recorder.disk import DiskWatch
from koch_episodes.recorder.provenance import Provenance
from koch_episodes.recorder.quality import StreamMonitor
from koch_episodes.recorder.saved import EventKind, StoreResult
from koch_episodes.recorder.session import RecorderPhase, RecorderSession, SessionSettings
from koch_episodes.recorder.store import EpisodeStore
from koch_rig.rig import Rig


class Bench:
    """A session with two streams, whose intake a test drains by hand."""

    def __init__(
        self,
        root: Path,
        rig: Rig,
        clock: Any,
        topic: Topic,
        joint_state: Callable[..., bytes],
        node_ns: Callable[[int], int] = int,
    ) -> None:
        self.message = joint_state
        self.clock = clock
        self.store = EpisodeStore(root)
        self.intake = BagWriterThread(node_ns)
        self.free = 10**12
        self.events: list[tuple[EventKind, int, str, str, str]] = []
        self.replies: list[StoreResult] = []
        self.sources = []
        for name in ("arm", "camera"):
            monitor = StreamMonitor(name, expected_hz=0.0, max_age_s=1.0)
            source = TopicSource(
                Topic(f"/{name}", topic.type, topic.definition), "", (), True, monitor=monitor
            )
            self.intake.add_stream(monitor)
            self.intake.add_source(source)
            self.sources.append(source)
        self.session = RecorderSession(
            self.store,
            self.intake,
            Provenance(rig),
            DiskWatch(lambda: self.free, lambda: 1e6, 10**9, clock),
            SessionSettings(),
            clock,
            lambda *event: self.events.append(event),
        )
        self.sequence = 0

    def tell(self, index: int, since_ns: int, reason: str) -> None:
        """Let a stream's publisher say what it knows of its samples, as serialised by ROS."""

        body = struct.pack("<iI", *divmod(time.time_ns(), 10**9)) + struct.pack("<Ixxxx", 1)
        body += struct.pack("<I7s?", 7, b"camera", not reason)
        body += struct.pack("<iI", *divmod(since_ns, 10**9))
        body += struct.pack(f"<I{len(reason) + 1}s", len(reason) + 1, reason.encode())
        source = TopicSource(
            Topic("/state", "", ""), "", (), True, state_of=self.sources[index].monitor
        )
        self.intake.put(source, b"\0\1\0\0" + body)
        self.intake.drain()

    def feed(self, count: int = 5, streams: tuple[int, ...] = (0, 1)) -> None:
        """Let messages of now arrive."""
        for _ in range(count):
            self.sequence += 1
            for index in streams:
                now = time.time_ns()
                info = {
                    "source_timestamp": now,
                    "received_timestamp": now,
                    "publication_sequence_number": self.sequence,
                }
                self.intake.callback(self.sources[index])(self.message(now), info)
        self.intake.drain()

    def tick(self, seconds: float = 0.0) -> None:
        """Let time pass."""
        self.clock.now_s += seconds
        self.intake.drain()
        self.session.tick()

    def start(self, task: str = "", duration_s: float = 0.0) -> None:
        """Begin an episode with live streams."""
        self.feed()
        self.session.start(task, duration_s, 5.0, self.replies.append)
        assert self.session.phase is RecorderPhase.RECORDING
        self.feed(20)

    def record(self, outcome: str = "", *, keep: bool = True) -> StoreResult:
        """Record a whole episode."""
        self.start()
        self.session.stop(outcome, keep, self.replies.append)
        self.tick()
        return self.replies[-1]


@pytest.fixture
def bench(
    tmp_path: Path, rig: Rig, clock: Any, joint_topic: Any, joint_state: Callable[..., bytes]
) -> Iterator[Bench]:
    """A session on an empty folder."""
    found = Bench(tmp_path / "episodes", rig, clock, joint_topic[0], joint_state)
    yield found
    found.store.close()


def _custom(path: str) -> dict[str, str]:
    with open_bag(path) as bag:
        return dict(bag.custom)


def test_episode_is_recorded_with_its_provenance(bench: Bench) -> None:
    bench.start("Stack the cups / ü")
    bench.session.stop("success", True, bench.replies.append)
    assert bench.session.phase is RecorderPhase.SAVING
    bench.tick()
    reply = bench.replies[-1]
    assert (reply.success, reply.verdict) == (True, "green")
    custom = _custom(reply.path)
    assert custom["koch.task"] == "Stack the cups / ü"
    assert (custom["koch.index"], custom["koch.outcome"]) == ("0", "success")
    assert custom["koch.fingerprint"].startswith("sha256:")
    assert "recorder_test" in custom["koch.rig"]
    assert '"homing_offset"' in custom["koch.calibration.follower"]
    assert '"synchronised"' in custom["koch.clock"]
    assert [event[0] for event in bench.events] == [EventKind.START, EventKind.STOP]


def test_empty_task_is_the_rigs(bench: Bench) -> None:
    assert _custom(bench.record().path)["koch.task"] == "Default task."


def test_messages_outside_the_episode_are_not_in_the_bag(bench: Bench) -> None:
    bench.start()
    bench.session.stop("", True, bench.replies.append)
    bench.feed(7)
    bench.tick()
    with open_bag(bench.replies[-1].path) as bag:
        assert sum(1 for _ in bag.messages(["/arm"])) == 20


def test_start_names_the_dead_stream(bench: Bench) -> None:
    bench.feed(streams=(0,))
    bench.session.start("", 0.0, 5.0, bench.replies.append)
    assert bench.session.phase is RecorderPhase.WAITING
    bench.tick(4.9)
    assert bench.replies == []
    bench.tick(0.2)
    reply = bench.replies[-1]
    assert not reply.success
    assert reply.message == "dead stream(s): camera: no message ever came"
    assert bench.session.phase is RecorderPhase.IDLE
    assert not list(bench.store.root.glob("episode*"))


def test_start_waits_for_a_stream_that_comes(bench: Bench) -> None:
    bench.session.start("", 0.0, 5.0, bench.replies.append)
    bench.tick(2.0)
    bench.feed()
    bench.tick()
    assert bench.replies[-1].success
    assert bench.session.phase is RecorderPhase.RECORDING


def test_second_start_is_refused(bench: Bench) -> None:
    bench.start()
    bench.session.start("", 0.0, 5.0, bench.replies.append)
    assert "episode 0 is recording; stop it first" in bench.replies[-1].message


def test_duration_ends_an_episode(bench: Bench) -> None:
    bench.start(duration_s=10.0)
    bench.tick(9.9)
    assert bench.session.remaining_s == pytest.approx(0.1)
    bench.tick(0.2)
    assert bench.session.phase is RecorderPhase.SAVING
    bench.tick()
    assert bench.session.shelf.saved == 1


def test_pause_follows_an_episode_and_a_start_ends_it(bench: Bench) -> None:
    bench.session.settings = SessionSettings(reset_time_s=5.0)
    bench.record()
    assert bench.session.phase is RecorderPhase.RESETTING
    bench.tick(4.0)
    assert bench.session.remaining_s == pytest.approx(1.0)
    bench.start()
    bench.session.stop("", True, bench.replies.append)
    bench.tick()
    bench.tick(5.1)
    assert bench.session.phase is RecorderPhase.IDLE


def test_running_episode_can_be_discarded_and_undone(bench: Bench) -> None:
    bench.start()
    bench.session.discard("dropped it", bench.replies.append)
    bench.tick()
    trashed = Path(bench.replies[-1].path)
    assert trashed.parent == bench.store.trash
    assert (trashed / "discarded.txt").read_text() == "dropped it\n"
    bench.session.undo(bench.replies.append)
    back = Path(bench.replies[-1].path)
    assert back == bench.store.folder(0)
    assert not (back / "discarded.txt").exists()
    kinds = [event[0] for event in bench.events]
    assert kinds == [EventKind.START, EventKind.DISCARD, EventKind.UNDO]


def test_undo_brings_the_last_discarded_back_and_no_number_is_used_twice(bench: Bench) -> None:
    for _ in range(2):
        bench.record()
        bench.session.discard("", bench.replies.append)
    bench.session.undo(bench.replies.append)
    assert Path(bench.replies[-1].path).name == "episode_000001"
    bench.session.undo(bench.replies.append)
    assert Path(bench.replies[-1].path).name == "episode_000000"
    bench.session.undo(bench.replies.append)
    assert "is empty" in bench.replies[-1].message
    assert bench.record().index == 2


def test_discard_between_episodes_takes_the_last_saved(bench: Bench) -> None:
    bench.record()
    bench.record()
    bench.session.discard("", bench.replies.append)
    assert Path(bench.replies[-1].path).name == "episode_000001"
    assert bench.session.shelf.saved == 1


def test_stop_with_keep_false_discards(bench: Bench) -> None:
    reply = bench.record("failure", keep=False)
    assert Path(reply.path).parent == bench.store.trash
    assert _custom(reply.path)["koch.outcome"] == "failure"


def test_label_after_the_fact(bench: Bench) -> None:
    saved = bench.record()
    assert _custom(saved.path)["koch.outcome"] == "unlabelled"
    bench.session.stop("success", True, bench.replies.append)
    assert _custom(saved.path)["koch.outcome"] == "success"
    assert bench.events[-1][0] is EventKind.LABEL


def test_each_message_is_logged_at_its_own_time_of_a_simulation(
    tmp_path: Path, rig: Rig, clock: Any, joint_topic: Any, joint_state: Callable[..., bytes]
) -> None:
    """Whenever they are taken in: a bag whose times fall plays another motion."""
    begin_ns = time.time_ns()
    speed = 3
    bench = Bench(
        tmp_path,
        rig,
        clock,
        joint_topic[0],
        joint_state,
        lambda wall_ns: (wall_ns - begin_ns) * speed,
    )
    bench.feed()
    bench.session.start("", 0.0, 5.0, bench.replies.append)
    bench.tick()
    received = []
    for _ in range(3):
        for _ in range(4):
            received.append(time.time_ns())
            info = {"source_timestamp": received[-1], "received_timestamp": received[-1]}
            bench.intake.callback(bench.sources[0])(bench.message(received[-1]), info)
            time.sleep(0.002)
        bench.intake.drain()
    bench.session.stop("", True, bench.replies.append)
    bench.tick()
    with open_bag(Path(bench.replies[-1].path)) as bag:
        logged = [m.log_ns for m in bag.messages(["/arm"])]
    assert logged == [(ns - begin_ns) * speed for ns in received]


def test_stop_without_episode_says_so(bench: Bench) -> None:
    bench.session.stop("", True, bench.replies.append)
    assert bench.replies[-1].message == "no episode is running"


def test_stop_while_waiting_cancels_the_start(bench: Bench) -> None:
    bench.session.start("", 0.0, 5.0, bench.replies.append)
    bench.session.stop("", True, bench.replies.append)
    assert [reply.success for reply in bench.replies] == [False, True]
    assert bench.session.phase is RecorderPhase.IDLE


def test_red_episodes_go_to_the_trash_if_asked(bench: Bench) -> None:
    bench.session.settings = SessionSettings(discard_red=True)
    bench.start()
    bench.intake.drain()
    monitor = bench.sources[1].monitor
    assert monitor is not None
    monitor.names_changed = "joints changed"
    bench.session.stop("success", True, bench.replies.append)
    bench.tick()
    reply = bench.replies[-1]
    assert reply.verdict == "red: camera: joints changed"
    assert Path(reply.path).parent == bench.store.trash
    assert bench.session.shelf.saved == 0


def test_start_is_refused_on_a_full_disk(bench: Bench) -> None:
    bench.feed()
    bench.free = 10**8
    bench.session.start("", 0.0, 5.0, bench.replies.append)
    assert "disk full: 100 MB free" in bench.replies[-1].message


def test_disk_is_announced_then_recording_stops_and_is_kept(bench: Bench) -> None:
    bench.start()
    assert bench.session.disk.light()[1] == ""
    bench.free = 10**9 + 120 * 10**6  # two minutes at 1 MB/s above the reserve
    bench.tick(1.0)
    assert bench.session.disk.minutes_left == pytest.approx(2.0)
    assert bench.session.disk.light()[1] == "disk full in 2.0 min"
    assert bench.session.phase is RecorderPhase.RECORDING
    bench.free = 10**9 - 1
    bench.tick(1.0)
    bench.tick()
    assert bench.session.shelf.last_verdict.startswith("amber: stopped early: disk full")
    assert _custom(bench.session.shelf.last_path)["koch.verdict"].startswith("amber")


def test_write_error_stops_and_keeps_what_was_written(bench: Bench, disk: Any) -> None:
    bench.start()
    time.sleep(0.31)  # a flush is due
    bench.feed(1)
    disk.room = 0
    bench.feed(200)
    time.sleep(0.31)
    bench.tick()
    assert bench.session.phase is RecorderPhase.SAVING
    bench.tick()
    assert "cannot write: No space left" in bench.session.shelf.last_verdict
    with open_bag(bench.session.shelf.last_path) as bag:
        assert bag.damage == []
        assert sum(1 for _ in bag.messages(["/arm"])) >= 21


def test_shutdown_keeps_the_episode(bench: Bench) -> None:
    bench.start()
    saving = bench.session.finish()
    assert saving is not None
    bench.tick()
    assert bench.session.shelf.last_verdict == "amber: the recorder was shut down"
    assert Path(bench.session.shelf.last_path) == bench.store.folder(0)


def test_recorder_starts_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It then refuses to record, and says why; a start that fails would hide the reason."""

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    store = EpisodeStore(tmp_path)
    assert store.next_index == 0
    store.close()


def test_folder_belongs_to_one_recorder(bench: Bench) -> None:
    from koch_episodes.recorder.store import RootInUseError

    with pytest.raises(RootInUseError, match="another recorder"):
        EpisodeStore(bench.store.root)


def test_joint_names_changed_in_the_middle_are_red(bench: Bench) -> None:
    from koch_episodes.recorder.joint_watch import JointWatch

    names = ("a", "b")
    bench.sources[0].joints = JointWatch()
    bench.start()
    now = time.time_ns()
    info = {"source_timestamp": now, "received_timestamp": now}
    bench.intake.callback(bench.sources[0])(bench.message(now, names=names), info)
    bench.session.stop("", True, bench.replies.append)
    bench.tick()
    assert "red: arm: joints changed from shoulder_pan" in bench.replies[-1].verdict


def test_no_episode_starts_on_images_their_camera_calls_unusable(bench: Bench) -> None:
    bench.feed()
    bench.tell(1, time.time_ns(), "frozen: same image for 2.1 s")
    assert "frozen" in bench.intake.health()[1].reason
    bench.session.start("", 0.0, 0.5, bench.replies.append)
    bench.tick(1.0)
    assert not bench.replies[-1].success
    assert "camera: unusable: frozen: same image for 2.1 s" in bench.replies[-1].message
    bench.tell(1, time.time_ns(), "")
    bench.feed()
    bench.session.start("", 0.0, 0.5, bench.replies.append)
    assert bench.replies[-1].success
