# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Errors blame cables where there are any: never on a simulated rig."""

from __future__ import annotations

import dataclasses
import re
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from koch_driver import errors
from koch_driver.arm.control_loop import BadRun, CommunicationFault
from koch_rig.rig import PhysicsKind, SimulationSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from koch_rig.rig import Rig

WIRING = re.compile(r"\bcables?\b|\bpower\b|\bUSB\b|\blatency\b|\bplug\b", re.IGNORECASE)
PORT = "/run/koch/arm"
MOTORS = {1: "shoulder_pan"}


def _fault(late: int) -> Exception:
    bus = SimpleNamespace(port=PORT, refusals={}, ids=(1, 2))
    run = BadRun()
    for cycle in range(25):
        run.add((1, 2), late * cycle)
    return CommunicationFault(bus, run)  # type: ignore[arg-type]


ERRORS: list[Callable[[], Exception]] = [
    lambda: errors.PortNotFound(PORT, []),
    lambda: errors.PortNotFound(PORT, ["/dev/ttyS0"]),
    lambda: errors.PortLost(PORT, "Input/output error"),
    lambda: errors.WrongPort(PORT, "nobody answers"),
    lambda: errors.MissingMotors(PORT, MOTORS, {}, 6),
    lambda: errors.BusTimeout(PORT, "ping", 0.01, 3),
    lambda: _fault(0),
    lambda: _fault(1),
]


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    return lambda load: monkeypatch.setattr("os.getloadavg", lambda: (load, load, load))


def rig_with(rig: Rig, physics: PhysicsKind | None) -> Rig:
    simulation = None if physics is None else SimulationSettings(physics)
    return dataclasses.replace(rig, simulation=simulation)


@pytest.mark.parametrize("make", ERRORS)
def test_wiring_is_blamed_where_there_is_any(
    make: Callable[[], Exception], rig: Rig, loads: Callable[[float], None]
) -> None:
    error = make()
    for load in (0.0, 1000.0):
        loads(load)
        assert errors.in_words(error, None) == str(error)
        assert errors.in_words(error, rig_with(rig, None)) == str(error)
        # Emulated servos have an emulated supply, bus and adapter, which fail when told to.
        emulated = errors.in_words(error, rig_with(rig, PhysicsKind.FIRST_ORDER))
        assert emulated.startswith(str(error).rstrip("."))
        assert WIRING.search(emulated)
        simulated = errors.in_words(error, rig_with(rig, PhysicsKind.MUJOCO))
        assert not WIRING.search(simulated), simulated
        assert "servos are simulated" in simulated
        for said in (emulated, simulated):
            assert ("load 1000.0" in said) == (load > 0.0)


def test_what_is_no_wiring_is_said_alike_everywhere(rig: Rig) -> None:
    error = errors.StatusError("/dev/ttyUSB7", "write of Goal_Position", 4, "out of range")
    for physics in (None, *PhysicsKind):
        assert errors.in_words(error, rig_with(rig, physics)) == str(error)
