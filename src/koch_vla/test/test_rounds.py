# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch bench faults` and `koch bench soak`: what they count and what they print."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest

from koch_vla.fault_round import SIMULATED, FaultResult, faults
from koch_vla.fault_round import to_markdown as faults_page
from koch_vla.soak import MemoryStats
from koch_vla.soak import to_markdown as soak_page
from koch_vla.topic_stats import EDGES, TopicStats

MS = 1_000_000
MACHINE = {"processor": "a CPU", "cores": "2", "load before": "0.1"}
PAGE = Path(__file__).resolve().parents[3] / "docs" / "reliability.md"


def test_the_round_has_a_fault_of_every_kind_and_forty_rows() -> None:
    rows = faults()
    assert len(rows) >= 40
    kinds = {"servo", "bus", "supply", "usb", "camera", "process", "disk", "clock", "sender"}
    assert {row.kind for row in rows} == kinds
    assert len({(row.rig, row.kind, row.name) for row in rows}) == len(rows)
    simulated = [row for row in rows if row.rig == SIMULATED]
    assert len(simulated) >= 10
    assert {row.kind for row in simulated} == {"supply", "usb", "camera", "process", "disk"}
    for row in rows:
        re.compile(row.cause)


def test_every_row_of_the_round_is_on_the_page() -> None:
    """The page holds a run of this round, not of an older one."""
    text = PAGE.read_text(encoding="utf-8")
    emulated, heading, simulated = text.partition("On the simulated rig, ")
    assert heading
    for row in faults():
        page = simulated if row.rig == SIMULATED else emulated
        assert f"| {row.kind} | {row.name} |" in page


def test_a_fault_without_cause_or_recovery_shows_in_the_table() -> None:
    report = {
        "date": "2026-01-02",
        "machine": MACHINE,
        "note": "",
        "load_end": 0.2,
        "faults": [
            asdict(FaultResult("bus", "noise", None, "", "held", "nothing", 0.5)),
            asdict(FaultResult("usb", "plug out", 1.25, "a|b", "no goal written", "2.0 s", None)),
        ],
    }
    page = faults_page(json.loads(json.dumps(report)))
    assert "| bus | noise |  |  | held | nothing | 0.5 s |" in page
    assert "| usb | plug out | 1.2 s | a\\|b | no goal written | 2.0 s | **not** |" in page
    assert "2 faults. The cause of 1 was named" in page


def test_intervals_losses_and_restarts_are_counted() -> None:
    stats = TopicStats("/a", 100.0)
    stamp, sequence = 0, 10
    for gap_ms, missing in [(0, 0), *[(10, 0)] * 50, (35, 2), (10, 0), (4, 0), (700, 0)]:
        stamp += gap_ms * MS
        sequence += 1 + missing
        stats.add(stamp, sequence)
    stats.add(stamp + 10 * MS, 1)  # a new process begins to count again
    found = stats.summary()
    assert (found["messages"], found["lost"], stats.restarts) == (56, 2, 1)
    assert (found["median_ms"], found["max_ms"]) == (10.0, 700.0)
    histogram = dict(zip([*EDGES, "more"], found["histogram"], strict=True))
    assert histogram == {
        0.5: 1, 0.9: 0, 1.1: 52, 1.5: 0, 2.0: 0, 3.0: 0, 5.0: 1, 10.0: 0, "more": 1
    }  # fmt: skip


def test_growth_begins_after_the_first_minute() -> None:
    memory = MemoryStats("/node", [(t, 50.0 if t < 60 else 90.0 + t / 360.0) for t in range(600)])
    assert memory.growth() == {
        "process": "/node",
        "begin_mb": 90.2,
        "end_mb": 91.7,
        "growth_mb_per_h": pytest.approx(10.0),
    }


def test_the_soak_page_says_for_how_long_and_at_what_load() -> None:
    stats = TopicStats("/a", 100.0)
    for k in range(5):
        stats.add(k * 10 * MS, k + 1)
    page = soak_page(
        {
            "date": "2026-01-02",
            "minutes": 60.0,
            "machine": MACHINE,
            "note": "Shared.",
            "load_begin": 0.1,
            "load_mean": 2.5,
            "topics": [stats.summary(), {"topic": "/silent", "messages": 0}],
            "memory": [],
            "episodes": {"green": 3},
            "ended": [],
            "errors": {"x: y": 2},
        }
    )
    assert "for 60 minutes" in page
    assert "load 0.1 before and 2.5 on average" in page
    assert "| /a | 5 | 0 | 10.0 |" in page
    assert "| /silent | 0 |" in page
    assert "- 2 x x: y" in page
