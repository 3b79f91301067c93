# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Command sources: who may drive (priority, timeout), and 30 Hz commands at the bus rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

# A stream this much slower than the bus is interpolated; a faster one is taken as it comes.
_SLOW_STREAM = 1.25
# Longest ramp between two commands: a stream slower than 10 Hz moves in steps of 0.1 s.
_MAX_RAMP_S = 0.1
# Weight of the newest interval in the running estimate of a stream's command interval.
_INTERVAL_WEIGHT = 0.25


@dataclass(frozen=True)
class CommandSource:
    """A sender of commands.

    Attributes:
        name: Its name; commands come in on `command/<name>`.
        priority: The greater wins until its source timeout.
    """

    name: str
    priority: int


DEFAULT_SOURCES = (
    CommandSource("teleop", 100),
    CommandSource("trajectory", 50),
    CommandSource("replay", 40),
    CommandSource("policy", 10),
)


class Command(NamedTuple):
    """An accepted command.

    Attributes:
        positions: Joint angles in [rad] in the order of the joints.
        stamp_s: When the sender meant it, on the guard's monotonic clock.
        arrival_s: When it was accepted, on the same clock.
        sequence: Count of the source's commands, to see how many fell between two cycles.
    """

    positions: tuple[float, ...]
    stamp_s: float
    arrival_s: float
    sequence: int


class CommandStream:
    """The commands of one source, played at the bus rate.

    A stream slower than the bus is interpolated: from the arrival of a command the target runs
    straight from where it was to the command, in the time that usually passes between two
    commands. That costs a fixed latency of one command interval (33 ms at 30 Hz) and, unlike
    extrapolation, never overshoots what the sender asked. A stream at least as fast as the bus is
    taken as it comes, without added latency. Intervals are measured on the stamps, so that jitter
    of the transport does not change the speed.

    `put` may be called from another thread than `sample`: they share one reference.
    """

    def __init__(self, source: CommandSource, period_s: float) -> None:
        self.source = source
        self._period_s = period_s
        self._newest: Command | None = None
        self._current: Command | None = None
        self._from: tuple[float, ...] = ()
        self._interval_s = 0.0
        self._duration_s = 0.0

    @property
    def newest(self) -> Command | None:
        """The last accepted command, None before the first and after `clear`."""
        return self._newest

    def put(self, positions: tuple[float, ...], stamp_s: float, arrival_s: float) -> None:
        """Accept a command."""
        last = self._newest
        sequence = 0 if last is None else last.sequence + 1
        self._newest = Command(positions, stamp_s, arrival_s, sequence)

    def clear(self) -> None:
        """Forget every command."""
        self._newest = None
        self._current = None

    def age_s(self, now_s: float) -> float:
        """Time since the last accepted command arrived, inf when there is none."""
        newest = self._newest
        return float("inf") if newest is None else now_s - newest.arrival_s

    def sample(self, now_s: float) -> tuple[float, ...] | None:
        """Target of this source now, joint angles in [rad]; None without a command."""
        newest = self._newest
        if newest is None:
            return None
        if newest is not self._current:
            self._begin(newest)
        return self._ramp(now_s)

    def _begin(self, command: Command) -> None:
        last = self._current
        steps = 0 if last is None else command.sequence - last.sequence
        # Commands that were never sampled (another source was driving) leave nothing to ramp from.
        fresh = last is None or steps < 1 or steps > 3
        gap_s = 0.0 if last is None else (command.stamp_s - last.stamp_s) / max(steps, 1)
        if fresh or not 0.0 < gap_s <= 2.0 * _MAX_RAMP_S:
            self._interval_s = 0.0
            self._from, self._duration_s = command.positions, 0.0
        else:
            known = self._interval_s
            weight = _INTERVAL_WEIGHT if known > 0.0 else 1.0
            self._interval_s = known + weight * (gap_s - known)
            self._from = self._ramp(command.arrival_s)
            slow = self._interval_s > _SLOW_STREAM * self._period_s
            self._duration_s = min(self._interval_s, _MAX_RAMP_S) if slow else 0.0
        self._current = command

    def _ramp(self, now_s: float) -> tuple[float, ...]:
        command = self._current
        assert command is not None
        elapsed = now_s - command.arrival_s
        # A command may arrive while a cycle runs, so "after now": it has no ramp behind it yet.
        if self._duration_s <= 0.0 or elapsed >= self._duration_s:
            return command.positions
        share = max(elapsed, 0.0) / self._duration_s
        return tuple(
            a + share * (b - a) for a, b in zip(self._from, command.positions, strict=True)
        )


def choose(
    streams: Sequence[CommandStream], now_s: float, timeout_s: float
) -> CommandStream | None:
    """The stream that may drive: the highest priority whose source timeout has not passed.

    Args:
        streams: All streams, highest priority first.
        now_s: Time on the guard's clock.
        timeout_s: How long a source keeps the arm after its last accepted command.
    """
    for stream in streams:
        if stream.age_s(now_s) <= timeout_s:
            return stream
    return None
