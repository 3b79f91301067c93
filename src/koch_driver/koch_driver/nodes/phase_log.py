# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What a driver writes to the log when its control loop does something else than before."""

from __future__ import annotations

from typing import Any

from koch_driver.control_loop import Phase
from koch_driver.nodes.arm_setup import ArmSetup


def log_phase(logger: Any, setup: ArmSetup, phase: Phase, reason: str) -> None:
    """Log a phase of the control loop; an emulated arm that is not there yet is no error.

    The drivers of a simulated rig start beside its world, whose servos come some seconds later:
    advice about USB cables would send a newcomer looking for one.

    Args:
        logger: The node's logger.
        setup: The arm and its rig.
        phase: What the loop does from now on.
        reason: Why, where it is not running or closed.
    """
    name = setup.arm.name
    if phase in (Phase.RUNNING, Phase.CLOSED):
        logger.info(f"{name}: {phase.value}")
    elif phase is Phase.CONNECTING and setup.rig.simulation is not None:
        logger.info(f"{name}: waiting for the emulated arm: {reason.partition('. ')[0]}")
    else:
        logger.error(f"{name}: {phase.value}: {reason}")
