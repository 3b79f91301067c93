# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Which of the planned pieces become dataset episodes, and why none did."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from koch_core.stream import NS_PER_S, to_ns
from koch_episodes.convert.options import ConvertOptions
from koch_episodes.convert.plan import BagPlan, Segment, WindowPlan

_DAMAGE_TOLD = 3
_NOTES_TOLD = 8  # a bag may tell of hundreds of episodes
_UNUSED_NS = NS_PER_S  # at either end of an episode; the streams' latencies are far below


def select_segments(
    plans: Sequence[WindowPlan], options: ConvertOptions, fps: int, notes: list[str]
) -> list[Segment]:
    """Return the segments to keep, in order of time.

    Args:
        plans: What became of every recorded episode.
        options: Outcomes wanted, what to do at gaps.
        fps: Frames per second.
        notes: A line is added for everything that is left out.
    """
    chosen: list[Segment] = []
    for plan in plans:
        name, outcome = _name(plan), plan.window.outcome
        if plan.window.deleted:
            notes.append(f"{name}: left out (marked as deleted)")
            continue
        if outcome == "discarded" or (options.outcomes and outcome not in options.outcomes):
            notes.append(f"{name}: left out ({outcome or 'no label'})")
            continue
        if plan.gaps and not options.split_at_gaps:
            gap = plan.gaps[0]
            notes.append(
                f"{name}: left out, gap of {gap.duration_s:.2f} s at {gap.at_s:.2f} s ({gap.why})"
            )
            continue
        if not plan.segments and len(plans) > 1:
            notes.append(f"{name}: no two frames in a row")
        least = options.min_seconds * fps if len(plan.segments) > 1 else 0.0
        long = [segment for segment in plan.segments if segment.length >= least]
        if len(long) < len(plan.segments):
            notes.append(
                f"{name}: {len(plan.segments) - len(long)} piece(s) shorter than "
                f"{options.min_seconds:g} s left out"
            )
        chosen.extend(long)
    return chosen


def _name(plan: WindowPlan) -> str:
    number = plan.window.index
    return "the recording" if number is None else f"episode {number}"


def unused_ends(plan: BagPlan) -> list[str]:
    """Name the streams that begin so late or end so early that much of an episode has no frames.

    Gaps have frames on both sides and are reported as such; this is what is outside.
    """
    lines = []
    for each in plan.windows:
        for run in sorted({segment.run for segment in each.segments}):
            window = each.window.within(run)
            assert window is not None
            ticks = [part.ticks_ns for part in each.segments if part.run == run]
            found = [(s.source.topic, _span(s.stamps[s.runs == run])) for s in plan.streams]
            begin, end = min(first for _, (first, _) in found), max(last for _, (_, last) in found)
            head = min(part[0] for part in ticks) - max(begin, window.first_ns)
            tail = min(end, window.end_ns) - max(part[-1] for part in ticks)
            if head > _UNUSED_NS:
                topic, (first, _) = max(found, key=lambda item: item[1][0])
                why = f"{topic} begins {(first - begin) / NS_PER_S:.1f} s after the first stream"
                lines.append(
                    f"{_name(each)}: no frames in its first {head / NS_PER_S:.1f} s; {why}"
                )
            if tail > _UNUSED_NS:
                why = plan.missing or "a stream ends earlier"
                lines.append(
                    f"{_name(each)}: no frames in its last {tail / NS_PER_S:.1f} s; {why}"
                )
    return lines


def _span(times: npt.NDArray[np.int64]) -> tuple[int, int]:
    """First and last stamp [ns]; one that stands alone at either end is no part of the stream."""
    stamps = np.sort(times)
    inner = stamps[1:-1] if len(stamps) > 2 else stamps
    return int(inner[0]), int(inner[-1])


def why_nothing(plan: BagPlan, notes: Sequence[str], damage: Sequence[str]) -> str:
    """Explain why no frame came out of a bag."""
    lines = list(notes[:_NOTES_TOLD])
    if len(notes) > _NOTES_TOLD:
        lines.append(f"and {len(notes) - _NOTES_TOLD} more of the kind")
    for stream in plan.streams:
        refused = ", ".join(f"{n} x {why}" for why, n in stream.refused.most_common(2))
        if not len(stream.stamps):
            why = f" ({refused})" if refused else ""
            lines.append(f"{stream.source.topic}: no usable message{why}")
        elif refused:
            lines.append(f"{stream.source.topic}: refused {refused}")
    seen = all(len(stream.stamps) for stream in plan.streams)
    if seen and not any(each.segments for each in plan.windows):
        lines.append(_too_short_or_apart(plan))
    return "; ".join([*lines, *damage_told(damage)])


def damage_told(damage: Sequence[str]) -> list[str]:
    """The first lines of a bag's damage, as a reason for what is missing."""
    told = [f"the bag is damaged: {line}" for line in damage[:_DAMAGE_TOLD]]
    if len(damage) > _DAMAGE_TOLD:
        told.append(f"and {len(damage) - _DAMAGE_TOLD} more damages ('koch inspect' lists them)")
    return told


def _too_short_or_apart(plan: BagPlan) -> str:
    spans = [(int(s.stamps.min()), int(s.stamps.max())) for s in plan.streams]
    slack = max(to_ns(stream.source.max_age_s) for stream in plan.streams)
    together = max(first for first, _ in spans) <= min(last for _, last in spans) + slack
    if together or any(each.too_short for each in plan.windows):
        missing = f"; last missing: {plan.missing}" if plan.missing else ""
        return f"shorter than two frames{missing}"
    listed = ", ".join(
        f"{stream.source.topic} {first / NS_PER_S:.2f}..{last / NS_PER_S:.2f}"
        for stream, (first, last) in zip(plan.streams, spans, strict=True)
    )
    return (
        f"the streams never overlap in time: {listed} s; --stamps receive uses the "
        "recorder's clock"
    )
