# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Servos that have shut down: which, why, and their reboot."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from koch_driver.arm import align_turns
from koch_driver.control_table import HardwareError

if TYPE_CHECKING:
    from koch_driver.bus import DynamixelBus
    from koch_rig.calibration import MotorCalibration

_REBOOT_S = 0.6
#: Of a motor that has reported an error in a state answer, but not yet which.
UNKNOWN = "unknown"


def pending_errors(bus: DynamixelBus) -> dict[str, str]:
    """The joints whose servos have shut down, and what they say.

    Raises:
        BusError: A motor did not answer.
    """
    words = bus.read_all("Hardware_Error_Status").tolist()
    return {
        spec.joint: in_words(HardwareError(word))
        for spec, word in zip(bus.motors, words, strict=True)
        if word
    }


def reboot_motors(
    bus: DynamixelBus, joints: Collection[str], calibration: Mapping[str, MotorCalibration]
) -> None:
    """Reboot servos, wait for their firmware and find their turns again; their torque is off.

    Raises:
        BusError: A motor did not answer.
    """
    for joint in joints:
        bus.reboot(joint)
    time.sleep(_REBOOT_S)
    align_turns(bus, calibration)


def in_words(error: HardwareError) -> str:
    """What hardware errors are called, "overload" or "overload and overheating"."""
    return " and ".join(flag.name.lower() for flag in HardwareError if flag in error and flag.name)
