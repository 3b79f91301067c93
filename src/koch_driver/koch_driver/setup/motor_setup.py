# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Giving a new motor its id and baud rate, and looking into its registers."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from koch_driver.bus import BusConfig, DynamixelBus
from koch_driver.bus.control_table import BAUD_RATES, MODELS_BY_NUMBER
from koch_driver.bus.motors import MotorSpec
from koch_driver.bus.scan import TARGET_BAUD, FoundMotor, scan
from koch_driver.errors import BusError, BusTimeout, MotorSetupError, RegisterError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

LOG = logging.getLogger(__name__)
_VOLTAGE = "Present_Input_Voltage"
_TARGET_CODE = next(code for code, baud in BAUD_RATES.items() if baud == TARGET_BAUD)


def set_up_motor(
    port: str, spec: MotorSpec, progress: Callable[[int], None] = lambda _: None
) -> FoundMotor:
    """Give the only motor on the bus its id and 1 Mbaud, as LeRobot's setup-motors does.

    Args:
        port: The port.
        spec: The motor that should be connected.
        progress: Told each baud rate before it is tried.

    Returns:
        The motor as it was found.

    Raises:
        MotorSetupError: No motor, several motors, or another model.
    """
    found = scan(port, stop_at_first=True, progress=progress)
    if len(found) != 1 or found[0].shared:
        names = ", ".join(f"id {f.reply.id} ({f.model})" for f in found) or "no motor"
        names = "several motors that share " * any(f.shared for f in found) + names
        raise MotorSetupError(port, names, f"exactly one motor, {spec.model.name} ({spec.joint})")
    motor = found[0]
    if motor.reply.model_number != spec.model.number:
        raise MotorSetupError(
            port, f"{motor.model} (id {motor.reply.id})", f"{spec.model.name} for {spec.joint}"
        )
    before = MotorSpec(motor.reply.id, spec.joint, spec.model)
    bus = DynamixelBus(port, (before,), BusConfig(baud=motor.baud))
    bus.open_port()
    try:
        bus.write("Torque_Enable", before.id, 0)
        if before.id != spec.id:
            bus.write("ID", before.id, spec.id)
    finally:
        bus.close()
    if motor.baud != TARGET_BAUD:
        _set_baud(port, spec, motor.baud)
    with DynamixelBus(port, (spec,)):  # must answer under its new id at 1 Mbaud
        return motor


def _set_baud(port: str, spec: MotorSpec, present: int) -> None:
    """Change the motor's rate; whether its answer still comes at the old one is not said."""
    bus = DynamixelBus(port, (spec,), BusConfig(baud=present, register_budget_s=0.05))
    bus.open_port()
    try:
        bus.write("Baud_Rate", spec.id, _TARGET_CODE)
    except BusTimeout:
        LOG.debug("no answer to the change of baud rate; the check at the new rate decides")
    finally:
        bus.close()


def with_supply(port: str, found: Iterable[FoundMotor]) -> list[FoundMotor]:
    """Ask the motors that were found for their supply; those that do not tell it keep NaN."""
    asked = []
    for motor in found:
        try:
            tenths = read_registers(port, motor, [_VOLTAGE])[_VOLTAGE]
            asked.append(replace(motor, voltage_v=tenths / 10.0))
        except BusError as error:  # a foreign model, or two motors of one id that speak at once
            LOG.debug("no supply of id %d: %s", motor.reply.id, error)
            asked.append(motor)
    return asked


def read_registers(port: str, found: FoundMotor, names: Sequence[str] = ()) -> dict[str, int]:
    """Registers of a motor by name; without names all but the indirect ones.

    Raises:
        RegisterError: The model is unknown.
    """
    model = MODELS_BY_NUMBER.get(found.reply.model_number)
    if model is None:
        raise RegisterError("model of the motor", found.model, "an XL330 or XL430-W250")
    spec = MotorSpec(found.reply.id, f"id {found.reply.id}", model)
    bus = DynamixelBus(port, (spec,), BusConfig(baud=found.baud))
    bus.open_port()
    try:
        plain = [name for name in model.table if not name.startswith("Indirect_")]
        return {name: bus.read(name, spec.id) for name in names or plain}
    finally:
        bus.close()
