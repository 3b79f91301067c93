# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Errors blame cables where there are any: never on a simulated rig."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from koch_driver import errors
from koch_driver.control_loop import BadRun, CommunicationFault

if TYPE_CHECKING:
    from collections.abc import Callable

    from koch_driver.emulator import EmulatedChain

WIRING = re.compile(r"\bcables?\b|\bpower\b|\bUSB\b|\blatency\b|\bplug\b", re.IGNORECASE)
MOTORS = {1: "shoulder_pan"}


def _fault(port: str, late: int) -> Exception:
    bus = SimpleNamespace(port=port, refusals={})
    run = BadRun()
    for cycle in range(25):
        run.add((1, 2), late * cycle)
    return CommunicationFault(bus, run)  # type: ignore[arg-type]


ERRORS: list[Callable[[str], Exception]] = [
    lambda port: errors.PortNotFound(port, []),
    lambda port: errors.PortNotFound(port, ["/dev/ttyS0"]),
    lambda port: errors.PortLost(port, "Input/output error"),
    lambda port: errors.WrongPort(port, "nobody answers"),
    lambda port: errors.MissingMotors(port, MOTORS, {}, 6),
    lambda port: errors.BusTimeout(port, "ping", 0.01, 3),
    lambda port: _fault(port, 0),
    lambda port: _fault(port, 1),
]


@pytest.mark.parametrize("make", ERRORS)
def test_wiring_is_blamed_on_real_ports_only(
    make: Callable[[str], Exception], chain: EmulatedChain
) -> None:
    for port in ("/dev/ttyUSB7", "/dev/serial/by-id/usb-FTDI_U2D2-port0"):
        assert WIRING.search(str(make(port))), port
    for port in (chain.path, "/tmp/koch/follower"):  # the second one's emulator has gone
        said = str(make(port))
        assert not WIRING.search(said), said
        assert "emulated" in said
