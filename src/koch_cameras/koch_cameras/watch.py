# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Watches a stream of images: rate, gaps, jitter, losses, latency, and whether they are usable."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from koch_cameras.frame import CameraFrame

_WINDOW_S = 5.0
_BLACK_LEVEL = 8.0
"""Mean grey level of 255 below which an image counts as black: the noise of a covered lens."""
_BLACK_SPREAD = 4.0
"""A dark but real scene has more contrast than this standard deviation."""
_FLAT_SPREAD = 1.0
"""Below this an image is one colour, whichever: vignetting and noise of a real lens give more."""
_DAMAGE_WINDOW_S = 2.0
_DAMAGE_FRACTION = 0.1
"""From this share on images are unusable: a decoder notices only part of the damage there is."""
_DAMAGE_COUNT = 3
"""One image damaged by chance is dropped and makes no fault."""


class DiagnosticLevel(IntEnum):
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
        frozen_after_s: Identical images for so long are a frozen camera [s]; 0 = not watched.
        max_latency_s: Latency above this is a warning [s].
    """

    fps: float | None
    max_age_s: float = 0.5
    frozen_after_s: float = 1.0
    max_latency_s: float = 0.2


@dataclass(frozen=True)
class ImageFault:
    """Why images are unusable.

    Attributes:
        since_ns: Acquisition of the first one that is, in ROS time [ns].
        reason: For people, with figures.
    """

    since_ns: int
    reason: str


@dataclass(frozen=True)
class CameraReport:
    """Health over the last seconds, ready for /diagnostics; NaN where nothing was measured."""

    light: DiagnosticLevel
    reasons: tuple[str, ...]
    rate_hz: float
    jitter_s: float
    max_gap_s: float
    age_s: float
    lost: int
    frozen_s: float
    black: bool
    damaged_fraction: float
    latency_s: float
    max_latency_s: float
    frames: int

    @property
    def message(self) -> str:
        """One line for the person."""
        return "; ".join(self.reasons) or f"{self.rate_hz:.1f} fps"


class StreamWatch:
    """Collects facts image by image; ``report`` is called about once a second."""

    def __init__(self, expectation: Expectation) -> None:
        self._expected = expectation
        self._stamps: deque[int] = deque()
        self._latencies: deque[float] = deque()
        self._last: CameraFrame | None = None
        self._changed_ns: int | None = None
        self._connection = 0
        self._blank: ImageFault | None = None
        self._seen_ns = 0  # stamp of the last image known to show something
        self._looks: deque[tuple[int, int, bool]] = deque()  # monotonic, first stamp, damaged
        self._last_arrival_ns: int | None = None
        self.lost = 0
        self.frames = 0

    def add(
        self,
        frame: CameraFrame,
        *,
        stamp_ns: int,
        arrival_ns: int,
        latency_s: float,
        connection: int,
    ) -> None:
        """Count an image.

        Args:
            frame: The image.
            stamp_ns: Acquisition in ROS time [ns].
            arrival_ns: Hand-over, CLOCK_MONOTONIC [ns].
            latency_s: Publication minus acquisition [s].
            connection: Number of the connection; sequence numbers restart with each.
        """
        if self._last is not None and connection == self._connection:
            self.lost += max(0, frame.sequence - self._last.sequence - 1)
        if self._last is None or not same_image(frame, self._last):
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
        """Judge a small grey image, (H, W), before `add`; called some times a second."""
        self._looks.append((self._last_arrival_ns or 0, self._next_ns, False))
        mean, spread = float(thumbnail.mean()), float(thumbnail.std())
        if mean < _BLACK_LEVEL and spread < _BLACK_SPREAD:
            reason = "images are black (lens cap? exposure?)"
        elif spread < _FLAT_SPREAD:
            reason = f"images are one colour, grey level {mean:.0f} (sensor? lens covered?)"
        else:
            self._blank, self._seen_ns = None, self._next_ns
            return
        # Any image after the last one that showed something may have been the first.
        self._blank = self._blank or ImageFault(self._seen_ns, reason)

    def damaged(self, count: int, monotonic_ns: int) -> None:
        """Count images that are damaged and were not published; CLOCK_MONOTONIC [ns]."""
        self._looks.extend([(monotonic_ns, self._next_ns, True)] * count)

    @property
    def _next_ns(self) -> int:
        """Smallest stamp that the next image can have."""
        return self._stamps[-1] + 1 if self._stamps else 0

    def wants_look(self, monotonic_ns: int) -> bool:
        """Whether every image should be looked at: one was damaged a moment ago."""
        return self._damage(monotonic_ns)[0] > 0

    def _damage(self, monotonic_ns: int) -> tuple[int, float, int]:
        """Damaged images in the window, their share, and the stamp of the first."""
        looks = self._looks
        while looks and monotonic_ns - looks[0][0] > _DAMAGE_WINDOW_S * 1e9:
            looks.popleft()
        stamps = [stamp for _, stamp, damaged in looks if damaged]
        return len(stamps), len(stamps) / max(1, len(looks)), min(stamps, default=0)

    def fault(self, monotonic_ns: int) -> ImageFault | None:
        """Why images are unusable now, None while they are usable: the rule for all readers."""
        if self._blank is not None:
            return self._blank
        longest_s, frozen_s = self._expected.frozen_after_s, self._frozen_s()
        if longest_s and frozen_s >= longest_s and self._changed_ns is not None:
            # The image that did not change any more was real when it was taken.
            return ImageFault(self._changed_ns + 1, f"frozen: same image for {frozen_s:.1f} s")
        count, fraction, since_ns = self._damage(monotonic_ns)
        if count >= _DAMAGE_COUNT and fraction >= _DAMAGE_FRACTION:
            return ImageFault(since_ns, f"{fraction:.0%} of the images are damaged (cable? USB?)")
        return None

    def _frozen_s(self) -> float:
        """How long the image has not changed [s]."""
        if self._changed_ns is None or not self._stamps:
            return 0.0
        return (self._stamps[-1] - self._changed_ns) / 1e9

    def report(self, monotonic_ns: int) -> CameraReport:
        """Health now; ``monotonic_ns`` is CLOCK_MONOTONIC [ns]."""
        stamps = np.array(self._stamps, dtype=np.int64)
        gaps_s = np.diff(stamps) / 1e9
        measured = gaps_s.size > 0
        age_s = math.nan
        if self._last_arrival_ns is not None:
            age_s = (monotonic_ns - self._last_arrival_ns) / 1e9
        draft = CameraReport(
            light=DiagnosticLevel.OK,
            reasons=(),
            rate_hz=float(1.0 / gaps_s.mean()) if measured else math.nan,
            jitter_s=float(gaps_s.std()) if measured else math.nan,
            max_gap_s=float(gaps_s.max()) if measured else math.nan,
            age_s=age_s,
            lost=self.lost,
            frozen_s=self._frozen_s(),
            black=self._blank is not None,
            damaged_fraction=self._damage(monotonic_ns)[1],
            latency_s=float(np.mean(self._latencies)) if self._latencies else math.nan,
            max_latency_s=max(self._latencies, default=math.nan),
            frames=self.frames,
        )
        return self._judge(draft, self.fault(monotonic_ns))

    def _judge(self, draft: CameraReport, fault: ImageFault | None) -> CameraReport:
        """Put the light and the reasons on, worst first."""
        expected = self._expected
        findings: list[tuple[DiagnosticLevel, str]] = []
        if draft.frames == 0:
            findings.append((DiagnosticLevel.ERROR, "no image yet"))
        elif draft.age_s > expected.max_age_s:
            findings.append((DiagnosticLevel.ERROR, f"no image for {draft.age_s:.1f} s"))
        if fault is not None:
            findings.append((DiagnosticLevel.ERROR, fault.reason))
        elif draft.damaged_fraction > 0.0:
            findings.append(
                (DiagnosticLevel.WARN, f"{draft.damaged_fraction:.0%} of the images damaged")
            )
        if expected.fps and draft.rate_hz < 0.9 * expected.fps:
            findings.append(
                (
                    DiagnosticLevel.WARN,
                    f"{draft.rate_hz:.1f} fps, expected {expected.fps:g} (light? USB?)",
                )
            )
        if draft.max_gap_s > expected.max_age_s:
            findings.append((DiagnosticLevel.WARN, f"gap of {draft.max_gap_s:.2f} s"))
        if draft.max_latency_s > expected.max_latency_s:
            findings.append((DiagnosticLevel.WARN, f"latency up to {draft.max_latency_s:.2f} s"))
        elif self._latencies and min(self._latencies) < -0.05:
            findings.append((DiagnosticLevel.WARN, "stamps lie in the future (server's clock?)"))
        findings.sort(key=lambda item: -item[0])
        light = findings[0][0] if findings else DiagnosticLevel.OK
        return replace(draft, light=light, reasons=tuple(text for _, text in findings))


def same_image(one: CameraFrame, other: CameraFrame) -> bool:
    """Identical content; comparing moving images ends at the first difference."""
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
