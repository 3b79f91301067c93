# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Reading the state block (current, velocity, position) of a chain in one transaction.

Within one cycle it does not matter to which attempt an answer belongs: it was measured between the
cycle's first question and now. But an answer that comes after the end of its cycle must not pass
for the next one's: its values are older than the stamp would say. So the question changes its
length after a cycle with a time-out, and answers of another length are known to be late.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np

from koch_driver.bus.packet import (
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
_HEAD_SIZE = 8  # header, id, length, 0x55
_DATA = struct.Struct("<hii")


class _Layout:
    """Sizes and structs of the answers to a question for `length` bytes."""

    def __init__(self, length: int) -> None:
        pad = f"{length - STATE_LENGTH}x"
        self.length = length
        self.status = struct.Struct(f"<4sBHBBhii{pad}H")  # header, id, length, 0x55, error, CRC
        self.block = struct.Struct(f"<BBhii{pad}H")  # error, id, data, CRC of all so far
        self.length_field = length + 4

    def fast_head(self, motors: int) -> bytes:
        """Beginning of the fast read's answer."""
        return HEADER + struct.pack("<BH", BROADCAST_ID, 1 + motors * self.block.size)


_LAYOUTS = tuple(_Layout(STATE_LENGTH + extra) for extra in range(4))


class StateReader:
    """Collects the answers of a (fast) sync read, over several attempts if need be.

    Attributes:
        late: Answers seen that belonged to an earlier question.
        refusals: Error codes of motors that refused the question and have not answered since.
    """

    def __init__(self, ids: Sequence[int]) -> None:
        self._ids = tuple(ids)
        self._index = {motor_id: k for k, motor_id in enumerate(self._ids)}
        self.forget()
        self._wanting = set(self._ids)
        self._alerts: list[int] = []
        self._fast = False
        self._unanswered = False
        self._which = 0
        self._layout = _LAYOUTS[0]
        self._asked: tuple[int, ...] = self._ids
        self._chunk = b""
        self._packets: dict[tuple[tuple[int, ...], bool, int], bytes] = {}
        self._variable = True
        self.late = 0

    def forget(self) -> None:
        """Drop the last good values (the chain may be another one now)."""
        n = len(self._ids)
        self.refusals: dict[int, int] = {}
        self._current, self._velocity, self._position = [0] * n, [0] * n, [0] * n

    def begin(self) -> None:
        """Start a new cycle: every motor is wanted."""
        self._wanting = set(self._ids)
        self._alerts = []
        if self._unanswered:
            self._unanswered = False
            if self._variable:
                self._choose((self._which + 1) % len(_LAYOUTS))

    def _choose(self, which: int) -> None:
        self._which = which
        self._layout = _LAYOUTS[which]

    def timed_out(self) -> None:
        """Answers may still be on their way: the next cycle must not take them for its own."""
        self._unanswered = True

    def request(self, ids: tuple[int, ...], *, fast: bool) -> tuple[bytes, int]:
        """Instruction packet for `ids`, and the length in bytes of the full answer."""
        self._fast = fast
        self._asked = ids
        self._chunk = b""
        layout = self._layout
        key = (ids, fast, self._which)
        packet = self._packets.get(key)
        if packet is None:
            instruction = Instruction.FAST_SYNC_READ if fast else Instruction.SYNC_READ
            head = struct.pack("<HH", STATE_ADDRESS, layout.length)
            packet = build(BROADCAST_ID, instruction, head + bytes(ids))
            self._packets[key] = packet
        if fast:
            return packet, _HEAD_SIZE + len(ids) * layout.block.size
        return packet, len(ids) * layout.status.size

    @property
    def length(self) -> int:
        """Bytes that this cycle's question asks of each motor."""
        return self._layout.length

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
        plain = len(data) == len(self._asked) * self._layout.status.size
        if plain and not parser.pending and self._take_plain(data):
            return not self._wanting
        for packet in parser.feed(data):
            if packet.instruction == Instruction.STATUS:  # else an adapter echoes what is sent
                self.take_answer(packet.id, packet.parameters)
        return not self._wanting

    def take_answer(self, motor_id: int, parameters: bytes) -> None:
        """Take one status packet: error byte and data, without stuffing."""
        p = parameters
        if len(p) == 1 + self._layout.length:
            if motor_id in self._wanting:
                self._store(motor_id, p[0], _DATA.unpack_from(p, 1))
        elif motor_id == BROADCAST_ID and self._take_late_fast(p):
            return
        elif len(p) > STATE_LENGTH:
            self.late += 1
        elif p and p[0] & ~ALERT_BIT and motor_id in self._wanting:
            self._note_refusal(motor_id, p[0] & ~ALERT_BIT)

    def _note_refusal(self, motor_id: int, code: int) -> None:
        """A motor that reads whole registers only gets the plain question from now on."""
        if self._which:
            self._variable = False
            self._choose(0)
        else:
            self.refusals[motor_id] = code

    def _take_late_fast(self, parameters: bytes) -> bool:
        """The answer to this cycle's fast read, come while the missing are asked one by one."""
        size = self._layout.block.size
        if len(parameters) + 2 != len(self._ids) * size:
            return False
        for k, motor_id in enumerate(self._ids):
            if parameters[k * size + 1] == motor_id and motor_id in self._wanting:
                values = _DATA.unpack_from(parameters, k * size + 2)
                self._store(motor_id, parameters[k * size], values)
        return True

    def _take_plain(self, data: bytes) -> bool:
        """The usual case: all answers in one piece, no stuffing, no error; else nothing."""
        layout = self._layout
        size = layout.status.size
        rows = list(layout.status.iter_unpack(data))
        for k, row in enumerate(rows):
            if row[0] != HEADER or row[2] != layout.length_field or row[3] != Instruction.STATUS:
                return False
            begin = k * size
            if row[1] != self._asked[k] or crc16(data[begin : begin + size - 2]) != row[8]:
                return False
        for row in rows:
            self._store(row[1], row[4], row[5:8])
        return True

    def _take_fast(self, data: bytes) -> bool:
        """One packet for all motors; looked into once it is complete."""
        chunk = self._chunk = self._chunk + data if self._chunk else data
        size = _HEAD_SIZE + len(self._asked) * self._layout.block.size
        if len(chunk) < size:
            return False
        start = chunk.find(self._layout.fast_head(len(self._asked)))
        if start < 0 and chunk.startswith(HEADER):
            self.late += 1
            self._chunk = b""
        if start < 0 or len(chunk) - start < size:
            return False
        self._take_blocks(chunk, start)
        return not self._wanting

    def salvage(self) -> None:
        """At the end of an attempt: take what a torn fast answer still holds."""
        if self._fast and self._chunk:
            start = self._chunk.find(self._layout.fast_head(len(self._asked)))
            if start >= 0:
                self._take_blocks(self._chunk, start)

    def _take_blocks(self, chunk: bytes, start: int) -> None:
        """Blocks of a fast answer, each closed by the CRC of everything before it."""
        block = self._layout.block
        at = start + _HEAD_SIZE
        crc, done = 0, start
        for motor_id in self._asked:
            if at + block.size > len(chunk):
                return
            error, got_id, current, velocity, position, expected = block.unpack_from(chunk, at)
            at += block.size
            crc = crc16(chunk[done : at - 2], crc)
            done = at - 2
            if crc != expected or got_id != motor_id:
                return
            self._store(motor_id, error, (current, velocity, position))

    def _store(self, motor_id: int, error: int, values: tuple[int, ...]) -> None:
        if error & ~ALERT_BIT:
            return
        k = self._index[motor_id]
        self._current[k], self._velocity[k], self._position[k] = values
        self._wanting.discard(motor_id)
        if self.refusals:
            self.refusals.pop(motor_id, None)
        if error & ALERT_BIT:
            self._alerts.append(motor_id)
