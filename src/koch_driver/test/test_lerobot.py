# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""LeRobot's own KochFollower and KochLeader on our emulated ports."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from koch_driver.arm.connect import check_drift, connect_arm
from koch_driver.bus.dynamixel import DynamixelBus
from koch_driver.bus.motors import FOLLOWER_MOTORS, LEADER_MOTORS, motors_for
from koch_driver.emulator import EmulatedChain, EmulatedServo, FirstOrderPhysics
from koch_rig.arm_model import KOCH_V1_1
from koch_rig.calibration import load_calibration

if TYPE_CHECKING:
    from koch_rig.rig import Rig

SESSION = Path(__file__).parent / "lerobot_session.py"
MOVED = ("shoulder_lift", "elbow_flex", "wrist_flex", "gripper")


def fresh_chain(motors: tuple, link: Path, middle_rad: list[float]) -> EmulatedChain:
    """An arm as it comes out of 'setup-motors': ids and baud rate set, everything else factory."""
    servos = [EmulatedServo(spec.model, spec.id) for spec in motors]
    physics = FirstOrderPhysics([spec.model for spec in motors], middle_rad)
    return EmulatedChain(servos, physics, link_path=link, joints=KOCH_V1_1.joints)


def move_through_ranges(chain: EmulatedChain, middle_rad: list[float]) -> None:
    """What the person does: each joint to both ends and back."""
    for k, joint in enumerate(KOCH_V1_1.joints):
        if joint in MOVED:
            for angle in (-0.9, 0.8, 0.0):
                chain.hold(joint, middle_rad[k] + angle)
                time.sleep(0.4)
            chain.hold(joint, None)


class Session:
    """LeRobot in a process of its own."""

    def __init__(self, python: str, ports: list[str], folder: Path) -> None:
        self.process = subprocess.Popen(
            [python, str(SESSION), *ports, str(folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""},
            # LeRobot waits busily; with the servos' priority it would take their time.
            preexec_fn=lambda: os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0)),
        )  # fmt: skip
        self.output = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while chunk := os.read(self.process.stdout.fileno(), 65536):
            self.output += chunk.decode(errors="replace")
            time.sleep(0.05)  # LeRobot prints a table per cycle; leave the chains their CPU time

    def expect(self, text: str, seconds: float = 60.0) -> None:
        """Wait for a text after everything expected so far."""
        end = time.monotonic() + seconds
        while text not in self.output:
            if time.monotonic() > end or self.process.poll() not in (None, 0):
                pytest.fail(f"LeRobot did not say {text!r}; it said:\n{self.output[-3000:]}")
            time.sleep(0.02)
        self.output = self.output[self.output.index(text) + len(text) :]

    def enter(self) -> None:
        """Press ENTER."""
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_lerobot_calibrates_and_teleoperates(
    rig: Rig, tmp_path: Path, lerobot_python: str, prompt: None
) -> None:
    follower_middle = [0.4, 2.9, 1.1, -0.3, 2.2, 0.7]
    leader_middle = [1.4, 0.2, 2.1, 0.9, -1.0, 2.0]
    follower = fresh_chain(FOLLOWER_MOTORS, Path(rig.arms["follower"].port), follower_middle)
    leader = fresh_chain(LEADER_MOTORS, Path(rig.arms["leader"].port), leader_middle)
    with follower, leader:
        session = Session(lerobot_python, [follower.path, leader.path], tmp_path)
        for name, chain, middle in (
            ("follower", follower, follower_middle), ("leader", leader, leader_middle)
        ):  # fmt: skip
            session.expect(f"PHASE {name}", 300.0)  # a busy machine imports LeRobot for minutes
            session.expect("middle of its range of motion and press ENTER")
            session.enter()
            session.expect("Press ENTER to stop")
            move_through_ranges(chain, middle)
            session.enter()
        session.expect("PHASE teleop")
        leader.hold("wrist_flex", leader_middle[3] + 0.5)
        session.expect("REPORT ")
        session.process.wait(20)
        report = json.loads(session.output.splitlines()[0])

        observed = [report["observation"][f"{j}.pos"] for j in KOCH_V1_1.joints]
        commanded = [report["action"][f"{j}.pos"] for j in KOCH_V1_1.joints]
        np.testing.assert_allclose(observed, commanded, atol=2.0)
        assert abs(report["action"]["wrist_flex.pos"]) > 40.0

        # An arm calibrated there is calibrated here.
        for name, folder in (("follower", "robots"), ("leader", "teleoperators")):
            arm = rig.arms[name]
            path = next((tmp_path / folder).glob("*.json"))
            made = load_calibration(path)
            with DynamixelBus(arm.port, motors_for(arm.role)) as bus:
                assert check_drift(bus, made).clean
            connect_arm(arm, made).close()
        assert made["elbow_flex"].drive_mode == 1
