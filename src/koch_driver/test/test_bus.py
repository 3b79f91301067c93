# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The bus on the emulated follower: opening, registers, states and goals."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from koch_driver.bus.control_table import XL330_M288
from koch_driver.bus.dynamixel import BusConfig, DynamixelBus
from koch_driver.bus.motors import FOLLOWER_MOTORS, LEADER_MOTORS, MotorSpec
from koch_driver.bus.sdk import SdkBus
from koch_driver.errors import (
    MissingMotors,
    PortInUse,
    PortLost,
    PortNotFound,
    PortNotOpen,
    RegisterError,
    StatusError,
    WrongModel,
    WrongPort,
)
from koch_rig.arm_model import KOCH_V1_1

if TYPE_CHECKING:
    from collections.abc import Callable

    from koch_driver.emulator import EmulatedChain

J = len(KOCH_V1_1.joints)
PATIENT_S = 0.3  # where an answer must come, however busy the machine is
QUICK = BusConfig(handshake_budget_s=0.02)


@pytest.fixture(params=["dynamixel", "sdk"])
def bus_kind(request: pytest.FixtureRequest) -> type[DynamixelBus]:
    """Every bus that a rig can choose."""
    return {"dynamixel": DynamixelBus, "sdk": SdkBus}[request.param]


# -- opening -----------------------------------------------------------------------------------


def test_no_port(bus_kind: type[DynamixelBus], tmp_path: Path) -> None:
    with pytest.raises(PortNotFound, match="does not exist"):
        bus_kind(str(tmp_path / "absent"), FOLLOWER_MOTORS).open()


def test_a_file_is_no_port(bus_kind: type[DynamixelBus], tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("x")
    with pytest.raises(WrongPort, match="not a serial port"):
        bus_kind(str(path), FOLLOWER_MOTORS).open()
    with pytest.raises(WrongPort, match="directory"):
        bus_kind(str(tmp_path), FOLLOWER_MOTORS).open()


def test_port_without_an_arm(bus_kind: type[DynamixelBus]) -> None:
    master, slave = os.openpty()
    try:
        with pytest.raises(WrongPort, match="no Dynamixel answers"):
            bus_kind(os.ttyname(slave), FOLLOWER_MOTORS, QUICK).open()
    finally:
        os.close(master)
        os.close(slave)


def test_port_in_use_names_the_holder(bus_kind: type[DynamixelBus], chain: EmulatedChain) -> None:
    with (
        bus_kind(chain.path, FOLLOWER_MOTORS),
        pytest.raises(PortInUse, match=f"process {os.getpid()}"),
    ):
        bus_kind(chain.path, FOLLOWER_MOTORS).open()
    bus_kind(chain.path, FOLLOWER_MOTORS).open()  # free again


def test_five_motors_of_six(bus_kind: type[DynamixelBus], chain: EmulatedChain) -> None:
    chain.faults.silence(4)
    with pytest.raises(MissingMotors, match=r"1 of 6 .* id 4 \(wrist_flex\)") as caught:
        bus_kind(chain.path, FOLLOWER_MOTORS, QUICK).open()
    assert caught.value.missing == (4,)


def test_ports_swapped(bus_kind: type[DynamixelBus], leader_chain: EmulatedChain) -> None:
    with pytest.raises(WrongModel, match="swapped") as caught:
        bus_kind(leader_chain.path, FOLLOWER_MOTORS).open()
    assert "found xl330-m077, expected xl430-w250" in str(caught.value)


def test_strange_ids_are_named(bus_kind: type[DynamixelBus], chain: EmulatedChain) -> None:
    with pytest.raises(WrongPort, match=r"only 1 \(xl430-w250\), 2"):
        bus_kind(chain.path, [MotorSpec(40, "elbow_flex", XL330_M288)], QUICK).open()


def test_a_failed_open_leaves_the_port_free(
    bus_kind: type[DynamixelBus], chain: EmulatedChain
) -> None:
    bus = bus_kind(chain.path, LEADER_MOTORS)
    with pytest.raises(WrongModel):
        bus.open()
    assert not bus.is_open
    with bus_kind(chain.path, FOLLOWER_MOTORS) as good:
        assert good.sync_read_state(PATIENT_S).ok


def test_closed_bus_says_so(bus_kind: type[DynamixelBus], chain: EmulatedChain) -> None:
    bus = bus_kind(chain.path, FOLLOWER_MOTORS)
    with pytest.raises(PortNotOpen):
        bus.sync_read_state(PATIENT_S)
    bus.open()
    bus.close()
    bus.close()
    with pytest.raises(PortNotOpen):
        bus.write("LED", "gripper", 1)


def test_the_lock_dies_with_its_process(chain: EmulatedChain) -> None:
    code = (
        "import sys; from koch_driver.bus.dynamixel import DynamixelBus\n"
        "from koch_driver.bus.motors import FOLLOWER_MOTORS\n"
        "DynamixelBus(sys.argv[1], FOLLOWER_MOTORS).open(); print('open', flush=True)\n"
        "sys.stdin.read()"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", code, chain.path],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env,
    ) as other:  # fmt: skip
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(PortInUse, match=str(other.pid)):
            DynamixelBus(chain.path, FOLLOWER_MOTORS).open()
        other.kill()
    DynamixelBus(chain.path, FOLLOWER_MOTORS).open()


# -- registers ---------------------------------------------------------------------------------


def test_ping_and_firmware(bus: DynamixelBus) -> None:
    reply = bus.ping(3)
    assert (reply.id, reply.model_number, reply.firmware) == (3, 1200, 52)
    assert bus.firmware == (52,) * J
    assert bus.fast_read is not isinstance(bus, SdkBus)


def test_old_firmware_falls_back_to_the_classic_read(
    bus_kind: type[DynamixelBus], chain: EmulatedChain
) -> None:
    chain.servo("gripper").set("Firmware_Version", 45)
    with bus_kind(chain.path, FOLLOWER_MOTORS) as bus:
        assert not bus.fast_read
        assert bus.sync_read_state(PATIENT_S).ok


def test_fast_read_that_does_not_work_is_not_used(
    bus_kind: type[DynamixelBus], chain: EmulatedChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("koch_driver.emulator.protocol._fast_status", lambda *_: b"")
    with bus_kind(chain.path, FOLLOWER_MOTORS) as bus:
        assert not bus.fast_read
        assert bus.sync_read_state(PATIENT_S).ok


@pytest.mark.parametrize("value", [-1_044_479, -131_073, -1, 0, 1, 1_044_479])
def test_signed_register_round_trip(bus: DynamixelBus, value: int) -> None:
    bus.write("Homing_Offset", "wrist_flex", value)
    assert bus.read("Homing_Offset", 4) == value


def test_read_all_and_write_all(bus: DynamixelBus) -> None:
    bus.write_all("Position_P_Gain", [10, 20, 30, 40, 50, 60])
    assert bus.read_all("Position_P_Gain").tolist() == [10, 20, 30, 40, 50, 60]
    bus.write_all("LED", 1)
    assert bus.read_all("LED").tolist() == [1] * J
    with pytest.raises(RegisterError, match="6 values"):
        bus.write_all("LED", [1, 0])


def test_sync_write_by_joint(bus: DynamixelBus, chain: EmulatedChain) -> None:
    bus.sync_write("Goal_Velocity", {"elbow_flex": -7, "gripper": 9})
    assert bus.read("Goal_Velocity", "gripper") == 9
    assert bus.read("Goal_Velocity", "elbow_flex") == -7


def test_eeprom_is_locked_under_torque(bus: DynamixelBus) -> None:
    bus.write("Torque_Enable", "gripper", 1)
    with pytest.raises(StatusError, match="EEPROM") as caught:
        bus.write("Homing_Offset", "gripper", 5)
    assert caught.value.code == 7


def test_register_errors_name_the_choices(bus: DynamixelBus) -> None:
    with pytest.raises(RegisterError, match="Present_Position"):
        bus.read("Presnt_Position", "gripper")
    with pytest.raises(RegisterError, match="shoulder_pan"):
        bus.read("LED", "thumb")
    with pytest.raises(RegisterError, match=r"0 \.\. 1"):
        bus.write("LED", "gripper", 3)


def test_reboot_clears_torque_and_error(bus: DynamixelBus, chain: EmulatedChain) -> None:
    bus.write("Torque_Enable", "elbow_flex", 1)
    chain.faults.trip("elbow_flex", "overload")
    assert bus.sync_read_state(PATIENT_S).alerts == (3,)
    with pytest.raises(StatusError):
        bus.write("Torque_Enable", "elbow_flex", 1)
    bus.reboot("elbow_flex")
    assert bus.sync_read_state(PATIENT_S).alerts == ()
    assert bus.read("Torque_Enable", "elbow_flex") == 0


# -- states and goals --------------------------------------------------------------------------


@pytest.mark.parametrize("fast", [True, False])
def test_state_is_what_the_servos_hold(
    bus_kind: type[DynamixelBus], chain: EmulatedChain, fast: bool
) -> None:
    with bus_kind(chain.path, FOLLOWER_MOTORS, BusConfig(fast_read=fast)) as bus:
        assert bus.fast_read is (fast and bus_kind is DynamixelBus)
        before = time.time_ns()
        state = bus.sync_read_state(PATIENT_S)
        assert state.ok
        assert before < state.stamp_ns < time.time_ns()
        assert 0 < state.duration_s < 0.1
        np.testing.assert_array_equal(state.position_ticks, chain.positions_ticks())
        with pytest.raises(ValueError, match="read-only"):
            state.position_ticks[0] = 1


@pytest.mark.parametrize("fast", [True, False])
def test_values_that_need_stuffing(
    bus_kind: type[DynamixelBus], chain: EmulatedChain, fast: bool, wait_until: Callable[..., bool]
) -> None:
    # position -3 is FD FF FF FF, velocity -1 before it FF FF FF FF: the classic answer is stuffed
    with bus_kind(chain.path, FOLLOWER_MOTORS, BusConfig(fast_read=fast)) as bus:
        servo = chain.servo("wrist_roll")
        servo.set("Homing_Offset", servo.get("Homing_Offset") - servo.get("Present_Position") - 3)
        assert wait_until(lambda: bus.sync_read_state(PATIENT_S).position_ticks[4] == -3)
        state = bus.sync_read_state(PATIENT_S)
        assert state.ok


def test_goals_arrive_and_are_reached(bus: DynamixelBus, wait_until: Callable[..., bool]) -> None:
    bus.write_all("Torque_Enable", 1)
    goal = bus.sync_read_state(PATIENT_S).position_ticks + np.array([200, -150, 90, -300, 500, 60])
    bus.sync_write_goal(goal)
    assert bus.read_all("Goal_Position").tolist() == goal.tolist()
    assert wait_until(
        lambda: np.abs(bus.sync_read_state(PATIENT_S).position_ticks - goal).max() <= 5
    )


def test_turn_offsets_act_on_both_ways(bus: DynamixelBus) -> None:
    plain = bus.sync_read_state(PATIENT_S).position_ticks
    offsets = np.array([4096, 0, 0, -4096, 0, 0])
    bus.set_turn_offsets(offsets)
    state = bus.sync_read_state(PATIENT_S)
    np.testing.assert_array_equal(state.position_ticks, plain + offsets)
    bus.sync_write_goal(state.position_ticks)
    np.testing.assert_array_equal(bus.read_all("Goal_Position"), plain)


@pytest.mark.parametrize(
    "goal", [[0] * (J - 1), [0.5] * J, [[0] * J], [2_000_000] + [0] * (J - 1)], ids=str
)
def test_malformed_goals_are_refused(bus: DynamixelBus, goal: list) -> None:
    with pytest.raises(RegisterError, match="goal positions"):
        bus.sync_write_goal(goal)


def test_negative_control_the_sdk_waits_tens_of_milliseconds(chain: EmulatedChain) -> None:
    """Why we have time-outs of our own: one silent motor, the same question, both ways."""
    from dynamixel_sdk import GroupSyncRead, PacketHandler, PortHandler

    chain.faults.silence(6)
    port = PortHandler(chain.path)
    port.openPort()
    reader = GroupSyncRead(port, PacketHandler(2.0), 126, 10)
    for k in range(1, 7):
        reader.addParam(k)
    start = time.perf_counter()
    reader.txRxPacket()
    theirs = time.perf_counter() - start
    port.closePort()

    chain.faults.silence(6, False)
    with DynamixelBus(chain.path, FOLLOWER_MOTORS) as bus:
        chain.faults.silence(6)
        times = []
        for _ in range(10):
            start = time.perf_counter()
            assert not bus.sync_read_state(budget_s=0.006).ok
            times.append(time.perf_counter() - start)
    assert theirs > 0.030
    assert sorted(times)[5] < 0.015


def test_vanished_port_is_lost_and_opens_again(bus: DynamixelBus, chain: EmulatedChain) -> None:
    chain.faults.unplug()
    with pytest.raises(PortLost, match="cable"):
        bus.sync_read_state(PATIENT_S)
    assert not bus.is_open
    with pytest.raises(PortNotFound):
        bus.open()
    chain.faults.replug()
    bus.open()
    assert bus.sync_read_state(PATIENT_S).ok
