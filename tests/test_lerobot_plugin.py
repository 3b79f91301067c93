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
  above: {{source: {file}, width: 96, height: 64, fps: 30}}
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


def records(bench: Bench, name: str) -> list[str]:
    """Flags of LeRobot's commands for one episode of five seconds."""
    return [
        f"--dataset.repo_id=me/{name}", f"--dataset.root={bench.folder / name}",
        "--dataset.num_episodes=1", "--dataset.episode_time_s=5", "--dataset.reset_time_s=0",
        "--dataset.single_task=Swing.", "--dataset.push_to_hub=false", "--play_sounds=false",
    ]  # fmt: skip


def ends_well(command: list[str], seconds: float = 240.0) -> None:
    """Run a command to its end."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, timeout=seconds, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:]


def watched(bench: Bench, command: list[str], seconds: float = 240.0) -> list[int]:
    """Run a command of LeRobot to its end, and look where the arm is all the while."""
    log = bench.folder / "watched.log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    pans, end = [], time.monotonic() + seconds
    try:
        while process.poll() is None:
            assert time.monotonic() < end, log.read_text()[-3000:]
            pans.append(bench.pan())
            time.sleep(0.1)
    finally:
        process.kill()
    assert process.returncode == 0, log.read_text()[-6000:]
    return pans


def leads(bench: Bench) -> list[str]:
    return ["--teleop.type=koch_ros", f"--teleop.address=127.0.0.1:{bench.port}"]


@pytest.fixture(scope="module")
def recorded(bench: Bench, plugins: Path, lerobot_python: str) -> Path:
    """A dataset that `lerobot-record` made while the leader swung."""
    name = f"data_{Path(lerobot_python).parents[1].name}"
    words = [*leads(bench), *records(bench, name)]
    with swinging(bench.arms):
        ends_well(lerobot(lerobot_python, "record", bench, plugins, *words))
    return bench.folder / name


def test_lerobot_records(recorded: Path) -> None:
    info = load_info(recorded)
    assert (info.total_episodes, info.robot_type, info.fps) == (1, "koch_ros", 30)
    assert (info.features["action"].names or ())[0] == "shoulder_pan.pos"
    assert tuple(info.features["observation.images.above"].shape) == (64, 96, 3)
    with contextlib.closing(LeRobotDatasetReader(recorded)) as dataset:
        actions, states = dataset.column("action"), dataset.column("observation.state")
    assert np.ptp(actions[:, 0]) > 5.0
    settled = slice(len(actions) // 2, None)  # behind the guard's soft start
    assert np.abs(actions[settled] - states[settled]).mean() < 0.5 * np.ptp(actions[:, 0])
    assert np.ptp(states[settled, 0]) > 0.5 * np.ptp(actions[settled, 0])


def test_lerobot_replays(bench: Bench, plugins: Path, lerobot_python: str, recorded: Path) -> None:
    words = [
        f"--dataset.repo_id=me/{recorded.name}", f"--dataset.root={recorded}",
        "--dataset.episode=0", "--play_sounds=false",
    ]  # fmt: skip
    rest = bench.pan()
    pans = watched(bench, lerobot(lerobot_python, "replay", bench, plugins, *words))
    assert max(abs(pan - rest) for pan in pans) > 60


TINY = {
    "policy": "dim_model=32 n_heads=2 dim_feedforward=64 n_encoder_layers=1 chunk_size=10 "
    "n_action_steps=10 use_vae=false",
    "train": "steps=2 batch_size=2 validation_fraction=0",
}


def test_a_policy_of_ours_drives_in_lerobot(
    bench: Bench, plugins: Path, lerobot_python: str, recorded: Path
) -> None:
    """Trained here on what LeRobot recorded, run there: `lerobot-rollout`, in 0.4.4 `record`."""
    out = recorded.with_name(f"{recorded.name}_policy")
    sets = [f"{group}.{word}" for group, words in TINY.items() for word in words.split()]
    ends_well([
        "env", f"PYTHONPATH={os.pathsep.join(sys.path)}", sys.executable, "-m", "koch_vla",
        "train", "--dataset", str(recorded), "--policy", "act", "--zero-range", "constant",
        "--out", str(out), *(word for each in sets for word in ("--set", each)),
    ])  # fmt: skip
    policy = f"--policy.path={out / 'checkpoints/last/pretrained_model'}"
    has = [lerobot_python, "-c", "import lerobot.scripts.lerobot_rollout"]
    if subprocess.run(has, capture_output=True, check=False).returncode == 0:
        words = [policy, "--duration=5", "--task=Swing.", "--play_sounds=false", "--device=cpu"]
        command = lerobot(lerobot_python, "rollout", bench, plugins, *words)
    else:
        name = f"eval_{recorded.name}"
        command = lerobot(lerobot_python, "record", bench, plugins, policy, *records(bench, name))
    pans = watched(bench, command)
    assert "the arm follows policy" in (bench.folder / "watched.log").read_text()
    assert np.ptp(pans) > 20  # it learned two steps, but what its numbers mean


def test_lerobot_teleoperates_to_its_end(bench: Bench, plugins: Path, lerobot_python: str) -> None:
    with swinging(bench.arms):
        words = [*leads(bench), "--teleop_time_s=4"]
        pans = watched(bench, lerobot(lerobot_python, "teleoperate", bench, plugins, *words))
    assert np.ptp(pans) > 60


def test_lerobot_teleoperates_and_may_be_killed(
    bench: Bench, plugins: Path, lerobot_python: str
) -> None:
    with swinging(bench.arms):
        with (bench.folder / "teleoperate.log").open("w") as log:
            process = subprocess.Popen(
                lerobot(lerobot_python, "teleoperate", bench, plugins, *leads(bench)),
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
