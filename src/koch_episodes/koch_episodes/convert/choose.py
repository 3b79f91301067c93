# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Which of the planned pieces become dataset episodes, and why none did."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from koch_episodes.convert.mapping import Source
from koch_episodes.convert.options import ConvertOptions
from koch_episodes.convert.plan import Planner, Segment, WindowPlan
from koch_episodes.convert.track import StreamTrack
from koch_episodes.stream import NS_PER_S, to_ns

_UNUSED_NS = NS_PER_S  # at either end of an episode; the streams' latencies are far below


def choose(
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


def unused_ends(planner: Planner, plans: Sequence[WindowPlan]) -> list[str]:
    """Name the streams that begin so late or end so early that much of an episode has no frames.

    Gaps have frames on both sides and are reported as such; this is what lies outside.
    """
    spans = [(source.topic, _span(track)) for source, track in _streams(planner) if track.stamps]
    if not spans:
        return []
    begin, end = min(first for _, (first, _) in spans), max(last for _, (_, last) in spans)
    lines = []
    for plan in plans:
        if not plan.segments:
            continue
        head = min(part.ticks_ns[0] for part in plan.segments) - max(begin, plan.window.start_ns)
        tail = min(end, plan.window.end_ns) - max(part.ticks_ns[-1] for part in plan.segments)
        if head > _UNUSED_NS:
            topic, (first, _) = max(spans, key=lambda item: item[1][0])
            why = f"{topic} begins {(first - begin) / NS_PER_S:.1f} s after the first stream"
            lines.append(f"{_name(plan)}: no frames in its first {head / NS_PER_S:.1f} s; {why}")
        if tail > _UNUSED_NS:
            why = planner.missing or "a stream ends earlier"
            lines.append(f"{_name(plan)}: no frames in its last {tail / NS_PER_S:.1f} s; {why}")
    return lines


def _streams(planner: Planner) -> list[tuple[Source, StreamTrack]]:
    return list(zip(planner.sources, planner.tracks, strict=True))


def _span(track: StreamTrack) -> tuple[int, int]:
    """First and last stamp [ns]; one that stands alone at either end is no part of the stream."""
    stamps = np.sort(np.frombuffer(track.stamps, np.int64))
    inner = stamps[1:-1] if len(stamps) > 2 else stamps
    return int(inner[0]), int(inner[-1])


def why_nothing(planner: Planner, plans: Sequence[WindowPlan], notes: Sequence[str]) -> str:
    """Explain why no frame came out of a bag."""
    lines = list(notes)
    for source, track in _streams(planner):
        refused = ", ".join(f"{n} x {why}" for why, n in track.refused.most_common(2))
        if not track.stamps:
            why = f" ({refused})" if refused else ""
            lines.append(f"{source.topic}: no usable message{why}")
        elif refused:
            lines.append(f"{source.topic}: refused {refused}")
    seen = all(track.stamps for track in planner.tracks)
    if seen and not any(plan.segments for plan in plans):
        lines.append(_too_short_or_apart(planner, plans))
    return "; ".join(lines)


def _too_short_or_apart(planner: Planner, plans: Sequence[WindowPlan]) -> str:
    spans = [(min(track.stamps), max(track.stamps)) for track in planner.tracks]
    slack = max(to_ns(source.max_age_s) for source in planner.sources)
    together = max(first for first, _ in spans) <= min(last for _, last in spans) + slack
    if together or any(plan.too_short for plan in plans):
        missing = f"; last missing: {planner.missing}" if planner.missing else ""
        return f"shorter than two frames{missing}"
    listed = ", ".join(
        f"{source.topic} {first / NS_PER_S:.2f}..{last / NS_PER_S:.2f}"
        for source, (first, last) in zip(planner.sources, spans, strict=True)
    )
    return (
        f"the streams never overlap in time: {listed} s; --stamps receive uses the "
        "recorder's clock"
    )
