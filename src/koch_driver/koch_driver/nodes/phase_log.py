# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What a driver writes to the log when its control loop does something else than before."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from koch_driver.arm.control_loop import LoopPhase
from koch_driver.nodes.arm_setup import ArmSetup

# A simulated world on a busy computer starts within so long; what keeps an arm away for longer is
# told as it is.
_PATIENCE_S = 10.0


class PhaseLog:
    """Logs the phases of a control loop; an emulated arm that is not there yet is no error.

    The drivers of a simulated rig start beside its world, whose servos come some seconds later:
    advice about USB cables would send a newcomer looking for one.

    Args:
        logger: The node's logger.
        setup: The arm and its rig.
        now_s: A monotonic clock in [s].
    """

    def __init__(
        self, logger: Any, setup: ArmSetup, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._logger = logger
        self._setup = setup
        self._now_s = now_s
        self._since_s: float | None = None  # since when an emulated arm is waited for
        self._untold = ""

    def note(self, phase: LoopPhase, reason: str) -> None:
        """Take what the loop does from now on, and why, where it is not running or closed."""
        name = self._setup.arm.name
        self._untold = ""
        if phase in (LoopPhase.RUNNING, LoopPhase.CLOSED):
            self._logger.info(f"{name}: {phase.value}")
        elif phase is LoopPhase.CONNECTING and self._patient():
            self._untold = reason
            self._logger.info(f"{name}: waiting for the emulated arm: {reason.partition('. ')[0]}")
        else:
            self._logger.error(f"{name}: {phase.value}: {reason}")

    def tick(self) -> None:
        """Say the whole reason of a wait that has become too long; call it now and then."""
        reason = self._untold
        if reason and not self._patient():
            self._untold = ""
            waited_s = self._now_s() - (self._since_s or 0.0)
            self._logger.error(
                f"{self._setup.arm.name}: no emulated arm for {waited_s:.0f} s: {reason}"
            )

    def _patient(self) -> bool:
        """Whether an arm that is not there may still be about to come."""
        if self._setup.rig.simulation is None:
            return False
        if self._since_s is None:
            self._since_s = self._now_s()
        return self._now_s() - self._since_s < _PATIENCE_S
