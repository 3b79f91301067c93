# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The five commands of the Koch manual, flags as they stand there, on an emulated bench."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from emulated_bench import MOVED, Arms, camera_file, emulated_rig, swinging
from narrow_terminal import NarrowTerminal

from koch_episodes.dataset import LeRobotDatasetReader, load_info
from koch_rig.arm_model import KOCH_V1_1

TASK = "Pick up the rectangular block and put it into the cup."
TINY = [f"--policy.{words}" for words in (
    "dim_model=32", "n_heads=2", "dim_feedforward=64", "n_encoder_layers=1", "chunk_size=10",
    "n_action_steps=10", "use_vae=false",
)]  # fmt: skip


class Bench:
    """Two arms on pseudo-terminals, and LeRobot's words for them."""

    def __init__(self, folder: Path, arms: Arms) -> None:
        self.folder, self.arms = folder, arms
        self.follower = [
            "--robot.type=koch_follower", f"--robot.port={folder / 'follower'}",
            "--robot.id=my_follower",
        ]  # fmt: skip
        self.leader = [
            "--teleop.type=koch_leader", f"--teleop.port={folder / 'leader'}",
            "--teleop.id=my_leader",
        ]  # fmt: skip
        files = {"left": 40, "above": 120}
        cameras = ", ".join(
            f"{name}: {{type: opencv, index_or_path: {camera_file(folder / name, shade)}, "
            "width: 96, height: 64, fps: 30, color_mode: 'rgb', rotation: 'NO_ROTATION'}"
            for name, shade in files.items()
        )
        self.cameras = [f"--robot.cameras={{ {cameras}}}"]
        self.environment = {
            **{k: v for k, v in os.environ.items() if k not in ("KOCH_RIG", "COLUMNS")},
            "PYTHONPATH": os.pathsep.join(sys.path),
            "HF_LEROBOT_HOME": str(folder / "lerobot"),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "KOCH_RUN_DIR": str(folder / "run"),
        }

    @staticmethod
    def command(*words: str) -> list[str]:
        return [sys.executable, "-m", "koch_vla", *words]

    def run(self, *words: str, timeout_s: float = 300.0) -> str:
        """Run a command without a terminal; its output."""
        done = subprocess.run(
            self.command(*words), env=self.environment, cwd=self.folder, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout_s,
            check=False,
        )  # fmt: skip
        logs = "".join(path.read_text()[-3000:] for path in self.folder.glob("*.log"))
        assert done.returncode == 0, done.stdout[-4000:] + logs
        return done.stdout

    def calibrate(self, arm: str, words: list[str]) -> None:
        command = self.command("calibrate", *words)
        with NarrowTerminal(command, self.environment, self.folder) as terminal:
            terminal.wait_for("middle pose")
            terminal.press("w")
            terminal.wait_for("the ranges")
            terminal.wait_for("move it")
            hand = threading.Thread(target=self.arms.move_through_ranges, args=(arm,))
            hand.start()  # beside: a terminal that nobody reads stops what writes to it
            terminal.wait_for(lambda: not hand.is_alive())
            terminal.wait_for(lambda: "move it" not in terminal.text[-600:])
            terminal.press("w")
            terminal.wait_for("Saved")
            assert terminal.end() == 0
        for joint in MOVED:
            self.arms.move(arm, joint, "free")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("manual")
    rig_file = emulated_rig(folder)
    with contextlib.closing(Arms(rig_file)) as arms:
        yield Bench(folder, arms)


@pytest.fixture
def hand(bench: Bench) -> Iterator[None]:
    """Swings the leader's joints."""
    with swinging(bench.arms):
        yield


pytestmark = [pytest.mark.ros, pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(600)]


# Each command needs what the one before it made; a test that is repeated alone makes it again.


@pytest.fixture(scope="module")
def calibrated(bench: Bench) -> Bench:
    """The bench after the manual's calibration of both arms."""
    bench.calibrate("leader", bench.leader)
    bench.calibrate("follower", bench.follower)
    return bench


@pytest.fixture(scope="module")
def recorded(calibrated: Bench) -> str:
    """What the manual's recording of two episodes said; its dataset is in `data`."""
    bench = calibrated
    with swinging(bench.arms):
        return bench.run(
            "record", *bench.follower, *bench.cameras, *bench.leader, "--display_data=false",
            "--dataset.repo_id=me/training_datasets", "--dataset.num_episodes=2",
            "--dataset.episode_time_s=3", "--dataset.reset_time_s=1",
            f"--dataset.single_task={TASK}", "--dataset.push_to_hub=False",
            f"--dataset.root={bench.folder / 'data'}", "--resume=false",
        )  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(bench: Bench, recorded: str) -> Path:
    """What the manual's training leaves."""
    bench.run(
        "scripts.train", "--policy.type=act", "--policy.push_to_hub=false",
        f"--dataset.root={bench.folder / 'data'}", "--dataset.repo_id=me/block_cup",
        "--batch_size=2", "--steps=2", "--output_dir=outputs/train/my_koch",
        "--job_name=my_koch_act", "--policy.device=cpu", "--wandb.enable=false", *TINY,
    )  # fmt: skip
    return bench.folder / "outputs/train/my_koch/checkpoints/last/pretrained_model"


def test_1_both_arms_are_calibrated_into_lerobots_cache(calibrated: Bench) -> None:
    home = calibrated.folder / "lerobot/calibration"
    for name in ("robots/koch_follower/my_follower", "teleoperators/koch_leader/my_leader"):
        made = json.loads((home / f"{name}.json").read_text())
        assert list(made) == list(KOCH_V1_1.joints)
        assert made["wrist_flex"]["range_max"] - made["wrist_flex"]["range_min"] == pytest.approx(
            1.2 * 4096 / (2 * math.pi), abs=60
        )


@pytest.mark.usefixtures("hand")
def test_2_the_leader_drives_the_follower(calibrated: Bench) -> None:
    bench = calibrated
    command = bench.command("teleoperate", *bench.follower, *bench.leader)
    with NarrowTerminal(command, bench.environment, bench.folder) as terminal:
        terminal.wait_for("= koch teleop --rig", 60.0)
        terminal.wait_for("Hz", 90.0)
        wait_until(lambda: abs(pan_ticks(bench) - 2047) > 150, 60.0)
        os.killpg(terminal.process.pid, signal.SIGINT)
        assert terminal.end() == 0, terminal.text[-3000:]


def test_3_two_episodes_are_recorded_and_become_a_dataset(bench: Bench, recorded: str) -> None:
    assert "= koch convert" in recorded
    assert len(list((bench.folder / "data_bags").glob("episode_*/metadata.yaml"))) == 2
    info = load_info(bench.folder / "data")
    assert info.total_episodes >= 2  # a stream that was late on a busy machine splits an episode
    assert (info.fps, info.robot_type) == (30, "koch_follower")
    assert {"observation.images.left", "observation.images.above"} <= set(info.features)
    with contextlib.closing(LeRobotDatasetReader(bench.folder / "data")) as dataset:
        actions = dataset.column("action")
    assert np.ptp(actions[:, 0]) > 10.0  # the hand's swing, in LeRobot's units


def test_4_a_policy_is_trained(checkpoint: Path) -> None:
    assert (checkpoint / "model.safetensors").is_file()


def test_5_the_policy_drives_while_an_episode_is_recorded(bench: Bench, checkpoint: Path) -> None:
    name = "evaluated"
    bench.run(
        "record", *bench.follower, *bench.cameras, *bench.leader, "--display_data=false",
        "--dataset.reset_time_s=1", f"--dataset.single_task={TASK}", "--dataset.push_to_hub=False",
        f"--dataset.root={bench.folder / name}", f"--dataset.repo_id=me/eval_{name}",
        "--dataset.num_episodes=1", "--dataset.episode_time_s=5", f"--policy.path={checkpoint}",
    )  # fmt: skip
    assert load_info(bench.folder / name).total_episodes >= 1
    log = (bench.folder / f"{name}_bags.log").read_text()
    ended = re.search(r"run ended after (\d+) actions.*", log)
    assert ended, log
    assert int(ended[1]) > 60, ended[0]  # of 150 ticks


def pan_ticks(bench: Bench) -> int:
    return bench.arms.move("follower", "shoulder_pan", "look")


def wait_until(holds: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)
