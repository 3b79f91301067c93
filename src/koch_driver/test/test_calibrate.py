# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Calibration against emulated arms: LeRobot's numbers, bad input, the dialogue on a real tty."""

from __future__ import annotations

import dataclasses
import io
import os
import pty
import re
import select
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import yaml
from narrow_terminal import NarrowTerminal

from koch_driver.arm.connect import check_drift, connect_arm
from koch_driver.bus.dynamixel import DynamixelBus
from koch_driver.bus.motors import motors_for
from koch_driver.emulator import EmulatedChain, EmulatedServo, FirstOrderPhysics
from koch_driver.errors import CalibrationAborted, DialogueEnded
from koch_driver.setup import calibrate_view as view
from koch_driver.setup.calibrate import CalibrationRoutine, JointRange, zero_offsets
from koch_driver.setup.calibrate_cli import calibrate
from koch_driver.setup.console import Console
from koch_driver.setup.rig_offsets import joints_block, replace_offsets
from koch_rig.arm_model import KOCH_V1_1
from koch_rig.calibration import load_calibration
from koch_rig.rig import JointOffset, Role
from koch_rig.units import RAD_PER_TICK, ticks_to_rad

if TYPE_CHECKING:
    from collections.abc import Iterator

    from koch_rig.rig import Arm, Rig

J = len(KOCH_V1_1.joints)
MIDDLE = np.array([0.4, 2.9, 1.1, -0.3, 2.2, 0.7])
REPO = Path(__file__).resolve().parents[3]


@pytest.fixture(params=[Role.FOLLOWER, Role.LEADER], ids=["follower", "leader"])
def fresh(request: pytest.FixtureRequest, rig: Rig) -> Iterator[tuple[EmulatedChain, Arm]]:
    """An arm that was never calibrated."""
    arm = rig.arms[request.param.value]
    motors = motors_for(arm.role)
    servos = [EmulatedServo(spec.model, spec.id) for spec in motors]
    physics = FirstOrderPhysics([spec.model for spec in motors], MIDDLE.tolist())
    with EmulatedChain(servos, physics, link_path=arm.port, joints=KOCH_V1_1.joints) as chain:
        yield chain, arm


def move(chain: EmulatedChain, *offsets_rad: float) -> None:
    """A hand leads the four limited joints to offsets from the middle, one after the other."""
    for offset in offsets_rad:
        for k in (1, 2, 3, 5):
            chain.hold(KOCH_V1_1.joints[k], MIDDLE[k] + offset)
        time.sleep(0.4)  # reach the end and be seen there


def test_routine_gives_lerobots_numbers(fresh: tuple[EmulatedChain, Arm], tmp_path: Path) -> None:
    chain, arm = fresh
    with DynamixelBus(arm.port, motors_for(arm.role)) as bus:
        routine = CalibrationRoutine(bus, arm.model)
        routine.prepare()
        homing = routine.set_middle()
        assert bus.read_all("Present_Position").tolist() == [2047] * J
        for offset in (-0.6, 0.5):
            move(chain, offset)
            routine.observe()
        made = routine.finish(tmp_path / "made.json")
        assert check_drift(bus, made).clean
    for k, joint in enumerate(KOCH_V1_1.joints):
        mirrored = arm.role is Role.LEADER and joint == "elbow_flex"
        sign = -1 if mirrored else 1
        assert made[joint].drive_mode == int(mirrored)
        raw = round(sign * MIDDLE[k] / RAD_PER_TICK)
        assert (homing[joint] - (2047 - raw)) % 4096 == 0
        if joint in ("shoulder_pan", "wrist_roll"):
            assert (made[joint].range_min, made[joint].range_max) == (0, 4095)
        else:
            ends = sorted(round(2047 + sign * o / RAD_PER_TICK) for o in (-0.6, 0.5))
            np.testing.assert_allclose(
                [made[joint].range_min, made[joint].range_max], ends, atol=2
            )


def test_an_unmoved_joint_is_named(fresh: tuple[EmulatedChain, Arm], tmp_path: Path) -> None:
    _, arm = fresh
    with DynamixelBus(arm.port, motors_for(arm.role)) as bus:
        routine = CalibrationRoutine(bus, arm.model)
        routine.prepare()
        routine.set_middle()
        with pytest.raises(CalibrationAborted, match="no position"):
            routine.finish(tmp_path / "made.json")
        routine.observe()
        with pytest.raises(CalibrationAborted, match="shoulder_lift, elbow_flex, wrist_flex"):
            routine.finish(tmp_path / "made.json")


def test_a_range_beyond_one_turn_is_refused(
    fresh: tuple[EmulatedChain, Arm], tmp_path: Path
) -> None:
    chain, arm = fresh
    with DynamixelBus(arm.port, motors_for(arm.role)) as bus:
        routine = CalibrationRoutine(bus, arm.model)
        routine.prepare()
        routine.set_middle()
        routine.observe()
        for joint, offset in zip(KOCH_V1_1.joints, (0, 0.3, 0.3, 0.3, 0, 3.4), strict=True):
            chain.hold(joint, MIDDLE[KOCH_V1_1.joints.index(joint)] + offset)
        time.sleep(0.8)
        routine.observe()
        with pytest.raises(CalibrationAborted, match=r"gripper .*middle pose"):
            routine.finish(tmp_path / "made.json")


def test_existing_file_is_written_into_the_servos(
    chain: EmulatedChain, follower: Arm, tmp_path: Path
) -> None:
    path = tmp_path / "follower.json"
    shutil.copy(follower.calibration_path, path)
    follower = dataclasses.replace(follower, calibration_path=path)
    chain.servo("elbow_flex").set("Homing_Offset", 5)
    chain.servo("gripper").set("Drive_Mode", 1)
    read_fd, write_fd = os.pipe()
    os.write(write_fd, b"u")
    out = io.StringIO()
    with DynamixelBus(follower.port, motors_for(follower.role)) as bus:
        calibrate(bus, follower, Console(read_fd, out), new=False)
    assert "Homing_Offset 5" in out.getvalue()
    connect_arm(follower, load_calibration(follower.calibration_path)).close()


@pytest.mark.parametrize("keys", [b"q", b"\x1b", b""])
def test_ending_the_dialogue_changes_no_file(
    chain: EmulatedChain, follower: Arm, keys: bytes
) -> None:
    before = follower.calibration_path.read_bytes()
    read_fd, write_fd = os.pipe()
    os.write(write_fd, keys)
    os.close(write_fd)
    with (
        DynamixelBus(follower.port, motors_for(follower.role)) as bus,
        pytest.raises(DialogueEnded, match="Only what is reported"),
    ):
        calibrate(bus, follower, Console(read_fd, io.StringIO()), new=True)
    assert follower.calibration_path.read_bytes() == before


def test_a_corrupt_file_is_named_and_a_new_calibration_offered(
    chain: EmulatedChain, follower: Arm, tmp_path: Path
) -> None:
    path = tmp_path / "broken.json"
    path.write_text("{not json")
    arm = dataclasses.replace(follower, calibration_path=path)
    read_fd, write_fd = os.pipe()
    os.write(write_fd, b"q")
    out = io.StringIO()
    with (
        DynamixelBus(arm.port, motors_for(arm.role)) as bus,
        pytest.raises(DialogueEnded),
    ):
        calibrate(bus, arm, Console(read_fd, out), new=False)
    assert "got no JSON" in out.getvalue()
    assert "middle pose" in out.getvalue()
    assert path.read_text() == "{not json"


# -- the zero step -----------------------------------------------------------------------------


@pytest.mark.parametrize("sign", [1, -1])
def test_zero_offsets_make_the_pose_read_as_it_should(sign: int) -> None:
    mounts = {j: JointOffset(sign, 0.7) for j in KOCH_V1_1.joints}
    ticks = [2047, 2300, 1500, 0, 4095, 6000]
    pose = [0.0, 0.1, -0.2, 0.0, 0.3, 0.0]
    offsets = zero_offsets(ticks, mounts, pose)
    for joint, tick, angle in zip(KOCH_V1_1.joints, ticks, pose, strict=True):
        read = ticks_to_rad(tick, sign=sign, offset_rad=offsets[joint])
        assert np.cos(read - angle) == pytest.approx(1.0)
        assert abs(offsets[joint]) <= np.pi + 1e-9


RIG_TEXT = """# my rig
arms:
  follower:          # the strong one
    joints:
{rows}
  leader:
    joints: {{gripper: {{offset_rad: 9}}}}
"""


def test_offsets_go_into_the_rig_and_nothing_else_changes() -> None:
    rows = "\n".join(f"      {j}: {{sign: -1, offset_rad: 0.5}}  # {j}" for j in KOCH_V1_1.joints)
    text = RIG_TEXT.format(rows=rows)
    offsets = {joint: k / 10 for k, joint in enumerate(KOCH_V1_1.joints)}
    changed = replace_offsets(text, "follower", offsets)
    data = yaml.safe_load(changed)["arms"]
    assert [data["follower"]["joints"][j]["offset_rad"] for j in KOCH_V1_1.joints] == list(
        offsets.values()
    )
    assert data["leader"]["joints"]["gripper"]["offset_rad"] == 9
    assert re.sub(r"offset_rad: [-\d.]+", "", changed) == re.sub(r"offset_rad: [-\d.]+", "", text)


@pytest.mark.parametrize("name", ["rig.emulated.yaml", "rig.yaml"])
def test_shared_or_missing_offsets_are_left_to_the_person(name: str) -> None:
    text = (REPO / "config" / name).read_text()
    offsets = dict.fromkeys(KOCH_V1_1.joints, 0.1)
    for arm in ("follower", "leader"):
        assert replace_offsets(text, arm, offsets) is None
    block = yaml.safe_load(joints_block(offsets, {j: JointOffset() for j in KOCH_V1_1.joints}))
    assert block["joints"]["gripper"] == {"sign": 1, "offset_rad": 0.1}


# -- what the person sees ----------------------------------------------------------------------


def test_bars_show_range_and_position() -> None:
    row = JointRange("gripper", 1024, 3071, 2048, True)
    line = view.bar(row, width=40)
    bar = line[line.index("[") + 1 : line.index("]")]
    assert len(bar) == 40
    assert bar == "." * 10 + "=" * 10 + "#" + "=" * 8 + "=" + "." * 10
    assert line.endswith("ok")
    assert view.bar(JointRange("gripper", 5, 9, 7, True)).endswith("move it")
    assert view.bar(JointRange("wrist_roll", 0, 4095, -9999, False)).endswith("full turn")


@pytest.mark.parametrize("columns", [60, 80, 100, 200])
def test_bars_fit_the_terminal(columns: int) -> None:
    rows = [JointRange(name, 0, 4095, -99999, False) for name in KOCH_V1_1.joints]
    lines = view.bars(rows, columns)
    assert max(map(len, lines)) < columns
    assert len(lines[1]) == min(columns - 1, 47 + view.BAR_WIDTH)


def koch_calibrate(*arguments: str) -> NarrowTerminal:
    """'koch calibrate' on a terminal of its own."""
    code = (
        "import sys; from koch_driver.setup.calibrate_cli import main; "
        "sys.exit(main(sys.argv[1:]))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return NarrowTerminal([sys.executable, "-c", code, *arguments], environment)


def test_the_whole_dialogue_on_a_terminal(rig: Rig, tmp_path: Path) -> None:
    folder = tmp_path / "config"
    shutil.copytree(REPO / "config", folder)
    text = (
        (folder / "rig.emulated.yaml")
        .read_text()
        .replace("&joints", "")
        .replace("joints: *joints", "")
    )
    rows = "".join(f"      {j}: {{offset_rad: 0.0}}\n" for j in KOCH_V1_1.joints)
    text = re.sub(r"( {4}joints:).*?( {2}leader:)", rf"\1\n{rows}\2", text, flags=re.DOTALL)
    rig_path = folder / "rig.emulated.yaml"
    rig_path.write_text(text.replace("${KOCH_RUN_DIR:-/tmp/koch}", str(tmp_path)))
    motors = motors_for(Role.FOLLOWER)
    servos = [EmulatedServo(spec.model, spec.id) for spec in motors]
    physics = FirstOrderPhysics([s.model for s in motors], MIDDLE.tolist())
    link = tmp_path / "follower"
    with (
        EmulatedChain(servos, physics, link_path=link, joints=KOCH_V1_1.joints) as chain,
        koch_calibrate("follower", "--rig", str(rig_path), "--new", "--write") as terminal,
    ):
        terminal.wait_for("middle pose")
        terminal.press("\n")
        terminal.wait_for("ENTER writes nothing")
        terminal.press("w")
        terminal.wait_for("the ranges")
        terminal.wait_for("move it")
        terminal.press("w")  # too early
        terminal.wait_for("Not moved yet: shoulder_lift")
        hand = threading.Thread(target=move, args=(chain, -0.6, 0.5, 0.0))
        hand.start()
        hand.join()
        terminal.wait_for(
            lambda: "  ok" in terminal.text and "move it" not in terminal.text[-600:]
        )
        terminal.press("w")
        terminal.wait_for("Saved")
        terminal.wait_for("the zero pose")
        chain.hold("wrist_flex", MIDDLE[3] + 0.25)
        time.sleep(0.3)
        terminal.press("\n")
        terminal.wait_for("Zero offsets written")
        assert terminal.end() == 0
        terminal.check()
    made = load_calibration(folder / "calibration" / "sim_follower.json")
    assert made["gripper"].range_max - made["gripper"].range_min == pytest.approx(717, abs=6)
    joints = yaml.safe_load(rig_path.read_text())["arms"]["follower"]["joints"]
    assert joints["wrist_flex"]["offset_rad"] == pytest.approx(-0.25, abs=2e-3)


@pytest.mark.parametrize("arrow", [b"\x1b[A", b"\x1b[D", b"\x1b[3~"])
def test_an_arrow_does_not_end_the_dialogue(arrow: bytes) -> None:
    read_fd, write_fd = os.pipe()
    os.write(write_fd, arrow + b"s")
    os.close(write_fd)
    assert Console(read_fd, io.StringIO()).choose("Which?", "es") == "s"
    os.close(read_fd)


def test_enter_typed_before_the_question_is_no_answer() -> None:
    master, slave = pty.openpty()
    with Console(slave, io.StringIO()) as console:
        os.write(master, b"\n\n")
        while not select.select([slave], [], [], 0.1)[0]:
            continue
        console.forget()
        assert not console.enter_pressed(0.2)
        os.write(master, b"\n")
        assert console.enter_pressed(5.0)
    os.close(slave)
    os.close(master)


def test_problems_end_with_a_message_and_code_two(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from koch_driver.setup.calibrate_cli import main

    assert main(["follower", "--rig", str(tmp_path / "none.yaml")]) == 2
    assert main(["thumb", "--rig", str(REPO / "config" / "rig.emulated.yaml")]) == 2
    assert "koch calibrate: " in capsys.readouterr().err
