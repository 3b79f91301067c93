# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A chain of emulated servos on a pseudo-terminal, run by one thread."""

from __future__ import annotations

import contextlib
import heapq
import math
import os
import select
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from koch_core.closing import Opening
from koch_driver.bus.packet import PacketParser
from koch_driver.emulator.faults import Faults
from koch_driver.emulator.physics import FirstOrderPhysics, Physics
from koch_driver.emulator.protocol import BusProtocol
from koch_driver.emulator.pty_port import PtyPort
from koch_driver.errors import EmulatorError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from koch_driver.bus.control_table import HardwareError
    from koch_driver.emulator.protocol import StatusReply
    from koch_driver.emulator.servo import EmulatedServo

_STEP_S = 0.01  # longest step of the servos' controllers
_SHORTEST_S = 0.0005  # a write right after a read sees the same instant
_CATCH_UP_S = 0.5  # more silence than that is not simulated
_IDLE_TICK_S = 0.02
_REST_TICK_S = 0.25  # no one speaks and no motor is on


@dataclass(frozen=True)
class WireTiming:
    """Time that bytes and the USB adapter take."""

    byte_time: bool = False  # 10 bits per byte at the line's baud rate, and return delays
    usb_latency_s: float = 0.0  # added to each answer: an FTDI adapter's timer is 1 .. 16 ms

    @staticmethod
    def off() -> WireTiming:
        """Answers at once."""
        return WireTiming()

    @staticmethod
    def real(usb_latency_s: float = 0.001) -> WireTiming:
        """Like an adapter with this latency timer."""
        return WireTiming(byte_time=True, usb_latency_s=usb_latency_s)


class EmulatedChain(Opening):
    """Servos on a bus behind a pty. One thread serves port and physics; all calls thread safe."""

    def __init__(
        self,
        servos: Sequence[EmulatedServo],
        physics: Physics,
        *,
        faults: Faults | None = None,
        wire: WireTiming | None = None,
        link_path: str | Path | None = None,
        joints: Sequence[str] = (),
        to_shaft: Callable[[int, float], float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make a chain; `open` starts it.

        Args:
            servos: In chain order.
            physics: What moves them.
            faults: Switches for faults.
            wire: Timing of the wire; off where absent.
            link_path: Stable path to the pty.
            joints: Names of the servos, for faults by name.
            to_shaft: Turns (index, joint angle) into a shaft angle for `hold`; identity if absent.
            clock: Seconds, for the servos' controllers and the physics.
        """
        self.servos = tuple(servos)
        self.physics = physics
        self.faults = faults or Faults()
        self.faults.attach(self)
        self.wire = wire or WireTiming.off()
        self._joints = tuple(joints)
        self._to_shaft = to_shaft or (lambda _, rad: rad)
        self._clock = clock
        self._lock = threading.RLock()
        self._port = PtyPort(Path(link_path) if link_path is not None else None)
        self._protocol = BusProtocol(self.servos, self._is_dead)
        self._parser = PacketParser(keep_bad_ids=True)
        self._powered = True
        self._thread: threading.Thread | None = None
        self._wake_r, self._wake_w = -1, -1
        self._stopping = False
        self._late: list[tuple[float, int, bytes]] = []
        self._late_count = 0
        self._now = 0.0
        self.packets = 0
        state = physics.state()
        for k, servo in enumerate(self.servos):
            servo.power_up(float(state.position_rad[k]))
            servo.measure(0.0, float(state.position_rad[k]), 0.0, 0.0)

    # -- life ---------------------------------------------------------------------------------

    def open(self) -> str:
        """Plug the port in and start serving.

        Returns:
            Path for clients: the link where there is one, else the pty.
        """
        with self._lock:
            if self._thread is not None:
                return self._port.client_path
            path = self._port.plug()
            self._wake_r, self._wake_w = os.pipe()
            os.set_blocking(self._wake_r, False)
            self._stopping = False
            self._now = self._clock()
            self._thread = threading.Thread(target=self._serve, name="servo-chain", daemon=True)
            self._thread.start()
            return path

    def close(self) -> None:
        """Stop the thread and take the port away. Idempotent."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._stopping = True
        self._wake()
        thread.join()
        with self._lock:
            self._port.unplug()
            for fd in (self._wake_r, self._wake_w):
                os.close(fd)
            self._wake_r = self._wake_w = -1

    @property
    def path(self) -> str:
        """Path for clients."""
        return self._port.client_path

    # -- looking in ---------------------------------------------------------------------------

    def servo(self, which: str | int) -> EmulatedServo:
        """A servo by joint name or id."""
        return self.servos[self._index(which)]

    def positions_ticks(self) -> NDArray[np.int64]:
        """Present_Position registers as of now, int64, shape (n,)."""
        with self._lock:
            self._advance()
            return np.array([s.get("Present_Position") for s in self.servos], dtype=np.int64)

    def read(self, which: str | int, register: str) -> int:
        """A register as of now."""
        with self._lock:
            self._advance()
            return self.servo(which).get(register)

    def refresh(self) -> None:
        """Let time pass up to now (a world with its own clock may call this after a step)."""
        with self._lock:
            self._advance()

    # -- faults (see Faults) ------------------------------------------------------------------

    def cut_power(self) -> None:
        """Servos go deaf and limp."""
        with self._lock:
            self._powered = False
            for servo in self.servos:
                servo.set("Torque_Enable", 0)

    def return_power(self) -> None:
        """Servos boot."""
        with self._lock:
            self._advance()
            for servo in self.servos:
                servo.power_up(servo.shaft_rad)
            self._powered = True

    def unplug(self) -> None:
        """The port vanishes."""
        with self._lock:
            self._port.unplug()
            self._parser.clear()
        self._wake()

    def replug(self) -> None:
        """The port comes back, as a new pty behind the same link."""
        with self._lock:
            self._port.plug()
        self._wake()

    def push(self, joint: str | int, torque_nm: float) -> None:
        """Load a shaft from outside."""
        with self._lock:
            self._advance()
            self._own_physics("push").push(self._index(joint), torque_nm)

    def hold(self, joint: str | int, joint_rad: float | None) -> None:
        """Lead a joint by hand."""
        index = self._index(joint)
        with self._lock:
            self._advance()
            target = None if joint_rad is None else self._to_shaft(index, joint_rad)
            self._own_physics("hold").hold(index, target)

    def trip(self, joint: str | int, error: HardwareError) -> None:
        """Raise a hardware error."""
        with self._lock:
            self.servo(joint).trip(error)

    def set_temperature(self, joint: str | int, celsius: float | None) -> None:
        """Force a temperature."""
        with self._lock:
            self.servo(joint).forced_temperature_c = celsius

    def set_voltage(self, volts: float | None) -> None:
        """Set the supply."""
        with self._lock:
            for servo in self.servos:
                servo.voltage_v = servo.model.supply_v if volts is None else volts

    # -- inside -------------------------------------------------------------------------------

    def _index(self, which: str | int) -> int:
        if isinstance(which, str) and which in self._joints:
            return self._joints.index(which)
        for k, servo in enumerate(self.servos):
            if servo.id == which:
                return k
        known = ", ".join(self._joints) or ", ".join(str(s.id) for s in self.servos)
        raise EmulatorError("motor", which, f"one of {known}")

    def _own_physics(self, what: str) -> FirstOrderPhysics:
        if not isinstance(self.physics, FirstOrderPhysics):
            raise EmulatorError(what, type(self.physics).__name__, "first-order physics")
        return self.physics

    def _is_dead(self, motor_id: int) -> bool:
        return not self._powered or self.faults.is_silent(motor_id)

    def _wake(self) -> None:
        if self._wake_w >= 0:
            with contextlib.suppress(BlockingIOError):
                os.write(self._wake_w, b"x")

    def _advance(self) -> None:
        """Bring servos and physics up to now."""
        now = self._clock()
        left = min(now - self._now, _CATCH_UP_S)
        if left < _SHORTEST_S:
            return
        self._now = now
        steps = math.ceil(left / _STEP_S)
        dt = left / steps
        for _ in range(steps):
            self.physics.advance(dt, [s.drive(dt) for s in self.servos])
            state = self.physics.state()
            rows = zip(
                self.servos, state.position_rad, state.velocity, state.torque_nm, strict=True
            )
            for servo, position, velocity, torque in rows:
                servo.measure(dt, position, velocity, torque)

    def _serve(self) -> None:
        while not self._stopping:
            with self._lock:
                fds = [self._wake_r] + ([self._port.fd] if self._port.plugged else [])
                wait = self._wait_s()
            try:
                ready, _, _ = select.select(fds, [], [], wait)
            except (OSError, ValueError):  # the port was unplugged between the two lines
                continue
            if self._wake_r in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_r, 64)
            with self._lock:
                if self._port.plugged and self._port.fd in ready:
                    self._answer()
                elif not ready:
                    self._advance()
                self._send_late()

    def _wait_s(self) -> float:
        moving = any(s.memory.data[64] or s.memory.data[122] for s in self.servos)
        wait = _IDLE_TICK_S if moving else _REST_TICK_S
        if self._late:
            wait = min(wait, max(0.0, self._late[0][0] - time.monotonic()))
        return wait

    def _answer(self) -> None:
        arrived = time.monotonic()
        packets = self._parser.feed(self._port.read())
        bad_ids = self._parser.take_bad_ids()
        if not packets and not bad_ids:
            return
        self._advance()
        code = self._port.baud_code()
        for packet in packets:
            self.packets += 1
            self._transmit(self._protocol.handle(packet, code), len(packet.parameters), arrived)
            if packet.instruction in _CHANGES_GOALS:
                self.physics.advance(0.0, [s.drive(0.0) for s in self.servos])
        for motor_id in bad_ids:
            self._transmit(self._protocol.refuse_crc(motor_id), 0, arrived)

    def _transmit(self, replies: list[StatusReply], asked_bytes: int, arrived: float) -> None:
        if not replies:
            return
        parts = self.faults.spoil([r.data for r in replies])
        prompt = b"".join(data for delay, data in parts if delay == 0.0)
        if self.wire != WireTiming():
            self._sleep_on_wire(replies, asked_bytes, arrived)
        if prompt:
            self._port.write(prompt)
        for delay, data in parts:
            if delay > 0.0:
                self._late_count += 1
                heapq.heappush(self._late, (time.monotonic() + delay, self._late_count, data))

    def _sleep_on_wire(self, replies: list[StatusReply], asked_bytes: int, arrived: float) -> None:
        """The line is half duplex: while bytes are on it, nothing else happens."""
        due = arrived + self.wire.usb_latency_s
        if self.wire.byte_time:
            count = 10 + asked_bytes + sum(len(r.data) for r in replies)
            due += count * 10.0 / _LINE_BAUD + sum(r.delay_s for r in replies)
        time.sleep(max(0.0, due - time.monotonic()))

    def _send_late(self) -> None:
        now = time.monotonic()
        while self._late and self._late[0][0] <= now:
            _, _, data = heapq.heappop(self._late)
            if self._port.plugged:
                self._port.write(data)


_LINE_BAUD = 1_000_000.0
_CHANGES_GOALS = frozenset((0x03, 0x05, 0x83, 0x93))  # write, action, sync write, bulk write
