# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""From streams to aligned frames: the one staleness rule, used live and offline alike.

A sample older than its stream's maximum age, or one that its publisher calls unusable (a frozen,
black or damaged image), is ignored. At a tick every feature has a sample or the frame is missing,
with the names and ages of what is not there. Nothing is filled in. Of a stream that speaks only
when its value changes the newest sample holds, whatever its age.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from koch_core.errors import DecodeError, StreamUnknownError
from koch_core.stream import NS_PER_S, Sample

Decode = Callable[[Any], Any]

# A stamp that was computed on the ticks' own grid, but rounded down or kept as seconds in a double
# (a quarter of a microsecond today), is that tick's.
TIE_NS = 1_000


class SampleRule(enum.Enum):
    """Which sample of a stream belongs to a tick."""

    NEWEST = "newest"  # observation: newest at or before the tick
    NEXT = "next"  # action: first at or after the tick
    HOLD = "hold"  # a value sent only when it changes: newest at or before the tick, of any age


@dataclass(frozen=True)
class FrameFeature:
    """One entry of a frame.

    Attributes:
        key: Feature key, for example ``observation.state``.
        stream: Name of the stream that feeds it.
        rule: Which sample belongs to a tick.
        decode: Turns the sample's value into the frame's value; raises DecodeError for a broken
            sample, which is then forgotten and the next older one tried. None: as it is.
    """

    key: str
    stream: str
    rule: SampleRule = SampleRule.NEWEST
    decode: Decode | None = None


@dataclass(frozen=True, eq=False)
class Frame:
    """All features at one tick.

    Attributes:
        tick_ns: The tick, [ns].
        values: Feature key to value.
        stamps_ns: Feature key to acquisition time of the sample used, [ns].
    """

    tick_ns: int
    values: Mapping[str, Any]
    stamps_ns: Mapping[str, int]

    @property
    def ages_ns(self) -> dict[str, int]:
        """Tick minus acquisition time, [ns]; negative for actions, which follow the tick."""
        return {key: self.tick_ns - stamp for key, stamp in self.stamps_ns.items()}


@dataclass(frozen=True)
class MissingStream:
    """One stream without a usable sample at a tick.

    Attributes:
        stream: Stream name.
        age_s: Distance of the nearest sample in [s], None where there is none at all, or where its
            publisher calls it unusable.
        why: Readable reason.
    """

    stream: str
    age_s: float | None
    why: str


@dataclass(frozen=True)
class Missing:
    """No frame at this tick, and why."""

    tick_ns: int
    reasons: tuple[MissingStream, ...]

    def __str__(self) -> str:
        """Join the reasons into one line."""
        return "; ".join(reason.why for reason in self.reasons)


class Samples(Protocol):
    """The samples of one stream: a `StreamBuffer` live, all of a recording offline."""

    name: str
    max_age_ns: int

    def newest_at(self, tick_ns: int) -> Sample | None:
        """Return the newest sample acquired at or before the tick, however old."""

    def first_from(self, tick_ns: int) -> Sample | None:
        """Return the first sample acquired at or after the tick, however late."""

    def fault_at(self, stamp_ns: int) -> str:
        """Why the publisher calls a sample of this time unusable; empty if usable."""

    def remove(self, stamp_ns: int) -> bool:
        """Forget the sample of exactly this acquisition time."""


class FrameAssembler:
    """Builds the frame of a tick from the streams' samples.

    Args:
        features: What a frame holds.
        buffers: Stream name to its samples; the caller feeds them.

    Raises:
        StreamUnknownError: A feature's stream has no buffer.
    """

    def __init__(self, features: Sequence[FrameFeature], buffers: Mapping[str, Samples]) -> None:
        for feature in features:
            if feature.stream not in buffers:
                raise StreamUnknownError(feature.key, feature.stream, buffers)
        self.features = tuple(features)
        self.buffers = dict(buffers)
        self._decoded: dict[str, tuple[Sample, Any]] = {}

    def assemble(self, tick_ns: int) -> Frame | Missing:
        """Return the frame at the tick, or what is missing.

        Args:
            tick_ns: Time of the frame in the clock of the acquisition stamps, [ns].
        """
        values: dict[str, Any] = {}
        stamps: dict[str, int] = {}
        reasons: dict[str, MissingStream] = {}
        for feature in self.features:
            found = self._find(feature, tick_ns)
            if isinstance(found, MissingStream):
                reasons.setdefault(feature.stream, found)
            else:
                stamps[feature.key], values[feature.key] = found
        if reasons:
            return Missing(tick_ns, tuple(reasons.values()))
        return Frame(tick_ns, values, stamps)

    def _find(self, feature: FrameFeature, tick_ns: int) -> tuple[int, Any] | MissingStream:
        buffer = self.buffers[feature.stream]
        broken = ""
        while True:
            if feature.rule is SampleRule.NEXT:
                sample = buffer.first_from(tick_ns - TIE_NS)
            else:
                sample = buffer.newest_at(tick_ns + TIE_NS)
            if sample is None or not _is_fresh(feature.rule, buffer, sample, tick_ns):
                return _missing(feature, buffer, sample, tick_ns, broken)
            if fault := buffer.fault_at(sample.stamp_ns):
                return MissingStream(buffer.name, None, f"{buffer.name}: unusable: {fault}")
            try:
                return sample.stamp_ns, self._decode(feature, sample)
            except DecodeError as exc:
                broken = exc.why
                buffer.remove(sample.stamp_ns)

    def _decode(self, feature: FrameFeature, sample: Sample) -> Any:
        if feature.decode is None:
            return sample.value
        last = self._decoded.get(feature.key)
        if last and last[0].stamp_ns == sample.stamp_ns and last[0].value is sample.value:
            return last[1]
        value = feature.decode(sample.value)
        self._decoded[feature.key] = (sample, value)
        return value


def _is_fresh(rule: SampleRule, buffer: Samples, sample: Sample, tick_ns: int) -> bool:
    return rule is SampleRule.HOLD or abs(tick_ns - sample.stamp_ns) <= buffer.max_age_ns


def _missing(
    feature: FrameFeature, buffer: Samples, sample: Sample | None, tick_ns: int, broken: str
) -> MissingStream:
    limit_s = buffer.max_age_ns / NS_PER_S
    note = f" (newer sample broken: {broken})" if broken else ""
    if sample is None:
        side = "at or after" if feature.rule is SampleRule.NEXT else "at or before"
        return MissingStream(buffer.name, None, f"{buffer.name}: no sample {side} the tick{note}")
    age_s = abs(tick_ns - sample.stamp_ns) / NS_PER_S
    what = "is" if feature.rule is SampleRule.NEWEST else "comes"
    when = "old" if feature.rule is SampleRule.NEWEST else "late"
    return MissingStream(
        buffer.name,
        age_s,
        f"{buffer.name}: sample {what} {age_s * 1e3:.0f} ms {when}, "
        f"allowed {limit_s * 1e3:.0f} ms{note}",
    )
