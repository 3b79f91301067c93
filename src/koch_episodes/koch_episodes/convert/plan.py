# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The first pass over a bag: which sample belongs to which tick. Pictures are not decoded here.

Streams are fed in the order of the bag into the same buffers and the same assembler as live. A
tick is decided when every stream has passed it, or is so far behind that it counts as dead.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from koch_episodes.convert.events import Window
from koch_episodes.convert.mapping import MappedFeature, Source
from koch_episodes.convert.track import StreamTrack
from koch_episodes.frame import (
    Frame,
    FrameAssembler,
    FrameFeature,
    Missing,
    MissingStream,
    Rule,
)
from koch_episodes.stream import NS_PER_S, StreamBuffer, to_ns

_CAPACITY = 20_000
_REORDER_NS = NS_PER_S // 2  # messages of one topic may overtake each other by this much
_DEAD_NS = NS_PER_S  # behind the others by this much (and the longest maximum age)
_CLOCK_JUMP_NS = NS_PER_S


@dataclass(frozen=True)
class Gap:
    """A time without frames inside an episode.

    Attributes:
        at_s: Begin, counted from the episode's first frame, [s].
        duration_s: Length, [s].
        why: Which streams were missing.
    """

    at_s: float
    duration_s: float
    why: str


@dataclass(eq=False)
class Segment:
    """A contiguous run of frames.

    Attributes:
        window: The episode it is part of.
        ticks_ns: Times of the frames, int64, shape (T,).
        columns: Vector feature to values as recorded, float64, shape (T, N).
        stamps_ns: Feature to acquisition times of the samples used, int64, shape (T,).
        trimmed: Count of frames of rests that were left out between them.
    """

    window: Window
    ticks_ns: npt.NDArray[np.int64]
    columns: dict[str, npt.NDArray[np.float64]]
    stamps_ns: dict[str, npt.NDArray[np.int64]]
    trimmed: int = 0

    @property
    def length(self) -> int:
        """Count of frames."""
        return len(self.ticks_ns)


@dataclass(eq=False)
class WindowPlan:
    """What became of one episode: its segments and gaps."""

    window: Window
    segments: list[Segment] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    too_short: int = 0


class _Awaited(NamedTuple):
    """What the present tick waits for: the slowest stream, or that it counts as dead."""

    number: int
    dead_ns: int


class _Run:
    """Frames of a segment that is being built."""

    def __init__(self, keys: Sequence[str]) -> None:
        self.ticks = array("q")
        self.values = {key: array("d") for key in keys}
        self.stamps = {key: array("q") for key in keys}

    def add(self, frame: Frame) -> None:
        self.ticks.append(frame.tick_ns)
        for key, value in frame.values.items():
            if value is not None:
                self.values[key].frombytes(value.tobytes())
            self.stamps[key].append(frame.stamps_ns[key])


def part_key(feature: MappedFeature, place: int) -> str:
    """Name one source's share of a feature inside the assembler."""
    return f"{feature.key}/{place}"


class Planner:
    """Turns stamped samples into segments.

    Args:
        features: The mapping's features.
        fps: Ticks per second.
        windows: Episodes in order of time, not overlapping.
    """

    def __init__(
        self, features: Sequence[MappedFeature], fps: int, windows: Sequence[Window]
    ) -> None:
        self._fps = fps
        self._features = tuple(features)
        self.sources: list[Source] = []
        parts = []
        for feature in features:
            for place, source in enumerate(feature.sources):
                if source not in self.sources:
                    self.sources.append(source)
                name = str(self.sources.index(source))
                parts.append(FrameFeature(part_key(feature, place), name, feature.rule))
        self._buffers = [
            StreamBuffer(str(number), _CAPACITY, source.max_age_s, source.offset_s)
            for number, source in enumerate(self.sources)
        ]
        self._assembler = FrameAssembler(parts, {buffer.name: buffer for buffer in self._buffers})
        self.tracks = [StreamTrack() for _ in self.sources]
        self.plans = [WindowPlan(window) for window in windows]
        self._place = 0
        self._t0: int | None = None
        self._k = 0
        self._present_ns = self._past_ns = 0  # ticks k and k - 1
        self._awaited: _Awaited | None = None
        self._run: _Run | None = None
        self._lost: Missing | None = None
        self._missing: Missing | None = None
        self._dead_ns = _DEAD_NS + max(to_ns(source.max_age_s) for source in self.sources)

    @property
    def uses(self) -> frozenset[tuple[int, Rule]]:
        """Source numbers, each with the rule that picks its samples."""
        return frozenset((int(part.stream), part.rule) for part in self._assembler.features)

    @property
    def missing(self) -> str:
        """What the last tick without a frame lacked; empty where every tick had one."""
        reasons = self._missing.reasons if self._missing else ()
        return "; ".join(self._named(reason) for reason in reasons)

    def push(self, number: int, stamp_ns: int, value: Any) -> None:
        """Feed one sample: source number, header stamp [ns], vector (None for a picture)."""
        stamp = stamp_ns + self._buffers[number].offset_ns
        track = self.tracks[number]
        if track.newest_ns is not None and stamp < track.newest_ns - _CLOCK_JUMP_NS:
            self._restart()
        if self._t0 is not None and stamp < self._past_ns:
            track.late += 1
        track.take(stamp)
        self._buffers[number].push(stamp_ns, value)
        if self._t0 is None or self._may_decide(number, stamp):
            self._advance(flush=False)

    def mark(self, number: int, since_ns: int, reason: str) -> None:
        """Take in, before all samples, what a source's publisher said of them."""
        self._buffers[number].mark(since_ns, reason)

    def usable(self, number: int, ticks_ns: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Tell per tick whether a source's publisher called its samples usable then."""
        fault_at = self._buffers[number].fault_at
        return np.array([not fault_at(tick) for tick in ticks_ns.tolist()], dtype=bool)

    def _may_decide(self, number: int, stamp: int) -> bool:
        """Tell whether this sample can end the wait for the present tick; most cannot."""
        if stamp < self._present_ns:
            return False
        awaited = self._awaited
        return awaited is None or number == awaited.number or stamp >= awaited.dead_ns

    def finish(self) -> list[WindowPlan]:
        """Decide the remaining ticks and return what became of every window."""
        self._advance(flush=True)
        self._close(None)
        return self.plans

    def _restart(self) -> None:
        """The clock was set back: nothing before can be compared with anything after."""
        self._advance(flush=True)
        self._close(None)
        for buffer, track in zip(self._buffers, self.tracks, strict=True):
            buffer.clear()
            track.restart()
        self._t0 = None

    def _tick(self, k: int) -> int:
        return (self._t0 or 0) + round(k * NS_PER_S / self._fps)

    def _go_to(self, k: int) -> None:
        self._k = k
        self._past_ns, self._present_ns = self._tick(k - 1), self._tick(k)
        self._awaited = None

    def _begin(self) -> bool:
        """Find the first tick of the present window, where every stream has begun."""
        firsts = [track.first_ns for track in self.tracks]
        known = [first for first in firsts if first is not None]
        if len(known) < len(firsts):
            return False
        self._t0 = self.plans[self._place].window.first_tick(max(known), self._fps)
        self._go_to(0)
        return True

    def _advance(self, *, flush: bool) -> None:
        while self._place < len(self.plans):
            if self._t0 is None and not self._begin():
                return
            tick = self._present_ns
            if tick > self.plans[self._place].window.end_ns:
                self._close(None)
                self._lost, self._t0 = None, None
                self._place += 1
                continue
            if not self._decidable(tick, flush=flush):
                return
            found = self._assembler.assemble(tick)
            if isinstance(found, Frame):
                self._take(found)
                self._go_to(self._k + 1)
                for buffer in self._buffers:
                    buffer.discard_before(tick)
            else:
                self._missing = found
                self._close(found)
                self._go_to(max(self._k + 1, self._resume_at(self._tick(self._k + 1))))

    def _decidable(self, tick: int, *, flush: bool) -> bool:
        newest = [track.newest_ns or 0 for track in self.tracks]
        slowest = min(newest)
        if slowest >= tick + (0 if flush else _REORDER_NS):
            return True
        dead = tick + (0 if flush else self._dead_ns)
        if self._run is not None and max(newest) >= dead:
            return True
        self._awaited = _Awaited(newest.index(slowest), dead)
        return False

    def _take(self, frame: Frame) -> None:
        if self._run is None:
            self._run = _Run([feature.key for feature in self._assembler.features])
            if self._lost is not None:
                self._note_gap(self._lost, frame.tick_ns)
                self._lost = None
        self._run.add(frame)

    def _note_gap(self, missing: Missing, until_ns: int) -> None:
        plan = self.plans[self._place]
        start = plan.segments[0].ticks_ns[0] if plan.segments else missing.tick_ns
        why = "; ".join(self._named(reason) for reason in missing.reasons)
        plan.gaps.append(
            Gap(
                float(missing.tick_ns - start) / NS_PER_S,
                (until_ns - missing.tick_ns) / NS_PER_S,
                why,
            )
        )

    def _named(self, reason: MissingStream) -> str:
        topic = self.sources[int(reason.stream)].topic
        return reason.why.replace(f"{reason.stream}:", f"{topic}:", 1)

    def _resume_at(self, after: int) -> int:
        """Return the index of the first tick from `after` on at which a frame is conceivable."""
        target = after
        for part in self._assembler.features:
            buffer = self._assembler.buffers[part.stream]
            coming = buffer.first_from(after)
            if part.rule is Rule.NEXT:
                if coming is not None:
                    target = max(target, coming.stamp_ns - buffer.max_age_ns)
                continue
            held = buffer.newest_at(after)
            fresh = held is not None and after - held.stamp_ns <= buffer.max_age_ns
            if not fresh and coming is not None:
                target = max(target, coming.stamp_ns)
        # A tick is rounded to a nanosecond: half of one more or less is the same tick.
        return math.ceil((target - (self._t0 or 0) - 0.5) * self._fps / NS_PER_S)

    def _close(self, missing: Missing | None) -> None:
        run, self._run = self._run, None
        if run is None:
            return
        self._lost = missing
        plan = self.plans[self._place]
        if len(run.ticks) < 2:
            plan.too_short += 1
            return
        plan.segments.append(self._segment(run, plan.window))

    def _segment(self, run: _Run, window: Window) -> Segment:
        length = len(run.ticks)
        columns, stamps = {}, {}
        for feature in self._features:
            keys = [part_key(feature, place) for place in range(len(feature.sources))]
            tables = [np.frombuffer(run.values[key]).reshape(length, -1) for key in keys]
            if tables[0].size:
                columns[feature.key] = np.concatenate(tables, axis=1)
            stamps[feature.key] = np.array(run.stamps[keys[0]], dtype=np.int64)
        return Segment(window, np.array(run.ticks, dtype=np.int64), columns, stamps)
