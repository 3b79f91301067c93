# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The Dynamixel bus: one object owns one port and speaks to one chain of motors."""

from __future__ import annotations

import math
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from koch_driver import handshake
from koch_driver.control_table import MULTI_TURN_TICKS, Register
from koch_driver.errors import BusTimeout, PortNotOpen, RegisterError, StatusError
from koch_driver.packet import (
    ALERT_BIT,
    BROADCAST_ID,
    ERROR_HINTS,
    ErrorCode,
    Instruction,
    Packet,
    PacketParser,
    build,
)
from koch_driver.serial_port import DEFAULT_BAUD, SerialPort, latency_timer_s
from koch_driver.state_read import STATE_ADDRESS, STATE_LENGTH, StateReader
from koch_driver.statistics import BusStatistics

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from types import TracebackType

    from numpy.typing import ArrayLike, NDArray

    from koch_driver.motors import MotorSpec

_POWER_ON_S = 0.5  # a servo is deaf for about this long after a reboot


@dataclass(frozen=True)
class BusConfig:
    """Settings of a bus; durations in [s]."""

    baud: int = DEFAULT_BAUD
    # Beyond the wire time; an FTDI adapter's latency timer is added, late answers make it grow.
    reply_allowance_s: float = 0.0025
    max_allowance_s: float = 0.030
    cycle_budget_s: float = 0.010  # of one state read with its retries
    register_budget_s: float = 0.300  # of one register read or write with its retries
    handshake_budget_s: float = 0.120  # of one ping at open()
    fast_read: bool | None = None  # None: where every motor's firmware has it


@dataclass(frozen=True)
class PingReply:
    """Answer to a ping."""

    id: int
    model_number: int
    firmware: int


@dataclass(frozen=True, eq=False)
class MotorState:
    """State of the chain, from one transaction. Arrays are int64, shape (J,), read-only.

    While `ok` is false, the values of the motors in `missing` are the last good ones: fit for a
    log, not for control.
    """

    position_ticks: NDArray[np.int64]  # turn offsets added
    velocity_ticks: NDArray[np.int64]  # 0.229 rev/min
    current_ma: NDArray[np.int64]  # XL430 has no current sensor: load in 0.1 %
    stamp_ns: int  # time.time_ns() at the middle of the transaction
    monotonic_ns: int  # the same instant, time.monotonic_ns()
    duration_s: float
    ok: bool
    missing: tuple[int, ...]  # ids without an answer
    alerts: tuple[int, ...]  # ids that report a hardware error
    retries: int


class DynamixelBus:
    """A chain of motors on one port. Owned by one thread; nothing here is thread safe."""

    def __init__(
        self, port: str, motors: Sequence[MotorSpec], config: BusConfig | None = None
    ) -> None:
        """Prepare; open() touches the hardware.

        Args:
            port: Path of the serial device.
            motors: The chain, in joint order, ids unique.
            config: Settings.
        """
        self.motors = tuple(motors)
        self.config = config or BusConfig()
        self.statistics = BusStatistics()
        self.firmware: tuple[int, ...] = ()
        self.fast_read = False
        self.latency_timer_s: float | None = None  # of an FTDI adapter; 1 ms is the good value
        self._ids = tuple(m.id for m in self.motors)
        self._spec = {m.id: m for m in self.motors} | {m.joint: m for m in self.motors}
        self._port = SerialPort(port, self.config.baud)
        self._parser = PacketParser()
        self._allowance_s = self.config.reply_allowance_s
        self._clean = 0
        self._last_timed_out = False
        self._last_ok = True
        self._alert = False  # of the latest answer to a single instruction
        self._turn_offsets = np.zeros(len(self.motors), dtype=np.int64)
        self._state = StateReader(self._ids)
        self._goal = _GoalWriter(self._ids)

    # -- life ---------------------------------------------------------------------------------

    @property
    def port(self) -> str:
        """Path of the port."""
        return self._port.path

    @property
    def is_open(self) -> bool:
        """Whether the port is open."""
        return self._port.is_open

    @property
    def ids(self) -> tuple[int, ...]:
        """Ids of the chain, in joint order."""
        return self._ids

    def open(self) -> None:
        """Open the port and check who answers.

        Raises:
            PortNotFound, PortDenied, PortInUse: The port cannot be opened.
            WrongPort: Nothing on it speaks the protocol.
            MissingMotors, WrongModel: The chain is not the expected one.
        """
        if self.is_open:
            return
        self.open_port()
        try:
            self.firmware = handshake.check_chain(self)
            self.fast_read = handshake.choose_fast_read(self)
        except BaseException:
            self.close()
            raise

    def open_port(self) -> None:
        """Open the port without looking for the chain (scanning, motor set-up)."""
        self._port.open()
        self.latency_timer_s = latency_timer_s(self.port)
        self._allowance_s = self.config.reply_allowance_s + (self.latency_timer_s or 0.0)
        self._parser.clear()
        self._state.forget()

    def close(self) -> None:
        """Close the port. Torque stays as it is. Idempotent."""
        self._port.close()

    def set_baud(self, baud: int) -> None:
        """Change this side's baud rate."""
        self._port.set_baud(baud)

    def __enter__(self) -> DynamixelBus:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # -- one motor ----------------------------------------------------------------------------

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

    def read(self, register: str, motor: str | int) -> int:
        """Read one register of one motor (joint name or id).

        Raises:
            RegisterError: No such register.
            BusTimeout, StatusError: No answer, or a refusal.
        """
        spec = self._find(motor)
        reg = spec.model.register(register)
        return reg.decode(self.read_block(spec.id, reg.address, reg.length))

    def read_block(self, motor_id: int, address: int, length: int) -> bytes:
        """Read `length` bytes from `address` of one motor."""
        what = f"read of {length} bytes at {address}, id {motor_id}"
        parameters = struct.pack("<HH", address, length)
        return self.request(motor_id, Instruction.READ, parameters, length, what)

    def read_block_alert(
        self, motor_id: int, address: int, length: int, budget_s: float
    ) -> tuple[bytes, bool]:
        """Like read_block within its own budget; also whether the motor reports an error."""
        what = f"read of {length} bytes at {address}, id {motor_id}"
        parameters = struct.pack("<HH", address, length)
        data = self.request(motor_id, Instruction.READ, parameters, length, what, budget_s)
        return data, self._alert

    def write(self, register: str, motor: str | int, value: int) -> None:
        """Write one register of one motor and wait for its acknowledgement.

        Raises:
            RegisterError: No such register, read-only, or out of range.
            BusTimeout, StatusError: No answer, or a refusal (EEPROM is locked under torque).
        """
        spec = self._find(motor)
        reg = spec.model.register(register)
        value = int(value)
        reg.check(value)
        what = f"write of {register} = {value}, {spec.joint} (id {spec.id})"
        parameters = reg.address.to_bytes(2, "little") + reg.encode(value)
        self.request(spec.id, Instruction.WRITE, parameters, 0, what)

    def reboot(self, motor: str | int) -> None:
        """Restart one motor: clears its hardware error; torque comes back off.

        Multi-turn positions start anew within one turn; the turn offset must be found again.
        """
        spec = self._find(motor)
        self.request(spec.id, Instruction.REBOOT, b"", 0, f"reboot of id {spec.id}")
        deadline = time.monotonic() + _POWER_ON_S
        while True:
            try:
                self.ping(spec.id, budget_s=0.02)
            except BusTimeout:
                if time.monotonic() > deadline:
                    raise
            else:
                return

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
        packet = build(motor_id, instruction, parameters)
        # Outside the control loop a late acknowledgement must not pass for the next one's.
        patience = min(budget / 4.0, self.config.max_allowance_s)
        end = time.monotonic() + budget
        attempts = 0
        while attempts == 0 or time.monotonic() < end:
            if attempts:
                self.statistics.retries += 1
            attempts += 1
            self._send(packet)
            deadline = self._deadline(len(packet) + 11 + length, end, patience)
            while True:
                data = self._port.receive(deadline)
                for reply in self._parser.feed(data):
                    answer = self._accept(reply, motor_id, length, what)
                    if answer is not None:
                        return answer
                if not data and time.monotonic() >= deadline:
                    break
            self._count_timeout()
        raise BusTimeout(self.port, what, budget, attempts)

    # -- all motors ---------------------------------------------------------------------------

    def read_all(self, register: str) -> NDArray[np.int64]:
        """Read one register of every motor: one sync read, single reads for the missing.

        Returns:
            Values, int64, shape (J,).
        """
        first = self.motors[0].model.register(register)
        values: dict[int, int] = {}
        packet = self._sync_read_packet(first, self._ids)
        end = time.monotonic() + self.config.register_budget_s
        self._send(packet)
        n_bytes = len(packet) + len(self._ids) * (11 + first.length)
        deadline = self._deadline(n_bytes, end, self.config.max_allowance_s)
        while len(values) < len(self._ids):
            data = self._port.receive(deadline)
            for reply in self._parser.feed(data):
                if reply.id in self._spec and len(reply.parameters) == 1 + first.length:
                    self._raise_refusal(reply.parameters[0], f"sync read of {register}")
                    values[reply.id] = first.decode(reply.parameters[1:])
            if not data and time.monotonic() >= deadline:
                break
        for motor_id in self._ids:
            if motor_id not in values:
                self.statistics.retries += 1
                values[motor_id] = self.read(register, motor_id)
        return np.array([values[i] for i in self._ids], dtype=np.int64)

    def write_all(self, register: str, values: int | Iterable[int]) -> None:
        """Write one register of every motor, each acknowledged.

        Args:
            register: Name of the register.
            values: One value for all, or one per motor in joint order.
        """
        n = len(self.motors)
        each = [values] * n if isinstance(values, (int, np.integer)) else list(values)
        if len(each) != n:
            raise RegisterError(f"write of {register} to all", each, f"{n} values")
        for spec, value in zip(self.motors, each, strict=True):
            self.write(register, spec.id, value)

    def sync_write(self, register: str, values: Mapping[str, int]) -> None:
        """Write one register of some motors in one packet, unacknowledged."""
        body = b""
        length = 0
        address = 0
        for joint, value in values.items():
            spec = self._find(joint)
            reg = spec.model.register(register)
            reg.check(int(value))
            address, length = reg.address, reg.length
            body += bytes((spec.id,)) + reg.encode(int(value))
        head = struct.pack("<HH", address, length)
        self._send(build(BROADCAST_ID, Instruction.SYNC_WRITE, head + body))

    def sync_write_goal(self, ticks: ArrayLike) -> None:
        """Write Goal_Position of every motor in one packet, unacknowledged.

        Args:
            ticks: Goals, integers, shape (J,), in the same count as the state's positions.

        Raises:
            RegisterError: Wrong number of goals, or beyond the multi-turn range.
        """
        goals = np.asarray(ticks)
        if goals.shape != self._turn_offsets.shape or goals.dtype.kind not in "iu":
            raise RegisterError(
                "goal positions", f"shape {goals.shape} {goals.dtype}",
                f"integers, shape {self._turn_offsets.shape}",
            )  # fmt: skip
        wire = (goals - self._turn_offsets).tolist()
        if max(wire) > MULTI_TURN_TICKS or min(wire) < -MULTI_TURN_TICKS:
            raise RegisterError("goal positions", wire, f"within +-{MULTI_TURN_TICKS} ticks")
        self._send(self._goal.packet(wire))

    def sync_read_state(self, budget_s: float | None = None) -> MotorState:
        """Read current, velocity and position of every motor.

        Motors that do not answer are asked again until the budget is used up. Lost packets never
        raise; they show in `ok` and `missing`.

        Raises:
            PortLost: The device vanished.
            PortNotOpen: The bus is closed.
        """
        budget = self._cycle_budget_s() if budget_s is None else budget_s
        stats = self.statistics
        reader = self._state
        reader.begin()
        fast = self.fast_read
        ids = self._ids
        start_ns = time.monotonic_ns()
        end = start_ns * 1e-9 + budget
        retries = 0
        packet, length = reader.request(ids, fast=fast)
        self._send(packet)
        while True:
            self._collect(len(packet) + length, end)
            ids = reader.missing()
            if not ids:
                break
            self._count_timeout()
            reader.timed_out()
            if time.monotonic() + self._wire_s(60) >= end:
                break
            retries += 1
            stats.retries += 1
            # One lost packet is asked for again as it was; a lasting gap the classic way, which
            # tells who is missing.
            fast = fast and self._last_ok and retries == 1 and len(ids) == len(self._ids)
            if not fast:  # a dead motor silences those after it: let it be the last
                ids = ids[1:] + ids[:1]
            packet, length = reader.request(ids, fast=fast)
            self._port.send(packet)
        ids = reader.missing()
        now_ns = time.monotonic_ns()
        wall_ns = time.time_ns()
        middle_ns = (now_ns - start_ns) // 2
        duration_s = (now_ns - start_ns) * 1e-9
        self._book(ids, duration_s, retries)
        position, velocity, current = reader.arrays()
        position += self._turn_offsets
        for array in (position, velocity, current):
            array.setflags(write=False)
        return MotorState(
            position, velocity, current, wall_ns - middle_ns, now_ns - middle_ns, duration_s,
            not ids, ids, reader.alerts(), retries,
        )  # fmt: skip

    def probe_fast_read(self) -> bool:
        """Try one Fast Sync Read; whether every motor answered."""
        reader = self._state
        reader.begin()
        packet, length = reader.request(self._ids, fast=True)
        self._send(packet)
        deadline = self._deadline(len(packet) + length, math.inf, self.config.max_allowance_s)
        while reader.missing() and time.monotonic() < deadline:
            reader.take(self._port.receive(deadline), self._parser)
        return not reader.missing()

    def set_turn_offsets(self, ticks: ArrayLike) -> None:
        """Set what is added to each position read and taken off each goal written.

        A servo forgets its turns without power; `arm.connect_arm` finds the multiples of 4096.

        Args:
            ticks: Integers, shape (J,).
        """
        offsets = np.array(ticks, dtype=np.int64)
        if offsets.shape != self._turn_offsets.shape:
            raise RegisterError("turn offsets", offsets.shape, f"shape {self._turn_offsets.shape}")
        self._turn_offsets = offsets

    # -- inside -------------------------------------------------------------------------------

    def _find(self, motor: str | int) -> MotorSpec:
        try:
            return self._spec[motor]
        except KeyError as exc:
            names = ", ".join(f"{m.joint} ({m.id})" for m in self.motors)
            raise RegisterError("motor of this bus", motor, f"one of {names}") from exc

    def _send(self, packet: bytes) -> None:
        """Send after throwing away what is left of earlier answers."""
        if not self._port.is_open:
            raise PortNotOpen(self.port)
        stale = self._port.drain()
        half = self._parser.clear()
        if stale or half:
            self._count_stale(stale)
        self._port.send(packet)

    def _count_stale(self, stale: bytes) -> None:
        late = len(PacketParser().feed(stale)) if self._last_timed_out else 0
        if late:
            self._count_late(late)
        else:
            self.statistics.bad_packets += 1

    def _count_late(self, packets: int) -> None:
        """The adapter is slower than the time-out: give it more time."""
        self.statistics.late_packets += packets
        self._allowance_s = min(self._allowance_s * 1.5, self.config.max_allowance_s)

    def _sync_read_packet(self, reg: Register, ids: Sequence[int]) -> bytes:
        parameters = struct.pack("<HH", reg.address, reg.length) + bytes(ids)
        return build(BROADCAST_ID, Instruction.SYNC_READ, parameters)

    def _wire_s(self, n_bytes: int) -> float:
        return n_bytes * 10.0 / self._port.baud

    def _collect(self, n_bytes: int, end: float) -> None:
        """Take answers to a state question until all are there or the attempt's time is over."""
        deadline = self._deadline(n_bytes, end)
        while True:
            data = self._port.receive(deadline)
            if data and self._state.take(data, self._parser):
                return
            if not data and time.monotonic() >= deadline:
                self._state.salvage()
                return

    def _cycle_budget_s(self) -> float:
        """The configured budget, or one attempt where the adapter is slower than that."""
        return max(self.config.cycle_budget_s, self._allowance_s + self._wire_s(150) + 0.001)

    def _deadline(self, n_bytes: int, end: float, patience_s: float = 0.0) -> float:
        allowance = max(self._allowance_s, patience_s)
        return min(time.monotonic() + self._wire_s(n_bytes) + allowance, end)

    def _accept(self, reply: Packet, motor_id: int, length: int, what: str) -> bytes | None:
        """Data of the answer, or None for a packet that is not the one awaited."""
        p = reply.parameters
        if reply.id != motor_id or reply.instruction != Instruction.STATUS or not p:
            self.statistics.bad_packets += 1
            return None
        self._last_timed_out = False
        self._raise_refusal(p[0], what)
        self._alert = bool(p[0] & ALERT_BIT)
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

    def _book(self, missing: tuple[int, ...], duration_s: float, retries: int) -> None:
        stats = self.statistics
        stats.cycles += 1
        self._last_ok = not missing
        stats.latency.add(duration_s)
        if self._state.late:
            self._count_late(self._state.late)
            self._state.late = 0
        parser = self._parser
        stats.crc_errors += parser.crc_errors
        stats.bad_packets += parser.bad_packets
        parser.crc_errors = parser.bad_packets = 0
        if missing:
            stats.failed_cycles += 1
            for i in missing:
                stats.per_motor_missing[i] = stats.per_motor_missing.get(i, 0) + 1
        elif not retries:
            self._last_timed_out = False
            self._clean += 1
            if self._clean >= 1000:  # the adapter recovered from a slow phase
                self._clean = 0
                floor = self.config.reply_allowance_s + (self.latency_timer_s or 0.0)
                self._allowance_s = max(floor, self._allowance_s * 0.8)


class _GoalWriter:
    """Builds the goal packet: everything but goals and CRC is constant."""

    def __init__(self, ids: Sequence[int]) -> None:
        reg_address, reg_length = 116, 4
        self._head = struct.pack("<HH", reg_address, reg_length)
        self._format = struct.Struct("<" + "Bi" * len(ids))
        self._ids = ids

    def packet(self, ticks: Sequence[int]) -> bytes:
        """Sync write of Goal_Position."""
        values = [v for pair in zip(self._ids, ticks, strict=True) for v in pair]
        body = self._head + self._format.pack(*values)
        return build(BROADCAST_ID, Instruction.SYNC_WRITE, body)


__all__ = [
    "STATE_ADDRESS",
    "STATE_LENGTH",
    "BusConfig",
    "DynamixelBus",
    "MotorState",
    "PingReply",
]
