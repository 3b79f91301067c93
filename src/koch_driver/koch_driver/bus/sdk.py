# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The bus that speaks through dynamixel_sdk: `bus: sdk` of an arm in the rig.

ROBOTIS' own code builds, stuffs and checks every packet here. Time-outs, retries and results are
those of `DynamixelBus`: the SDK would wait 34 ms for a silent motor, three cycles of an arm, and
spin while it waits. It uses the classic sync read, because the SDK's fast one drops the error byte
that tells of a hardware error.
"""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING

from dynamixel_sdk import (
    COMM_SUCCESS,
    GroupSyncRead,
    GroupSyncWrite,
    PortHandler,
    Protocol2PacketHandler,
)

from koch_driver.bus.control_table import XL330_M288
from koch_driver.bus.dynamixel import DynamixelBus
from koch_driver.bus.motor_bus import BusConfig
from koch_driver.bus.packet import Instruction, Packet
from koch_driver.bus.state_read import STATE_ADDRESS
from koch_driver.errors import PortLost
from koch_rig.arm_model import MOTOR_BUSES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from koch_driver.bus.control_table import Register
    from koch_driver.bus.motors import MotorSpec
    from koch_driver.bus.serial_port import SerialPort

_GOAL = XL330_M288.register("Goal_Position")  # at the same place in all models


class _SdkPort(PortHandler):  # type: ignore[misc]  # dynamixel_sdk has no types
    """A `SerialPort` as the SDK wants it, with the bus's time-outs."""

    def __init__(self, port: SerialPort) -> None:
        super().__init__(port.path)
        self.deadline = 0.0  # time.monotonic() until which an answer is waited for
        self._port = port
        self._unread = b""

    def forget(self) -> None:
        """Drop bytes that no one has read, and what an error left behind."""
        self._unread = b""
        self.is_using = False

    def clearPort(self) -> None:  # the SDK's names
        """Nothing: within a cycle the answer to the question before still counts."""

    def readPort(self, length: int) -> bytes:
        """At most `length` bytes; waits for the first until the deadline."""
        if not self._unread:
            self._unread = self._port.receive(self.deadline)
        data, self._unread = self._unread[:length], self._unread[length:]
        return data

    def writePort(self, packet: Sequence[int]) -> int:
        """Send a packet."""
        self._port.send(bytes(packet))
        return len(packet)

    def setPacketTimeout(self, packet_length: int) -> None:
        """Nothing: the bus has set the deadline."""

    def isPacketTimeout(self) -> bool:
        """Whether the deadline is over and all that came by then was read."""
        return not self._unread and time.monotonic() >= self.deadline


class _SdkPackets(Protocol2PacketHandler):  # type: ignore[misc]  # dynamixel_sdk has no types
    """The SDK's packet handler, which keeps what it hears from motors it did not ask about."""

    def __init__(self) -> None:
        self._heard: list[Packet] = []
        self.spoilt = 0  # packets that were torn, or whose CRC is wrong

    def heard(self) -> list[Packet]:
        """All answers since this was last asked."""
        heard, self._heard = self._heard, []
        return heard

    def rxPacket(self, *arguments: object) -> tuple[list[int], int]:
        """Receive one packet. (The SDK's versions differ in the arguments.)"""
        packet, result = super().rxPacket(*arguments)
        if result == COMM_SUCCESS:
            end = (packet[5] | packet[6] << 8) + 5  # the length counts instruction and CRC
            self._heard.append(Packet(packet[4], Instruction.STATUS, bytes(packet[8:end])))
        elif packet:
            self.spoilt += 1
        return packet, result

    def addStuffing(self, packet: list[int]) -> list[int]:
        """Stuff in place: the SDK's `txPacket` does not look at what this returns."""
        packet[:] = super().addStuffing(packet)
        return packet


@MOTOR_BUSES.register("sdk")
class SdkBus(DynamixelBus):
    """The `MotorBus` on dynamixel_sdk. Owned by one thread; nothing here is thread safe."""

    def __init__(
        self, port: str, motors: Sequence[MotorSpec], config: BusConfig | None = None
    ) -> None:
        """Prepare; see `DynamixelBus`. `config.fast_read` has no effect."""
        super().__init__(port, motors, dataclasses.replace(config or BusConfig(), fast_read=False))
        self._sdk_port = _SdkPort(self._port)
        self._packets = _SdkPackets()

    def _throw_away(self) -> None:
        self._sdk_port.forget()
        self._packets.heard()
        super()._throw_away()

    def _ask_one(
        self, motor_id: int, instruction: Instruction, parameters: bytes, deadline: float
    ) -> Iterator[Packet]:
        length = len(parameters) + 3  # counts instruction and CRC, which the SDK fills in
        packet = [0] * 4 + [motor_id, length & 0xFF, length >> 8, instruction, *parameters, 0, 0]
        self._sent(self._packets.txPacket(self._sdk_port, packet))
        return self._listen(motor_id, deadline)

    def _ask_registers(self, reg: Register, deadline: float) -> Iterator[Packet]:
        self._ask_group(self.ids, reg.address, reg.length)
        return self._listen(self.ids[-1], deadline)

    def _ask_state(self, ids: tuple[int, ...], *, fast: bool) -> int:
        packet, n_bytes = self._state.request(ids, fast=False)
        self._ask_group(ids, STATE_ADDRESS, self._state.length)
        return len(packet) + n_bytes

    def _collect(self, n_bytes: int, end: float, patience_s: float = 0.0) -> None:
        last = self._state.missing()[-1]
        for answer in self._listen(last, self._deadline(n_bytes, end, patience_s)):
            self._state.take_answer(answer.id, answer.parameters)
            if not self._state.missing():
                return

    def _write_blocks(self, address: int, length: int, blocks: Mapping[int, bytes]) -> None:
        self._make_ready()
        group = GroupSyncWrite(self._sdk_port, self._packets, address, length)
        for motor_id, block in blocks.items():
            group.addParam(motor_id, list(block))
        self._sent(group.txPacket())

    def _write_goals(self, ticks: Sequence[int]) -> None:
        blocks = zip(self.ids, map(_GOAL.encode, ticks), strict=True)
        self._write_blocks(_GOAL.address, _GOAL.length, dict(blocks))

    def _ask_group(self, ids: tuple[int, ...], address: int, length: int) -> None:
        """Send a sync read."""
        group = GroupSyncRead(self._sdk_port, self._packets, address, length)
        for motor_id in ids:
            group.addParam(motor_id)
        self._sent(group.txPacket())

    def _listen(self, motor_id: int, deadline: float) -> Iterator[Packet]:
        """What is heard until the deadline, from whomever; `motor_id` probably comes last."""
        self._sdk_port.deadline = deadline
        while True:
            self._packets.readRx(self._sdk_port, motor_id, 0)
            yield from self._packets.heard()
            self.statistics.bad_packets += self._packets.spoilt
            self._packets.spoilt = 0
            if self._sdk_port.isPacketTimeout():
                return

    def _sent(self, result: int) -> None:
        """Check that the SDK has sent.

        Raises:
            PortLost: It has not.
        """
        if result != COMM_SUCCESS:
            raise PortLost(self.port, f"dynamixel_sdk: {self._packets.getTxRxResult(result)}")
