# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Joint messages, and the instants of the monotonic clock as ROS time."""

from __future__ import annotations

import time
from array import array
from collections.abc import Sequence

from builtin_interfaces.msg import Time
from rclpy.clock import Clock, ROSClock
from sensor_msgs.msg import JointState

from koch_rig.joints import JOINT_NAMES


class RosStamper:
    """Maps `time.monotonic_ns` instants of the recent past to ROS time.

    With a simulated clock the short time between the instant and now is taken as it is, not
    scaled: it is a few milliseconds.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def now_s(self) -> float:
        """ROS time in [s]."""
        return self._now_ns() * 1e-9

    def stamp(self, monotonic_ns: int) -> Time:
        """ROS time of an instant."""
        ns = max(0, self._now_ns() - (time.monotonic_ns() - monotonic_ns))
        return Time(sec=ns // 1_000_000_000, nanosec=ns % 1_000_000_000)

    def age_s(self, stamp: Time) -> float:
        """Time from a stamp to now in [s]; positive for the past."""
        return (self._now_ns() - stamp.sec * 1_000_000_000 - stamp.nanosec) * 1e-9

    def _now_ns(self) -> int:
        clock = self._clock
        if isinstance(clock, ROSClock) and not clock.ros_time_is_active:
            return time.time_ns()  # what the ROS clock is then, at a tenth of the cost
        return int(clock.now().nanoseconds)


def joint_state(
    stamp: Time,
    positions: Sequence[float],
    velocities: Sequence[float] = (),
    efforts: Sequence[float] = (),
) -> JointState:
    """A message of all six joints: [rad], [rad/s] and, in `effort`, [A]."""
    message = JointState()
    message.header.stamp = stamp
    message.name = list(JOINT_NAMES)
    # array('d') spares rclpy the check of each element.
    message.position = array("d", positions)
    message.velocity = array("d", velocities)
    message.effort = array("d", efforts)
    return message
