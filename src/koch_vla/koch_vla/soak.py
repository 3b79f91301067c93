# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch bench soak`: what a graph that runs for hours loses, and what it grows by."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from koch_core.command_line import from_command_line
from koch_core.options import OptionModel, option, same_as
from koch_core.terminal import say
from koch_ros.shared_options import RIG
from koch_vla.bench import NOTE, OUTPUT
from koch_vla.machine import machine
from koch_vla.topic_stats import EDGES

_SETTLED_S = 60.0  # imports and first buffers are no growth


@dataclass
class MemoryStats:
    """Resident memory of one process over time."""

    name: str
    points: list[tuple[float, float]] = field(default_factory=list)  # seconds, MB

    def growth(self) -> dict[str, Any]:
        """First and last size in [MB], and the slope of a straight line in [MB/h]."""
        settled = [point for point in self.points if point[0] >= _SETTLED_S] or self.points
        times, sizes = np.array(settled).T
        slope = float(np.polyfit(times, sizes, 1)[0]) * 3600.0 if len(settled) > 2 else 0.0
        return {
            "process": self.name,
            "begin_mb": round(float(sizes[0]), 1),
            "end_mb": round(float(sizes[-1]), 1),
            "growth_mb_per_h": round(slope, 1),
        }


def resident_mb(pid: int) -> float:
    """Resident memory of a process in [MB]; 0 for one that has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def to_markdown(report: Mapping[str, Any]) -> str:
    """The section of docs/reliability.md."""
    computer = report["machine"]
    lines = [
        f"Measured on {report['date']} for {report['minutes']:.0f} minutes: the simulated rig "
        "under `koch up --record`, the scripted expert demonstrating all the time, an episode "
        f"recorded every minute. {computer['processor']}, {computer['cores']} cores, load "
        f"{report['load_begin']:.1f} before and {report['load_mean']:.1f} on average.",
        "",
    ]
    if report["note"]:
        lines += [report["note"], ""]
    lines += _topic_tables(report["topics"])
    lines += [
        "",
        "| process | MB after a minute | MB at the end | growth MB/h |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {row['process']} | {row['begin_mb']} | {row['end_mb']} | {row['growth_mb_per_h']} |"
        for row in report["memory"]
    ]
    episodes = ", ".join(f"{count} {name}" for name, count in report["episodes"].items()) or "none"
    lines += [
        "",
        f"Episodes: {episodes}. Nodes that ended: {', '.join(report['ended']) or 'none'}.",
    ]
    if report["errors"]:
        lines += ["", "Errors on /diagnostics (a report is a second):", ""]
        lines += [f"- {count} x {text}" for text, count in report["errors"].items()]
    return "\n".join(lines) + "\n"


def _topic_tables(topics: Sequence[Mapping[str, Any]]) -> list[str]:
    """Figures of each topic, then how long its intervals were."""
    heads = ["topic", "messages", "lost", "median ms", "p99 ms", "p99.9 ms", "max ms"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    keys = ("topic", "messages", "lost", "median_ms", "p99_ms", "p999_ms", "max_ms")
    lines += ["| " + " | ".join(str(row.get(key, "")) for key in keys) + " |" for row in topics]
    names = [f"≤ {edge:g}" for edge in EDGES] + [f"> {EDGES[-1]:g}"]
    lines += [
        "",
        "Intervals in nominal intervals (1 = 10 ms of an arm, 33 ms of a camera), count:",
    ]
    lines += ["", "| topic | " + " | ".join(names) + " |", "|" + "---|" * (len(names) + 1)]
    lines += [
        f"| {row['topic']} | " + " | ".join(map(str, row.get("histogram", []))) + " |"
        for row in topics
    ]
    return lines


def run(minutes: float, folder: Path, note: str = "", rig: Path | None = None) -> dict[str, Any]:
    """Run the graph and measure it.

    Args:
        minutes: How long.
        folder: For ptys, log, episodes and the report so far.
        note: A sentence about the machine for the report.
        rig: Simulated rig; config/rig.sim.yaml when None.
    """
    # rclpy is imported only where a graph runs.
    from koch_vla.nodes.running_graph import RIG_FILE, RunningGraph
    from koch_vla.nodes.soak_watch import SoakWatch

    load_begin, loads = os.getloadavg()[0], []
    memories: dict[str, MemoryStats] = {}
    with RunningGraph(folder, rig or RIG_FILE) as graph:
        graph.wait_healthy(seconds=180.0)
        pids = graph.pids()
        watch = SoakWatch(graph)
        begin = time.monotonic()
        try:
            while (elapsed := time.monotonic() - begin) < minutes * 60.0:
                watch.step(elapsed)
                for name, pid in graph.pids().items():
                    size = resident_mb(pid)
                    if size:
                        memories.setdefault(name, MemoryStats(name)).points.append((elapsed, size))
                loads.append(os.getloadavg()[0])
                report = {
                    "date": time.strftime("%Y-%m-%d"),
                    "minutes": elapsed / 60.0,
                    "machine": machine(),
                    "note": note,
                    "load_begin": load_begin,
                    "load_mean": float(np.mean(loads)),
                    "topics": [topic.summary() for topic in watch.topics],
                    "memory": [memories[name].growth() for name in sorted(memories)],
                    "episodes": dict(Counter(watch.verdicts)),
                    "ended": [name for name, pid in graph.pids().items() if pids.get(name) != pid],
                    "errors": watch.errors(),
                }
                (folder / "soak.json").write_text(json.dumps(report, indent=2), encoding="utf-8")
                time.sleep(5.0)
        finally:
            watch.close()
    return report


@dataclass(frozen=True, kw_only=True)
class SoakOptions(OptionModel):
    """What `koch bench soak` is asked for."""

    minutes: float = option(20.0, "how long", above=0.0)
    rig: Path | None = same_as(RIG, None, text="a simulated rig file")
    note: str = same_as(NOTE, "")
    output: Path = same_as(OUTPUT, Path("outputs/bench"))


def main(argv: Sequence[str]) -> int:
    """Run the command; 1 when a node ended."""
    about = "Run the simulated rig for a long time: intervals, losses, memory growth."
    options = from_command_line(SoakOptions, "koch bench soak", about, argv)
    options.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="koch_soak_") as folder:
        report = run(options.minutes, Path(folder), options.note, options.rig)
    (options.output / "soak.json").write_text(json.dumps(report, indent=2), encoding="utf-8")
    (options.output / "soak.md").write_text(to_markdown(report), encoding="utf-8")
    say(to_markdown(report))
    return 1 if report["ended"] else 0
