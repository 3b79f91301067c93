# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""One stream of stamped samples, bounded, ordered by acquisition time."""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import Any

NS_PER_S = 1_000_000_000


def to_ns(seconds: float) -> int:
    """Round seconds to whole nanoseconds."""
    return round(seconds * NS_PER_S)


def stamp_ns(stamp: Any) -> int:
    """A ROS time in [ns], of rclpy's messages and of those that a bag's reader makes."""
    return int(stamp.sec) * NS_PER_S + int(stamp.nanosec)


@dataclass(frozen=True, eq=False)
class Sample:
    """A value and the time at which it was acquired.

    Attributes:
        stamp_ns: Acquisition time in [ns], latency offset already applied.
        value: Whatever the stream carries (packet, vector); not copied.
    """

    stamp_ns: int
    value: Any


class StreamBuffer:
    """The newest samples of one stream, sorted by acquisition time; safe between threads.

    Samples may come out of order. Two samples with one stamp are one sample: the later arrival
    replaces the earlier. When full, the oldest sample leaves.

    Args:
        name: Stream name as in the rig, for example ``cameras/above``.
        capacity: Largest number of samples kept, >= 1.
        max_age_s: Age in [s] beyond which a sample does not exist.
        offset_s: Added to every pushed stamp, [s]: a camera that stamps 40 ms late has -0.04.

    Raises:
        ValueError: Capacity or maximum age is not positive.
    """

    def __init__(self, name: str, capacity: int, max_age_s: float, offset_s: float = 0.0) -> None:
        if capacity < 1 or not max_age_s > 0.0:
            raise ValueError(
                f"stream {name}: capacity {capacity} must be >= 1, max_age_s {max_age_s} > 0"
            )
        self.name = name
        self.capacity = capacity
        self.max_age_ns = to_ns(max_age_s)
        self.offset_ns = to_ns(offset_s)
        self._lock = threading.Lock()
        self._stamps: list[int] = []
        self._values: list[Any] = []
        self._states_ns: list[int] = []
        self._reasons: list[str] = []

    def __len__(self) -> int:
        """Count the samples held."""
        return len(self._stamps)

    def push(self, stamp_ns: int, value: Any) -> None:
        """Insert one sample.

        Args:
            stamp_ns: Header stamp in [ns]; the stream's offset is added here.
            value: The sample; kept by reference.
        """
        stamp = stamp_ns + self.offset_ns
        with self._lock:
            if not self._stamps or stamp > self._stamps[-1]:
                self._stamps.append(stamp)
                self._values.append(value)
            else:
                self._insert(stamp, value)
            if len(self._stamps) > self.capacity:
                del self._stamps[0], self._values[0]

    def _insert(self, stamp: int, value: Any) -> None:
        place = bisect_left(self._stamps, stamp)
        if self._stamps[place] == stamp:
            self._values[place] = value
        else:
            self._stamps.insert(place, stamp)
            self._values.insert(place, value)

    def mark(self, since_ns: int, reason: str) -> None:
        """Take in what the publisher says about its own samples.

        It knows what a single sample does not show, and some time after it began: an image is
        frozen once the next ones are equal. A later word about the same time replaces an earlier.

        Args:
            since_ns: Header stamp of the first sample this applies to, [ns].
            reason: Why samples from then on are unusable; empty: they are usable.
        """
        since = since_ns + self.offset_ns
        with self._lock:
            place = bisect_left(self._states_ns, since)
            del self._states_ns[place:], self._reasons[place:]
            self._states_ns.append(since)
            self._reasons.append(reason)
            if len(self._states_ns) > self.capacity:
                del self._states_ns[0], self._reasons[0]

    def fault_at(self, stamp_ns: int) -> str:
        """Why the publisher calls a sample of this acquisition time unusable; empty if usable."""
        with self._lock:
            place = bisect_right(self._states_ns, stamp_ns)
            return self._reasons[place - 1] if place else ""

    def newest_at(self, tick_ns: int) -> Sample | None:
        """Return the newest sample acquired at or before the tick, however old."""
        with self._lock:
            place = bisect_right(self._stamps, tick_ns)
            if place == 0:
                return None
            return Sample(self._stamps[place - 1], self._values[place - 1])

    def first_from(self, tick_ns: int) -> Sample | None:
        """Return the first sample acquired at or after the tick, however late."""
        with self._lock:
            place = bisect_left(self._stamps, tick_ns)
            if place == len(self._stamps):
                return None
            return Sample(self._stamps[place], self._values[place])

    def newest(self) -> Sample | None:
        """Return the newest sample of all."""
        with self._lock:
            if not self._stamps:
                return None
            return Sample(self._stamps[-1], self._values[-1])

    def remove(self, stamp_ns: int) -> bool:
        """Forget the sample of exactly this acquisition time (a broken image); True if found."""
        with self._lock:
            place = bisect_left(self._stamps, stamp_ns)
            if place == len(self._stamps) or self._stamps[place] != stamp_ns:
                return False
            del self._stamps[place], self._values[place]
            return True

    def discard_before(self, tick_ns: int) -> None:
        """Forget what no tick from `tick_ns` on can use: all but the newest at or before it."""
        with self._lock:
            place = bisect_right(self._stamps, tick_ns) - 1
            if place > 0:
                del self._stamps[:place], self._values[:place]

    def clear(self) -> None:
        """Forget all samples; what the publisher said stays."""
        with self._lock:
            self._stamps.clear()
            self._values.clear()
