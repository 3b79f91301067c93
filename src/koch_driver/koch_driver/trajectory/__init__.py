# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Following a joint trajectory, and the motions that the driver begins by itself."""

from koch_driver.trajectory.trajectory import (
    Trajectory,
    TrajectoryError,
    TrajectoryPoint,
    check_trajectory,
)

__all__ = ["Trajectory", "TrajectoryError", "TrajectoryPoint", "check_trajectory"]
