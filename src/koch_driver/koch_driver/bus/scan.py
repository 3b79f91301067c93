# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Finding motors on a port, and saying which arm they are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from koch_driver.bus.control_table import model_name, supply_doubt
from koch_driver.bus.dynamixel import DynamixelBus
from koch_driver.bus.motors import MotorSpec, motors_for
from koch_rig.arm_model import ARM_MODELS, ArmModel, Role

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from koch_driver.bus.motor_bus import PingReply

TARGET_BAUD = 1_000_000
# the rates that factory-fresh and set-up motors have come first
SCAN_ORDER = (1_000_000, 57_600, 115_200, 2_000_000, 9_600, 3_000_000, 4_000_000)


@dataclass(frozen=True)
class FoundMotor:
    """A motor that answered a broadcast ping."""

    baud: int
    reply: PingReply
    shared: bool = False  # several motors seem to have this id
    voltage_v: float = math.nan  # its supply, where it was asked

    @property
    def model(self) -> str:
        """Readable model name."""
        return model_name(self.reply.model_number)


def check_port(port: str) -> None:
    """Open a port and close it again, before a person is asked to do anything for it.

    Raises:
        BusError: It is absent, in use or not a serial port.
    """
    bus = DynamixelBus(port, ())
    bus.open_port()
    bus.close()


def scan(
    port: str,
    bauds: Sequence[int] = SCAN_ORDER,
    *,
    stop_at_first: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> list[FoundMotor]:
    """Broadcast ping at each baud rate.

    Args:
        port: The port.
        bauds: Rates to try, in order.
        stop_at_first: Do not go on after a rate at which someone answered.
        progress: Told each rate before it is tried.
    """
    found: list[FoundMotor] = []
    bus = DynamixelBus(port, ())
    bus.open_port()
    try:
        for baud in bauds:
            progress(baud)
            bus.set_baud(baud)
            replies = bus.broadcast_ping()
            found += [FoundMotor(baud, reply, bus.is_shared(reply.id)) for reply in replies]
            if found and stop_at_first:
                break
    finally:
        bus.close()
    return found


def conclude(found: Sequence[FoundMotor]) -> str:
    """What is on a bus, for a person: which arm, and what is wrong with it.

    Args:
        found: All motors of one port, at all baud rates.
    """
    if not found:
        return "nobody answers"
    role, model = max(_kinds(), key=lambda kind: _share(found, motors_for(*kind)))
    specs = motors_for(role, model)
    if _score(found, specs) < len(specs) // 2:
        return f"{len(found)} motor{'s' if len(found) > 1 else ''}"
    problems = _problems(found, specs)
    if not problems:
        return f"a {model.title} {role.value}, complete"
    return f"a {model.title} {role.value}, but not as it must be:\n    " + "\n    ".join(problems)


def is_whole(found: Sequence[FoundMotor]) -> bool:
    """Whether this is an arm to which nothing is missing."""
    return any(_share(found, motors_for(*kind)) == 1.0 for kind in _kinds())


def _kinds() -> list[tuple[Role, ArmModel]]:
    """What a chain may be, as far as arm models are loaded."""
    return [(role, model) for model in ARM_MODELS.loaded() for role in model.motors]


def _share(found: Sequence[FoundMotor], specs: Sequence[MotorSpec]) -> float:
    """Which part of a chain is there."""
    return _score(found, specs) / len(specs)


def _score(found: Sequence[FoundMotor], specs: Sequence[MotorSpec]) -> int:
    """How many motors of a chain are there, by id and model."""
    there = {(motor.reply.id, motor.reply.model_number) for motor in found}
    return sum((spec.id, spec.model.number) in there for spec in specs)


def _problems(found: Sequence[FoundMotor], specs: Sequence[MotorSpec]) -> list[str]:
    """What is wrong with a chain, as sentences."""
    ours = {motor.reply.id: motor for motor in found if motor.baud == TARGET_BAUD}
    wanted = {spec.id: spec for spec in specs}
    shared = [wanted[i] for i, motor in ours.items() if motor.shared and i in wanted]
    strangers = [
        motor for motor in found if motor.baud != TARGET_BAUD or motor.reply.id not in wanted
    ]
    problems = []
    for spec in specs:
        motor = ours.get(spec.id)
        if motor is None:
            problems.append(_missing(spec, strangers, shared))
        elif motor.reply.model_number != spec.model.number:
            problems.append(
                f"{spec.joint} (id {spec.id}) is an {motor.model}, not an {spec.model.name}"
            )
        elif doubt := supply_doubt(motor.voltage_v, spec.model.supply_v):
            problems.append(f"{spec.joint} (id {spec.id}): {doubt}")
    missing = [spec for spec in specs if spec.id not in ours]
    if not missing:
        problems += [
            f"several motors answer as id {spec.id} ({spec.joint}): take out the one too many"
            for spec in shared
        ]
        problems += [
            f"a motor too many: {motor.model}, id {motor.reply.id} at {motor.baud} baud"
            for motor in strangers
        ]
    return problems


def _missing(spec: MotorSpec, strangers: Sequence[FoundMotor], shared: Sequence[MotorSpec]) -> str:
    """Why a motor does not answer, as far as the others tell."""
    head = f"{spec.joint} (id {spec.id}) does not answer at {TARGET_BAUD} baud"
    do = f"connect it alone and run 'koch motors setup ARM --only {spec.joint}'"
    alike = [motor for motor in strangers if motor.reply.model_number == spec.model.number]
    for motor in sorted(alike, key=lambda motor: motor.reply.id != spec.id):
        if motor.reply.id == spec.id:
            return f"{head}, but at {motor.baud}: {do}"
        return f"{head}; an {motor.model} with id {motor.reply.id} at {motor.baud} may be it: {do}"
    for other in shared:
        if other.model is spec.model:
            return f"{head}, and two motors answer as id {other.id} ({other.joint}): {do}"
    return f"{head}: check the cable that leads to it and its power"
