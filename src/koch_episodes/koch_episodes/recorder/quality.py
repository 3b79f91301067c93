# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What arrives of the streams, live and over an episode: rates, gaps, ages, and a light."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from koch_core.health import Light, StampWindow, is_slow
from koch_core.stream import NS_PER_S, to_ns

_WINDOW_S = 3.0
_DEAD_S = 0.5  # a slower machine may deliver in bursts; this is no burst any more
_GAP_PERIODS = 2.5


@dataclass(frozen=True)
class Health:
    """One stream at one moment; see koch_interfaces/StreamHealth."""

    name: str
    rate_hz: float
    expected_hz: float
    max_gap_s: float
    age_s: float
    lost: int
    light: Light
    reason: str
    alive: bool
    """Messages are coming, with stamps of now: an episode may start, whatever the light."""


@dataclass(frozen=True)
class StreamReport:
    """One stream over one episode.

    Attributes:
        name: Stream name.
        count: Messages recorded.
        rate_hz: Mean rate by acquisition stamps, [Hz].
        max_gap_s: Largest time between two stamps, or to the episode's ends, [s].
        holes: Gaps beyond the stream's maximum age; the converter splits the episode there.
        lost: Messages that were published but did not arrive.
        backwards: Stamps not after the one before.
        light: Judgement.
        reason: Why it is not green.
    """

    name: str
    count: int
    rate_hz: float
    max_gap_s: float
    holes: int
    lost: int
    backwards: int
    light: Light
    reason: str


class StreamMonitor:
    """Watches one stream of the rig. One thread.

    Args:
        name: Stream name.
        expected_hz: Nominal rate, 0 where the rig names none.
        max_age_s: The rig's maximum age of a sample, [s]; infinite for a stream that is sent only
            when its value changes.
    """

    def __init__(self, name: str, *, expected_hz: float, max_age_s: float) -> None:
        self.name = name
        self.expected_hz = expected_hz
        self.max_age_s = max_age_s
        self.names_changed = ""
        self._fault = ""
        self._fault_since_ns = 0
        self._max_gap_ns = to_ns(max_age_s) if math.isfinite(max_age_s) else 1 << 62
        self._window = StampWindow(_WINDOW_S)
        self._arrived_ns = 0
        self._last_ns = 0
        self._trouble: deque[tuple[int, str]] = deque(maxlen=8)
        self._total_lost = 0
        self._begin(0)

    def _begin(self, now_ns: int) -> None:
        self._start_ns = now_ns
        self._count = self._holes = self._lost = self._backwards = self._zero = 0
        self._worst_ns = 0
        self._first_ns = self._final_ns = 0
        self._unusable_ns = 0
        self._unusable_why = ""

    def begin_episode(self, now_ns: int) -> None:
        """Start the figures of an episode."""
        self.names_changed = ""
        self._begin(now_ns)

    def add(self, stamp_ns: int, arrived_ns: int, missing: int = 0) -> None:
        """Take note of a message.

        Args:
            stamp_ns: Acquisition stamp, [ns]; 0 is a publisher's mistake.
            arrived_ns: When it was received, [ns].
            missing: Messages lost in front of it.
        """
        if stamp_ns <= 0:
            self._zero += 1
            self._trouble.append((arrived_ns, "stamps are zero"))
            stamp_ns = arrived_ns
        last = self._last_ns
        self._arrived_ns = arrived_ns
        self._last_ns = stamp_ns
        if missing:
            self._lost += missing
            self._total_lost += missing
            self._trouble.append((arrived_ns, f"lost {missing} message(s)"))
        if self._count:
            gap = stamp_ns - last
            if gap <= 0:
                self._backwards += 1
                self._trouble.append((arrived_ns, "stamps do not increase"))
            elif gap > self._worst_ns:
                self._worst_ns = gap
            if gap > self._max_gap_ns:
                self._holes += 1
        else:
            self._first_ns = stamp_ns
        self._final_ns = stamp_ns
        self._count += 1
        self._window.add(stamp_ns)

    def mark(self, since_ns: int, reason: str) -> None:
        """Take in what the publisher says of its samples: see `StreamBuffer.mark`."""
        if self._fault:
            self._note_unusable(since_ns)
        self._fault, self._fault_since_ns = reason, since_ns

    def _note_unusable(self, until_ns: int) -> None:
        """Count the share of a fault that lies in this episode."""
        length = until_ns - max(self._fault_since_ns, self._start_ns)
        if length > 0:
            self._unusable_ns += length
            self._unusable_why = self._fault

    def health(self, now_ns: int) -> Health:
        """Judge the stream now, in the clock of the arrival times."""
        recent = self._window.statistics()
        rate, gap = recent.rate_hz, recent.max_gap_s
        never = not self._arrived_ns
        age = math.inf if never else max(0.0, (now_ns - self._last_ns) / NS_PER_S)
        silent_s = math.inf if never else (now_ns - self._arrived_ns) / NS_PER_S
        if silent_s > _WINDOW_S:
            rate = 0.0
        light, reason = Light.RED, self._dead(age, silent_s)
        alive = not reason
        if alive:
            light, reason = self._judge(rate, gap, now_ns)
        return Health(
            self.name, rate, self.expected_hz, gap, age, self._total_lost, light, reason, alive
        )

    def _dead(self, age: float, silent_s: float) -> str:
        """Why the stream is of no use now; empty when it is alive."""
        if math.isinf(age):
            return "no message ever came"
        if silent_s > max(self.max_age_s, _DEAD_S):
            return f"no message for {silent_s:.1f} s"
        if age > self.max_age_s + _DEAD_S:
            return f"messages are {age:.2f} s old when they come"
        return f"unusable: {self._fault}" if self._fault else ""

    def _judge(self, rate: float, gap: float, now_ns: int) -> tuple[Light, str]:
        if self.names_changed:
            return Light.RED, self.names_changed
        if gap > self.max_age_s:
            return Light.RED, f"a gap of {gap:.2f} s (allowed {self.max_age_s:.2f} s)"
        for when, what in self._trouble:
            if now_ns - when < to_ns(_WINDOW_S):
                return Light.AMBER, what
        return self._judge_rate(rate, gap)

    def _judge_rate(self, rate: float, gap: float) -> tuple[Light, str]:
        if self.expected_hz > 0.0 and rate > 0.0:
            if is_slow(rate, self.expected_hz):
                return Light.AMBER, f"{rate:.1f} Hz instead of {self.expected_hz:.0f} Hz"
            if gap > _GAP_PERIODS / self.expected_hz:
                return Light.AMBER, f"a gap of {gap * 1e3:.0f} ms"
        return Light.GREEN, ""

    def report(self, end_ns: int) -> StreamReport:
        """Judge the episode that began with `begin_episode` and ends now."""
        if self._fault:
            self._note_unusable(end_ns)
        span = self._final_ns - self._first_ns
        rate = (self._count - 1) * NS_PER_S / span if self._count > 1 and span > 0 else 0.0
        silent_ns = end_ns - (self._arrived_ns if self._count else self._start_ns)
        worst = max(self._worst_ns, silent_ns) / NS_PER_S
        light, reason = self._judge_episode(rate, worst, silent_ns)
        return StreamReport(
            self.name,
            self._count,
            rate,
            worst,
            self._holes,
            self._lost,
            self._backwards,
            light,
            reason,
        )

    def _judge_episode(self, rate: float, worst: float, silent_ns: int) -> tuple[Light, str]:
        if not self._count:
            holds = math.isinf(self.max_age_s)
            return (Light.GREEN, "") if holds else (Light.RED, "no message")
        if self.names_changed:
            return Light.RED, self.names_changed
        if silent_ns > max(self._max_gap_ns, to_ns(_DEAD_S)):
            return Light.RED, f"silent in the last {silent_ns / NS_PER_S:.1f} s"
        if self._holes:
            return Light.RED, f"{self._holes} gap(s) up to {worst:.2f} s"
        if self._unusable_why:
            seconds = self._unusable_ns / NS_PER_S
            return Light.RED, f"unusable for {seconds:.1f} s: {self._unusable_why}"
        if self._lost:
            return Light.AMBER, f"lost {self._lost} message(s)"
        if self._zero:
            return Light.AMBER, f"{self._zero} stamp(s) are zero"
        if self._backwards:
            return Light.AMBER, f"{self._backwards} stamp(s) do not increase"
        long_enough = self._count > 2 * self.expected_hz * self.max_age_s
        if long_enough and is_slow(rate, self.expected_hz):
            return Light.AMBER, f"{rate:.1f} Hz instead of {self.expected_hz:.0f} Hz"
        return Light.GREEN, ""


def worst(items: Iterable[Health | StreamReport]) -> tuple[Light, str]:
    """The worst light and the reasons for it, each with its stream's name."""
    found = list(items)
    light = max((item.light for item in found), default=Light.GREEN)
    if light is Light.GREEN:
        return light, ""
    return light, "; ".join(f"{i.name}: {i.reason}" for i in found if i.light is light)


def verdict(reports: Sequence[StreamReport], notes: Sequence[str] = ()) -> tuple[Light, str]:
    """Judge an episode: "green", or "amber: why", or "red: why".

    Args:
        reports: One per stream.
        notes: Other things worth knowing; they make it amber at least.
    """
    light, reason = worst(reports)
    if notes:
        light = max(light, Light.AMBER)
        reason = "; ".join([*notes, *([reason] if reason else [])])
    name = light.name.lower()
    return light, f"{name}: {reason}" if reason else name
