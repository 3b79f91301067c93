# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Watches the images of a camera: rate, gaps, losses, latency, and whether they are usable."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from koch_cameras.frame import CameraFrame
from koch_core.health import Light, LossCounter, StampWindow, is_slow

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

    light: Light
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
        self._stamps = StampWindow(_WINDOW_S)
        self._latencies: deque[tuple[int, float]] = deque()  # by stamp
        self._last: CameraFrame | None = None
        self._changed_ns: int | None = None
        self._blank: ImageFault | None = None
        self._seen_ns = 0  # stamp of the last image known to show something
        self._looks: deque[tuple[int, int, bool]] = deque()  # monotonic, first stamp, damaged
        self._last_arrival_ns: int | None = None
        self._losses = LossCounter()
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
        self._losses.add(frame.sequence + 1, connection)  # devices count from 0
        if self._last is None or not same_image(frame, self._last):
            self._changed_ns = stamp_ns
        if stamp_ns < self._next_ns:  # the clock restarted
            self._stamps.clear()
            self._latencies.clear()
            self._changed_ns = stamp_ns
        self._last = frame
        self._last_arrival_ns = arrival_ns
        self.frames += 1
        self._stamps.add(stamp_ns)
        self._latencies.append((stamp_ns, latency_s))
        while stamp_ns - self._latencies[0][0] > _WINDOW_S * 1e9:
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
        newest_ns = self._stamps.newest_ns
        return 0 if newest_ns is None else newest_ns + 1

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
        newest_ns = self._stamps.newest_ns
        if self._changed_ns is None or newest_ns is None:
            return 0.0
        return (newest_ns - self._changed_ns) / 1e9

    def report(self, monotonic_ns: int) -> CameraReport:
        """Health now; ``monotonic_ns`` is CLOCK_MONOTONIC [ns]."""
        recent = self._stamps.statistics()
        measured = recent.count > 1
        latencies_s = [latency_s for _, latency_s in self._latencies]
        age_s = math.nan
        if self._last_arrival_ns is not None:
            age_s = (monotonic_ns - self._last_arrival_ns) / 1e9
        draft = CameraReport(
            light=Light.GREEN,
            reasons=(),
            rate_hz=recent.rate_hz if measured else math.nan,
            jitter_s=recent.jitter_s if measured else math.nan,
            max_gap_s=recent.max_gap_s if measured else math.nan,
            age_s=age_s,
            lost=self._losses.lost,
            frozen_s=self._frozen_s(),
            black=self._blank is not None,
            damaged_fraction=self._damage(monotonic_ns)[1],
            latency_s=float(np.mean(latencies_s)) if latencies_s else math.nan,
            max_latency_s=max(latencies_s, default=math.nan),
            frames=self.frames,
        )
        return self._judge(draft, self.fault(monotonic_ns))

    def _judge(self, draft: CameraReport, fault: ImageFault | None) -> CameraReport:
        """Put the light and the reasons on, worst first."""
        expected = self._expected
        findings: list[tuple[Light, str]] = []
        if draft.frames == 0:
            findings.append((Light.RED, "no image yet"))
        elif draft.age_s > expected.max_age_s:
            findings.append((Light.RED, f"no image for {draft.age_s:.1f} s"))
        if fault is not None:
            findings.append((Light.RED, fault.reason))
        elif draft.damaged_fraction > 0.0:
            findings.append((Light.AMBER, f"{draft.damaged_fraction:.0%} of the images damaged"))
        if is_slow(draft.rate_hz, expected.fps):
            findings.append(
                (
                    Light.AMBER,
                    f"{draft.rate_hz:.1f} fps, expected {expected.fps:g} (light? USB?)",
                )
            )
        if draft.max_gap_s > expected.max_age_s:
            findings.append((Light.AMBER, f"gap of {draft.max_gap_s:.2f} s"))
        if draft.max_latency_s > expected.max_latency_s:
            findings.append((Light.AMBER, f"latency up to {draft.max_latency_s:.2f} s"))
        elif min((latency_s for _, latency_s in self._latencies), default=0.0) < -0.05:
            findings.append((Light.AMBER, "stamps lie in the future (server's clock?)"))
        findings.sort(key=lambda item: -item[0])
        light = findings[0][0] if findings else Light.GREEN
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
