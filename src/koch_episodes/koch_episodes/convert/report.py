# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What a conversion tells about each episode: rates, gaps, jitter, held share, time scale."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from koch_core.health import StreamStatistics
from koch_core.stream import NS_PER_S
from koch_episodes.convert.lag import Delay
from koch_episodes.convert.plan import Segment, WindowPlan
from koch_episodes.convert.survey import SurveyedStream, bounded


def segment_report(
    segment: Segment, plan: WindowPlan, streams: Sequence[SurveyedStream], fps: int
) -> dict[str, Any]:
    """Return the report of one dataset episode as plain values.

    Args:
        segment: The episode's frames.
        plan: The recorded episode it comes from.
        streams: The bag's.
        fps: Frames per second.
    """
    start, end = int(segment.ticks_ns[0]), int(segment.ticks_ns[-1])
    return {
        "frames": segment.length,
        "trimmed_frames": segment.trimmed,
        "duration_s": (end - start) / NS_PER_S,
        "start_ns": start,
        "task": plan.window.task,
        "outcome": plan.window.outcome,
        "streams": {
            stream.source.topic: asdict(_measured(stream, segment.run, start, end))
            for stream in streams
        },
        "features": {
            feature: _feature(stamps, segment, fps)
            for feature, place, stamps in _parts(segment)
            if place == "0"
        },
    }


def _measured(stream: SurveyedStream, run: int, start: int, end: int) -> StreamStatistics:
    inside = (stream.runs == run) & (stream.stamps >= start) & (stream.stamps <= end)
    return StreamStatistics.of(stream.stamps[inside])


def _parts(segment: Segment) -> Iterator[tuple[str, str, Any]]:
    for key, stamps in segment.stamps_ns.items():
        feature, _, place = key.rpartition("/")
        yield feature, place, stamps


def _feature(stamps: Any, segment: Segment, fps: int) -> dict[str, float]:
    ages = np.abs(segment.ticks_ns - stamps) / NS_PER_S
    span = float(stamps[-1] - stamps[0]) / NS_PER_S
    nominal = (segment.length + segment.trimmed - 1) / fps
    return {
        # Share of frames that show the same sample as the frame before.
        "held_share": float(np.mean(np.diff(stamps) == 0)),
        "mean_age_s": float(ages.mean()),
        "max_age_s": float(ages.max()),
        # Played at fps, how much faster (+) or slower (-) than it happened.
        "time_scale_error": span / nominal - 1.0,
    }


def bag_report(
    name: str,
    plans: Sequence[WindowPlan],
    streams: Sequence[SurveyedStream],
    damage: Sequence[str],
    notes: Sequence[str],
    split: Mapping[str, Any],
    delays: Sequence[Delay],
) -> dict[str, Any]:
    """Return what concerns the bag as a whole."""
    refused: dict[str, Counter[str]] = {}
    for stream in streams:  # of several features on one topic, the most refused
        refused[stream.source.topic] = refused.get(stream.source.topic, Counter()) | stream.refused
    return {
        "bag": name,
        "damage": list(damage),
        "notes": list(notes),
        "refused": {topic: bounded(whys) for topic, whys in refused.items() if whys},
        "gaps": [asdict(gap) for plan in plans for gap in plan.gaps],
        "pieces_too_short": sum(plan.too_short for plan in plans),
        "split": dict(split),
        "clocks": {delay.topic: asdict(delay) for delay in delays},
    }


def episode_line(report: Mapping[str, Any]) -> str:
    """Return one line for the terminal."""
    held = max((f["held_share"] for f in report["features"].values()), default=0.0)
    slow = max((abs(f["time_scale_error"]) for f in report["features"].values()), default=0.0)
    gap = max((s["max_gap_s"] for s in report["streams"].values()), default=0.0)
    idle = f"  trimmed {report['trimmed_frames']}" if report["trimmed_frames"] else ""
    return (
        f"{report['frames']:6d} frames {report['duration_s']:7.2f} s  held {100 * held:3.0f} %  "
        f"largest gap {1e3 * gap:4.0f} ms  time scale {100 * slow:.2f} %{idle}"
    )
