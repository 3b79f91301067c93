# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Two followers and two leaders, from teleoperation to a policy that moves both arms.

The servos are emulated in this process, where a hand swings the leaders.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from repository import ROOT

pytest.importorskip("koch_interfaces", reason="source install/local_setup.bash first")
pytest.importorskip("koch_policy")

import rclpy
from koch_interfaces.msg import GuardStatus
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from std_srvs.srv import SetBool, Trigger

from koch_core.realtime import request_realtime
from koch_driver.emulator import build_chain
from koch_episodes import LeRobotDatasetReader
from koch_episodes.recorder.nodes.client import EpisodeControl
from koch_rig.arm_model import KOCH_V1_1
from koch_rig.load import load_rig
from koch_ros.qos import LATCHED
from koch_ros.session import GraphSession

pytestmark = [pytest.mark.ros, pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(900)]
PATIENCE_S = 90.0  # a slow machine imports for long
ATTEMPTS = 4  # a busy machine may lose an emulated arm for a second
FOLLOWERS = ("left", "right")
#: How hands swing each leader about its home pose: the base by so much [rad], so fast [rad/s].
SWINGS = {"left_leader": (0.3, 1.5), "right_leader": (0.2, 2.0)}


def wait_for(condition: Callable[[], Any], what: str, seconds: float = PATIENCE_S) -> None:
    end_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end_s, what
        time.sleep(0.05)


class TwoArms:
    """Four emulated arms, a hand, and what the guards of the followers say."""

    def __init__(self, rig_file: Path) -> None:
        rig = load_rig(rig_file)
        request_realtime()
        self.chains = {name: build_chain(rig, name) for name in rig.arms}
        for chain in self.chains.values():
            chain.open()
        self.context = rclpy.Context()
        rclpy.init(args=[], context=self.context)
        self.node = Node("hand", context=self.context)
        self.said: dict[str, GuardStatus] = {}
        for arm in FOLLOWERS:
            self.node.create_subscription(
                GuardStatus, f"/{arm}/guard_status", self._keeper(arm), LATCHED
            )
        self.switches = {
            arm: [self.node.create_client(SetBool, f"/{arm}/{name}")
                  for name in ("torque", "teleop/clutch")]
            for arm in FOLLOWERS
        }  # fmt: skip
        self.resume = {
            arm: self.node.create_client(Trigger, f"/{arm}/resume") for arm in FOLLOWERS
        }
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.ended = threading.Event()
        self.threads = [
            threading.Thread(target=self.executor.spin, daemon=True),
            threading.Thread(target=self._swing, daemon=True),
        ]
        for thread in self.threads:
            thread.start()

    def _keeper(self, arm: str) -> Callable[[GuardStatus], None]:
        def keep(message: GuardStatus) -> None:
            self.said[arm] = message

        return keep

    def _swing(self) -> None:
        began_s = time.monotonic()
        while not self.ended.wait(0.02):
            for name, (size, speed) in SWINGS.items():
                swing = size * math.sin(speed * (time.monotonic() - began_s))
                for joint, home in zip(KOCH_V1_1.joints, KOCH_V1_1.home_rad, strict=True):
                    share = 1.0 if joint == "shoulder_pan" else 0.2
                    self.chains[name].faults.hold(joint, home + share * swing)

    def take_up(self) -> None:
        """Engage both leaders until both followers obey them.

        On a slow machine an arm that begins to answer late was without power, as far as its driver
        can know: it stays stopped until somebody says otherwise, as `koch up` asks for.
        """

        def engaged() -> bool:
            for arm, said in list(self.said.items()):
                torque, enable = self.switches[arm]
                if said.stops:
                    torque.call_async(SetBool.Request(data=True))
                    self.resume[arm].call_async(Trigger.Request())
                enable.call_async(SetBool.Request(data=True))
            time.sleep(1.0)
            return self.drives("teleop")

        wait_for(engaged, "no teleoperation; see up.log")

    def drives(self, source: str) -> bool:
        """Whether this source drives both followers."""
        modes = (GuardStatus.BLENDING, GuardStatus.DRIVING)
        return len(self.said) == len(FOLLOWERS) and all(
            said.mode in modes and said.source == source for said in self.said.values()
        )

    def angle(self, arm: str) -> float:
        chain = self.chains[arm]
        chain.refresh()
        return float(chain.servo("shoulder_pan").shaft_rad)

    def swings_rad(self, seconds: float) -> dict[str, float]:
        """How far each follower's base turns to and fro."""
        seen: dict[str, list[float]] = {arm: [] for arm in FOLLOWERS}
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            for arm, angles in seen.items():
                angles.append(self.angle(arm))
            time.sleep(0.02)
        return {arm: max(angles) - min(angles) for arm, angles in seen.items()}

    def close(self) -> None:
        self.ended.set()
        self.executor.shutdown(timeout_sec=2.0)
        for thread in self.threads:
            thread.join(5.0)
        self.node.destroy_node()
        self.context.try_shutdown()
        for chain in self.chains.values():
            chain.close()


def words(*arguments: object) -> list[str]:
    """A `koch` command line."""
    return [sys.executable, "-m", "koch_vla", *map(str, arguments)]


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[TwoArms, Path]]:
    """The arms and their rig: the shipped one, with ages and rates that a busy machine keeps."""
    monkeypatch.setenv("KOCH_RUN_DIR", str(tmp_path / "run"))
    (tmp_path / "run").mkdir()
    source = ROOT / "config" / "rig.two_arms.yaml"
    text = source.read_text(encoding="utf-8")
    text = text.replace("calibration: ", f"calibration: {source.parent}/")
    text = text.replace("rate_hz: 50", "rate_hz: 30")  # four arms are emulated in this process
    for age in ("50", "100"):
        text = text.replace(f"max_age_ms: {age}}}", "max_age_ms: 400}")
    rig_file = tmp_path / "rig.yaml"
    rig_file.write_text(text, encoding="utf-8")
    arms = TwoArms(rig_file)
    yield arms, rig_file
    arms.close()


def test_two_arms_teleoperate_record_convert_train_and_run(
    table: tuple[TwoArms, Path],
    plugins: dict[str, str],
    tmp_path: Path,
) -> None:
    arms, rig_file = table
    environment = {**os.environ, "PYTHONPATH": plugins["PYTHONPATH"]}  # this module's domain
    log, episodes = tmp_path / "up.log", tmp_path / "episodes"

    def koch(*arguments: object) -> str:
        done = subprocess.run(
            words(*arguments), env=environment, capture_output=True, text=True, check=False,
            timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    up = subprocess.Popen(
        words("up", "--rig", rig_file, "--no-sim", "--record", "--record-root", episodes,
              "--log", log),
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        # Teleoperation: each leader drives its own follower.
        arms.take_up()
        wait_for(lambda: min(arms.swings_rad(4.5).values()) > 0.3, "the followers do not follow")
        swings = arms.swings_rad(4.5)
        assert swings["left"] > swings["right"] > 0.3

        data, run = tmp_path / "dataset", tmp_path / "run_nearest"
        koch("convert", _record(arms), "--out", data, "--rig", rig_file)
        _check_dataset(data)
        koch(
            "train", "--policy", "nearest", "--preset", "tiny", "--dataset", data, "--out", run,
            "--rig", rig_file,
            "--set", "train.validation_fraction=0", "--set", "train.steps=30",
        )  # fmt: skip

        # The policy takes both arms from their leaders and moves them as it was shown.
        results = []
        for attempt in range(ATTEMPTS):
            arms.take_up()
            report = tmp_path / f"run_{attempt}.json"
            moved = _run(arms, words("run", "--policy", run, "--rig", rig_file, "--runtime",
                                     "torch", "--once", "--max-duration", "12", "--json",
                                     report), environment)  # fmt: skip
            if not report.is_file():
                continue  # the answer to its goal was lost, which it has said: a person asks again
            results += json.loads(report.read_text(encoding="utf-8"))
            if results[-1]["code"] == 0:
                break
        assert results
        assert results[-1]["code"] == 0, results
        assert results[-1]["steps"] > 100
        assert moved["left"] > 0.2
        assert moved["right"] > 0.1
    finally:
        up.terminate()
        up.wait(30.0)


def _record(arms: TwoArms) -> str:
    """An episode during which both leaders drove all the time; its folder."""
    with GraphSession("test_two_arms") as session:
        episode = EpisodeControl(session)
        for _ in range(ATTEMPTS):
            arms.take_up()
            episode.start("Fold the towel.", 20.0)
            end_s = time.monotonic() + 9.0
            while arms.drives("teleop") and time.monotonic() < end_s:
                time.sleep(0.05)
            held = time.monotonic() >= end_s
            folder, _ = episode.stop("success", keep=held)
            if held:
                return folder
    raise AssertionError("teleoperation lapses within nine seconds, again and again")


def _run(arms: TwoArms, command: list[str], environment: dict[str, str]) -> dict[str, float]:
    """Let `koch run` drive; how far each follower swings meanwhile."""
    runner = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL)
    try:
        wait_for(
            lambda: arms.drives("policy") or runner.poll() is not None,
            "the policy does not drive both arms",
        )
        moved = arms.swings_rad(5.0)
        runner.wait(PATIENCE_S)
        return moved
    finally:
        runner.kill()
        runner.wait()


def _check_dataset(folder: Path) -> None:
    """Names and units are LeRobot's for a robot of two arms; the arms are told apart."""
    data = LeRobotDatasetReader(folder)
    names = [f"{arm}_{joint}.pos" for arm in FOLLOWERS for joint in KOCH_V1_1.joints]
    for key in ("action", "observation.state"):
        assert list(data.features[key].names or ()) == names
    state, action = data.column("observation.state"), data.column("action")
    assert state.shape[1] == action.shape[1] == 12
    assert len(action) > 150
    turns = np.ptp(action, axis=0)
    assert turns[0] > turns[6] > 5.0  # the left hand swings further
    assert np.abs(state[:, 0] - action[:, 0]).max() < turns[0]
