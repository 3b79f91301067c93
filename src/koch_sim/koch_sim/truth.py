# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Ground truth: where the things on the table are, and which of them a finger touches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

#: Names of observation.environment_state, in order: [m], [m], [m], [rad], [m], [m], world frame.
#: The block is the thing that the goal moves, the cup the place that it moves it to.
ENVIRONMENT_NAMES = ("block_x", "block_y", "block_z", "block_yaw", "cup_x", "cup_y")


@dataclass(frozen=True, eq=False)
class Pose:
    """One thing at one instant.

    Attributes:
        xyz_m: Its origin, world frame, [m]: a block's centre, the centre of a cup's floor.
        yaw_rad: Direction of its x axis about the vertical, folded into (-pi/2, pi/2] since a
            block looks the same turned by half a turn, [rad].
        up_z: z component of its own z axis; 1 = upright.
        speed: Of its origin, [m/s].
    """

    xyz_m: np.ndarray
    yaw_rad: float = 0.0
    up_z: float = 1.0
    speed: float = 0.0


@dataclass(frozen=True, eq=False)
class TableTruth:
    """Everything on the table at one instant.

    Attributes:
        things: Poses by name.
        touched: Names of the things that a finger touches.
    """

    things: Mapping[str, Pose]
    touched: frozenset[str] = frozenset()

    def environment_state(self, thing: str, place: str) -> np.ndarray:
        """Return the values of ENVIRONMENT_NAMES for a goal's thing and place, float64 (6,)."""
        moved, goal = self.things[thing], self.things[place]
        return np.array([*moved.xyz_m, moved.yaw_rad, *goal.xyz_m[:2]])


def folded_yaw(matrix: np.ndarray) -> float:
    """Return the direction of a body's x axis about the vertical, folded into (-pi/2, pi/2]."""
    yaw = float(np.arctan2(matrix[1, 0], matrix[0, 0]))
    if yaw > np.pi / 2.0:
        return yaw - np.pi
    if yaw <= -np.pi / 2.0:
        return yaw + np.pi
    return yaw
