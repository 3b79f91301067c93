# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""From acquisition times to ROS header stamps, and the gate that keeps old images out."""

from __future__ import annotations

from dataclasses import dataclass

from koch_cameras.frame import CameraFrame, TimeBase

_OTHER_EPOCH_NS = 86_400 * 1_000_000_000
"""A server clock that is a day off counts from another epoch (mjpg-streamer sends the uptime)."""

_CLOCK_JUMP_NS = 1_000_000_000
"""ROS time that falls back behind the last stamp by more is a restarted clock, not jitter."""


@dataclass(frozen=True)
class Stamp:
    """A header stamp in ROS time [ns] and whether the server's clock was of no use."""

    ros_ns: int
    foreign_clock: bool = False


def ros_stamp(
    frame: CameraFrame, *, arrival_ns: int, monotonic_ns: int, ros_now_ns: int, sim_time: bool
) -> Stamp:
    """Map a frame's acquisition time to ROS time.

    A monotonic time is carried over by its age, so that a step of the system clock moves the
    images after it and no others. A server's time is passed through: it counts on the same clock
    as ours (Unix, or simulation time). If ours is the system clock and the server's is more than
    a day off, the server counts from another epoch and the arrival is taken instead.

    Args:
        frame: The image.
        arrival_ns: When it was handed over, CLOCK_MONOTONIC [ns].
        monotonic_ns: CLOCK_MONOTONIC now [ns].
        ros_now_ns: ROS time now [ns].
        sim_time: ROS time is the simulation's.
    """
    if frame.time_base is TimeBase.MONOTONIC:
        return Stamp(ros_now_ns - (monotonic_ns - frame.time_ns))
    if not sim_time and abs(frame.time_ns - ros_now_ns) > _OTHER_EPOCH_NS:
        return Stamp(ros_now_ns - (monotonic_ns - arrival_ns), foreign_clock=True)
    return Stamp(frame.time_ns)


class FrameGate:
    """Lets an image pass only if it is newer than every one before.

    Servers send the image they hold to each new client. With a stamp it is refused because the
    stamp is old; without one it would look fresh, so the first image of a new connection is
    also refused if it has the bytes of the last one.
    """

    def __init__(self) -> None:
        self._last_ns: int | None = None
        self._last_jpeg: bytes | None = None
        self._connection = -1
        self.refused = 0

    def passes(self, frame: CameraFrame, stamp: Stamp, ros_now_ns: int, connection: int) -> bool:
        """Decide on one image.

        Args:
            frame: The image.
            stamp: Its header stamp.
            ros_now_ns: ROS time now [ns]; far behind the last stamp means a restarted clock.
            connection: Number of the connection the image came by.
        """
        first = connection != self._connection and self._connection >= 0
        self._connection = connection
        if self._last_ns is not None and ros_now_ns < self._last_ns - _CLOCK_JUMP_NS:
            self._last_ns = None
        held = (
            first
            and frame.time_base is TimeBase.MONOTONIC
            and self._last_jpeg is not None
            and frame.jpeg == self._last_jpeg
        )
        if held or (self._last_ns is not None and stamp.ros_ns <= self._last_ns):
            self.refused += 1
            return False
        self._last_ns = stamp.ros_ns
        self._last_jpeg = frame.jpeg
        return True
