# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Two clocks in hand: what the header stamps of each stream say, and when its messages came.

A camera whose clock runs fast, or whose driver stamps at the wrong moment, shifts its images
against everything else, and no gap tells of it. The delay from stamp to arrival does: that of a
sound stream is small and stays what it is. All delays changing alike is no fault of a stream: a
simulation at half speed does that to every one.

The offset to set: `offset_ms` is added to a stream's stamps, and is right when they tell the time
of acquisition. No clock tells that time for a stream whose stamps are wrong. What is known is when
its messages came, so the advice is the offset that gives them the delay of a sound stream of its
kind: of the other cameras, for a camera. The way of an image (exposure, compression, transport) is
then accounted for, as far as cameras are alike. Where all cameras are wrong, or there is one, the
delay is that of the other streams, which is shorter: stamps then come out late by what an image
takes longer than they do. The report says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from koch_core.stream import NS_PER_S
from koch_episodes.bag.clock import JUMP_NS
from koch_episodes.convert.options import StampFrom
from koch_episodes.convert.survey import SurveyedStream

_BINS = 16
_FEWEST = 16  # messages; less say nothing of a delay
_SHORTEST_NS = 2 * NS_PER_S  # for a drift
_DRIFT_MS = 40.0  # from begin to end: a frame or more
_AHEAD_MS = 10.0  # a message cannot come before what it tells of; clocks of two hosts differ a bit
_BEHIND_MS = 150.0  # more than any camera's exposure, compression and way
_SAME_CLOCK_NS = 60 * NS_PER_S  # stamps and log times this near are of one clock

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Delay:
    """How the stamps of one stream lie against the arrival of its messages.

    Attributes:
        topic: The stream's.
        delay_ms: From stamp (offset applied) to arrival, the usual, [ms].
        drift_fraction: By how much its clock is slower than the recorder's, as all others see it.
        shift_ms: What this made from begin to end, [ms].
        offset_ms: To set for it, 0 where nothing is wrong.
        fault: What is wrong, empty where nothing is.
    """

    topic: str
    delay_ms: float
    drift_fraction: float = 0.0
    shift_ms: float = 0.0
    offset_ms: float = 0.0
    fault: str = ""


def delays_of(streams: Sequence[SurveyedStream], images: frozenset[str]) -> list[Delay]:
    """Measure all streams that are timed by their header stamps, over the longest run.

    Args:
        streams: Of a bag.
        images: Topics of images; these are compared with each other before anything else.
    """
    every = np.concatenate([stream.runs for stream in streams]) if streams else np.zeros(0, int)
    if not len(every):
        return []
    run = int(np.bincount(every).argmax())
    seen: dict[str, tuple[SurveyedStream, Floats, Floats]] = {}
    for stream in streams:
        mine = (stream.runs == run) & (stream.logs > 0)
        if stream.clock is not StampFrom.HEADER or mine.sum() < _FEWEST:
            continue
        delays = stream.logs[mine] - stream.stamps[mine]
        # Odd log times are no delay: the bulk of the messages tells what is usual.
        sane = np.abs(delays - np.median(delays)) < max(JUMP_NS, int(np.ptp(stream.stamps[mine])))
        seen[stream.source.topic] = (
            stream,
            stream.logs[mine][sane].astype(np.float64),
            delays[sane] / 1e6,
        )
    if len(seen) < 2:
        return [Delay(topic, float(np.median(d))) for topic, (_, _, d) in seen.items()]
    drifts = _drifts({topic: (logs, delays) for topic, (_, logs, delays) in seen.items()})
    usual = {topic: float(np.median(delays)) for topic, (_, _, delays) in seen.items()}
    found = []
    for topic, (stream, _, _) in seen.items():
        fraction, shift = drifts[topic]
        drifting = abs(shift) > _DRIFT_MS
        others = {t: d for t, d in usual.items() if t != topic and abs(drifts[t][1]) <= _DRIFT_MS}
        good = _reference(topic, others or usual, images)
        told = _fault(stream, usual, topic, good, fraction if drifting else 0.0, shift)
        found.append(Delay(topic, usual[topic], fraction, shift, *told))
    return found


def _drifts(seen: dict[str, tuple[Floats, Floats]]) -> dict[str, tuple[float, float]]:
    """Topic to the drift of its delay (fraction, and ms from begin to end) against the others."""
    begin = max(float(logs.min()) for logs, _ in seen.values())
    end = min(float(logs.max()) for logs, _ in seen.values())
    if end - begin < _SHORTEST_NS:
        return dict.fromkeys(seen, (0.0, 0.0))
    edges = np.linspace(begin, end, _BINS + 1)
    middles = (edges[1:] + edges[:-1]) / 2
    courses = {topic: _course(logs, delays, edges) for topic, (logs, delays) in seen.items()}
    # The recorder's own clock has a vote as well: of two streams it tells which one drifts.
    common = np.nanmedian([*courses.values(), np.zeros(_BINS)], axis=0)
    result = {}
    for topic, course in courses.items():
        off = course - common
        known = np.isfinite(off)
        if known.sum() < _BINS // 2:
            result[topic] = (0.0, 0.0)
            continue
        slope = _slope(middles[known], off[known])  # ms per ns
        result[topic] = (slope * 1e6, slope * (end - begin))
    return result


def _course(logs: Floats, delays: Floats, edges: Floats) -> Floats:
    """The usual delay of each part of the time, about its own middle, [ms]."""
    place = np.digitize(logs, edges[1:-1])
    inside = (logs >= edges[0]) & (logs <= edges[-1])
    course = np.array(
        [
            np.median(delays[inside & (place == k)]) if np.any(inside & (place == k)) else np.nan
            for k in range(len(edges) - 1)
        ]
    )
    return np.asarray(course - np.nanmedian(course))


def _slope(times: Floats, values: Floats) -> float:
    """The median of the slopes between all pairs (Theil and Sen): outliers do not count."""
    first, second = np.triu_indices(len(times), 1)
    return float(np.median((values[second] - values[first]) / (times[second] - times[first])))


@dataclass(frozen=True)
class _Reference:
    """The delay that a sound stream has here.

    Attributes:
        delay_ms: From stamp to arrival, [ms].
        caveat: For the report where only streams of another kind tell it, else empty.
    """

    delay_ms: float
    caveat: str


def _reference(topic: str, others: dict[str, float], images: frozenset[str]) -> _Reference:
    is_image = topic in images
    alike = [d for t, d in others.items() if t != topic and (t in images) == is_image]
    good = [d for d in alike if -_AHEAD_MS <= d <= _BEHIND_MS]
    every = [d for d in others.values() if -_AHEAD_MS <= d <= _BEHIND_MS]
    delay = float(np.median(good or every or list(others.values())))
    caveat = (
        f" (if an image takes no longer to arrive than the {delay:.0f} ms of the other streams; "
        "subtract by how many ms it does, usually 20 to 60)"
    )
    return _Reference(delay, caveat if is_image and not good else "")


def _fault(
    stream: SurveyedStream,
    usual: dict[str, float],
    topic: str,
    good: _Reference,
    fraction: float,
    shift: float,
) -> tuple[float, str]:
    """Return the offset to set [ms] and what is wrong, for the user to read."""
    now_ms = stream.source.offset_s * 1e3
    delay = usual[topic]
    if fraction:
        way = "behind" if fraction > 0 else "ahead of"
        arrival = -round(good.delay_ms, 1)
        return arrival, (
            f"{topic}: its stamps drift by {abs(100 * fraction):.2g} %, {abs(shift):.0f} ms "
            f"{way} the other streams from begin to end; 'stamp: receive' with offset_ms: "
            f"{arrival:g} is right to a few ms{good.caveat}"
        )
    same_clock = min(abs(d) for d in usual.values()) * 1e6 < _SAME_CLOCK_NS
    off = delay - good.delay_ms
    ahead = off < -_AHEAD_MS and (delay < -_AHEAD_MS if same_clock else off < -_BEHIND_MS)
    behind = off > _BEHIND_MS and (delay > _BEHIND_MS or not same_clock)
    if not ahead and not behind:
        return 0.0, ""
    wanted = round(now_ms + off, 1)
    how = (
        f"lie {-off:.0f} ms ahead of the other streams'"
        + (f", {-delay:.0f} ms ahead of their own arrival" if same_clock else "")
        if ahead
        else f"lag {off:.0f} ms behind the other streams'"
    )
    return wanted, (
        f"{topic}: its stamps {how}; if it is the stamps that are wrong, and not the way of the "
        f"messages, set offset_ms: {wanted:g}{good.caveat}"
    )
