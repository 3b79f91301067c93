# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""One instruction, one answer: packets, time-outs, retries and their statistics on one port."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from koch_core.closing import Opening
from koch_driver.bus.motor_bus import BusConfig, PingReply
from koch_driver.bus.packet import (
    ALERT_BIT,
    BROADCAST_ID,
    ERROR_HINTS,
    ErrorCode,
    Instruction,
    Packet,
    PacketParser,
    build,
)
from koch_driver.bus.serial_port import SerialPort, latency_timer_s
from koch_driver.bus.statistics import BusStatistics
from koch_driver.errors import BusTimeout, PortNotOpen, StatusError

if TYPE_CHECKING:
    from collections.abc import Iterator

_OWN_TIME_AND_PLACE = b"\x78\x00\x10\x00"  # 16 bytes at 120: Realtime_Tick to Present_Position
_SHARED_S = 0.1
_CLEAN_CYCLES = 1000  # after so many without a time-out the allowance shrinks again


class BusLink(Opening):
    """The protocol on one port, no matter what is behind it. Owned by one thread; not thread safe.

    The time-out of an attempt is the wire time plus an allowance for adapter and scheduler. The
    allowance starts small and grows when answers turn out to come late.
    """

    def __init__(self, port: str, config: BusConfig | None = None) -> None:
        self.config = config or BusConfig()
        self.statistics = BusStatistics()
        self.latency_timer_s: float | None = None  # of an FTDI adapter; 1 ms is the good value
        self._port = SerialPort(port, self.config.baud)
        self._parser = PacketParser()
        self._allowance_s = self.config.reply_allowance_s
        self._clean = 0
        self._last_timed_out = False

    @property
    def port(self) -> str:
        """Path of the port."""
        return self._port.path

    @property
    def is_open(self) -> bool:
        """Whether the port is open."""
        return self._port.is_open

    def open(self) -> None:
        """Open the port."""
        self.open_port()

    def open_port(self) -> None:
        """Open the port without looking for the chain (scanning, motor set-up)."""
        self._port.open()
        self.latency_timer_s = latency_timer_s(self.port)
        self._allowance_s = self.config.reply_allowance_s + (self.latency_timer_s or 0.0)
        self._parser.clear()

    def close(self) -> None:
        """Close the port. Torque stays as it is. Idempotent."""
        self._port.close()

    def set_baud(self, baud: int) -> None:
        """Change this side's baud rate."""
        self._port.set_baud(baud)

    def ping(self, motor_id: int, budget_s: float | None = None) -> PingReply:
        """Ask one motor for its model and firmware.

        Raises:
            BusTimeout: It does not answer.
        """
        budget = self.config.handshake_budget_s if budget_s is None else budget_s
        data = self.request(motor_id, Instruction.PING, b"", 3, f"ping of id {motor_id}", budget)
        return PingReply(motor_id, data[0] | data[1] << 8, data[2])

    def broadcast_ping(self, wait_s: float = 0.3) -> list[PingReply]:
        """Everyone on the bus, whatever the id. Takes the whole `wait_s`.

        The manual gives each id a time slot of its own; 253 slots take about 0.25 s.
        """
        replies = {}
        self._send(build(BROADCAST_ID, Instruction.PING))
        deadline = time.monotonic() + wait_s
        while time.monotonic() < deadline:
            for packet in self._parser.feed(self._port.receive(deadline)):
                p = packet.parameters
                if packet.instruction == Instruction.STATUS and len(p) == 4:
                    replies[packet.id] = PingReply(packet.id, p[1] | p[2] << 8, p[3])
        return sorted(replies.values(), key=lambda r: r.id)

    def is_shared(self, motor_id: int) -> bool:
        """Whether several motors seem to answer to one id.

        Their answers to a ping are alike and look like one. Asked for what differs between any two
        (their time, their position) they spoil each other's answers, every time.
        """
        before = self._parser.crc_errors + self.statistics.bad_packets + self._parser.bad_packets
        try:
            self.request(motor_id, Instruction.READ, _OWN_TIME_AND_PLACE, 16, "", _SHARED_S)
        except BusTimeout:
            after = self._parser.crc_errors + self._parser.bad_packets
            return after + self.statistics.bad_packets > before
        except StatusError:  # it reads whole registers only
            return False
        return False

    def request(
        self,
        motor_id: int,
        instruction: Instruction,
        parameters: bytes,
        length: int,
        what: str,
        budget_s: float | None = None,
    ) -> bytes:
        """One instruction, one answer, with retries inside the budget.

        Args:
            motor_id: Whom to ask.
            instruction: What to ask.
            parameters: Its parameters, without stuffing.
            length: Data bytes of the answer; answers of another length are not taken.
            what: For the error message.
            budget_s: Time for all attempts.

        Raises:
            BusTimeout: No valid answer in time.
            StatusError: The motor refused.
            PortLost: The device vanished.
        """
        budget = self.config.register_budget_s if budget_s is None else budget_s
        # Outside the control loop a late acknowledgement must not pass for the next one's.
        patience = min(budget / 4.0, self.config.max_allowance_s)
        end = time.monotonic() + budget
        attempts = 0
        while attempts == 0 or time.monotonic() < end:
            if attempts:
                self.statistics.retries += 1
            attempts += 1
            self._make_ready()
            deadline = self._deadline(len(parameters) + 21 + length, end, patience)
            for reply in self._ask_one(motor_id, instruction, parameters, deadline):
                answer = self._accept(reply, motor_id, length, what)
                if answer is not None:
                    return answer
            self._count_timeout()
        raise BusTimeout(self.port, what, budget, attempts)

    def _ask_one(
        self, motor_id: int, instruction: Instruction, parameters: bytes, deadline: float
    ) -> Iterator[Packet]:
        """Send an instruction; what comes until the deadline, as long as someone wants it."""
        self._port.send(build(motor_id, instruction, parameters))
        while True:
            data = self._port.receive(deadline)
            yield from self._parser.feed(data)
            if not data and time.monotonic() >= deadline:
                return

    def _send(self, packet: bytes) -> None:
        """Send after throwing away what is left of earlier answers."""
        self._make_ready()
        self._port.send(packet)

    def _make_ready(self) -> None:
        """Throw away what is left of earlier answers."""
        if not self._port.is_open:
            raise PortNotOpen(self.port)
        self._throw_away()

    def _throw_away(self) -> None:
        stale = self._port.drain()
        half = self._parser.clear()
        if stale or half:
            self._count_stale(stale)

    def _count_stale(self, stale: bytes) -> None:
        packets = PacketParser().feed(stale)
        late = sum(packet.instruction == Instruction.STATUS for packet in packets)
        if packets and not late:
            return  # an adapter that echoes what is sent
        if late and self._last_timed_out:
            self._count_late(late)
        else:
            self.statistics.bad_packets += 1

    def _count_late(self, packets: int) -> None:
        """The adapter is slower than the time-out: give it more time."""
        self.statistics.late_packets += packets
        self._allowance_s = min(self._allowance_s * 1.5, self.config.max_allowance_s)

    def _wire_s(self, n_bytes: int) -> float:
        return n_bytes * 10.0 / self._port.baud

    def _deadline(self, n_bytes: int, end: float, patience_s: float = 0.0) -> float:
        allowance = max(self._allowance_s, patience_s)
        return min(time.monotonic() + self._wire_s(n_bytes) + allowance, end)

    def _accept(self, reply: Packet, motor_id: int, length: int, what: str) -> bytes | None:
        """Data of the answer, or None for a packet that is not the one awaited."""
        p = reply.parameters
        if reply.instruction != Instruction.STATUS:
            return None  # an adapter that echoes what is sent
        if reply.id != motor_id or not p:
            self.statistics.bad_packets += 1
            return None
        self._last_timed_out = False
        self._raise_refusal(p[0], what)
        if len(p) - 1 != length:
            self.statistics.bad_packets += 1
            return None
        return p[1:]

    def _raise_refusal(self, error: int, what: str) -> None:
        code = error & ~ALERT_BIT
        if code:
            known = code in ErrorCode.__members__.values()
            hint = ERROR_HINTS[ErrorCode(code)] if known else "unknown code"
            raise StatusError(self.port, what, code, hint)

    def _count_timeout(self) -> None:
        self.statistics.timeouts += 1
        self._last_timed_out = True
        self._clean = 0

    def _count_clean(self) -> None:
        """A transaction without any trouble."""
        self._last_timed_out = False
        self._clean += 1
        if self._clean >= _CLEAN_CYCLES:  # the adapter recovered from a slow phase
            self._clean = 0
            floor = self.config.reply_allowance_s + (self.latency_timer_s or 0.0)
            self._allowance_s = max(floor, self._allowance_s * 0.8)
