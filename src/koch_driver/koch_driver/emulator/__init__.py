# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A byte-true emulator of Koch arms' servos on pseudo-terminals."""

from koch_driver.emulator.build import build_chain, build_servos
from koch_driver.emulator.chain import EmulatedChain, WireTiming
from koch_driver.emulator.faults import Faults
from koch_driver.emulator.physics import (
    ExternalPhysics,
    FirstOrderPhysics,
    Physics,
    PhysicsState,
    ServoDrive,
)
from koch_driver.emulator.servo import EmulatedServo
from koch_driver.emulator.shaft import ShaftFrame

__all__ = [
    "EmulatedChain",
    "EmulatedServo",
    "ExternalPhysics",
    "Faults",
    "FirstOrderPhysics",
    "Physics",
    "PhysicsState",
    "ServoDrive",
    "ShaftFrame",
    "WireTiming",
    "build_chain",
    "build_servos",
]
