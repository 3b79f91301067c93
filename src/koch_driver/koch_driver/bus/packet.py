# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Dynamixel Protocol 2.0 packets: CRC, byte stuffing, building and parsing.

dynamixel-sdk's Python packet handler walks every byte in the interpreter and waits for answers
in a busy loop; `benchmarks/bench_driver.py` puts both side by side. The SDK still owns the port.

Source: ROBOTIS e-Manual, DYNAMIXEL Protocol 2.0, https://emanual.robotis.com/docs/en/dxl/protocol2/
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

HEADER = b"\xff\xff\xfd\x00"
BROADCAST_ID = 0xFE
ALERT_BIT = 0x80
MAX_LENGTH = 1024
_MARK = b"\xff\xff\xfd"
_STUFFED = b"\xff\xff\xfd\xfd"


class Instruction(IntEnum):
    """Instruction field."""

    PING = 0x01
    READ = 0x02
    WRITE = 0x03
    REG_WRITE = 0x04
    ACTION = 0x05
    FACTORY_RESET = 0x06
    REBOOT = 0x08
    CLEAR = 0x10
    STATUS = 0x55
    SYNC_READ = 0x82
    SYNC_WRITE = 0x83
    FAST_SYNC_READ = 0x8A
    BULK_READ = 0x92
    BULK_WRITE = 0x93
    FAST_BULK_READ = 0x9A


class ErrorCode(IntEnum):
    """Lower seven bits of a status packet's error byte."""

    NONE = 0
    RESULT_FAIL = 1
    INSTRUCTION = 2
    CRC = 3
    DATA_RANGE = 4
    DATA_LENGTH = 5
    DATA_LIMIT = 6
    ACCESS = 7


ERROR_HINTS = {
    ErrorCode.RESULT_FAIL: "it failed to process the instruction",
    ErrorCode.INSTRUCTION: "it does not know the instruction",
    ErrorCode.CRC: "it saw a bad checksum",
    ErrorCode.DATA_RANGE: "the value is out of the register's range",
    ErrorCode.DATA_LENGTH: "the data is shorter than the register",
    ErrorCode.DATA_LIMIT: "the value exceeds a limit stored in the motor",
    ErrorCode.ACCESS: "the register is read-only, or EEPROM and locked while torque is on",
}


def _byte_table() -> list[int]:
    table = []
    for byte in range(256):
        crc = byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x8005 if crc & 0x8000 else crc << 1) & 0xFFFF
        table.append(crc)
    return table


def _word_table(byte_table: list[int]) -> list[int]:
    """CRC of each 16-bit word: the CRC has 16 bits, so one look-up advances two bytes."""
    table = np.array(byte_table, dtype=np.uint32)
    word = np.arange(65536, dtype=np.uint32)
    crc = table[word >> 8] ^ (word << 8 & 0xFFFF)
    crc = table[crc >> 8] ^ (crc << 8 & 0xFFFF)
    return [int(c) for c in crc]


_BYTE_TABLE = _byte_table()
_WORD_TABLE = _word_table(_BYTE_TABLE)
_WORDS = [struct.Struct(f">{n}H") for n in range(MAX_LENGTH // 2 + 8)]


def crc16(data: bytes, crc: int = 0) -> int:
    """CRC-16 of Protocol 2.0 (polynomial 0x8005, not reflected), starting from `crc`."""
    table = _WORD_TABLE
    for word in _WORDS[len(data) >> 1].unpack_from(data):
        crc = table[crc ^ word]
    if len(data) & 1:
        crc = _BYTE_TABLE[crc >> 8 ^ data[-1]] ^ crc << 8 & 0xFFFF
    return crc


def build(motor_id: int, instruction: int, parameters: bytes = b"") -> bytes:
    """Instruction packet, stuffed and with CRC."""
    body = bytes((instruction,)) + parameters
    if _MARK in body:
        body = body.replace(_MARK, _STUFFED)
    packet = HEADER + struct.pack("<BH", motor_id, len(body) + 2) + body
    return packet + crc16(packet).to_bytes(2, "little")


def build_status(motor_id: int, error: int, parameters: bytes = b"") -> bytes:
    """Status packet, stuffed and with CRC."""
    return build(motor_id, Instruction.STATUS, bytes((error,)) + parameters)


@dataclass(frozen=True)
class Packet:
    """One packet with a good CRC, stuffing removed. `parameters` includes a status' error byte."""

    id: int
    instruction: int
    parameters: bytes


class PacketParser:
    """Finds packets in a byte stream, whatever noise is between them.

    Attributes:
        crc_errors: Packets dropped for their CRC.
        bad_packets: Runs of bytes dropped because they are no packet.
    """

    def __init__(self, *, keep_bad_ids: bool = False) -> None:
        """Start empty.

        Args:
            keep_bad_ids: Remember the id of each packet with a bad CRC for `take_bad_ids`.
        """
        self._buffer = b""
        self._bad_ids: list[int] | None = [] if keep_bad_ids else None
        self.crc_errors = 0
        self.bad_packets = 0

    def take_bad_ids(self) -> list[int]:
        """Ids of packets with a bad CRC since the last call."""
        if not self._bad_ids:
            return []
        ids, self._bad_ids = self._bad_ids, []
        return ids

    def clear(self) -> int:
        """Forget a half packet; the number of bytes forgotten."""
        left = len(self._buffer)
        self._buffer = b""
        return left

    @property
    def pending(self) -> bytes:
        """Bytes received that are no whole packet yet."""
        return self._buffer

    def feed(self, data: bytes) -> list[Packet]:
        """Take bytes in, hand whole packets out."""
        buffer = self._buffer + data if self._buffer else data
        packets = []
        start = 0
        while True:
            found = buffer.find(HEADER, start)
            if found < 0:
                # keep what may be the beginning of a header
                tail = max(start, len(buffer) - 3)
                if tail > start:
                    self.bad_packets += 1
                start = tail
                break
            if found > start:
                self.bad_packets += 1
                start = found
            if len(buffer) - start < 7:
                break
            length = buffer[start + 5] | buffer[start + 6] << 8
            if not 3 <= length <= MAX_LENGTH:
                self.bad_packets += 1
                start += 4
                continue
            end = start + 7 + length
            if len(buffer) < end:
                # A header inside a body that should be stuffed means the length is wrong.
                again = buffer.find(HEADER, start + 4)
                if again < 0:
                    break
                self.bad_packets += 1
                start = again
                continue
            packet = self._check(buffer[start:end])
            if packet is None:
                again = buffer.find(HEADER, start + 4, end + 3)
                start = again if again >= 0 else end
            else:
                packets.append(packet)
                start = end
        self._buffer = buffer[start:]
        return packets

    def _check(self, raw: bytes) -> Packet | None:
        if crc16(raw[:-2]) != raw[-2] | raw[-1] << 8:
            self.crc_errors += 1
            if self._bad_ids is not None:
                self._bad_ids.append(raw[4])
            return None
        body = raw[7:-2]
        # A fast read's answer is not stuffed, but its blocks hold CRCs and are cut by the bus.
        if _STUFFED in body and raw[4] != BROADCAST_ID:
            body = body.replace(_STUFFED, _MARK)
        return Packet(raw[4], body[0], body[1:])
