# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""LeRobot's own commands drive the running graph through `koch bridge`, on emulated arms."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgpack
import numpy as np
import pytest
from emulated_bench import Arms, camera_file, emulated_rig, swinging
from repository import ROOT

from koch_episodes.dataset import LeRobotDatasetReader, load_info
from koch_policy.server.protocol import PROTOCOL, Channel

CAMERA = """
cameras:
  above: {{source: {file}, width: 96, height: 64, fps: 30, mount: {{parent: world}}}}
"""
PLUGINS = ("lerobot_robot_koch_ros", "lerobot_teleoperator_koch_ros")

pytestmark = [pytest.mark.ros, pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(600)]


@dataclass
class Bench:
    """A running graph with its bridge."""

    folder: Path
    arms: Arms
    port: int

    def pan(self) -> int:
        return self.arms.move("follower", "shoulder_pan", "look")

    def connect(self, token: str = "") -> Channel:
        channel = Channel(socket.create_connection(("127.0.0.1", self.port), 5.0))
        channel.send({"kind": "hello", "protocol": PROTOCOL, "token": token})
        return channel


def wait_for_text(path: Path, pattern: str, seconds: float = 90.0) -> re.Match[str]:
    end = time.monotonic() + seconds
    while not (found := re.search(pattern, path.read_text())):
        assert time.monotonic() < end, path.read_text()[-3000:]
        time.sleep(0.1)
    return found


@contextlib.contextmanager
def running(folder: Path, *words: str) -> Iterator[Path]:
    """A command of ours as long as the block lasts; its output."""
    log = folder / f"{words[0]}.log"
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "KOCH_RUN_DIR": str(folder / "run"),
    }  # fmt: skip
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "koch_vla", *words], env=environment, stdin=subprocess.DEVNULL,
            stdout=stream, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            yield log
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(30.0)
            finally:
                process.kill()


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("plugin")
    rig = emulated_rig(folder)
    text = rig.read_text() + "  observation.images.above: {stream: cameras/above}\n"
    rig.write_text(text + CAMERA.format(file=camera_file(folder / "above", 90)))
    with (
        contextlib.closing(Arms(rig)) as arms,
        running(folder, "up", "--rig", str(rig)) as up,
        running(folder, "bridge", "--rig", str(rig), "--port", "0") as bridge,
    ):
        wait_for_text(up, "the human drives")
        wait_for_text(up, "above.mp4: streaming")
        port = wait_for_text(bridge, r"listens on 127\.0\.0\.1:(\d+)")[1]
        yield Bench(folder, arms, int(port))


@pytest.fixture(scope="module")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two packages installed by pip into a folder, and msgpack, which LeRobot lacks."""
    target = tmp_path_factory.mktemp("site")
    for name in PLUGINS:
        source = tmp_path_factory.mktemp("source") / name
        shutil.copytree(ROOT / "plugins" / name, source)  # the build writes beside it
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation",
             "--no-index", "--target", str(target), str(source)],
            check=True, capture_output=True,
        )  # fmt: skip
    shutil.copytree(Path(msgpack.__file__).parent, target / "msgpack")
    return target


def lerobot(python: str, script: str, bench: Bench, plugins: Path, *words: str) -> list[str]:
    address = f"127.0.0.1:{bench.port}"
    robot = ["--robot.type=koch_ros", f"--robot.address={address}"]
    return [
        "env", f"PYTHONPATH={plugins}", "HF_HUB_OFFLINE=1", "LD_LIBRARY_PATH=",
        f"HF_LEROBOT_HOME={bench.folder / 'lerobot'}",
        python, "-m", f"lerobot.scripts.lerobot_{script}", *robot, *words,
    ]  # fmt: skip


def test_lerobot_records_replays_and_may_be_killed(
    bench: Bench, plugins: Path, lerobot_python: str
) -> None:
    root = bench.folder / f"data_{Path(lerobot_python).parents[1].name}"
    leader = ["--teleop.type=koch_ros", f"--teleop.address=127.0.0.1:{bench.port}"]
    record = [
        *leader, "--dataset.repo_id=me/data", f"--dataset.root={root}",
        "--dataset.num_episodes=1", "--dataset.episode_time_s=5", "--dataset.reset_time_s=0",
        "--dataset.single_task=Swing.", "--dataset.push_to_hub=false", "--play_sounds=false",
    ]  # fmt: skip
    with swinging(bench.arms):
        done = subprocess.run(
            lerobot(lerobot_python, "record", bench, plugins, *record),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    info = load_info(root)
    assert (info.total_episodes, info.robot_type, info.fps) == (1, "koch_ros", 30)
    assert (info.features["action"].names or ())[0] == "shoulder_pan.pos"
    assert tuple(info.features["observation.images.above"].shape) == (64, 96, 3)
    with contextlib.closing(LeRobotDatasetReader(root)) as dataset:
        actions, states = dataset.column("action"), dataset.column("observation.state")
    assert np.ptp(actions[:, 0]) > 5.0
    settled = slice(len(actions) // 2, None)  # behind the guard's soft start
    assert np.abs(actions[settled] - states[settled]).mean() < 0.5 * np.ptp(actions[:, 0])
    assert np.ptp(states[settled, 0]) > 0.5 * np.ptp(actions[settled, 0])

    replay = ["--dataset.repo_id=me/data", f"--dataset.root={root}", "--dataset.episode=0",
              "--play_sounds=false"]  # fmt: skip
    done = subprocess.run(
        lerobot(lerobot_python, "replay", bench, plugins, *replay),
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]

    with swinging(bench.arms):
        with (bench.folder / "teleoperate.log").open("w") as log:
            process = subprocess.Popen(
                lerobot(lerobot_python, "teleoperate", bench, plugins, *leader),
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        try:
            rest, end = bench.pan(), time.monotonic() + 240.0
            while abs(bench.pan() - rest) < 60:
                said = (bench.folder / "teleoperate.log").read_text()
                assert time.monotonic() < end, said[-3000:]
                time.sleep(0.05)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        time.sleep(1.0)
        held = bench.pan()
        for _ in range(20):
            time.sleep(0.1)
            assert abs(bench.pan() - held) <= 3  # the leader swings on, the arm holds


def test_one_client_commands_and_every_mistake_is_answered(bench: Bench) -> None:
    first, second = bench.connect(), bench.connect()
    about = first.receive(5.0)
    assert about["action"][0] == "shoulder_pan.pos"
    second.receive(5.0)
    state = first.ask({"kind": "observe"}, 5.0)["state"]
    assert first.ask({"kind": "command", "action": np.array(state, float)}, 10.0)["kind"] == "done"
    refused = second.ask({"kind": "command", "action": np.array(state, float)}, 5.0)
    assert "another client commands" in refused["text"]
    for action in (None, np.zeros(5), np.full(6, np.nan)):
        answer = first.ask({"kind": "command", "action": action}, 5.0)
        assert answer["kind"] == "error", action
    assert "expected observe" in first.ask({"kind": "shutdown"}, 5.0)["text"]
    first.close()
    second.close()
