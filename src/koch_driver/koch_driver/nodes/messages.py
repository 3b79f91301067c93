# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Joint messages."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from builtin_interfaces.msg import Time
from sensor_msgs.msg import JointState


def joint_state(
    stamp: Time,
    names: Sequence[str],
    positions: Sequence[float],
    velocities: Sequence[float] = (),
    efforts: Sequence[float] = (),
) -> JointState:
    """A message of an arm's joints: [rad], [rad/s] and, in `effort`, [A]."""
    message = JointState()
    message.header.stamp = stamp
    message.name = list(names)
    # array('d') spares rclpy the check of each element.
    message.position = array("d", positions)
    message.velocity = array("d", velocities)
    message.effort = array("d", efforts)
    return message
