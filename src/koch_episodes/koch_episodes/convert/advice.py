# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What to do about episodes that fell into pieces because a stream was slower than its rig says.

No value is invented: the pieces stay pieces. But the stamps tell at which frame rate, or with
which maximum age, the episode would have stayed whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from koch_core.frame import SampleRule
from koch_core.stream import NS_PER_S, to_ns
from koch_episodes.convert.plan import BagPlan, WindowPlan, usable

_RATES = (5, 6, 8, 10, 12, 15, 20, 24, 25)
# A stream that is silent for longer has stopped; no setting makes that whole.
_STOPPED_NS = NS_PER_S // 2
_ROUND_MS = 10

Stamps = npt.NDArray[np.int64]


def split_report(plan: BagPlan, fps: int) -> dict[str, Any]:
    """Return what is known about the episodes of a bag that fell into pieces.

    Where the clock was set back no setting makes one piece of two: each run counts by itself.

    Args:
        plan: The bag's.
        fps: Frames per second.

    Returns:
        Empty without gaps, else ``episodes`` and ``pieces`` (counts), ``pieces_at_fps`` (lower
        rate to pieces) and ``streams``: topic to ``rate_hz``, ``max_age_ms`` (as it is) and
        ``needed_ms`` (the oldest sample wanted, stops of more than 0.5 s aside).
    """
    torn = [each for each in plan.windows if len(_spans(each)) < len(each.segments)]
    if not torn:
        return {}
    spans = [(run, *span) for each in torn for run, span in _spans(each).items()]
    rates = [rate for rate in _RATES if rate < fps]
    stamps = {run: _stamps(plan, run) for run in {run for run, _, _ in spans}}
    ticks = [(run, _ticks(first, last, fps)) for run, first, last in spans]
    return {
        "episodes": len(torn),
        "pieces": sum(len(each.segments) + each.too_short for each in torn),
        "pieces_at_fps": {
            str(rate): sum(
                _pieces(plan, run, stamps[run], _ticks(first, last, rate))
                for run, first, last in spans
            )
            for rate in rates
        },
        "streams": _slow_streams(plan, stamps, ticks),
    }


def _stamps(plan: BagPlan, run: int) -> list[Stamps]:
    return [np.sort(stream.stamps[stream.runs == run]) for stream in plan.streams]


def _spans(each: WindowPlan) -> dict[int, tuple[int, int]]:
    """Return run to first and last tick of an episode, [ns]."""
    found: dict[int, tuple[int, int]] = {}
    for segment in each.segments:
        first, last = int(segment.ticks_ns[0]), int(segment.ticks_ns[-1])
        found[segment.run] = (found.get(segment.run, (first, last))[0], last)
    return found


def _ticks(first_ns: int, last_ns: int, fps: int) -> Stamps:
    count = (last_ns - first_ns) * fps // NS_PER_S + 1
    return first_ns + np.round(np.arange(count) * (NS_PER_S / fps)).astype(np.int64)


def _ages(stamps: Stamps, ticks: Stamps, rule: SampleRule) -> Stamps:
    """Return how far the sample of each tick is from it, [ns]; 0 for a value that holds."""
    if rule is SampleRule.HOLD:
        return np.zeros_like(ticks)
    if rule is SampleRule.NEWEST:
        return ticks - stamps[np.maximum(np.searchsorted(stamps, ticks, "right") - 1, 0)]
    place = np.searchsorted(stamps, ticks, "left")
    return np.asarray(stamps[np.minimum(place, len(stamps) - 1)] - ticks)


def _distance(stamps: Stamps, ticks: Stamps) -> Stamps:
    """Return the distance of the two samples around each tick, [ns]; before the first: 0."""
    place = np.searchsorted(stamps, ticks, "right")
    after = stamps[np.minimum(place, len(stamps) - 1)]
    return np.asarray(after - stamps[np.maximum(place - 1, 0)])


def _pieces(plan: BagPlan, run: int, stamps: Sequence[Stamps], ticks: Stamps) -> int:
    """Count the runs of ticks for which every stream has a sample."""
    good = np.ones(len(ticks), dtype=bool)
    for number, rule in plan.uses:
        ages = _ages(stamps[number], ticks, rule)
        good &= (ages >= 0) & (ages <= to_ns(plan.streams[number].source.max_age_s))
        good &= usable(plan.streams[number], run, ticks)
    return int(np.count_nonzero(np.diff(good.astype(np.int8), prepend=0) == 1))


def _slow_streams(
    plan: BagPlan, stamps: Mapping[int, Sequence[Stamps]], ticks: Sequence[tuple[int, Stamps]]
) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for number, rule in sorted(plan.uses, key=lambda use: use[0]):
        source = plan.streams[number].source
        mine = {run: streams[number] for run, streams in stamps.items()}
        alive = [(run, t[_distance(mine[run], t) <= _STOPPED_NS]) for run, t in ticks]
        ages = np.concatenate([_ages(mine[run], t, rule) for run, t in alive])
        oldest = int(ages.max(initial=0))
        inside = sum(
            int(np.count_nonzero((mine[run] >= t[0]) & (mine[run] <= t[-1]))) for run, t in ticks
        )
        if oldest > to_ns(source.max_age_s) and source.topic not in found and inside:
            seconds = sum(int(t[-1] - t[0]) for _, t in ticks) / NS_PER_S
            found[source.topic] = {
                "rate_hz": round(inside / seconds, 1),
                "max_age_ms": round(source.max_age_s * 1e3, 1),
                "needed_ms": round(oldest / 1e6, 1),
            }
    return found


def advice(splits: Iterable[Mapping[str, Any]], min_seconds: float) -> list[str]:
    """Say once, for all bags, how torn the episodes are and what would have kept them whole.

    Args:
        splits: What `split_report` returned for each bag.
        min_seconds: Pieces below this were left out, [s].

    Returns:
        Lines for the terminal; none if no episode was torn.
    """
    torn = [split for split in splits if split]
    if not torn:
        return []
    episodes, pieces = (sum(split[name] for split in torn) for name in ("episodes", "pieces"))
    left_out = f"; those below {min_seconds:g} s are left out (--min-seconds)"
    lines = [
        f"{episodes} recorded episode(s) fell into {pieces} pieces at gaps"
        + (left_out if min_seconds > 0 else "")
    ]
    streams: dict[str, dict[str, float]] = {}
    for split in torn:
        for topic, facts in split["streams"].items():
            worst = streams.setdefault(topic, dict(facts))
            worst["rate_hz"] = min(worst["rate_hz"], facts["rate_hz"])
            worst["needed_ms"] = max(worst["needed_ms"], facts["needed_ms"])
    for topic, facts in streams.items():
        needed = -(-facts["needed_ms"] // _ROUND_MS) * _ROUND_MS
        lines.append(
            f"{topic} came at {facts['rate_hz']:g} Hz, up to {facts['needed_ms']:.0f} ms old; "
            f"max_age_ms is {facts['max_age_ms']:g}. With {needed:.0f} in a copy of the rig "
            "(--rig) those gaps close; the live policy then accepts such age too."
        )
    line = _lower_rate(torn, pieces)
    return [*lines, line] if line else lines


def _lower_rate(torn: Sequence[Mapping[str, Any]], pieces: int) -> str:
    rates = set.intersection(*(set(split["pieces_at_fps"]) for split in torn))
    totals = {int(r): sum(int(split["pieces_at_fps"][r]) for split in torn) for r in rates}
    if not totals:
        return ""
    best = min(totals, key=lambda rate: (totals[rate], -rate))
    if totals[best] > pieces // 2:
        return ""
    return f"At --fps {best} it would be {totals[best]} piece(s)."
