# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Settings and results of the bus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from koch_driver.serial_port import DEFAULT_BAUD

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


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
