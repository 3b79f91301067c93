# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The Dynamixel bus: one object owns one port and speaks to one chain of motors."""

from __future__ import annotations

import math
import struct
import time
from typing import TYPE_CHECKING

import numpy as np

from koch_driver.bus import handshake
from koch_driver.bus.control_table import MULTI_TURN_TICKS, XL330_M288, Register
from koch_driver.bus.link import BusLink
from koch_driver.bus.motor_bus import BusConfig, MotorState, PingReply
from koch_driver.bus.packet import BROADCAST_ID, Instruction, Packet, build
from koch_driver.bus.state_read import StateReader
from koch_driver.errors import BusTimeout, RegisterError
from koch_rig.arm_model import DEFAULT_BUS, MOTOR_BUSES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    from koch_driver.bus.motors import MotorSpec

# After so many failed cycles no question is asked in a cycle that begins while answers to old ones
# still come: who answers slower than we ask would fall behind without end, until an answer's
# length were that of a newer question again.
_QUEUE_CYCLES = 2
_POWER_ON_S = 0.5  # a servo is deaf for about this long after a reboot


class _GoalPacket:
    """Writes all goal positions at once; everything but goals and CRC is constant."""

    def __init__(self, ids: Sequence[int]) -> None:
        goal = XL330_M288.register("Goal_Position")  # at the same place in all models
        self._head = struct.pack("<HH", goal.address, goal.length)
        self._format = struct.Struct("<" + "Bi" * len(ids))
        self._ids = ids

    def of(self, ticks: Sequence[int]) -> bytes:
        """Sync write of Goal_Position."""
        values = [v for pair in zip(self._ids, ticks, strict=True) for v in pair]
        body = self._head + self._format.pack(*values)
        return build(BROADCAST_ID, Instruction.SYNC_WRITE, body)


@MOTOR_BUSES.register(DEFAULT_BUS)
class DynamixelBus(BusLink):
    """The `MotorBus` on our own packets. Owned by one thread; nothing here is thread safe."""

    def __init__(
        self, port: str, motors: Sequence[MotorSpec], config: BusConfig | None = None
    ) -> None:
        """Prepare; open() touches the hardware.

        Args:
            port: Path of the serial device.
            motors: The chain, in joint order, ids unique.
            config: Settings.
        """
        super().__init__(port, config)
        self.motors = tuple(motors)
        self.firmware: tuple[int, ...] = ()
        self.fast_read = False
        self._ids = tuple(m.id for m in self.motors)
        self._spec = {m.id: m for m in self.motors} | {m.joint: m for m in self.motors}
        self._failed_in_row = 0
        self._late_seen = 0
        self._turn_offsets = np.zeros(len(self.motors), dtype=np.int64)
        self._state = StateReader(self._ids)
        self._goal = _GoalPacket(self._ids)

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
            NoStateRead: It cannot be read in one transaction.
        """
        if self.is_open:
            return
        self.open_port()
        self._state.forget()
        try:
            self.firmware = handshake.check_chain(self)
            handshake.make_talkative(self)
            self.fast_read = handshake.choose_fast_read(self)
        except BaseException:
            self.close()
            raise

    # -- one motor ----------------------------------------------------------------------------

    def read(self, register: str, motor: str | int) -> int:
        """Read one register of one motor (joint name or id).

        Raises:
            RegisterError: No such register.
            BusTimeout, StatusError: No answer, or a refusal.
        """
        spec = self._find(motor)
        reg = spec.model.register(register)
        return reg.decode(self.read_block(spec.id, reg.address, reg.length))

    def read_block(
        self, motor_id: int, address: int, length: int, budget_s: float | None = None
    ) -> bytes:
        """Read `length` bytes from `address` of one motor, within a budget of its own if given."""
        what = f"read of {length} bytes at {address}, id {motor_id}"
        parameters = struct.pack("<HH", address, length)
        return self.request(motor_id, Instruction.READ, parameters, length, what, budget_s)

    def write(
        self, register: str, motor: str | int, value: int, budget_s: float | None = None
    ) -> None:
        """Write one register of one motor and wait for its acknowledgement.

        Args:
            register: Name of the register.
            motor: Joint name or id.
            value: What to write.
            budget_s: Time for all attempts; the configured one where absent.

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
        self.request(spec.id, Instruction.WRITE, parameters, 0, what, budget_s)

    def reboot(self, motor: str | int) -> None:
        """Restart one motor: clears its hardware error; torque comes back off.

        Multi-turn positions start again within one turn; the turn offset must be found again.
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

    # -- all motors ---------------------------------------------------------------------------

    def read_all(self, register: str) -> NDArray[np.int64]:
        """Read one register of every motor: one sync read, single reads for the missing.

        Returns:
            Values, int64, shape (J,).
        """
        first = self.motors[0].model.register(register)
        values: dict[int, int] = {}
        end = time.monotonic() + self.config.register_budget_s
        self._make_ready()
        n_bytes = 14 + len(self._ids) * (12 + first.length)
        deadline = self._deadline(n_bytes, end, self.config.max_allowance_s)
        for reply in self._ask_registers(first, deadline):
            if reply.id in self._spec and len(reply.parameters) == 1 + first.length:
                self._raise_refusal(reply.parameters[0], f"sync read of {register}")
                values[reply.id] = first.decode(reply.parameters[1:])
            if len(values) == len(self._ids):
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
        blocks = {}
        length = 0
        address = 0
        for joint, value in values.items():
            spec = self._find(joint)
            reg = spec.model.register(register)
            reg.check(int(value))
            address, length = reg.address, reg.length
            blocks[spec.id] = reg.encode(int(value))
        self._write_blocks(address, length, blocks)

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
        self._write_goals(wire)

    def sync_read_state(self, budget_s: float | None = None) -> MotorState:
        """Read current, velocity and position of every motor.

        Motors that do not answer are asked again until the budget is used up. Lost packets never
        raise; they show in `ok` and `missing`.

        Raises:
            PortLost: The device vanished.
            PortNotOpen: The bus is closed.
        """
        budget = self._cycle_budget_s() if budget_s is None else budget_s
        reader = self._state
        reader.begin()
        start_ns = time.monotonic_ns()
        quiet = not self._failed_in_row or not self._still_answering()
        retries = self._ask_all(start_ns * 1e-9 + budget) if quiet else 0
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

    @property
    def refusals(self) -> Mapping[int, int]:
        """Error codes of motors that refuse to tell their state, by id."""
        return self._state.refusals

    def probe_state_read(self, *, fast: bool) -> int:
        """Ask once for the state, without retries; how many motors answered."""
        self._state.begin()
        self._make_ready()
        n_bytes = self._ask_state(self._ids, fast=fast)
        self._collect(n_bytes, math.inf, self.config.max_allowance_s)
        return len(self._ids) - len(self._state.missing())

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

    def _write_blocks(self, address: int, length: int, blocks: Mapping[int, bytes]) -> None:
        """Send one sync write: `length` bytes from `address` of each motor, by id."""
        head = struct.pack("<HH", address, length)
        body = b"".join(bytes((motor_id,)) + block for motor_id, block in blocks.items())
        self._send(build(BROADCAST_ID, Instruction.SYNC_WRITE, head + body))

    def _write_goals(self, ticks: Sequence[int]) -> None:
        """Send the goal positions of all motors, in joint order."""
        self._send(self._goal.of(ticks))

    def _ask_registers(self, reg: Register, deadline: float) -> Iterator[Packet]:
        """Ask every motor for one register; what comes until the deadline."""
        parameters = struct.pack("<HH", reg.address, reg.length) + bytes(self._ids)
        return self._ask_one(BROADCAST_ID, Instruction.SYNC_READ, parameters, deadline)

    def _ask_state(self, ids: tuple[int, ...], *, fast: bool) -> int:
        """Send the state question; how many bytes it and its answers are."""
        packet, length = self._state.request(ids, fast=fast)
        self._port.send(packet)
        return len(packet) + length

    def _collect(self, n_bytes: int, end: float, patience_s: float = 0.0) -> None:
        """Take answers to a state question until all are there or the attempt's time is over."""
        deadline = self._deadline(n_bytes, end, patience_s)
        while True:
            data = self._port.receive(deadline)
            if data and self._state.take(data, self._parser):
                return
            if not data and time.monotonic() >= deadline:
                self._state.salvage()
                return

    def _ask_all(self, end: float) -> int:
        """Ask for the state until all motors have answered or the time is over; retries."""
        reader, ids, fast = self._state, self._ids, self.fast_read
        retries = late = 0
        self._make_ready()
        n_bytes = self._ask_state(ids, fast=fast)
        while True:
            self._collect(n_bytes, end)
            ids = reader.missing()
            if not ids:
                return retries
            self._count_timeout()
            reader.timed_out()
            if time.monotonic() + self._wire_s(60) >= end:
                return retries
            if reader.late > late:  # old answers still come: this one's turn is not yet
                late = reader.late
                continue
            retries += 1
            self.statistics.retries += 1
            # One lost packet is asked for again as it was; a lasting gap the classic way, which
            # tells who is missing.
            fast = fast and not self._failed_in_row and retries == 1 and ids == self._ids
            if not fast:  # a dead motor silences those after it: let it be the last
                ids = ids[1:] + ids[:1]
            n_bytes = self._ask_state(ids, fast=fast)

    def _cycle_budget_s(self) -> float:
        """The configured budget, or one attempt where the adapter is slower than that."""
        return max(self.config.cycle_budget_s, self._allowance_s + self._wire_s(150) + 0.001)

    def _book(self, missing: tuple[int, ...], duration_s: float, retries: int) -> None:
        stats = self.statistics
        stats.cycles += 1
        self._failed_in_row = self._failed_in_row + 1 if missing else 0
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
        else:
            self._late_seen = stats.late_packets
            if not retries:
                self._count_clean()

    def _still_answering(self) -> bool:
        """Whether answers to old questions have come since this was last asked, or waited for."""
        self._throw_away()
        before, self._late_seen = self._late_seen, self.statistics.late_packets
        return self._failed_in_row >= _QUEUE_CYCLES and self._late_seen > before


__all__ = ["BusConfig", "DynamixelBus", "MotorState", "PingReply"]
