# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What a person was promised of an arm holds when the whole `koch up` dies and is started again.

The arms are emulated in this process: they keep their torque, and lose it, as real ones do.
"""

from __future__ import annotations

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
from typing import Any

import pytest

pytest.importorskip("koch_interfaces", reason="source install/local_setup.bash first")

import rclpy
from koch_interfaces.msg import GuardStatus
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from std_srvs.srv import SetBool, Trigger

from koch_core.realtime import request_realtime
from koch_driver.emulator import build_chain
from koch_rig.arm_model import KOCH_V1_1
from koch_rig.load import load_rig
from koch_ros.qos import LATCHED

J = len(KOCH_V1_1.joints)

pytestmark = [pytest.mark.ros, pytest.mark.slow, pytest.mark.alone]
NODES = "follower/driver,leader/driver,follower/teleop"
DRIVES = (GuardStatus.BLENDING, GuardStatus.DRIVING)


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 25.0) -> None:
    end_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end_s, what
        time.sleep(0.02)


class Lab:
    """Two emulated arms, a hand that swings the leader all the time, and `koch up`."""

    def __init__(self, rig_file: Path, folder: Path) -> None:
        self.rig_file, self.log = rig_file, folder / "up.log"
        self.environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "KOCH_RUN_DIR": str(folder / "run"),
        }
        rig = load_rig(rig_file)
        request_realtime()
        self.chains = {name: build_chain(rig, name) for name in rig.arms}
        for chain in self.chains.values():
            chain.open()
        self.context = rclpy.Context()
        rclpy.init(args=[], context=self.context)
        self.node = Node("hand", context=self.context)
        self.status: GuardStatus | None = None
        self.node.create_subscription(
            GuardStatus, "/follower/guard_status", self._on_status, LATCHED
        )
        self.clients = {
            "torque": self.node.create_client(SetBool, "/follower/torque"),
            "clutch": self.node.create_client(SetBool, "/follower/teleop/clutch"),
            "stop": self.node.create_client(Trigger, "/follower/stop"),
            "resume": self.node.create_client(Trigger, "/follower/resume"),
        }
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.ended = threading.Event()
        self.threads = [threading.Thread(target=self.executor.spin, daemon=True)]
        self.threads.append(threading.Thread(target=self._swing, daemon=True))
        for thread in self.threads:
            thread.start()
        self.up: subprocess.Popen[bytes] | None = None

    def _swing(self) -> None:
        began_s = time.monotonic()
        while not self.ended.wait(0.02):
            angle = 0.3 * math.sin(2.0 * (time.monotonic() - began_s))
            self.chains["leader"].faults.hold("shoulder_pan", angle)

    def _on_status(self, message: GuardStatus) -> None:
        self.status = message

    def start(self, *, wait: bool = True) -> None:
        self.status = None
        self.log.unlink(missing_ok=True)
        words = ["-m", "koch_vla", "up", "--rig", str(self.rig_file), "--only", NODES]
        self.up = subprocess.Popen(
            [sys.executable, *words, "--log", str(self.log)],
            env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT,
        )  # fmt: skip
        if not wait:
            return
        ready = (*DRIVES, GuardStatus.STOPPED, GuardStatus.OFF)
        wait_for(lambda: self.status is not None and self.status.mode in ready, "no arm")

    def nodes(self) -> list[int]:
        assert self.up is not None
        children = Path(f"/proc/{self.up.pid}/task/{self.up.pid}/children").read_text().split()
        return [int(pid) for pid in children]

    def kill(self, *, nodes_too: bool) -> None:
        """SIGKILL, as by a fault of memory; without `nodes_too` the guardian ends the nodes."""
        assert self.up is not None
        pids = self.nodes()
        self.up.kill()
        if nodes_too:
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
        self.up.wait()
        wait_for(lambda: not any(_lives(pid) for pid in pids), "nodes that outlive koch up")

    def interrupt(self) -> None:
        assert self.up is not None
        self.up.send_signal(signal.SIGINT)
        assert self.up.wait(20.0) == 0

    def ask(self, name: str, data: bool = True) -> Any:
        """Call a service; again, where the request went to the process that was just killed."""
        client = self.clients[name]
        request = SetBool.Request(data=data) if name in ("torque", "clutch") else Trigger.Request()
        for _ in range(4):
            wait_for(client.service_is_ready, name)
            future, end_s = client.call_async(request), time.monotonic() + 6.0
            while time.monotonic() < end_s:
                if future.done():
                    return future.result()
                time.sleep(0.02)
        raise AssertionError(f"no answer of {name}")

    def blink(self) -> None:
        """The follower's power goes and comes back; the arm sinks meanwhile."""
        faults = self.chains["follower"].faults
        faults.power_cut()
        faults.hold("shoulder_pan", -0.8)
        time.sleep(0.4)
        faults.hold("shoulder_pan", None)
        faults.power_return()

    def angle(self) -> float:
        chain = self.chains["follower"]
        chain.refresh()
        return chain.servo("shoulder_pan").shaft_rad

    def swing_rad(self, seconds: float = 1.7) -> float:
        """How far the follower's base turns to and fro."""
        seen, end_s = [], time.monotonic() + seconds
        while time.monotonic() < end_s:
            seen.append(self.angle())
            time.sleep(0.02)
        return max(seen) - min(seen)

    def follows(self) -> None:
        """The follower follows the hand's swing, if not at once. AssertionError where it does not.

        It blends in, and on a slow machine teleop may let go of a late leader for a moment.
        """
        swings = [self.swing_rad()]
        while swings[-1] <= 0.3:
            assert len(swings) < 8, f"the follower swings by {swings} rad"
            swings.append(self.swing_rad())

    def torques(self) -> list[int]:
        return [servo.get("Torque_Enable") for servo in self.chains["follower"].servos]

    def close(self) -> None:
        self.ended.set()
        if self.up is not None and self.up.poll() is None:
            self.kill(nodes_too=True)
        self.executor.shutdown()
        for thread in self.threads:
            thread.join(2.0)
        self.node.destroy_node()
        self.context.try_shutdown()
        for chain in self.chains.values():
            chain.close()


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.fixture(scope="module")
def dark_lab(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("again")
    source = repository / "config/rig.emulated.yaml"
    text = re.sub(r"^simulation:.*\n", "", source.read_text(), flags=re.MULTILINE)
    text = text.replace("calibration: ", f"calibration: {source.parent}/")
    (folder / "rig.yaml").write_text(text)
    patch = pytest.MonkeyPatch()
    patch.setenv("KOCH_RUN_DIR", str(folder / "run"))
    (folder / "run").mkdir()
    made = Lab(folder / "rig.yaml", folder)
    yield made
    made.close()
    patch.undo()


@pytest.fixture
def lab(dark_lab: Lab) -> Lab:
    """The lab with `koch up` running, whichever test comes first."""
    if dark_lab.up is None:
        dark_lab.start()
        dark_lab.follows()
    return dark_lab


def take_up(lab: Lab) -> None:
    """What a person does when all is well again, and the arm follows the leader."""
    assert lab.ask("torque").success
    assert lab.ask("resume").success
    lab.ask("clutch", True)
    wait_for(lambda: lab.status is not None and lab.status.mode in DRIVES, "nobody drives")
    lab.follows()


def test_a_first_start_takes_up_a_limp_arm_and_a_killed_one_holds_and_goes_on(
    dark_lab: Lab,
) -> None:
    lab = dark_lab
    assert lab.torques() == [0] * J
    lab.start()
    lab.follows()
    lab.kill(nodes_too=True)
    assert lab.torques() == [1] * J
    lab.start()
    lab.follows()


@pytest.mark.parametrize("nodes_too", [True, False])
def test_a_latched_stop_outlives_koch_up(lab: Lab, nodes_too: bool) -> None:
    assert lab.ask("stop").success
    lab.kill(nodes_too=nodes_too)
    lab.start()
    assert lab.status is not None
    assert lab.status.mode == GuardStatus.STOPPED
    assert not lab.ask("clutch", True).success
    assert lab.swing_rad() < 0.02
    assert lab.torques() == [1] * J
    take_up(lab)


def test_a_stop_outlives_koch_up_and_a_power_cut_meanwhile(lab: Lab) -> None:
    assert lab.ask("stop").success
    lab.kill(nodes_too=True)
    lab.blink()
    lab.start()
    assert lab.swing_rad() < 0.02
    assert lab.torques() == [0] * J
    assert not lab.ask("resume").success, "the servos have lost everything"
    take_up(lab)


def test_a_released_torque_outlives_koch_up(lab: Lab) -> None:
    assert lab.ask("torque", False).success
    lab.kill(nodes_too=True)
    lab.start()
    assert lab.status is not None
    assert lab.status.mode == GuardStatus.OFF
    assert lab.swing_rad() < 0.02
    assert lab.torques() == [0] * J
    take_up(lab)


@pytest.mark.parametrize("nodes_too", [True, False])
def test_power_that_was_cut_while_koch_up_was_dead_moves_nothing(
    lab: Lab, nodes_too: bool
) -> None:
    lab.kill(nodes_too=nodes_too)
    lab.blink()
    lab.start()
    assert lab.swing_rad() < 0.02
    assert lab.torques() == [0] * J
    assert lab.status is not None
    assert "without power" in lab.status.reason
    take_up(lab)


def test_power_cut_before_koch_up_was_ended_moves_nothing_in_the_next(lab: Lab) -> None:
    lab.chains["follower"].faults.power_cut()
    time.sleep(1.0)
    lab.interrupt()
    lab.chains["follower"].faults.power_return()
    lab.start()
    assert lab.swing_rad() < 0.02
    assert lab.torques() == [0] * J
    take_up(lab)


def test_an_arm_that_gets_its_power_long_after_koch_up_stays_limp(lab: Lab) -> None:
    """Anyone who starts everything and then finds the supply: torque is given by a person."""
    lab.interrupt()
    lab.chains["follower"].faults.power_cut()
    lab.start(wait=False)
    said = re.compile(r"follower/driver .*no arm behind")
    wait_for(lambda: lab.log.exists() and said.search(lab.log.read_text()), "the dark arm")
    time.sleep(1.5)
    lab.chains["follower"].faults.power_return()
    wait_for(lambda: lab.status and lab.status.mode in (GuardStatus.STOPPED, GuardStatus.OFF), "")
    assert lab.swing_rad() < 0.02
    assert lab.torques() == [0] * J
    take_up(lab)


def test_an_arm_that_was_left_and_switched_off_is_taken_up_as_at_the_first_start(
    lab: Lab,
) -> None:
    lab.interrupt()
    lab.blink()
    lab.start()
    assert lab.torques() == [1] * J
    lab.ask("clutch", True)
    lab.follows()
