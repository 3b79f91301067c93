# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Which of the planned pieces become dataset episodes, and why none did."""

from __future__ import annotations

from collections.abc import Sequence

from koch_episodes.convert.options import ConvertOptions
from koch_episodes.convert.plan import Planner, Segment, WindowPlan
from koch_episodes.stream import NS_PER_S, to_ns


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
        name, outcome = f"episode {plan.window.index}", plan.window.outcome
        if outcome == "discarded" or (options.outcomes and outcome not in options.outcomes):
            notes.append(f"{name}: left out ({outcome or 'no label'})")
            continue
        if plan.gaps and not options.split_at_gaps:
            gap = plan.gaps[0]
            notes.append(
                f"{name}: left out, gap of {gap.duration_s:.2f} s at {gap.at_s:.2f} s ({gap.why})"
            )
            continue
        least = options.min_seconds * fps if len(plan.segments) > 1 else 0.0
        long = [segment for segment in plan.segments if segment.length >= least]
        if len(long) < len(plan.segments):
            notes.append(
                f"{name}: {len(plan.segments) - len(long)} piece(s) shorter than "
                f"{options.min_seconds:g} s left out"
            )
        chosen.extend(long)
    return chosen


def why_nothing(planner: Planner, plans: Sequence[WindowPlan], notes: Sequence[str]) -> str:
    """Explain why no frame came out of a bag."""
    lines = list(notes)
    for source, track in zip(planner.sources, planner.tracks, strict=True):
        refused = ", ".join(f"{n} x {why}" for why, n in track.refused.most_common(2))
        if not track.stamps:
            why = f" ({refused})" if refused else ""
            lines.append(f"{source.topic}: no usable message{why}")
    if not lines:
        lines.append(_too_short_or_apart(planner, plans))
    return "; ".join(lines)


def _too_short_or_apart(planner: Planner, plans: Sequence[WindowPlan]) -> str:
    spans = [(min(track.stamps), max(track.stamps)) for track in planner.tracks]
    slack = max(to_ns(source.max_age_s) for source in planner.sources)
    together = max(first for first, _ in spans) <= min(last for _, last in spans) + slack
    if together or any(plan.too_short for plan in plans):
        return "shorter than two frames"
    listed = ", ".join(
        f"{source.topic} {first / NS_PER_S:.2f}..{last / NS_PER_S:.2f}"
        for source, (first, last) in zip(planner.sources, spans, strict=True)
    )
    return (
        f"the streams never overlap in time: {listed} s; --stamps receive uses the "
        "recorder's clock"
    )
