# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Motors that share an id while the arm runs: both are named, and nothing is written to either."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from koch_driver.arm.control_loop import LoopPhase
from koch_driver.emulator import EmulatedChain, build_chain
from koch_driver.emulator.build import build_servos
from koch_driver.emulator.physics import FirstOrderPhysics
from koch_driver.emulator.servo import EmulatedServo
from koch_driver.emulator.shaft import ShaftFrame
from koch_rig.arm_model import KOCH_V1_1
from koch_rig.calibration import load_calibration

if TYPE_CHECKING:
    from collections.abc import Callable

    from koch_rig.rig import Rig

J = len(KOCH_V1_1.joints)
pytestmark = pytest.mark.usefixtures("prompt")
Running = Any  # the context of an `ArmBench`


def crowded(rig: Rig, joint: str, start_rad: tuple[float, ...]) -> EmulatedChain:
    """A follower with one motor more, of a joint's model and with an id that nobody asks."""
    arm = rig.arms["follower"]
    calibration = load_calibration(arm.calibration_path)
    servos = build_servos(arm, calibration)
    servos.append(EmulatedServo(servos[KOCH_V1_1.joints.index(joint)].model, 99))
    shafts = [*ShaftFrame(arm, calibration).to_shaft(start_rad).tolist(), 1.0]
    physics = FirstOrderPhysics([servo.model for servo in servos], shafts)
    return EmulatedChain(servos, physics, link_path=arm.port, joints=(*KOCH_V1_1.joints, "guest"))


@pytest.mark.parametrize("joint", ["shoulder_pan", "wrist_flex", "gripper"])
@pytest.mark.timing
def test_a_motor_that_comes_with_the_id_of_another_is_named_and_nothing_is_written(
    rig: Rig,
    wait_until: Callable[..., bool],
    joint: str,
    start_rad: tuple[float, ...],
    running: Running,
) -> None:
    number = KOCH_V1_1.joints.index(joint) + 1
    with crowded(rig, joint, start_rad) as chain, running(rig, "follower") as bench:
        assert wait_until(lambda: bench.ready)
        chain.servos[-1].set("ID", number)
        words = f"two motors answer as id {number} ({joint})"
        assert wait_until(lambda: words in bench.loop.status().reason, 4.0), bench.phases
        goals = [chain.servos[k].get("Goal_Position") for k in range(7)]
        for _ in range(20):
            bench.drive("elbow_flex", 0.8)
            time.sleep(0.01)
        assert [chain.servos[k].get("Goal_Position") for k in range(7)] == goals
        assert [servo.get("Torque_Enable") for servo in chain.servos] == [1] * J + [0]
        chain.servos[-1].set("ID", 99)
        assert wait_until(lambda: bench.loop.phase is LoopPhase.RUNNING, 4.0), bench.phases


@pytest.mark.parametrize(("name", "joint", "other"), [
    ("follower", "wrist_roll", "wrist_flex"), ("follower", "shoulder_pan", "shoulder_lift"),
    ("leader", "gripper", "elbow_flex"),
])  # fmt: skip
@pytest.mark.timing
def test_a_motor_that_takes_the_id_of_another_is_named(
    rig: Rig,
    wait_until: Callable[..., bool],
    name: str,
    joint: str,
    other: str,
    running: Running,
    start_rad: tuple[float, ...],
) -> None:
    number = KOCH_V1_1.joints.index(other) + 1
    with build_chain(rig, name, initial_rad=start_rad) as chain, running(rig, name) as bench:
        assert wait_until(lambda: bench.loop.phase is LoopPhase.RUNNING)
        chain.servo(joint).set("ID", number)
        words = f"two motors answer as id {number} ({other})"
        assert wait_until(lambda: words in bench.loop.status().reason, 4.0), bench.phases
        assert f"({joint})" in bench.loop.status().reason
