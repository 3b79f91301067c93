# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A leader whose supply dips drives nobody: not by a turn that it lost, nor by the hand on it."""

from __future__ import annotations

import dataclasses
import math
import time
from typing import TYPE_CHECKING, Any

import pytest

from koch_driver.emulator import EmulatedChain, build_chain
from koch_rig.arm_model import KOCH_V1_1
from koch_rig.calibration import Calibration, load_calibration, save_calibration
from koch_rig.load import load_rig

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

J = len(KOCH_V1_1.joints)
# A busy machine loses the leader as a supply does.
pytestmark = [pytest.mark.ros, pytest.mark.alone]
# Angles on the two sides of each encoder's wrap, by joint. After a restart a servo counts from the
# side where it is, so that the next dip shows something on the other side only.
SIDES = {
    "shoulder_pan": (-0.9, 0.6),
    "shoulder_lift": (-1.2, -0.5),
    "elbow_flex": (-0.9, 0.5),
    "wrist_flex": (-0.9, 0.5),
    "wrist_roll": (-0.9, 0.5),
    "gripper": (-0.6, -0.2),
}


@pytest.fixture(scope="module")
def wrapping_rig(
    tmp_path_factory: pytest.TempPathFactory, rig_file: Path, rig_ros: object
) -> Path:
    """The emulated rig with a leader all of whose encoders wrap inside their joint's travel."""
    folder = tmp_path_factory.mktemp("wrapping")
    calibration = load_calibration(load_rig(rig_file).arms["leader"].calibration_path)
    motors = {
        joint: dataclasses.replace(motor, homing_offset=1800)
        for joint, motor in calibration.items()
    }
    save_calibration(Calibration(motors, calibration.path), folder / "leader.json")
    text = rig_file.read_text().replace("calibration: ", f"calibration: {rig_file.parent}/")
    leader = load_rig(rig_file).arms["leader"].calibration_path
    text = text.replace(f"{rig_file.parent}/{leader.relative_to(rig_file.parent)}", "leader.json")
    (folder / "rig.yaml").write_text(text)
    return folder / "rig.yaml"


@pytest.fixture(scope="module")
def leader(wrapping_rig: Path, session_probe: Any, processes: Any) -> Iterator[EmulatedChain]:
    """A leader in somebody's hand that drives the follower."""
    with build_chain(load_rig(wrapping_rig), "leader") as chain:
        for joint, sides in SIDES.items():
            chain.faults.hold(joint, sides[0])
        processes.start("leader", "leader", arm="leader", rig=str(wrapping_rig))
        processes.start("teleop", "follower", leader="leader", rig=str(wrapping_rig))
        yield chain


def dip(chain: EmulatedChain, joints: tuple[str, ...], seconds: float) -> None:
    """Servos lose their power for a moment and restart."""
    for joint in joints:
        chain.faults.silence(chain.servo(joint).id)
    chain.refresh()
    for joint in joints:
        chain.servo(joint).power_up(chain.servo(joint).shaft_rad)
    time.sleep(seconds)
    for joint in joints:
        chain.faults.silence(chain.servo(joint).id, False)


def follows(probe: Any, pan: float) -> bool:
    """The follower has come to where the hand holds the leader (the table may keep it higher)."""
    return abs(probe.pose[0] - pan) < 0.05 and not any(probe.commands[-1].velocity)


@pytest.fixture(scope="module")
def hand(leader: EmulatedChain) -> dict[str, int]:
    """On which side of its wrap each joint is held."""
    return dict.fromkeys(SIDES, 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("joints", "seconds"),
    [
        (("shoulder_pan",), 0.05),
        (("shoulder_lift",), 0.1),
        (("elbow_flex",), 0.2),
        (("wrist_flex",), 0.35),
        (("wrist_roll",), 0.5),
        (("gripper",), 0.1),
        (("shoulder_pan", "wrist_roll"), 0.15),
        (KOCH_V1_1.joints, 0.3),
    ],
)
def test_a_dip_of_the_leader_moves_nothing_until_teleop_is_engaged_anew(
    session_probe: Any,
    leader: EmulatedChain,
    hand: dict[str, int],
    joints: tuple[str, ...],
    seconds: float,
) -> None:
    probe = session_probe
    assert probe.wait(lambda: probe.ask("clutch", True).success, 20.0)
    assert probe.wait(lambda: follows(probe, SIDES["shoulder_pan"][hand["shoulder_pan"]]), 10.0)
    time.sleep(1.5)  # the ticks of the leader's servos are known by then
    held = SIDES[joints[0]][hand[joints[0]]]
    before, pose = leader.read(joints[0], "Present_Position"), probe.pose
    dip(leader, joints, seconds)
    assert abs(leader.read(joints[0], "Present_Position") - before) > 3500, "it did not wrap"
    begin_s, count = time.monotonic(), len(probe.states)
    while time.monotonic() - begin_s < 2.5:  # the hand goes on
        swing = 0.3 * math.sin(4.0 * (time.monotonic() - begin_s))
        leader.faults.hold(joints[0], held + swing)
        time.sleep(0.02)
    for joint in joints:
        hand[joint] = 1 - hand[joint]
        leader.faults.hold(joint, SIDES[joint][hand[joint]])
    moved = [
        max(abs(message.position[k] - pose[k]) for message in probe.states[count:])
        for k in range(J)
    ]
    assert moved == pytest.approx([0.0] * J, abs=0.03)
