# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Instants of the monotonic clock as ROS time, and steps of the system clock."""

from __future__ import annotations

import math
import time

from builtin_interfaces.msg import Time
from rclpy.clock import Clock, ClockType, JumpThreshold, ROSClock
from rclpy.duration import Duration

from koch_core.clock import TickedClock, step_in_words
from koch_core.stream import NS_PER_S, stamp_ns

#: For timers that must go on when a simulated clock stands still.
STEADY_CLOCK = Clock(clock_type=ClockType.STEADY_TIME)


_STEP_S = 0.02  # NTP slews by 0.5 ms per second at most
_STEP_TOLD_S = 30.0


def ros_time(time_ns: int) -> Time:
    """Nanoseconds as a ROS time; the way back is `koch_core.stream.stamp_ns`."""
    return Time(sec=time_ns // NS_PER_S, nanosec=time_ns % NS_PER_S)


class ClockWatch:
    """Notices when someone sets the system clock, which stamps and trajectories go by."""

    def __init__(self) -> None:
        self._offset_s = _system_offset_s()
        self._step_s = 0.0
        self._stepped_s = -math.inf

    def now_s(self) -> float:
        """System time in [s], but as if no one had set the clock since the last look."""
        return 1e-9 * time.clock_gettime_ns(time.CLOCK_BOOTTIME) + self._offset_s

    def look(self) -> float:
        """How far the clock was stepped since the look before, in [s]; 0 when it was not."""
        before, self._offset_s = self._offset_s, _system_offset_s()
        step_s = self._offset_s - before
        if abs(step_s) < _STEP_S:
            return 0.0
        self._step_s, self._stepped_s = step_s, time.monotonic()
        return step_s

    def words(self) -> str:
        """The last step for people, for half a minute; empty otherwise."""
        if time.monotonic() - self._stepped_s > _STEP_TOLD_S:
            return ""
        return (
            f"{step_in_words(self._step_s)}: commands from before are too old or in the future, "
            "trajectories go on evenly; let NTP slew the clock, and step it at boot only"
        )


def _system_offset_s() -> float:
    """System time minus the clock that no one sets and that goes on while the computer sleeps."""
    return 1e-9 * (time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME))


class RosStamper:
    """Maps `time.monotonic_ns` instants of the recent past to ROS time.

    Under a simulated clock (`use_sim_time`) that is what the clock showed then, whatever its
    speed; it stands still when /clock does.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ticked = TickedClock()
        # Called at each message of /clock: rclpy has no other hook for it.
        threshold = JumpThreshold(
            min_forward=Duration(nanoseconds=1),
            min_backward=Duration(nanoseconds=-1),
            on_clock_change=True,
        )
        self._handle = clock.create_jump_callback(threshold, post_callback=self._on_tick)

    @property
    def simulated(self) -> bool:
        """Whether time is what /clock says."""
        return isinstance(self._clock, ROSClock) and bool(self._clock.ros_time_is_active)

    def now_s(self) -> float:
        """ROS time in [s]."""
        return self._at(time.monotonic_ns()) * 1e-9

    def stamp(self, monotonic_ns: int) -> Time:
        """ROS time of an instant."""
        return ros_time(max(0, self._at(monotonic_ns)))

    def of_wall_ns(self, wall_ns: int) -> int:
        """ROS time in [ns] of a `time.time_ns` instant of the recent past."""
        if not self.simulated:
            return wall_ns
        return self._ticked.at(time.monotonic_ns() - (time.time_ns() - wall_ns))

    def age_s(self, stamp: Time) -> float:
        """ROS time from a stamp to now in [s]; positive for the past.

        What is in the future under a fast clock is given in wall time: that is how far two
        processes can differ in hearing the same /clock.
        """
        now_ns = self._at(time.monotonic_ns())
        age_s = (now_ns - stamp_ns(stamp)) * 1e-9
        return age_s if age_s >= 0.0 else age_s / max(1.0, self._ticked.rate)

    def _at(self, monotonic_ns: int) -> int:
        if self.simulated:
            return self._ticked.at(monotonic_ns)
        return time.time_ns() - (time.monotonic_ns() - monotonic_ns)

    def _on_tick(self, _: object) -> None:
        self._ticked.tick(int(self._clock.now().nanoseconds), time.monotonic_ns())
