# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Which sample belongs to which tick: from the times of the samples alone, nothing is read.

Each run of the clock is planned by itself, with the same assembler as live.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from koch_core.frame import (
    TIE_NS,
    Frame,
    FrameAssembler,
    FrameFeature,
    Missing,
    MissingStream,
    SampleRule,
)
from koch_core.stream import (
    NS_PER_S,
    Sample,
    StreamBuffer,
    to_ns,
)
from koch_episodes.convert.events import Window
from koch_episodes.convert.mapping import MappedFeature
from koch_episodes.convert.survey import SurveyedStream

Numbers = npt.NDArray[np.int64]


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
        run: Run of the clock.
        ticks_ns: Times of the frames, int64, shape (T,).
        numbers: Part of a feature to the messages used, by their number in the topic, int64,
            shape (T,).
        stamps_ns: Part of a feature to acquisition times of these, int64, shape (T,).
        columns: Vector feature to values as recorded, float64, shape (T, N); empty until they
            are read.
        trimmed: Count of frames of rests that were left out between them.
    """

    window: Window
    run: int
    ticks_ns: Numbers
    numbers: dict[str, Numbers]
    stamps_ns: dict[str, Numbers]
    columns: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)
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


class RecordedStream:
    """All samples of a stream in one run of the clock, in order of acquisition.

    Of several samples with one stamp the latest arrival counts, as in a `StreamBuffer`.

    Args:
        name: Of the stream in the assembler.
        stream: The samples of all runs.
        run: The run.
    """

    def __init__(self, name: str, stream: SurveyedStream, run: int) -> None:
        mine = np.flatnonzero(stream.runs == run)
        order = mine[np.argsort(stream.stamps[mine], kind="stable")]
        stamps = stream.stamps[order]
        last = np.append(stamps[1:] != stamps[:-1], True)[: len(stamps)]
        self.name = name
        self.max_age_ns = to_ns(stream.source.max_age_s)
        self.stamps = array("q", stamps[last].tobytes())
        self._numbers = array("q", stream.numbers[order][last].tobytes())
        self._states = states_of(stream, run)

    def newest_at(self, tick_ns: int) -> Sample | None:
        """Return the newest sample acquired at or before the tick, however old."""
        return self._at(bisect_right(self.stamps, tick_ns) - 1)

    def first_from(self, tick_ns: int) -> Sample | None:
        """Return the first sample acquired at or after the tick, however late."""
        return self._at(bisect_left(self.stamps, tick_ns))

    def fault_at(self, stamp_ns: int) -> str:
        """Why the publisher calls a sample of this time unusable; empty if usable."""
        return self._states.fault_at(stamp_ns)

    def remove(self, stamp_ns: int) -> bool:
        """Nothing is decoded here, so nothing turns out to be broken."""
        raise NotImplementedError

    def _at(self, place: int) -> Sample | None:
        if not 0 <= place < len(self.stamps):
            return None
        return Sample(self.stamps[place], self._numbers[place])


def states_of(stream: SurveyedStream, run: int) -> StreamBuffer:
    """What a stream's publisher said of its samples in one run of the clock."""
    source = stream.source
    states = StreamBuffer(source.topic, len(stream.states) + 1, source.max_age_s, source.offset_s)
    for in_run, since_ns, reason in stream.states:
        if in_run == run:
            states.mark(since_ns, reason)
    return states


def usable(stream: SurveyedStream, run: int, ticks_ns: Numbers) -> npt.NDArray[np.bool_]:
    """Tell per tick whether a stream's publisher called its samples usable then."""
    fault_at = states_of(stream, run).fault_at
    return np.array([not fault_at(tick) for tick in ticks_ns.tolist()], dtype=bool)


class _Frames:
    """Frames of a segment that is being built."""

    def __init__(self, keys: Sequence[str]) -> None:
        self.ticks = array("q")
        self.numbers = {key: array("q") for key in keys}
        self.stamps = {key: array("q") for key in keys}

    def add(self, frame: Frame) -> None:
        self.ticks.append(frame.tick_ns)
        for key, number in frame.values.items():
            self.numbers[key].append(number)
            self.stamps[key].append(frame.stamps_ns[key])


def part_key(feature: str, place: int) -> str:
    """Name one source's share of a feature inside the assembler."""
    return f"{feature}/{place}"


class Planner:
    """Turns the samples of one run of the clock into segments.

    Args:
        features: The mapping's features.
        fps: Ticks per second.
        streams: One for each different source of the features.
        run: The run.
    """

    def __init__(
        self,
        features: Sequence[MappedFeature],
        fps: int,
        streams: Sequence[SurveyedStream],
        run: int = 0,
    ) -> None:
        self._fps = fps
        self._run = run
        self.sources = [stream.source for stream in streams]
        self._buffers = [
            RecordedStream(str(number), stream, run) for number, stream in enumerate(streams)
        ]
        parts = [
            FrameFeature(
                part_key(feature.key, place), str(self.sources.index(source)), source.rule
            )
            for feature in features
            for place, source in enumerate(feature.sources)
        ]
        self._assembler = FrameAssembler(parts, {buffer.name: buffer for buffer in self._buffers})
        self.missing = ""
        """What the last tick without a frame lacked; empty where every tick had one."""

    def plan(self, window: Window, into: WindowPlan) -> None:
        """Add the segments and gaps of an episode, as far as it lies in this run."""
        if not all(len(buffer.stamps) for buffer in self._buffers):
            return
        ready = max(buffer.stamps[0] for buffer in self._buffers)
        t0 = window.first_tick(ready, self._fps)
        end = min(window.end_ns, max(buffer.stamps[-1] for buffer in self._buffers)) + TIE_NS
        building, lost, k = None, None, 0
        while (tick := self._tick(t0, k)) <= end:
            found = self._assembler.assemble(tick)
            if isinstance(found, Frame):
                if building is None:
                    building = _Frames([part.key for part in self._assembler.features])
                    if lost is not None:
                        self._note_gap(lost, tick, into)
                building.add(found)
                k += 1
                continue
            self.missing = self._named(found)
            if building is not None:
                lost = found
                self._close(building, into)
                building = None
            next_ns = self._conceivable(self._tick(t0, k + 1))
            if next_ns is None:
                break
            # A tick is rounded to a nanosecond: half of one more or less is the same tick.
            k = max(k + 1, math.ceil((next_ns - t0 - 0.5) * self._fps / NS_PER_S))
        if building is not None:
            self._close(building, into)

    def _tick(self, t0: int, k: int) -> int:
        return t0 + round(k * NS_PER_S / self._fps)

    def _conceivable(self, after: int) -> int | None:
        """Return the first time from `after` on at which a frame is conceivable, if there is."""
        target = after
        for part in self._assembler.features:
            buffer = self._assembler.buffers[part.stream]
            coming = buffer.first_from(after)
            if part.rule is SampleRule.NEXT:
                if coming is None:
                    return None
                target = max(target, coming.stamp_ns - buffer.max_age_ns)
                continue
            held = buffer.newest_at(after)
            if held is not None and (
                part.rule is SampleRule.HOLD or after - held.stamp_ns <= buffer.max_age_ns
            ):
                continue
            if coming is None:
                return None
            target = max(target, coming.stamp_ns)
        return target

    def _note_gap(self, missing: Missing, until_ns: int, into: WindowPlan) -> None:
        mine = [segment for segment in into.segments if segment.run == self._run]
        start = int(mine[0].ticks_ns[0]) if mine else missing.tick_ns
        into.gaps.append(
            Gap(
                (missing.tick_ns - start) / NS_PER_S,
                (until_ns - missing.tick_ns) / NS_PER_S,
                self._named(missing),
            )
        )

    def _named(self, missing: Missing) -> str:
        return "; ".join(self._reason(reason) for reason in missing.reasons)

    def _reason(self, reason: MissingStream) -> str:
        topic = self.sources[int(reason.stream)].topic
        return reason.why.replace(f"{reason.stream}:", f"{topic}:", 1)

    def _close(self, frames: _Frames, into: WindowPlan) -> None:
        if len(frames.ticks) < 2:
            into.too_short += 1
            return
        into.segments.append(
            Segment(
                into.window,
                self._run,
                np.array(frames.ticks, np.int64),
                {key: np.array(found, np.int64) for key, found in frames.numbers.items()},
                {key: np.array(found, np.int64) for key, found in frames.stamps.items()},
            )
        )


@dataclass(eq=False)
class BagPlan:
    """What is made of one bag.

    Attributes:
        streams: One for each different source.
        windows: What became of each episode, in order of time.
        uses: Stream numbers, each with the rule that picks its samples.
        missing: What the last tick without a frame lacked.
    """

    streams: list[SurveyedStream]
    windows: list[WindowPlan]
    uses: frozenset[tuple[int, SampleRule]]
    missing: str = ""


def plan_bag(
    features: Sequence[MappedFeature],
    fps: int,
    streams: Sequence[SurveyedStream],
    windows: Sequence[Window],
    runs: int,
) -> BagPlan:
    """Plan all runs of the clock.

    Args:
        features: The mapping's features.
        fps: Ticks per second.
        streams: One for each different source of the features.
        windows: Episodes in order of time, not overlapping.
        runs: Number of runs.
    """
    sources = [stream.source for stream in streams]
    uses = {(sources.index(s), s.rule) for feature in features for s in feature.sources}
    plan = BagPlan(list(streams), [WindowPlan(window) for window in windows], frozenset(uses))
    for run in range(runs):
        planner = Planner(features, fps, streams, run)
        for each in plan.windows:
            part = each.window.within(run)
            if part is not None:
                planner.plan(part, each)
        plan.missing = planner.missing or plan.missing
    return plan
