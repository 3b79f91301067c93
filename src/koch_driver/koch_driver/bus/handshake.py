# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Who is on the bus: the check at open()."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from koch_driver.bus.control_table import model_name
from koch_driver.bus.motor_bus import MotorBus
from koch_driver.errors import (
    BusTimeout,
    MissingMotors,
    NoStateRead,
    WrongModel,
    WrongPort,
)

if TYPE_CHECKING:
    from koch_driver.bus.motor_bus import BusConfig, PingReply

_PROBES = 2
_LAST_PROBES = 10  # of 30 ms at most: as patient as a register read
_ANSWER_ALL = 2


class FreshBus(MotorBus, Protocol):
    """A bus that has just been opened: nothing is known of its motors yet."""

    @property
    def config(self) -> BusConfig:
        """How it was opened."""

    def ping(self, motor_id: int) -> PingReply:
        """Ask one motor who it is."""

    def broadcast_ping(self) -> list[PingReply]:
        """Ask all who are there."""

    def probe_state_read(self, *, fast: bool) -> int:
        """How many motors answer a way of reading all at once."""


def check_chain(bus: FreshBus) -> tuple[int, ...]:
    """Ping every motor of the chain.

    Returns:
        Firmware versions in chain order.

    Raises:
        WrongPort: No motor answers at all.
        MissingMotors: Some do not answer.
        WrongModel: Some are another model.
    """
    replies: dict[int, PingReply] = {}
    for spec in bus.motors:
        try:
            replies[spec.id] = bus.ping(spec.id)
        except BusTimeout:
            continue
    if not replies:
        raise WrongPort(bus.port, _strangers(bus))
    missing = {m.id: m.joint for m in bus.motors if m.id not in replies}
    if missing:
        found = {m.id: m.joint for m in bus.motors if m.id in replies}
        raise MissingMotors(bus.port, missing, found, len(bus.motors))
    wrong = {
        f"{m.joint} (id {m.id})": (model_name(replies[m.id].model_number), m.model.name)
        for m in bus.motors
        if replies[m.id].model_number != m.model.number
    }
    if wrong:
        raise WrongModel(bus.port, wrong)
    return tuple(replies[m.id].firmware for m in bus.motors)


def _strangers(bus: FreshBus) -> str:
    """What else answers on the port, for the message."""
    others = bus.broadcast_ping()
    if not others:
        return f"no Dynamixel answers at {bus.config.baud} baud"
    named = ", ".join(f"{r.id} ({model_name(r.model_number)})" for r in others)
    return f"none of ids {', '.join(map(str, bus.ids))} answers, only {named}"


def make_talkative(bus: MotorBus) -> None:
    """Have every motor acknowledge writes, should one have been told not to (RAM, until reboot).

    Silent writes are indistinguishable from a broken cable.
    """
    try:
        levels = bus.read_all("Status_Return_Level").tolist()
    except BusTimeout:  # level 0: only pings are answered
        levels = []
    if levels != [_ANSWER_ALL] * len(bus.motors):
        bus.sync_write("Status_Return_Level", {m.joint: _ANSWER_ALL for m in bus.motors})


def choose_fast_read(bus: FreshBus) -> bool:
    """Whether to use Fast Sync Read: the firmware must have it, and it must work here.

    Raises:
        NoStateRead: The motors answer pings, but neither way of reading all at once.
    """
    wanted = bus.config.fast_read
    able = all(
        firmware >= spec.model.fast_read_firmware
        for firmware, spec in zip(bus.firmware, bus.motors, strict=True)
    )
    fast = able if wanted is None else wanted
    # A refusal shows as a retry with the classic instruction.
    if fast and any(bus.probe_state_read(fast=True) == len(bus.ids) for _ in range(_PROBES)):
        return True
    if not any(bus.probe_state_read(fast=False) for _ in range(_LAST_PROBES)):
        raise NoStateRead(bus.port, bus.refusals)
    return False
