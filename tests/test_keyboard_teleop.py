# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch teleop --keyboard` on an emulated arm: keys typed into a terminal, goals on the bus."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from narrow_terminal import NarrowTerminal
from rclpy.qos import QoSProfile
from repository import ROOT
from sensor_msgs.msg import JointState

from koch_driver.arm.jog import JogLimits
from koch_rig.kinematics import Kinematics
from koch_rig.load import load_rig
from koch_ros.session import GraphSession
from koch_vla.jog_input import DEADMAN_S

pytestmark = [pytest.mark.ros, pytest.mark.slow, pytest.mark.alone]

RIG_FILE = ROOT / "config/rig.emulated.yaml"
EVERY_GOAL = QoSProfile(depth=1000)
REPEAT_S = 0.04
START_S = 90.0


@dataclass
class Bench:
    """The terminal of a person, and what is written to the follower's motors."""

    terminal: NarrowTerminal
    session: GraphSession
    kinematics: Kinematics = field(default_factory=Kinematics.for_arm)
    goals: list[tuple[float, list[float]]] = field(default_factory=list)
    changes: list[list[float]] = field(default_factory=list)

    def hear(self, message: JointState) -> None:
        """Note a goal of the motors."""
        stamp_s = message.header.stamp.sec + 1e-9 * message.header.stamp.nanosec
        self.goals.append((stamp_s, list(message.position)))
        self.changes.append(list(message.velocity))

    def wait(self, seconds: float, keys: str = "") -> None:
        """Let time pass while keys are held, repeated as a terminal repeats them."""
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            if keys:
                self.terminal.press(keys)
            self.terminal.read(0.0)
            self.session.spin(REPEAT_S)

    def tcp(self) -> np.ndarray:
        """Where the goals have the TCP, (N, 3) [m]."""
        return np.array([self.kinematics.tcp(goal)[:3, 3] for _, goal in self.goals])


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A running `koch teleop --keyboard` whose arm has left home for a middle pose."""
    environment = {
        **os.environ,
        "KOCH_RUN_DIR": str(tmp_path_factory.mktemp("run")),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    words = [sys.executable, "-m", "koch_vla", "teleop", "--keyboard", "--rig", str(RIG_FILE)]
    with NarrowTerminal(words, environment, Path(ROOT)) as terminal, GraphSession("probe") as own:
        made = Bench(terminal, own)
        own.node.create_subscription(JointState, "follower/joint_command", made.hear, EVERY_GOAL)
        deadline_s = time.monotonic() + START_S
        while len(made.goals) < 50:
            made.wait(0.2)
            assert time.monotonic() < deadline_s, terminal.text[-2000:]
        yield made
        terminal.press("\x03")


@pytest.mark.parametrize(
    ("key", "axis", "sign"),
    [("r", 2, 1), ("s", 0, -1), ("a", 1, 1), ("d", 1, -1), ("w", 0, 1), ("f", 2, -1)],
)
def test_a_held_key_moves_the_hand_its_way_and_a_released_one_lets_it_rest(
    bench: Bench, key: str, axis: int, sign: int
) -> None:
    bench.wait(0.8)
    bench.goals.clear()
    bench.wait(1.0, key)
    released = len(bench.goals)
    bench.wait(DEADMAN_S + 1.0)
    places = bench.tcp()
    moved = places[released] - places[0]
    assert sign * moved[axis] > 0.02
    across = np.delete(moved, axis)
    assert np.abs(across).max() < 0.2 * abs(moved[axis])
    # At rest since the deadman let go, and the speed's ramp and the guard's delay are over.
    stamps = np.array([stamp for stamp, _ in bench.goals])
    late = stamps > stamps[released] + DEADMAN_S + 0.5
    assert late.sum() > 20
    assert np.ptp(places[late], axis=0).max() < 0.002


def test_neither_jump_nor_speed_on_the_bus(bench: Bench) -> None:
    rig = load_rig(RIG_FILE)
    limits, period_s = rig.limits, 1.0 / rig.arms["follower"].rate_hz
    bench.wait(0.8)
    bench.goals.clear()
    bench.changes.clear()
    for key in ("r", "a", "+w", "d", "s", "o", "f"):
        bench.wait(0.6, key)
    bench.wait(0.8)
    goals = np.array([goal for _, goal in bench.goals])
    moved = np.abs(np.diff(goals, axis=0))
    assert moved.max() <= limits.max_speed * period_s * 1.001
    speeds = np.array(bench.changes)
    jumps = np.abs(np.diff(speeds, axis=0))
    assert jumps.max() <= limits.max_acceleration * period_s * 1.001
    # On a machine with other work commands come late and are caught up with. In even time it is
    # less than 1.7 times what was asked for (test_jog.py).
    places, stamps = bench.tcp(), np.array([stamp for stamp, _ in bench.goals])
    later = np.searchsorted(stamps, stamps[:-20] + 0.1)
    tenths = np.linalg.norm(places[later] - places[:-20], axis=1)
    asked = JogLimits.linear * (stamps[later] - stamps[:-20])
    assert (tenths <= 3.0 * asked).all(), (tenths / asked).max()


def test_the_border_is_told_once_and_the_way_back_is_free(bench: Bench) -> None:
    bench.wait(0.8)
    bench.terminal.text = ""
    bench.wait(6.0, "++f")
    said = bench.terminal.text.count("the hand goes no further")
    assert said == 1, bench.terminal.text[-2000:]
    bench.wait(0.8)
    bench.goals.clear()
    bench.wait(1.0, "r")
    places = bench.tcp()
    assert places[-1][2] > places[0][2] + 0.02


def test_an_open_enable_switch_moves_nothing(bench: Bench) -> None:
    bench.wait(0.8)
    bench.terminal.press("x")
    bench.terminal.wait_for("the enable switch is open", 5.0)
    bench.goals.clear()
    bench.wait(1.0, "r")
    assert np.ptp(bench.tcp(), axis=0).max() < 0.002
    bench.terminal.press("e")
    bench.wait(1.0)
    bench.goals.clear()
    bench.wait(1.0, "r")
    assert bench.tcp()[-1][2] > bench.tcp()[0][2] + 0.01
