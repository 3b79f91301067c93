# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""ros2_control for the Koch follower, with the guard still in the way of every command."""

from koch_ros2_control.description import (
    ACTIVE_CONTROLLERS,
    LOADED_CONTROLLERS,
    controllers_file,
    robot_description,
)

__all__ = ["ACTIVE_CONTROLLERS", "LOADED_CONTROLLERS", "controllers_file", "robot_description"]
