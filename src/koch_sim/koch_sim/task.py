# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The task: the rectangular block rests in the cup."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from koch_sim.scene import BLOCK_HALF_M, CUP_HEIGHT_M, CUP_RADIUS_M

TASK = "Pick up the rectangular block and put it into the cup."

#: Names of observation.environment_state, in order: [m], [m], [m], [rad], [m], [m], world frame.
ENVIRONMENT_NAMES = ("block_x", "block_y", "block_z", "block_yaw", "cup_x", "cup_y")

#: A block that moves slower than this rests, [m/s].
RESTING_SPEED = 0.02


@dataclass(frozen=True)
class TaskTruth:
    """Ground truth of one instant.

    Attributes:
        block_xyz_m: Centre of the block, world frame, [m].
        block_yaw_rad: Direction of its long side, folded into (-pi/2, pi/2] since the block looks
            the same turned by half a turn, [rad].
        block_speed: Speed of its centre, [m/s].
        cup_xyz_m: Centre of the cup's floor, world frame, [m].
        cup_up_z: z component of the cup's axis; 1 = upright.
        gripped: A finger pad touches the block.
    """

    block_xyz_m: np.ndarray
    block_yaw_rad: float
    block_speed: float
    cup_xyz_m: np.ndarray
    cup_up_z: float
    gripped: bool

    def environment_state(self) -> np.ndarray:
        """Return the values of ENVIRONMENT_NAMES, float64, shape (6,)."""
        return np.array([*self.block_xyz_m, self.block_yaw_rad, *self.cup_xyz_m[:2]])


def block_in_cup(truth: TaskTruth) -> bool:
    """Say whether the block lies within the upright cup's walls."""
    offset = truth.block_xyz_m - truth.cup_xyz_m
    inside = float(np.hypot(offset[0], offset[1])) < CUP_RADIUS_M
    below_rim = -0.005 < offset[2] < CUP_HEIGHT_M + BLOCK_HALF_M[1]
    return bool(inside and below_rim and truth.cup_up_z > 0.95)


def is_success(truth: TaskTruth) -> bool:
    """Say whether the block rests in the cup: inside, let go, and at rest."""
    return block_in_cup(truth) and not truth.gripped and truth.block_speed < RESTING_SPEED


def folded_yaw(matrix: np.ndarray) -> float:
    """Return the direction of a body's x axis about the vertical, folded into (-pi/2, pi/2]."""
    yaw = float(np.arctan2(matrix[1, 0], matrix[0, 0]))
    if yaw > np.pi / 2.0:
        return yaw - np.pi
    if yaw <= -np.pi / 2.0:
        return yaw + np.pi
    return yaw
