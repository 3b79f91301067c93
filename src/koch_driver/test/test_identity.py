# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Whose servos are behind a port, and that nothing is written into them without a letter."""

from __future__ import annotations

import dataclasses
import io
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from koch_driver.arm.connect import connect_arm
from koch_driver.arm.identity import identity_path, keep_identity, load_identity
from koch_driver.bus.control_table import Area
from koch_driver.bus.dynamixel import DynamixelBus
from koch_driver.bus.motors import motors_for
from koch_driver.emulator import EmulatedChain, build_chain
from koch_driver.errors import (
    CalibrationDrift,
    DialogueEnded,
    IdentityError,
    OtherMotors,
    SwappedPorts,
)
from koch_driver.setup.calibrate_cli import calibrate
from koch_driver.setup.console import Console
from koch_rig.arm_model import KOCH_V1_1
from koch_rig.calibration import Calibration, load_calibration, save_calibration

if TYPE_CHECKING:
    from koch_rig.rig import Arm, Rig


@pytest.fixture
def pair(rig: Rig, tmp_path: Path) -> Rig:
    """Two arms of each kind, each with a calibration of its own in the test's folder."""
    arms = {}
    for name, arm in rig.arms.items():
        for side, shift in (("left", 0), ("right", 37)):
            made = f"{side}_{name}"
            motors = {
                joint: dataclasses.replace(
                    motor, homing_offset=motor.homing_offset + (shift + k if shift else 0)
                )
                for k, (joint, motor) in enumerate(load_calibration(arm.calibration_path).items())
            }
            path = tmp_path / f"{made}.json"
            save_calibration(Calibration(motors), path)
            drives = None if arm.drives is None else f"{side}_follower"
            arms[made] = dataclasses.replace(
                arm, name=made, port=str(tmp_path / made), calibration_path=path, drives=drives
            )
    return dataclasses.replace(rig, arms=arms)


@pytest.fixture
def chains(pair: Rig) -> Iterator[dict[str, EmulatedChain]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(build_chain(pair, name)) for name in pair.arms}


def on_port_of(arm: Arm, other: Arm) -> Arm:
    """The arm as the rig says, but the plugs have changed places."""
    return dataclasses.replace(arm, port=other.port)


def eeprom(chain: EmulatedChain) -> list[dict[str, int]]:
    return [
        {
            name: servo.get(name)
            for name, register in servo.model.table.items()
            if register.area is Area.EEPROM
        }
        for servo in chain.servos
    ]


@pytest.mark.parametrize("role", ["follower", "leader"])
@pytest.mark.parametrize(("side", "other"), [("left", "right"), ("right", "left")])
def test_swapped_ports_of_equal_arms_are_named(
    pair: Rig, chains: dict[str, EmulatedChain], role: str, side: str, other: str
) -> None:
    arm, there = pair.arms[f"{side}_{role}"], pair.arms[f"{other}_{role}"]
    moved = on_port_of(arm, there)
    calibration = load_calibration(arm.calibration_path)
    with pytest.raises(SwappedPorts, match="are swapped") as caught:
        connect_arm(moved, calibration, rig=pair)
    text = str(caught.value)
    assert arm.name in text
    assert there.name in text
    assert "koch calibrate" not in text  # which would offer to write into the other arm
    connect_arm(arm, calibration, rig=pair).close()


def test_swapped_leader_and_follower_are_named_by_their_models(
    pair: Rig, chains: dict[str, EmulatedChain]
) -> None:
    arm = on_port_of(pair.arms["left_follower"], pair.arms["left_leader"])
    with pytest.raises(SwappedPorts, match=r"left_follower.*left_leader.*models of a leader"):
        connect_arm(arm, load_calibration(arm.calibration_path), rig=pair)


@pytest.mark.parametrize("step", [1, 2, 3])
def test_ports_that_went_round_name_the_arm_that_is_there(
    pair: Rig, chains: dict[str, EmulatedChain], step: int
) -> None:
    """Three or four plugs in each other's places: of two arms with these models it is one."""
    names = list(pair.arms)
    for k, name in enumerate(names):
        there = names[(k + step) % len(names)]
        arm = on_port_of(pair.arms[name], pair.arms[there])
        with pytest.raises(SwappedPorts, match=f"'{name}' and '{there}' are swapped"):
            connect_arm(arm, load_calibration(arm.calibration_path), rig=pair)


@pytest.mark.parametrize("joint", KOCH_V1_1.joints)
def test_one_joint_that_still_fits_is_drift_and_no_swap(
    pair: Rig, chains: dict[str, EmulatedChain], joint: str
) -> None:
    arm, there = pair.arms["left_follower"], pair.arms["right_follower"]
    own = load_calibration(arm.calibration_path)
    chains[there.name].servo(joint).set("Homing_Offset", own[joint].homing_offset)
    with pytest.raises(CalibrationDrift):
        connect_arm(on_port_of(arm, there), own, rig=pair)


def dialogue(keys: bytes) -> tuple[Console, io.StringIO]:
    """A console whose input is these keys and then ends."""
    read_fd, write_fd = os.pipe()
    os.write(write_fd, keys)
    os.close(write_fd)
    out = io.StringIO()
    return Console(read_fd, out), out


@pytest.mark.parametrize("new", [False, True])
@pytest.mark.parametrize("keys", [b"\n\n\n", b"uuu", b"cww", b"wwww"])
def test_calibrate_does_not_write_into_another_arm(
    pair: Rig, chains: dict[str, EmulatedChain], keys: bytes, new: bool
) -> None:
    arm, there = pair.arms["right_follower"], pair.arms["left_follower"]
    before, file = eeprom(chains[there.name]), arm.calibration_path.read_bytes()
    with (
        DynamixelBus(there.port, motors_for(arm.role)) as bus,
        pytest.raises(SwappedPorts),
    ):
        calibrate(bus, on_port_of(arm, there), dialogue(keys)[0], new=new, rig=pair)
    assert eeprom(chains[there.name]) == before
    assert arm.calibration_path.read_bytes() == file


@pytest.mark.parametrize("new", [False, True])
@pytest.mark.parametrize("fits", [False, True])
def test_enter_writes_into_no_motor(
    pair: Rig, chains: dict[str, EmulatedChain], new: bool, fits: bool
) -> None:
    arm = pair.arms["left_follower"]
    chain = chains[arm.name]
    chain.servo("wrist_flex").set("Operating_Mode", 3)
    if not fits:
        chain.servo("elbow_flex").set("Homing_Offset", 5)
    before = eeprom(chain)
    console, out = dialogue(b"\n" * 20)
    with DynamixelBus(arm.port, motors_for(arm.role)) as bus, pytest.raises(DialogueEnded):
        calibrate(bus, arm, console, new=new, rig=pair)
    assert "ENTER writes nothing" in out.getvalue()
    assert eeprom(chain) == before


def test_calibrate_keeps_the_motors_beside_the_file_and_leaves_lerobots_alone(
    pair: Rig, chains: dict[str, EmulatedChain]
) -> None:
    arm = pair.arms["left_leader"]
    file = arm.calibration_path.read_bytes()
    with DynamixelBus(arm.port, motors_for(arm.role)) as bus:
        calibrate(bus, arm, dialogue(b"u")[0], new=False, rig=pair)
    assert arm.calibration_path.read_bytes() == file
    kept = load_identity(arm)
    assert kept is not None
    assert [motor.id for motor in kept.values()] == [1, 2, 3, 4, 5, 6]
    connect_arm(arm, load_calibration(arm.calibration_path), rig=pair).close()


@pytest.mark.parametrize("joint", KOCH_V1_1.joints)
def test_a_motor_that_was_replaced_is_named_before_torque(
    pair: Rig, chains: dict[str, EmulatedChain], joint: str
) -> None:
    arm = pair.arms["left_follower"]
    calibration = load_calibration(arm.calibration_path)
    with connect_arm(arm, calibration, rig=pair) as bus:
        keep_identity(bus, arm.calibration_path)
    servo = chains[arm.name].servo(joint)
    servo.set("Firmware_Version", servo.get("Firmware_Version") + 1)
    with pytest.raises(OtherMotors, match=f"{joint}: firmware"):
        connect_arm(arm, calibration, rig=pair)
    assert not any(servo.get("Torque_Enable") for servo in chains[arm.name].servos)
    connect_arm(arm, calibration, rig=pair, allow_drift=True).close()


def test_a_calibration_copied_from_another_arm_does_not_hide_it(
    pair: Rig, chains: dict[str, EmulatedChain]
) -> None:
    left, right = pair.arms["left_follower"], pair.arms["right_follower"]
    with connect_arm(left, load_calibration(left.calibration_path), rig=pair) as bus:
        keep_identity(bus, left.calibration_path)
    left.calibration_path.write_bytes(right.calibration_path.read_bytes())
    with pytest.raises(OtherMotors, match="homing_offset"):
        connect_arm(on_port_of(left, right), load_calibration(left.calibration_path), rig=pair)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"gripper": {"id": 6}}'])
def test_a_damaged_identity_is_an_error_that_says_what_to_do(
    pair: Rig, chains: dict[str, EmulatedChain], text: str
) -> None:
    arm = pair.arms["left_follower"]
    identity_path(arm.calibration_path).write_text(text)
    with pytest.raises(IdentityError, match="Delete it"):
        connect_arm(arm, load_calibration(arm.calibration_path), rig=pair)
