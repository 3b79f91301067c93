# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Watches a stream of pictures: rate, gaps, jitter, losses, frozen and black pictures, latency."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from koch_cameras.frame import Frame

_WINDOW_S = 5.0
_BLACK_LEVEL = 8.0
"""Mean grey level of 255 below which a picture counts as black: the noise of a covered lens."""
_BLACK_SPREAD = 4.0
"""A dark but real scene has more contrast than this standard deviation."""


class Light(IntEnum):
    """Levels of diagnostic_msgs/DiagnosticStatus."""

    OK = 0
    WARN = 1
    ERROR = 2
    STALE = 3


@dataclass(frozen=True)
class Expectation:
    """What a healthy stream looks like.

    Attributes:
        fps: Nominal rate [Hz], or None if unknown.
        max_age_s: A gap above this is an error [s].
        frozen_after_s: Identical pictures for so long are a frozen camera [s]; 0 = not watched.
        max_latency_s: Latency above this is a warning [s].
    """

    fps: float | None
    max_age_s: float = 0.5
    frozen_after_s: float = 1.0
    max_latency_s: float = 0.2


@dataclass(frozen=True)
class StreamReport:
    """Health over the last seconds, ready for /diagnostics; NaN where nothing was measured."""

    light: Light
    reasons: tuple[str, ...]
    rate_hz: float
    jitter_s: float
    max_gap_s: float
    age_s: float
    lost: int
    frozen_s: float
    black: bool
    latency_s: float
    max_latency_s: float
    frames: int

    @property
    def message(self) -> str:
        """One line for the person."""
        return "; ".join(self.reasons) or f"{self.rate_hz:.1f} fps"


class StreamWatch:
    """Collects facts picture by picture; ``report`` is called about once a second."""

    def __init__(self, expectation: Expectation) -> None:
        self._expected = expectation
        self._stamps: deque[int] = deque()
        self._latencies: deque[float] = deque()
        self._last: Frame | None = None
        self._changed_ns: int | None = None
        self._connection = 0
        self._black = False
        self._last_arrival_ns: int | None = None
        self.lost = 0
        self.frames = 0

    def add(
        self, frame: Frame, *, stamp_ns: int, arrival_ns: int, latency_s: float, connection: int
    ) -> None:
        """Count a picture.

        Args:
            frame: The picture.
            stamp_ns: Acquisition in ROS time [ns].
            arrival_ns: Hand-over, CLOCK_MONOTONIC [ns].
            latency_s: Publication minus acquisition [s].
            connection: Number of the connection; sequence numbers restart with each.
        """
        if self._last is not None and connection == self._connection:
            self.lost += max(0, frame.sequence - self._last.sequence - 1)
        if self._last is None or not same_picture(frame, self._last):
            self._changed_ns = stamp_ns
        if self._stamps and stamp_ns <= self._stamps[-1]:  # the clock restarted
            self._stamps.clear()
            self._latencies.clear()
            self._changed_ns = stamp_ns
        self._last, self._connection = frame, connection
        self._last_arrival_ns = arrival_ns
        self.frames += 1
        self._stamps.append(stamp_ns)
        self._latencies.append(latency_s)
        while self._stamps[-1] - self._stamps[0] > _WINDOW_S * 1e9:
            self._stamps.popleft()
            self._latencies.popleft()

    def look(self, thumbnail: npt.NDArray[np.uint8]) -> None:
        """Judge a small grey picture for all-black; called about once a second."""
        self._black = bool(
            float(thumbnail.mean()) < _BLACK_LEVEL and float(thumbnail.std()) < _BLACK_SPREAD
        )

    def report(self, monotonic_ns: int) -> StreamReport:
        """Health now; ``monotonic_ns`` is CLOCK_MONOTONIC [ns]."""
        stamps = np.array(self._stamps, dtype=np.int64)
        gaps_s = np.diff(stamps) / 1e9
        measured = gaps_s.size > 0
        age_s = math.nan
        if self._last_arrival_ns is not None:
            age_s = (monotonic_ns - self._last_arrival_ns) / 1e9
        frozen_s = 0.0
        if self._changed_ns is not None and self._stamps:
            frozen_s = (self._stamps[-1] - self._changed_ns) / 1e9
        draft = StreamReport(
            light=Light.OK,
            reasons=(),
            rate_hz=float(1.0 / gaps_s.mean()) if measured else math.nan,
            jitter_s=float(gaps_s.std()) if measured else math.nan,
            max_gap_s=float(gaps_s.max()) if measured else math.nan,
            age_s=age_s,
            lost=self.lost,
            frozen_s=frozen_s,
            black=self._black,
            latency_s=float(np.mean(self._latencies)) if self._latencies else math.nan,
            max_latency_s=max(self._latencies, default=math.nan),
            frames=self.frames,
        )
        return self._judge(draft)

    def _judge(self, draft: StreamReport) -> StreamReport:
        """Put the light and the reasons on, worst first."""
        expected = self._expected
        findings: list[tuple[Light, str]] = []
        if draft.frames == 0:
            findings.append((Light.ERROR, "no picture yet"))
        elif draft.age_s > expected.max_age_s:
            findings.append((Light.ERROR, f"no picture for {draft.age_s:.1f} s"))
        if draft.black:
            findings.append((Light.ERROR, "pictures are black (lens cap? exposure?)"))
        if expected.frozen_after_s and draft.frozen_s >= expected.frozen_after_s:
            findings.append((Light.ERROR, f"frozen: same picture for {draft.frozen_s:.1f} s"))
        if expected.fps and draft.rate_hz < 0.9 * expected.fps:
            findings.append(
                (Light.WARN, f"{draft.rate_hz:.1f} fps, expected {expected.fps:g} (light? USB?)")
            )
        if draft.max_gap_s > expected.max_age_s:
            findings.append((Light.WARN, f"gap of {draft.max_gap_s:.2f} s"))
        if draft.max_latency_s > expected.max_latency_s:
            findings.append((Light.WARN, f"latency up to {draft.max_latency_s:.2f} s"))
        elif self._latencies and min(self._latencies) < -0.05:
            findings.append((Light.WARN, "stamps lie in the future (server's clock?)"))
        findings.sort(key=lambda item: -item[0])
        light = findings[0][0] if findings else Light.OK
        return replace(draft, light=light, reasons=tuple(text for _, text in findings))


def same_picture(one: Frame, other: Frame) -> bool:
    """Identical content; comparing moving pictures ends at the first difference."""
    if isinstance(one.data, bytes) and isinstance(other.data, bytes):
        return one.data == other.data
    if isinstance(one.data, bytes) or isinstance(other.data, bytes):
        return False
    # One row first: comparing whole arrays costs 100 us at 640x480.
    middle = one.data.shape[0] // 2
    return (
        one.data.shape == other.data.shape
        and bool(np.array_equal(one.data[middle], other.data[middle]))
        and bool(np.array_equal(one.data, other.data))
    )
