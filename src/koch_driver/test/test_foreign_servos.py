# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The bus on servos that are not our emulator's: another author's packets, timing and habits."""

from __future__ import annotations

import os
import select
import threading
import time
import tty
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from koch_core.realtime import request_realtime
from koch_driver.arm.control_loop import ControlLoop, LoopConfig, LoopPhase
from koch_driver.arm.schedule import Schedule
from koch_driver.bus.dynamixel import BusConfig, DynamixelBus
from koch_driver.bus.motors import FOLLOWER_MOTORS
from koch_driver.errors import NoStateRead, WrongModel
from koch_rig.arm_model import KOCH_V1_1

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

J = len(KOCH_V1_1.joints)
pytestmark = pytest.mark.timing
PATIENT_S = 0.3
POSITION, VELOCITY, CURRENT, LEVEL = 132, 128, 126, 68
# What a servo that reads whole registers only accepts of the driver's questions here.
WHOLE = {(126, 10), (132, 4), (68, 1), (116, 4), (64, 1), (11, 1), (10, 1), (20, 4), (48, 4)}


def checksum(data: bytes) -> bytes:
    """CRC-16/BUYPASS bit by bit, from its definition; nothing of the driver's."""
    crc = 0
    for byte in data:
        for bit in range(7, -1, -1):
            top = crc >> 15
            crc = crc << 1 & 0xFFFF
            if top ^ (byte >> bit & 1):
                crc ^= 0x8005
    return bytes((crc & 0xFF, crc >> 8))


def status(motor_id: int, error: int, data: bytes) -> bytes:
    body = bytes((0x55, error)) + data
    body = body.replace(b"\xff\xff\xfd", b"\xff\xff\xfd\xfd")
    head = b"\xff\xff\xfd\x00" + bytes((motor_id,)) + (len(body) + 2).to_bytes(2, "little")
    return head + body + checksum(head + body)


@dataclass(frozen=True)
class Habits:
    """How these servos, their adapter and their author differ."""

    firmware: int = 52
    echo: bool = False  # the adapter hears what it sends
    piece: int = 4096  # bytes per write
    pause_s: float = 0.0  # between pieces
    delay_s: float = 0.0  # before the answer
    fast: str = "silent"  # or "error"
    sync: bool = True
    backwards: bool = False  # sync read answered in falling ids
    whole: bool = False  # reads that cut a register are refused
    blocks: bool = True  # reads of several registers at once are not
    level: int = 2  # status return level at power-up
    models: tuple[int, ...] = (1060, 1060, 1200, 1200, 1200, 1200)


class ForeignServos:
    """Six servos behind a pty: ping, read, write, sync read, sync write; no more than needed."""

    def __init__(self, habits: Habits) -> None:
        self.habits = habits
        self.memory = {i: bytearray(256) for i in range(1, 7)}
        for i, memory in self.memory.items():
            memory[0:2] = habits.models[i - 1].to_bytes(2, "little")
            memory[6] = habits.firmware
            memory[LEVEL] = habits.level
            memory[POSITION : POSITION + 4] = (2000 + i).to_bytes(4, "little")
        self.heard: list[int] = []
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        self.path = os.ttyname(self._slave)
        self._stopping = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stopping = True
        self._thread.join(2.0)
        os.close(self._master)
        os.close(self._slave)

    def _serve(self) -> None:
        request_realtime()  # this thread: real servos answer whatever the computer does
        buffer = b""
        while not self._stopping:
            if not select.select([self._master], [], [], 0.05)[0]:
                continue
            data = os.read(self._master, 4096)
            if self.habits.echo:
                os.write(self._master, data)
            buffer += data
            while (packet := self._next(buffer)) is not None:
                body, buffer = packet
                if body:
                    self._send(self._answer(body[0], body[1], body[2:]))

    def _next(self, buffer: bytes) -> tuple[bytes, bytes] | None:
        """(id, instruction and parameters), and the rest; None without a whole packet."""
        start = buffer.find(b"\xff\xff\xfd\x00")
        if start < 0 or len(buffer) < start + 7:
            return None
        end = start + 7 + int.from_bytes(buffer[start + 5 : start + 7], "little")
        if len(buffer) < end:
            return None
        packet = buffer[start:end]
        if checksum(packet[:-2]) != packet[-2:]:
            return b"", buffer[end:]
        body = packet[7:-2].replace(b"\xff\xff\xfd\xfd", b"\xff\xff\xfd")
        return packet[4:5] + body, buffer[end:]

    def _send(self, answer: bytes) -> None:
        if answer:
            time.sleep(self.habits.delay_s)
        for at in range(0, len(answer), self.habits.piece):
            os.write(self._master, answer[at : at + self.habits.piece])
            time.sleep(self.habits.pause_s)

    def _answer(self, motor_id: int, instruction: int, p: bytes) -> bytes:
        self.heard.append(instruction)
        if instruction == 0x82:
            return self._sync_read(p)
        if instruction == 0x83:
            self._sync_write(p)
        if instruction == 0x8A and self.habits.fast == "error":
            return b"".join(status(i, 2, b"") for i in p[4:])
        memory = self.memory.get(motor_id)
        if memory is None:
            return b""
        if instruction == 0x01:
            return status(motor_id, 0, memory[0:2] + memory[6:7])
        address = p[0] | p[1] << 8
        if instruction == 0x02 and memory[LEVEL] >= 1:
            return self._read(motor_id, address, p[2] | p[3] << 8)
        if instruction == 0x03:
            memory[address : address + len(p) - 2] = p[2:]
            return status(motor_id, 0, b"") if memory[LEVEL] >= 2 else b""
        return b""

    def _read(self, motor_id: int, address: int, length: int) -> bytes:
        cut = self.habits.whole and (address, length) not in WHOLE
        if cut or (length > 4 and not self.habits.blocks):
            return status(motor_id, 5, b"")
        return status(motor_id, 0, bytes(self.memory[motor_id][address : address + length]))

    def _sync_read(self, p: bytes) -> bytes:
        ids = reversed(p[4:]) if self.habits.backwards else p[4:]
        if not self.habits.sync:
            return b""
        asked = p[0] | p[1] << 8, p[2] | p[3] << 8
        return b"".join(self._read(i, *asked) for i in ids if self.memory[i][LEVEL] >= 1)

    def _sync_write(self, p: bytes) -> None:
        address, length = p[0] | p[1] << 8, p[2] | p[3] << 8
        for at in range(4, len(p), length + 1):
            self.memory[p[at]][address : address + length] = p[at + 1 : at + 1 + length]


@pytest.fixture
def servos() -> Iterator[Callable[..., ForeignServos]]:
    """A function (habits by name) that makes servos."""
    made: list[ForeignServos] = []

    def make(**habits: object) -> ForeignServos:
        made.append(ForeignServos(Habits(**habits)))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_the_checksum_is_the_manuals() -> None:
    """ROBOTIS' example: ping of id 1."""
    assert checksum(bytes.fromhex("FFFFFD0001030001")) == bytes.fromhex("194E")


@pytest.mark.parametrize(
    "habits",
    [
        {},
        {"firmware": 45},
        {"fast": "error"},
        {"echo": True},
        {"echo": True, "firmware": 45},
        {"piece": 1},
        {"piece": 7, "pause_s": 2e-4, "firmware": 45},
        {"backwards": True, "firmware": 45},
        {"delay_s": 0.004},
        {"level": 1},
        {"level": 0},
        {"echo": True, "piece": 5, "level": 1, "backwards": True},
    ],
    ids=lambda habits: ",".join(f"{k}={v}" for k, v in habits.items()) or "plain",
)
def test_states_goals_and_registers_come_and_go(servos, habits: dict) -> None:
    arm = servos(**habits)
    with DynamixelBus(arm.path, FOLLOWER_MOTORS, BusConfig(handshake_budget_s=0.5)) as bus:
        assert not bus.fast_read
        bus.write("LED", "gripper", 1)
        assert bus.read("LED", "gripper") == 1
        assert bus.read_all("Present_Position").tolist() == [2001, 2002, 2003, 2004, 2005, 2006]
        for k in range(20):
            position = 2000 + 10 * k
            arm.memory[3][POSITION : POSITION + 4] = position.to_bytes(4, "little")
            arm.memory[3][VELOCITY : VELOCITY + 4] = b"\xff\xff\xfd\xff"  # must be stuffed
            state = bus.sync_read_state(PATIENT_S)
            assert state.ok
            assert state.position_ticks.tolist() == [2001, 2002, position, 2004, 2005, 2006]
            assert state.velocity_ticks[2] == -131_073
            bus.sync_write_goal(state.position_ticks + 5)
        assert bus.read("Goal_Position", "elbow_flex") == position + 5
        assert bus.statistics.crc_errors == 0
        if not bus.statistics.timeouts:  # after one, half a packet may be thrown away
            assert bus.statistics.bad_packets == bus.statistics.late_packets == 0


def test_an_echo_is_no_late_answer(servos) -> None:
    """It would make the time-outs grow without end."""
    arm = servos(echo=True, firmware=45)
    with DynamixelBus(arm.path, FOLLOWER_MOTORS) as bus:
        for _ in range(5):
            assert bus.sync_read_state(PATIENT_S).ok
            time.sleep(0.02)  # answers to a question that was repeated, if any
            bus.sync_write_goal([2000] * J)
            time.sleep(0.02)  # the echo of the goals now lies in the buffer
            late, bus._last_timed_out = bus.statistics.late_packets, True
            bus.sync_write_goal([2000] * J)
            assert bus.statistics.late_packets == late


def test_servos_that_read_whole_registers_only_recover_from_a_lost_packet(servos) -> None:
    """After a time-out the question's length changes; these refuse any but the plain one."""
    arm = servos(whole=True, firmware=45)
    with DynamixelBus(arm.path, FOLLOWER_MOTORS) as bus:
        for _ in range(4):
            memory, arm.memory[5] = arm.memory[5], bytearray(256)  # level 0: silent
            # long enough that the others answer on a busy machine, too
            assert bus.sync_read_state(0.2).missing == (5,)
            arm.memory[5] = memory
            assert bus.sync_read_state(PATIENT_S).ok
            time.sleep(0.02)  # answers to a question that was repeated, if any


def test_without_sync_read_the_port_does_not_open_and_says_why(servos) -> None:
    arm = servos(sync=False)
    with pytest.raises(NoStateRead, match="must support Sync Read"):
        DynamixelBus(arm.path, FOLLOWER_MOTORS).open()


def test_other_models_are_named(servos) -> None:
    arm = servos(models=(1060,) * J)
    with pytest.raises(WrongModel, match=r"elbow_flex \(id 3\): found xl430-w250, expected xl330"):
        DynamixelBus(arm.path, FOLLOWER_MOTORS).open()


def test_answers_that_queue_up_never_pass_for_fresh_ones(servos) -> None:
    """15 ms per answer, a question every 10 ms: sooner or later an old answer looks like new."""
    arm = servos(firmware=45)
    with DynamixelBus(arm.path, FOLLOWER_MOTORS) as bus:
        assert bus.sync_read_state(PATIENT_S).ok
        arm.habits = Habits(firmware=45, delay_s=0.015)
        schedule = Schedule(0.01)
        for k in range(100):
            schedule.wait()
            arm.memory[3][POSITION : POSITION + 4] = k.to_bytes(4, "little")
            state = bus.sync_read_state(0.006)
            # The clock of a busy machine may stop for so long that an answer is in time.
            assert not state.ok or (state.duration_s > 0.014 and state.position_ticks[2] == k)
        assert bus.statistics.late_packets >= 100
        arm.habits = Habits(firmware=45)
        time.sleep(0.1)
        assert bus.sync_read_state(PATIENT_S).ok or bus.sync_read_state(PATIENT_S).ok


class NothingToDo:
    """The least controller."""

    def connected(self, bus: DynamixelBus) -> None: ...
    def cycle(self, bus: DynamixelBus, state: object) -> None: ...
    def disconnected(self, reason: str) -> None: ...
    def leave(self, bus: DynamixelBus) -> bool:
        return True


@pytest.mark.parametrize(
    ("after", "words"),
    [
        ({"delay_s": 0.015}, "later than a cycle allows"),
        ({"blocks": False}, "refuse the question"),
    ],
)
def test_a_fault_says_whether_answers_are_late_or_refusals(
    servos, wait_until: Callable[..., bool], after: dict, words: str
) -> None:
    arm = servos(firmware=45)

    def connect() -> DynamixelBus:
        bus = DynamixelBus(arm.path, FOLLOWER_MOTORS)
        bus.open()
        return bus

    loop = ControlLoop(
        "arm", connect, NothingToDo(), LoopConfig(rate_hz=100.0, bad_cycles=25),
        report=lambda phase, reason: None,
    )  # fmt: skip
    loop.start()
    try:  # a loop that outlives its test takes the next one's port, which has the same name
        assert wait_until(lambda: loop.status().phase is LoopPhase.RUNNING)
        arm.habits = Habits(firmware=45, **after)
        assert wait_until(lambda: loop.status().phase is LoopPhase.FAULT)
        assert words in loop.status().reason
    finally:
        loop.close()
