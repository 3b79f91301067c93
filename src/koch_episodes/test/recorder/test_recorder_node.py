# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The recorder node over DDS, with publishers in a process of their own; crashes included."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from koch_episodes.bag import open_bag

pytestmark = [pytest.mark.ros, pytest.mark.slow, pytest.mark.alone]
HERE = Path(__file__).resolve().parent


def _environment() -> dict[str, str]:
    """The import paths of this process for its children."""
    paths = [path for path in sys.path if path]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


@pytest.fixture
def launch() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start Python processes that end with the test."""
    running: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


@pytest.fixture
def recorder(launch: Any, rig_file: Path, tmp_path: Path) -> Callable[..., Any]:
    """Start a recorder process on the test's folder."""

    def start(*parameters: str) -> subprocess.Popen[bytes]:
        extra = [word for parameter in parameters for word in ("-p", parameter)]
        found: subprocess.Popen[bytes] = launch(
            "-m",
            "koch_episodes.recorder.node",
            "--ros-args",
            "-p",
            f"rig:={rig_file}",
            "-p",
            f"root:={tmp_path / 'episodes'}",
            *extra,
        )
        return found

    return start


@pytest.fixture
def publisher(launch: Any) -> Callable[..., Any]:
    """Start the test publisher."""
    return lambda *arguments: launch(str(HERE / "publisher.py"), *arguments)


class Caller:
    """Calls the recorder's services and listens to its topics."""

    def __init__(self) -> None:
        import rclpy
        from koch_interfaces.msg import EpisodeEvent, EpisodeStatus
        from rclpy.qos import DurabilityPolicy, QoSProfile

        self._rclpy = rclpy
        self.context = rclpy.Context()
        rclpy.init(args=[], context=self.context)
        self.node = rclpy.create_node("caller", context=self.context)
        self.executor = rclpy.executors.SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.status: Any = None
        self.events: list[Any] = []
        self.node.create_subscription(
            EpisodeStatus, "/episodes/status", lambda m: setattr(self, "status", m), 1
        )
        latched = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.node.create_subscription(
            EpisodeEvent, "/episodes/events", self.events.append, latched
        )

    def spin(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.05)

    def find(self) -> None:
        """Wait for a recorder that lives; a killed one still looks as if it answered services."""
        self.status = None
        end = time.monotonic() + 30.0
        while self.status is None:
            assert time.monotonic() < end, "no status of a recorder"
            self.spin(0.1)
        self.spin(0.5)

    def call(self, name: str, **fields: Any) -> Any:
        from koch_interfaces.srv import DiscardEpisode, StartEpisode, StopEpisode, UndoDiscard

        kinds: dict[str, Any] = {
            "start": StartEpisode,
            "stop": StopEpisode,
            "discard": DiscardEpisode,
            "undo": UndoDiscard,
        }
        client = self.node.create_client(kinds[name], f"/episodes/{name}")
        assert client.wait_for_service(20.0), "no recorder"
        future = client.call_async(kinds[name].Request(**fields))
        self.executor.spin_until_future_complete(future, timeout_sec=20.0)
        assert future.done(), f"{name}: no answer"
        self.node.destroy_client(client)
        return future.result()

    def close(self) -> None:
        self.executor.shutdown()
        self.node.destroy_node()
        self._rclpy.shutdown(context=self.context)


@pytest.fixture
def caller() -> Iterator[Caller]:
    """A client of the recorder."""
    found = Caller()
    yield found
    found.close()


def _sequences(bag_folder: Path) -> dict[str, list[int]]:
    from mcap.reader import make_reader

    found: dict[str, list[int]] = {}
    with next(bag_folder.glob("*.mcap")).open("rb") as file:
        for _, channel, message in make_reader(file, validate_crcs=True).iter_messages():
            found.setdefault(channel.topic, []).append(message.sequence)
    return found


def test_episodes_from_start_to_undo(recorder: Any, publisher: Any, caller: Caller) -> None:
    publisher()
    process = recorder()
    caller.find()
    started = caller.call("start", task="Pick it up", start_timeout_s=15.0)
    assert started.success, started.message
    assert started.path.endswith(".partial")
    caller.spin(1.5)
    assert caller.status.phase == caller.status.RECORDING
    assert {stream.name for stream in caller.status.streams} == {
        "follower/joint_states",
        "follower/joint_command",
        "cameras/above",
    }
    assert caller.status.disk_minutes_left > 0.0
    stopped = caller.call("stop", outcome="success", keep=True)
    assert stopped.success, stopped.message
    bag_folder = Path(stopped.path)
    found = _sequences(bag_folder)
    for topic in (
        "/follower/joint_states",
        "/cameras/above/image_raw/compressed",
        "/cameras/above/camera_info",
    ):
        numbers = found[topic]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), topic
    assert len(found["/follower/joint_states"]) > 100
    assert len(found["/robot_description"]) == 1
    assert len(found["/episodes/events"]) == 2
    with open_bag(bag_folder) as bag:
        assert bag.damage == []
        assert bag.custom["koch.task"] == "Pick it up"
        assert bag.custom["koch.outcome"] == "success"

    discarded = caller.call("discard", reason="only a test")
    assert Path(discarded.path).parent.name == "trash"
    assert caller.call("undo").path == str(bag_folder)
    caller.spin(0.3)
    kinds = [event.kind for event in caller.events]
    event = caller.events[0]
    assert kinds == [event.START, event.STOP, event.DISCARD, event.UNDO]

    assert caller.call("start", start_timeout_s=5.0).success
    caller.spin(0.5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=5.0) == 0
    with open_bag(bag_folder.with_name("episode_000001")) as bag:
        assert (
            bag.custom["koch.verdict"].split(": ", 1)[1].startswith("the recorder was shut down")
        )


def test_a_highlight_is_saved_beside_an_episode_that_goes_on(
    recorder: Any, publisher: Any, caller: Caller
) -> None:
    from std_srvs.srv import Trigger

    publisher()
    recorder("highlight_s:=2.0")
    caller.find()
    assert caller.call("start", start_timeout_s=15.0).success
    caller.spin(3.0)
    client = caller.node.create_client(Trigger, "/episodes/highlight")
    future = client.call_async(Trigger.Request())
    caller.executor.spin_until_future_complete(future, timeout_sec=10.0)
    reply = future.result()
    assert reply.success, reply.message
    caller.spin(0.5)
    stopped = caller.call("stop", outcome="success", keep=True)
    assert stopped.success, stopped.message
    assert Path(stopped.path).name == "episode_000000"
    highlight = Path(stopped.path).parent / "highlights/episode_000001"
    assert reply.message.startswith(f"{highlight}: the last ")
    clip, whole = _sequences(highlight), _sequences(Path(stopped.path))
    for topic in ("/follower/joint_states", "/cameras/above/image_raw/compressed"):
        numbers = clip[topic]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), topic
        assert set(numbers) <= set(whole[topic]), topic
        assert whole[topic][-1] > numbers[-1], "the episode went on"
    assert 150 <= len(clip["/follower/joint_states"]) <= 205
    assert len(clip["/robot_description"]) == 1


def test_dead_stream_is_named_and_found_when_it_comes(
    recorder: Any, publisher: Any, caller: Caller, tmp_path: Path
) -> None:
    first = publisher("no-camera")
    recorder()
    caller.find()
    refused = caller.call("start", start_timeout_s=3.0)
    assert not refused.success
    assert refused.message == "dead stream(s): cameras/above: no message ever came"
    assert not list((tmp_path / "episodes").glob("episode*"))
    first.kill()
    publisher("best-effort")
    started = caller.call("start", start_timeout_s=15.0)
    assert started.success, started.message
    caller.spin(1.0)
    stopped = caller.call("stop", outcome="", keep=True)
    assert len(_sequences(Path(stopped.path))["/follower/joint_states"]) > 50


def test_kill_nine_loses_at_most_the_last_second(
    recorder: Any, publisher: Any, caller: Caller, tmp_path: Path
) -> None:
    publisher()
    process = recorder()
    caller.find()
    assert caller.call("start", task="killed", start_timeout_s=15.0).success
    caller.spin(2.5)
    killed_ns = time.time_ns()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (tmp_path / "episodes/episode_000000.partial").is_dir()

    recorder()
    caller.find()
    again = caller.call("start", start_timeout_s=15.0)
    assert again.success, again.message
    assert again.episode_index == 1
    bag_folder = tmp_path / "episodes/episode_000000"
    with open_bag(bag_folder) as bag:
        assert bag.damage == []
        assert bag.custom["koch.outcome"] == "unlabelled"
        assert bag.custom["koch.task"] == "killed"
        assert bag.custom["koch.repaired"].startswith("repaired: ")
        newest = max(message.log_ns for message in bag.messages(["/follower/joint_states"]))
    assert (killed_ns - newest) * 1e-9 < 1.0
    for topic, numbers in _sequences(bag_folder).items():
        if topic.startswith(("/follower", "/cameras")):
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), topic


def test_wrong_rig_ends_with_code_two(launch: Any) -> None:
    process = launch(
        "-m", "koch_episodes.recorder.node", "--ros-args", "-p", "rig:=/nowhere/rig.yaml"
    )
    output, _ = process.communicate(timeout=20.0)
    assert process.returncode == 2
    assert b"/nowhere/rig.yaml" in output
    assert b"Traceback" not in output


def test_koch_record_drives_itself(
    launch: Any, publisher: Any, rig_file: Path, tmp_path: Path
) -> None:
    publisher()
    command = "import sys, koch_episodes.recorder.terminal as t; sys.exit(t.main(sys.argv[1:]))"
    root = tmp_path / "episodes"
    process = launch(
        "-c",
        command,
        "--rig",
        str(rig_file),
        "--root",
        str(root),
        "--num-episodes",
        "2",
        "--episode-time-s",
        "1",
        "--reset-time-s",
        "0.2",
        "--task",
        "By script",
    )
    output, _ = process.communicate(timeout=40.0)
    assert process.returncode == 0, output
    assert b"2 episode(s) saved" in output
    for index in range(2):
        with open_bag(root / f"episode_{index:06d}") as bag:
            assert bag.custom["koch.task"] == "By script"


def test_a_stop_that_says_nothing_keeps_the_episode() -> None:
    from koch_interfaces.srv import StopEpisode

    assert StopEpisode.Request().keep is True
