# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Finding motors and setting up new ones."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from narrow_terminal import NarrowTerminal

from koch_driver.arm.connect import open_bus
from koch_driver.bus.control_table import XL330_M077, XL330_M288
from koch_driver.bus.dynamixel import DynamixelBus
from koch_driver.bus.motors import FOLLOWER_MOTORS, LEADER_MOTORS
from koch_driver.bus.scan import scan
from koch_driver.emulator import EmulatedChain, EmulatedServo, FirstOrderPhysics
from koch_driver.errors import BusError, MotorSetupError
from koch_driver.setup.motor_setup import read_registers, set_up_motor
from koch_driver.setup.motors_cli import main

if TYPE_CHECKING:
    from koch_rig.rig import Arm

RIG = str(Path(__file__).parents[3] / "config" / "rig.emulated.yaml")
FACTORY_BAUD = 1  # 57600
GRIPPER = FOLLOWER_MOTORS[5]


def single(tmp_path: Path, *servos: EmulatedServo) -> EmulatedChain:
    """A bus with loose motors."""
    physics = FirstOrderPhysics([s.model for s in servos], [1.0] * len(servos))
    return EmulatedChain(servos, physics, link_path=tmp_path / "board")


@pytest.mark.parametrize("baud_code", [FACTORY_BAUD, 3, 2])
def test_a_new_motor_gets_id_and_baud(tmp_path: Path, baud_code: int) -> None:
    with single(tmp_path, EmulatedServo(XL330_M288, 1, {"Baud_Rate": baud_code})) as chain:
        found = set_up_motor(chain.path, GRIPPER)
        assert found.reply.id == 1
        assert (chain.servo(6).get("ID"), chain.servo(6).get("Baud_Rate")) == (6, 3)
        with DynamixelBus(chain.path, (GRIPPER,)) as bus:
            assert bus.ping(6).model_number == 1200
        again = set_up_motor(chain.path, GRIPPER)  # a second time changes nothing
        assert again.reply.id == 6


def test_two_motors_at_once_are_refused(tmp_path: Path) -> None:
    servos = [EmulatedServo(XL330_M288, k) for k in (1, 2)]
    with single(tmp_path, *servos) as chain, pytest.raises(MotorSetupError, match=r"id 1 .*id 2"):
        set_up_motor(chain.path, GRIPPER)


def test_the_wrong_model_is_refused(tmp_path: Path) -> None:
    with (
        single(tmp_path, EmulatedServo(XL330_M077, 1)) as chain,
        pytest.raises(MotorSetupError, match=r"found xl330-m077 .*expected xl330-m288"),
    ):
        set_up_motor(chain.path, GRIPPER)


def test_scan_finds_motors_at_every_baud(tmp_path: Path) -> None:
    servos = [EmulatedServo(XL330_M288, 1), EmulatedServo(XL330_M077, 9, {"Baud_Rate": 1})]
    with single(tmp_path, *servos) as chain:
        tried: list[int] = []
        found = scan(chain.path, (1_000_000, 57_600), progress=tried.append)
        assert [(f.baud, f.reply.id, f.model) for f in found] == [
            (1_000_000, 1, "xl330-m288"), (57_600, 9, "xl330-m077")
        ]  # fmt: skip
        assert tried == [1_000_000, 57_600]
        registers = read_registers(chain.path, found[1])
        assert registers["Model_Number"] == 1190
        assert registers["Baud_Rate"] == 1


def test_list_says_what_it_sees(
    leader_chain: EmulatedChain, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["list", "--port", leader_chain.path, "--port", str(tmp_path / "no")]) == 0
    out = capsys.readouterr().out
    assert "a Koch leader, complete" in out
    assert out.count("xl330-m077") == len(LEADER_MOTORS)
    assert "does not exist" in out


def test_list_looks_at_the_ports_of_the_chosen_rig(
    leader_chain: EmulatedChain,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = Path(__file__).resolve().parents[3] / "config"
    text = (config / "rig.emulated.yaml").read_text(encoding="utf-8")
    rig = tmp_path / "rig.yaml"
    rig.write_text(text.replace("${KOCH_RUN_DIR:-/tmp/koch}/leader", leader_chain.path))
    monkeypatch.setenv("KOCH_RIG", str(rig))
    assert main(["list"]) == 0
    assert f"{leader_chain.path}: a Koch leader, complete" in capsys.readouterr().out


def test_an_arm_on_the_wrong_adapter_is_not_complete(
    chain: EmulatedChain, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["list", "--port", chain.path]) == 0
    listed = capsys.readouterr().out
    assert "complete" in listed
    assert "12.0 V" in listed
    chain.set_voltage(5.0)  # what the four small servos are made for
    assert main(["list", "--port", chain.path]) == 0
    listed = capsys.readouterr().out
    assert "complete" not in listed
    assert "shoulder_pan (id 1): supply 5.0 V, made for 12 V: wrong adapter?" in listed
    assert "gripper (id 6):" not in listed


FAULTS = {  # (joint, register, value): what is said
    ("gripper", "Baud_Rate", 1): [
        "gripper (id 6) does not answer",
        "but at 57600",
        "--only gripper",
    ],
    ("shoulder_pan", "Baud_Rate", 2): ["shoulder_pan (id 1)", "but at 115200"],
    ("wrist_roll", "ID", 4): ["wrist_roll (id 5)", "two motors answer as id 4 (wrist_flex)"],
    ("elbow_flex", "ID", 6): ["elbow_flex (id 3)", "two motors answer as id 6 (gripper)"],
    ("wrist_flex", "ID", 40): ["wrist_flex (id 4)", "an xl330-m288 with id 40 at 1000000"],
    ("shoulder_lift", "Model_Number", 1200): ["shoulder_lift (id 2) is an xl330-m288"],
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_with_a_chain_is_concluded_by_list_and_by_the_driver(
    chain: EmulatedChain,
    follower: Arm,
    capsys: pytest.CaptureFixture[str],
    fault: tuple[str, str, int],
) -> None:
    joint, register, value = fault
    chain.servo(joint).set(register, value)
    assert main(["list", "--port", chain.path]) == 0
    listed = capsys.readouterr().out
    assert "a Koch follower" in listed
    assert "complete" not in listed
    with pytest.raises(BusError) as raised:
        open_bus(follower, thorough=True)
    for words in FAULTS[fault]:
        assert words in listed
        if register != "Model_Number":
            assert words in str(raised.value)
    assert joint in str(raised.value).splitlines()[0]


def test_two_new_motors_on_one_board_are_not_taken_for_one(tmp_path: Path) -> None:
    servos = [EmulatedServo(XL330_M288, 1, {"Baud_Rate": FACTORY_BAUD}) for _ in range(2)]
    physics = FirstOrderPhysics([s.model for s in servos], [1.0, 2.0])
    with (
        EmulatedChain(servos, physics, link_path=tmp_path / "board") as chain,
        pytest.raises(MotorSetupError, match="several motors that share id 1"),
    ):
        set_up_motor(chain.path, GRIPPER)


def test_read_prints_registers(chain: EmulatedChain, capsys: pytest.CaptureFixture[str]) -> None:
    chain.faults.trip("gripper", "overload")
    assert main(["read", chain.path, "--id", "6"]) == 0
    out = capsys.readouterr().out
    assert "Hardware_Error_Status" in out
    assert "overload" in out
    assert main(["read", chain.path, "--id", "9"]) == 2


def test_setup_looks_for_the_port_before_it_asks_for_motors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["setup", "follower", "--rig", RIG, "--port", str(tmp_path / "no")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"koch motors: port {tmp_path / 'no'} does not exist")


def test_a_slip_of_the_hand_is_said_and_the_same_motor_asked_for_again(tmp_path: Path) -> None:
    code = (
        "import sys; from koch_driver.setup.motors_cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "setup", "follower", "--rig", RIG]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with single(tmp_path, EmulatedServo(XL330_M077, 1)) as wrong:
        terminal = NarrowTerminal([*command, "--port", wrong.path], environment)
        terminal.wait_for("Connect only the motor of gripper")
        terminal.press("w")
        terminal.wait_for("Once more. Connect only the motor of gripper")
    with single(tmp_path, EmulatedServo(XL330_M288, 1)) as right, terminal:
        terminal.press("\n")
        terminal.wait_for("ENTER writes nothing")
        assert right.servos[0].get("ID") == 1
        terminal.press("w")
        terminal.wait_for("gripper: was id 1")
        terminal.wait_for("the motor of wrist_roll")
        terminal.press("q")
        assert terminal.end() == 2
        terminal.check()
    assert "found xl330-m077" in " ".join(terminal.text.split())
