# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What a bus of motors is: the protocol, its settings and its results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from koch_driver.bus.serial_port import DEFAULT_BAUD

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    from koch_driver.bus.motors import MotorSpec
    from koch_driver.bus.statistics import BusStatistics


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


class MotorBus(Protocol):
    """A chain of motors; one thread owns it.

    What controls, calibrates and watches an arm asks for this; `DynamixelBus` and `SdkBus` fulfil
    it. Motors are named by joint or id. Errors are leaves of `koch_driver.errors.BusError`.
    """

    @property
    def port(self) -> str:
        """Path of the device."""
        ...

    @property
    def motors(self) -> tuple[MotorSpec, ...]:
        """The chain, in joint order."""
        ...

    @property
    def ids(self) -> tuple[int, ...]:
        """Ids of the chain, in joint order."""
        ...

    @property
    def firmware(self) -> tuple[int, ...]:
        """Firmware versions, in joint order; empty before it was opened."""
        ...

    @property
    def is_open(self) -> bool:
        """Whether it can be spoken to."""
        ...

    @property
    def refusals(self) -> Mapping[int, int]:
        """Error codes of motors that refuse to tell their state, by id."""
        ...

    @property
    def statistics(self) -> BusStatistics:
        """What happened on it."""
        ...

    def open(self) -> None:
        """Open the port and check that the motors are the expected ones."""
        ...

    def close(self) -> None:
        """Give the port back; harmless when called twice."""
        ...

    def __enter__(self) -> MotorBus: ...

    def __exit__(self, *_: object) -> None: ...

    def read(self, register: str, motor: str | int) -> int:
        """One register of one motor; raises where it does not answer or refuses."""
        ...

    def read_block(
        self, motor_id: int, address: int, length: int, budget_s: float | None = None
    ) -> bytes:
        """`length` bytes from `address` of one motor."""
        ...

    def write(
        self, register: str, motor: str | int, value: int, budget_s: float | None = None
    ) -> None:
        """Write one register of one motor and wait for its acknowledgement."""
        ...

    def reboot(self, motor: str | int) -> None:
        """Restart one motor; its torque comes back off."""
        ...

    def read_all(self, register: str) -> NDArray[np.int64]:
        """One register of every motor, int64, shape (J,)."""
        ...

    def write_all(self, register: str, values: int | Iterable[int]) -> None:
        """Write one register of every motor, each acknowledged."""
        ...

    def sync_write(self, register: str, values: Mapping[str, int]) -> None:
        """Write one register of some motors at once, unacknowledged."""
        ...

    def sync_write_goal(self, ticks: ArrayLike) -> None:
        """Write Goal_Position of every motor at once, unacknowledged, turn offsets taken off."""
        ...

    def sync_read_state(self, budget_s: float | None = None) -> MotorState:
        """Position, velocity and current of every motor; lost packets show in the result."""
        ...

    def set_turn_offsets(self, ticks: ArrayLike) -> None:
        """Set what is added to each position read and taken off each goal written."""
        ...
