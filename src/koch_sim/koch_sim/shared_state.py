# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What physics and the servo processes tell each other, in memory that both map.

Servos on a real bus answer within microseconds whatever else the computer does. Emulated ones
must not wait for physics or rendering, so each chain runs in a process of its own and reads the
joints from here.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from koch_driver.bus.control_table import OperatingMode
from koch_driver.bus.motors import motors_for
from koch_driver.emulator import PhysicsState, ServoDrive

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from koch_rig.rig import Arm

#: Fields of a servo's drive in the shared block, in order.
_DRIVE_FIELDS = (
    "goal_position_rad", "goal_velocity", "goal_current_a", "goal_duty_fraction",
    "current_limit_a", "duty_limit_fraction", "stiffness", "damping", "velocity_gain",
)  # fmt: skip
_DRIVE_WIDTH = 2 + len(_DRIVE_FIELDS)


class SharedBlock:
    """A block of doubles whose writer counts: odd while it writes, so that readers look again."""

    def __init__(self, values: NDArray[np.float64]) -> None:
        self._values = values

    @property
    def sequence(self) -> float:
        """Number of the newest content; grows by two with each."""
        return float(self._values[0])

    def write(self, values: NDArray[np.float64]) -> None:
        """Replace the content; one writer only."""
        self._values[0] += 1.0
        self._values[1:] = values
        self._values[0] += 1.0

    def read(self) -> NDArray[np.float64]:
        """Return a copy of a whole content, never half of two."""
        while True:
            before = self._values[0]
            values = np.array(self._values[1:])
            if before == self._values[0] and before % 2.0 == 0.0:
                return values


class SharedArm:
    """The shared memory of one arm: states from physics, drives from the servos."""

    def __init__(self, path: Path, arm: Arm, *, create: bool) -> None:
        """Map the file.

        Args:
            path: The file; physics creates it, the servo process opens it.
            arm: Says which servos it has.
            create: Make it again.
        """
        self._models = [motor.model for motor in motors_for(arm.role, arm.model)]
        joints = len(self._models)
        state = 2 + 3 * joints  # sequence, simulated time, position, velocity, torque
        size = np.dtype(np.float64).itemsize * (state + 1 + _DRIVE_WIDTH * joints)
        if create:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes(size))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), size)
        values = np.frombuffer(self._map, dtype=np.float64)
        self._state = SharedBlock(values[:state])
        self._drives = SharedBlock(values[state:])  # sequence, drives
        self._known: tuple[ServoDrive, ...] = ()
        self._known_sequence = 0.0

    # -- physics' side ------------------------------------------------------------------------

    def publish(self, state: PhysicsState, time_s: float) -> None:
        """Tell the servos where their shafts are."""
        self._state.write(
            np.concatenate(([time_s], state.position_rad, state.velocity, state.torque_nm))
        )

    def drives(self) -> tuple[ServoDrive, ...]:
        """Return what the servos want; empty before their process runs."""
        sequence = self._drives.sequence
        if sequence != self._known_sequence:
            rows = self._drives.read().reshape(-1, _DRIVE_WIDTH).tolist()
            self._known = tuple(
                ServoDrive(model, row[0] != 0.0, OperatingMode(int(row[1])), *row[2:])
                for model, row in zip(self._models, rows, strict=True)
            )
            self._known_sequence = sequence
        return self._known

    # -- the servos' side: koch_driver.emulator.Physics ----------------------------------------

    def advance(self, dt_s: float, drives: Sequence[ServoDrive]) -> None:
        """Tell physics what the servos want; time passes there."""
        self._drives.write(
            np.array(
                [
                    (d.torque_enabled, int(d.mode), *(getattr(d, f) for f in _DRIVE_FIELDS))
                    for d in drives
                ],
                dtype=np.float64,
            ).ravel()
        )

    def state(self) -> PhysicsState:
        """Return where the shafts are."""
        values = self._state.read()[1:].tolist()
        n = len(self._models)
        return PhysicsState(values[:n], values[n : 2 * n], values[2 * n :])

    def time_s(self) -> float:
        """Return the simulated time of the newest state, [s]."""
        return float(self._state.read()[0])
