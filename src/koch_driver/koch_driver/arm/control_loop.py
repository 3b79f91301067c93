# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The thread that owns a bus: connects, keeps the schedule, and goes to a safe state on faults."""

from __future__ import annotations

import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol, TypeVar

from koch_core.errors import KochError
from koch_core.realtime import (
    BUS_THREAD,
    OFF,
    Realtime,
    request_realtime,
)
from koch_driver.arm.schedule import Schedule, ScheduleStatus
from koch_driver.errors import BusError, DriverError

if TYPE_CHECKING:
    from koch_driver.bus.motor_bus import MotorBus, MotorState

T = TypeVar("T")


class LoopPhase(Enum):
    """What a control loop is doing."""

    CONNECTING = "connecting"  # never connected yet
    RUNNING = "running"
    FAULT = "fault"  # was connected; no writes; trying again with back-off
    DEAD = "dead"  # a bug ended the thread
    CLOSED = "closed"


class NotConnected(DriverError):
    """A request needs the arm, which is not connected."""

    def __init__(self, arm: str, reason: str) -> None:
        super().__init__(f"{arm} is not connected: {reason or 'still connecting'}")


class RequestTimeout(DriverError):
    """The bus thread did not get round to a request in time."""

    def __init__(self, arm: str, timeout_s: float) -> None:
        super().__init__(f"{arm} did not answer a request within {timeout_s:.1f} s; try again")


LATE = "answers do come, but later than a cycle allows:"
LATE_ADVICE = (
    "set the USB adapter's latency timer to 1 ms (config/udev/99-koch.rules), or lower the arm's "
    "rate_hz in the rig"
)


class CommunicationFault(BusError):
    """Too many bad cycles in a row."""

    def __init__(self, bus: MotorBus, run: BadRun) -> None:
        motors = ", ".join(map(str, run.missing)) or "unknown"
        cause = (
            f"{bus.port}: {run.cycles} cycles in a row without a whole answer (motors {motors});"
        )
        do = "check the cables between the motors and the arm's power supply"
        if bus.refusals:
            codes = ", ".join(f"id {i}: error {code}" for i, code in bus.refusals.items())
            cause, do = f"{cause} they refuse the question for their state ({codes})", ""
        elif run.is_late(len(bus.ids)):
            cause, do = f"{cause} {LATE}", LATE_ADVICE
        super().__init__(cause, do)


class BadRun:
    """Bad cycles in a row: what they have in common, whatever happened before them.

    Attributes:
        cycles: How many.
        missing: Motors that are missing in all of them: a silent motor often silences those
            behind it, and only it is missing every time.
    """

    def __init__(self) -> None:
        self.cycles = 0
        self.missing: tuple[int, ...] = ()
        self._late: list[int] = []

    def add(self, missing: tuple[int, ...], late_packets: int) -> None:
        """Take a bad cycle and the count of late answers after it."""
        always = tuple(i for i in missing if not self.cycles or i in self.missing)
        self.missing = always or missing
        self.cycles += 1
        self._late.append(late_packets)

    @property
    def still_answering(self) -> bool:
        """Whether late answers came until the end.

        Those of questions from before a plug was pulled come in the first cycles only.
        """
        return self._late[-1] > self._late[(len(self._late) - 1) // 2]

    def is_late(self, motors: int) -> bool:
        """Whether a chain of so many motors answers, but too late.

        A slow adapter delays all motors; where some answer in time, the others are silent.
        """
        return self.still_answering and len(self.missing) == motors


class ArmController(Protocol):
    """What one kind of arm does on its bus. Called from the loop's thread only."""

    def connected(self, bus: MotorBus) -> None:
        """The bus is open and its drift is checked: configure the motors.

        Raises:
            BusError: The loop closes the bus and tries again.
        """

    def cycle(self, bus: MotorBus, state: MotorState) -> None:
        """One cycle, after the state was read; `state.ok` may be False."""

    def disconnected(self, reason: str) -> None:
        """The bus is gone: whatever was under way has failed."""

    def leave(self, bus: MotorBus) -> bool:
        """The loop is closing: called once per cycle until it returns True (done)."""


@dataclass(frozen=True)
class LoopConfig:
    """Settings of a control loop.

    Attributes:
        rate_hz: Bus cycles per second.
        bad_cycles: Cycles in a row without a whole answer that make a fault.
        first_retry_s: Wait before the first reconnection; doubles up to `last_retry_s`.
        last_retry_s: Longest wait between reconnections.
        leave_s: Time a controller has to leave the arm in its final state.
        realtime: Ask for real-time priority of the thread.
    """

    rate_hz: float
    bad_cycles: int = 5
    first_retry_s: float = 0.1
    last_retry_s: float = 2.0
    leave_s: float = 4.0
    realtime: bool = False

    @classmethod
    def at(cls, rate_hz: float) -> LoopConfig:
        """Settings at a rate: a fault is a quarter of a second without a whole answer.

        A shorter silence may be the computer's, busy with something else.
        """
        return cls(
            rate_hz=rate_hz,
            bad_cycles=max(5, round(0.25 * rate_hz)),
            realtime=True,
        )


@dataclass(frozen=True)
class LoopStatus:
    """Snapshot of a control loop.

    Attributes:
        phase: What it is doing.
        reason: Why it is not running, empty while it is.
        faults: Times the running arm was lost.
        bad_cycles: Cycles without a whole answer.
        missing: Motors that did not answer in all of the newest of these in a row, by id.
        late: Whether their answers came after all, but later than a cycle allows.
        bad_age_s: Time since that one, inf when there was none.
        realtime: Whether the thread runs with real-time priority, and if not, why.
        schedule: How the schedule was kept.
    """

    phase: LoopPhase
    reason: str
    faults: int
    bad_cycles: int
    missing: tuple[int, ...]
    late: bool
    bad_age_s: float
    realtime: Realtime
    schedule: ScheduleStatus


class ControlLoop:
    """Runs an `ArmController` at the bus rate in its own thread, which alone touches the bus.

    A connection that cannot be made, and one that is lost (the port vanished, or `bad_cycles`
    cycles in a row failed), is tried again with back-off for as long as the loop lives. Nothing is
    written while there is no connection. `close` is idempotent and ends the thread.
    """

    def __init__(
        self,
        name: str,
        connect: Callable[[], MotorBus],
        controller: ArmController,
        config: LoopConfig,
        *,
        report: Callable[[LoopPhase, str], None],
        words: Callable[[KochError], str] = str,
    ) -> None:
        """Prepare; `start` begins.

        Args:
            name: The arm's name, for messages.
            connect: Opens the bus; a KochError is a reason to try again.
            controller: What to do on it.
            config: Rates and times.
            report: Called on every change of phase or reason, from the loop's thread.
            words: Says an error to a person.
        """
        self.name = name
        self.config = config
        self._connect = connect
        self._controller = controller
        self._report = report
        self._words = words
        self._schedule = Schedule(1.0 / config.rate_hz)
        self._phase, self._reason = LoopPhase.CONNECTING, ""
        self._faults = 0
        self._bad_cycles = 0
        self._missing: tuple[int, ...] = ()
        self._late = False
        self._bad_s = float("-inf")
        self._realtime = OFF
        self._calls: deque[tuple[Callable[[MotorBus], object], Future[object]]] = deque()
        self._closing = threading.Event()
        self._leave_deadline_s = float("inf")
        self._thread = threading.Thread(target=self._run, name=f"bus-{name}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Let the controller leave the arm in its final state and end the thread."""
        if not self._closing.is_set():
            self._leave_deadline_s = time.monotonic() + self.config.leave_s
            self._closing.set()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(self.config.leave_s + 2.0)

    @property
    def phase(self) -> LoopPhase:
        """What it is doing."""
        return self._phase

    def status(self) -> LoopStatus:
        """Snapshot for diagnostics, from any thread."""
        return LoopStatus(
            self._phase,
            self._reason,
            self._faults,
            self._bad_cycles,
            self._missing,
            self._late,
            time.monotonic() - self._bad_s,
            self._realtime,
            self._schedule.status(),
        )

    def call(self, function: Callable[[MotorBus], T], timeout_s: float = 2.0) -> T:
        """Run a function with the bus in the loop's thread, between two cycles, and wait for it.

        What has not begun when this gives up is never run: the next connection may be hours later.

        Raises:
            NotConnected: There is no connection (now, or it got lost before the call).
            RequestTimeout: It did not run in time.
            KochError: What the function raised.
        """
        if self._phase is not LoopPhase.RUNNING:
            raise NotConnected(self.name, self._reason)
        future: Future[T] = Future()
        self._calls.append((function, future))  # type: ignore[arg-type]  # T is an object
        # The connection may have ended, and its calls with it, just before the line above.
        if self._phase is not LoopPhase.RUNNING and future.cancel():
            raise NotConnected(self.name, self._reason)
        try:
            return future.result(timeout_s)
        except FutureTimeout as exc:
            future.cancel()
            raise RequestTimeout(self.name, timeout_s) from exc

    def _set(self, phase: LoopPhase, reason: str = "") -> None:
        if (phase, reason) != (self._phase, self._reason):
            self._phase, self._reason = phase, reason
            self._report(phase, reason)

    def _run(self) -> None:
        try:
            if self.config.realtime:
                self._realtime = request_realtime(above=BUS_THREAD)
            retry_s = self.config.first_retry_s
            while not self._closing.is_set():
                began_s = time.monotonic()
                self._session()
                if time.monotonic() - began_s > 5.0:
                    retry_s = self.config.first_retry_s
                self._closing.wait(retry_s)
                retry_s = min(2.0 * retry_s, self.config.last_retry_s)
            self._set(LoopPhase.CLOSED)
        except Exception:  # top of the bus thread: callers hear it, and nothing is written
            self._controller.disconnected("internal error")
            self._set(LoopPhase.DEAD, traceback.format_exc())
            self._fail_calls()

    def _session(self) -> None:
        """Connect and run until the connection is lost or the loop closes."""
        try:
            bus = self._connect()
        except KochError as exc:
            phase = LoopPhase.FAULT if self._faults else LoopPhase.CONNECTING
            self._set(phase, self._words(exc))
            return
        try:
            self._controller.connected(bus)
            self._set(LoopPhase.RUNNING)
            self._serve(bus)
        except KochError as exc:
            self._faults += 1
            self._controller.disconnected(self._words(exc))
            self._set(LoopPhase.FAULT, self._words(exc))
        finally:
            bus.close()
            self._fail_calls()

    def _serve(self, bus: MotorBus) -> None:
        """Cycle until the controller has left. Raises BusError when the arm is lost."""
        run = BadRun()
        budget_s = 0.6 * self._schedule.period_s
        self._schedule.restart()
        while True:
            self._schedule.wait()
            state = bus.sync_read_state(budget_s)
            if state.ok:
                run = BadRun() if run.cycles else run
            else:
                run.add(state.missing, bus.statistics.late_packets)
                self._missing, self._late = run.missing, run.is_late(len(bus.ids))
                self._bad_cycles += 1
                self._bad_s = time.monotonic()
            if run.cycles >= self.config.bad_cycles:
                raise CommunicationFault(bus, run)
            self._controller.cycle(bus, state)
            self._run_calls(bus)
            if self._closing.is_set() and (
                self._controller.leave(bus) or time.monotonic() > self._leave_deadline_s
            ):
                return

    def _run_calls(self, bus: MotorBus) -> None:
        while self._calls:
            function, future = self._calls.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = function(bus)
            except KochError as exc:
                future.set_exception(exc)
                if isinstance(exc, BusError) and not bus.is_open:
                    raise
            else:
                future.set_result(result)

    def _fail_calls(self) -> None:
        while self._calls:
            _, future = self._calls.popleft()
            if future.set_running_or_notify_cancel():
                future.set_exception(NotConnected(self.name, self._reason))
