# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Instructions on the emulated bus: who hears them, and which status packets come back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from koch_driver.bus.packet import (
    BROADCAST_ID,
    HEADER,
    ErrorCode,
    Instruction,
    Packet,
    build_status,
    crc16,
)
from koch_driver.emulator.servo import EmulatedServo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_CLEAR_TURNS = b"\x01\x44\x58\x4c\x22"  # the manual's fixed parameters of CLEAR
_RETURN_DELAY_UNIT_S = 2e-6


@dataclass(frozen=True)
class StatusReply:
    """One status packet and the return delay in [s] of the servo before it."""

    data: bytes
    delay_s: float


class BusProtocol:
    """Applies instruction packets to a chain of servos."""

    def __init__(self, servos: Iterable[EmulatedServo], dead: Callable[[int], bool]) -> None:
        """Make the bus.

        Args:
            servos: The chain.
            dead: Tells whether the servo with an id is silent just now.
        """
        self._servos = list(servos)
        self._dead = dead
        self._handlers: dict[int, Callable[[EmulatedServo, bytes], tuple[int, bytes] | None]] = {
            Instruction.READ: self._read,
            Instruction.WRITE: lambda s, p: self._write(s, p, s.write),
            Instruction.REG_WRITE: lambda s, p: self._write(s, p, s.register_write),
            Instruction.ACTION: lambda s, p: (s.action(), b""),
            Instruction.CLEAR: self._clear,
        }

    def handle(self, packet: Packet, baud_code: int | None) -> list[StatusReply]:
        """Answer one instruction packet.

        Args:
            packet: The packet; status packets are ignored.
            baud_code: Baud_Rate code of the line; servos set to another one hear noise. None
                switches the check off.
        """
        alive = [
            s for s in self._servos
            if not self._dead(s.id) and (baud_code is None or s.memory.data[8] == baud_code)
        ]  # fmt: skip
        instruction, p = packet.instruction, packet.parameters
        if instruction == Instruction.STATUS:
            return []
        if packet.id == BROADCAST_ID:
            return self._broadcast(alive, instruction, p)
        answers = []
        for servo in [s for s in alive if s.id == packet.id]:
            servo.heard()
            answers.append(self._single(servo, instruction, p))
        return _on_one_wire(answers)

    def refuse_crc(self, motor_id: int) -> list[StatusReply]:
        """A packet for one servo came with a bad CRC."""
        for servo in self._servos:
            if servo.id == motor_id and not self._dead(motor_id):
                return self._reply(servo, motor_id, ErrorCode.CRC, b"", needed_level=2)
        return []

    # -- one servo ----------------------------------------------------------------------------

    def _single(self, servo: EmulatedServo, instruction: int, p: bytes) -> list[StatusReply]:
        motor_id = servo.id  # a write may change it; the answer carries the old one
        if instruction == Instruction.PING:
            memory = servo.memory.data
            return self._reply(servo, motor_id, 0, bytes(memory[0:2] + memory[6:7]))
        if instruction == Instruction.REBOOT:
            replies = self._reply(servo, motor_id, 0, b"", needed_level=2)
            servo.power_up(servo.shaft_rad)
            return replies
        if instruction == Instruction.FACTORY_RESET:
            replies = self._reply(servo, motor_id, 0, b"", needed_level=2)
            if p:
                servo.factory_reset(p[0])
            return replies
        handler = self._handlers.get(instruction)
        result = handler(servo, p) if handler else (ErrorCode.INSTRUCTION, b"")
        if result is None:
            result = (ErrorCode.DATA_LENGTH, b"")
        level = 1 if instruction == Instruction.READ else 2
        return self._reply(servo, motor_id, *result, needed_level=level)

    def _reply(
        self, servo: EmulatedServo, motor_id: int, error: int, data: bytes, needed_level: int = 0
    ) -> list[StatusReply]:
        if servo.memory.data[68] < needed_level:
            return []
        packet = build_status(motor_id, error | servo.alert, bytes(data))
        return [StatusReply(packet, servo.memory.data[9] * _RETURN_DELAY_UNIT_S)]

    @staticmethod
    def _read(servo: EmulatedServo, p: bytes) -> tuple[int, bytes] | None:
        if len(p) != 4:
            return None
        return servo.read(p[0] | p[1] << 8, p[2] | p[3] << 8)

    @staticmethod
    def _write(
        servo: EmulatedServo, p: bytes, write: Callable[[int, bytes], int]
    ) -> tuple[int, bytes] | None:
        if len(p) < 3:
            return None
        return write(p[0] | p[1] << 8, p[2:]), b""

    @staticmethod
    def _clear(servo: EmulatedServo, p: bytes) -> tuple[int, bytes] | None:
        if p != _CLEAR_TURNS:
            return ErrorCode.DATA_RANGE, b""
        return servo.clear_turns(), b""

    # -- many servos --------------------------------------------------------------------------

    def _broadcast(
        self, alive: list[EmulatedServo], instruction: int, p: bytes
    ) -> list[StatusReply]:
        for servo in alive:
            servo.heard()
        by_id: dict[int, list[EmulatedServo]] = {}
        for servo in sorted(alive, key=lambda s: s.id):
            by_id.setdefault(servo.id, []).append(servo)
        if instruction == Instruction.PING:  # each id has a slot of its own
            slots = [[self._single(s, instruction, p) for s in same] for same in by_id.values()]
            return [reply for answers in slots for reply in _on_one_wire(answers)]
        if instruction in (Instruction.SYNC_READ, Instruction.FAST_SYNC_READ) and len(p) >= 4:
            asked = [(i, p[0] | p[1] << 8, p[2] | p[3] << 8) for i in p[4:]]
            fast = instruction == Instruction.FAST_SYNC_READ
            return self._group_read(by_id, asked, fast=fast)
        if instruction in (Instruction.BULK_READ, Instruction.FAST_BULK_READ):
            asked = [
                (p[k], p[k + 1] | p[k + 2] << 8, p[k + 3] | p[k + 4] << 8)
                for k in range(0, len(p) - 4, 5)
            ]
            fast = instruction == Instruction.FAST_BULK_READ
            return self._group_read(by_id, asked, fast=fast)
        if instruction == Instruction.SYNC_WRITE:
            self._sync_write(by_id, p)
        elif instruction == Instruction.BULK_WRITE:
            self._bulk_write(by_id, p)
        elif instruction != Instruction.READ:  # READ to everyone would collide: no one answers
            for servo in alive:
                self._single(servo, instruction, p)
        return []

    @staticmethod
    def _sync_write(by_id: dict[int, list[EmulatedServo]], p: bytes) -> None:
        if len(p) < 4:
            return
        address, length = p[0] | p[1] << 8, p[2] | p[3] << 8
        for k in range(4, len(p) - length, length + 1):
            for servo in by_id.get(p[k], ()):
                servo.write(address, p[k + 1 : k + 1 + length])

    @staticmethod
    def _bulk_write(by_id: dict[int, list[EmulatedServo]], p: bytes) -> None:
        k = 0
        while k + 5 < len(p):
            address, length = p[k + 1] | p[k + 2] << 8, p[k + 3] | p[k + 4] << 8
            for servo in by_id.get(p[k], ()) if k + 5 + length <= len(p) else ():
                servo.write(address, p[k + 5 : k + 5 + length])
            k += 5 + length

    def _group_read(
        self,
        by_id: dict[int, list[EmulatedServo]],
        asked: list[tuple[int, int, int]],
        *,
        fast: bool,
    ) -> list[StatusReply]:
        """Each servo answers after its predecessor in the list; a dead one silences the rest.

        So do two that share an id and have different things to say: no one makes out an answer.
        """
        replies: list[StatusReply] = []
        blocks: list[tuple[int, int, bytes]] = []
        delay_s = 0.0
        for motor_id, address, length in asked:
            same = by_id.get(motor_id, ())
            talking = [s for s in same if s.memory.data[68] >= 1]
            if not talking or len({s.read(address, length) for s in talking}) > 1:
                break
            servo = talking[0]
            error, data = servo.read(address, length)
            if fast:
                if servo.model.fast_read_firmware > servo.memory.data[6]:
                    break
                blocks.append((error | servo.alert, motor_id, data or bytes(length)))
                delay_s = max(delay_s, servo.memory.data[9] * _RETURN_DELAY_UNIT_S)
            else:
                replies += self._reply(servo, motor_id, error, data, needed_level=1)
        if fast and blocks:
            total = 1 + sum(length + 4 for _, _, length in asked)
            replies.append(StatusReply(_fast_status(total, blocks), delay_s))
        return replies


def _on_one_wire(answers: list[list[StatusReply]]) -> list[StatusReply]:
    """What arrives of servos that answer at once because they share an id.

    Equal answers look like one. A line that one of them pulls low is low.
    """
    packets = [reply for replies in answers for reply in replies]
    if len({packet.data for packet in packets}) <= 1:
        return packets[:1]
    spoilt = bytearray(max((packet.data for packet in packets), key=len))
    for packet in packets:
        for k, byte in enumerate(packet.data):
            spoilt[k] &= byte
    return [StatusReply(bytes(spoilt), packets[0].delay_s)]


def _fast_status(length: int, blocks: list[tuple[int, int, bytes]]) -> bytes:
    """Fast read's single status packet: not stuffed, a running CRC after each block."""
    packet = HEADER + bytes((BROADCAST_ID,)) + length.to_bytes(2, "little")
    packet += bytes((Instruction.STATUS,))
    for error, motor_id, data in blocks:
        packet += bytes((error, motor_id)) + data
        packet += crc16(packet).to_bytes(2, "little")
    return packet
