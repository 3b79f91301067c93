# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Reading the state block (current, velocity, position) of a chain in one transaction."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np

from koch_driver.packet import (
    ALERT_BIT,
    BROADCAST_ID,
    HEADER,
    Instruction,
    PacketParser,
    build,
    crc16,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

STATE_ADDRESS = 126  # Present_Current 2, Present_Velocity 4, Present_Position 4
STATE_LENGTH = 10
_STATUS_SIZE = 11 + STATE_LENGTH
_STATUS = struct.Struct("<4sBHBBhiiH")  # header, id, length, 0x55, error, data, CRC
_BLOCK = struct.Struct("<BBhiiH")  # error, id, data, CRC of all so far
_DATA = struct.Struct("<hii")
_FAST_HEAD = 8
_EMPTY_LENGTH = STATE_LENGTH + 4


class StateReader:
    """Collects the answers of a (fast) sync read, over several attempts if need be."""

    def __init__(self, ids: Sequence[int]) -> None:
        self._ids = tuple(ids)
        self._index = {motor_id: k for k, motor_id in enumerate(self._ids)}
        self._current = [0] * len(self._ids)
        self._velocity = [0] * len(self._ids)
        self._position = [0] * len(self._ids)
        self._wanting = set(self._ids)
        self._alerts: list[int] = []
        self._fast = False
        self._asked: tuple[int, ...] = self._ids
        self._chunk = b""
        self._packets: dict[tuple[tuple[int, ...], bool], bytes] = {}

    def forget(self) -> None:
        """Drop the last good values (the chain may be another one now)."""
        n = len(self._ids)
        self._current, self._velocity, self._position = [0] * n, [0] * n, [0] * n

    def begin(self) -> None:
        """Start a new cycle: every motor is wanted."""
        self._wanting = set(self._ids)
        self._alerts = []

    def request(self, ids: tuple[int, ...], *, fast: bool) -> tuple[bytes, int]:
        """Instruction packet for `ids`, and the length in bytes of the full answer."""
        self._fast = fast
        self._asked = ids
        self._chunk = b""
        packet = self._packets.get((ids, fast))
        if packet is None:
            instruction = Instruction.FAST_SYNC_READ if fast else Instruction.SYNC_READ
            head = struct.pack("<HH", STATE_ADDRESS, STATE_LENGTH)
            packet = build(BROADCAST_ID, instruction, head + bytes(ids))
            self._packets[ids, fast] = packet
        if fast:
            return packet, _FAST_HEAD + len(ids) * _BLOCK.size
        return packet, len(ids) * _STATUS_SIZE

    def missing(self) -> tuple[int, ...]:
        """Ids that have not answered in this cycle, in chain order."""
        return tuple(i for i in self._ids if i in self._wanting) if self._wanting else ()

    def alerts(self) -> tuple[int, ...]:
        """Ids whose answer carried the alert bit in this cycle."""
        return tuple(self._alerts)

    def arrays(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Position, velocity, current: newest values, int64, shape (J,) each, fresh copies."""
        return (
            np.array(self._position, dtype=np.int64),
            np.array(self._velocity, dtype=np.int64),
            np.array(self._current, dtype=np.int64),
        )

    def take(self, data: bytes, parser: PacketParser) -> bool:
        """Take received bytes.

        Args:
            data: What the port gave.
            parser: The bus's parser, for everything that is not the plain case.

        Returns:
            Whether every motor that was asked has answered.
        """
        if self._fast:
            return self._take_fast(data)
        n = len(self._asked)
        if len(data) == n * _STATUS_SIZE and not parser.pending and self._take_plain(data):
            return not self._wanting
        for packet in parser.feed(data):
            p = packet.parameters
            if len(p) == 1 + STATE_LENGTH and packet.id in self._wanting:
                self._store(packet.id, p[0], _DATA.unpack_from(p, 1))
        return not self._wanting

    def _take_plain(self, data: bytes) -> bool:
        """The usual case: all answers in one piece, no stuffing, no error; else nothing."""
        rows = list(_STATUS.iter_unpack(data))
        for k, row in enumerate(rows):
            if row[0] != HEADER or row[2] != _EMPTY_LENGTH or row[3] != Instruction.STATUS:
                return False
            begin = k * _STATUS_SIZE
            if row[1] != self._asked[k] or crc16(data[begin : begin + _STATUS_SIZE - 2]) != row[8]:
                return False
        for row in rows:
            self._store(row[1], row[4], row[5:8])
        return True

    def _take_fast(self, data: bytes) -> bool:
        """One packet for all motors: blocks, each closed by the CRC of everything before it."""
        chunk = self._chunk = self._chunk + data if self._chunk else data
        size = _FAST_HEAD + len(self._asked) * _BLOCK.size
        if len(chunk) < size:
            return False
        start = chunk.find(HEADER + b"\xfe")
        if start < 0 or len(chunk) - start < size:
            return False
        at = start + _FAST_HEAD
        crc, done = 0, start
        for motor_id in self._asked:
            error, got_id, current, velocity, position, expected = _BLOCK.unpack_from(chunk, at)
            at += _BLOCK.size
            crc = crc16(chunk[done : at - 2], crc)
            done = at - 2
            if crc != expected or got_id != motor_id:
                return False
            self._store(motor_id, error, (current, velocity, position))
        return True

    def _store(self, motor_id: int, error: int, values: tuple[int, ...]) -> None:
        if error & ~ALERT_BIT:
            return
        k = self._index[motor_id]
        self._current[k], self._velocity[k], self._position[k] = values
        self._wanting.discard(motor_id)
        if error & ALERT_BIT:
            self._alerts.append(motor_id)
