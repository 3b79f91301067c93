# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A plain bag of the whole graph converts into the same frames as the recorder's episode."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("koch_interfaces", reason="source install/local_setup.bash first")

from plain_bag import PlainBag

from koch_episodes.bag import open_bag
from koch_episodes.cdr import header_stamp_ns
from koch_episodes.convert import cli
from koch_episodes.dataset import LeRobotDatasetReader
from koch_vla.nodes.running_graph import wait_for

if TYPE_CHECKING:
    from koch_vla.nodes.running_graph import RunningGraph

SERVES_NS = 150_000_000  # how long a message is used: the greatest max_age_ms and a period
LATE_NS = 500_000_000  # what was on its way when the recorder closed its bag

pytestmark = [
    pytest.mark.ros,
    pytest.mark.slow,
    pytest.mark.alone,
    pytest.mark.timeout(240),
]


def test_plain_bag_gives_the_recorders_frames(graph: RunningGraph, tmp_path: Path) -> None:
    streams = {stream.topic for stream in graph.rig.streams.values()}
    wanted = {*streams, "/episodes/events"}
    with PlainBag(tmp_path / "plain", domain_id=graph.domain_id) as plain:
        wait_for(lambda: wanted <= plain.topics, f"all of {sorted(wanted)}", 60.0)
        graph.demonstrate(seed=11)
        started = graph.start_episode()
        assert started.success, started.message
        time.sleep(6.0)
        stopped = graph.stop_episode()
        assert stopped.success, stopped.message
        end_ns = time.time_ns()
        wait_for(lambda: plain.has_heard(end_ns, streams), "what came after the episode")
    ours = convert(Path(stopped.path), tmp_path / "ours")
    theirs = convert(tmp_path / "plain", tmp_path / "theirs", "--rig", str(graph.rig_file))
    zero_ns = starts_ns(ours)[0]
    mine, other = ticks(ours, zero_ns), ticks(theirs, zero_ns)
    lost = lost_ticks((Path(stopped.path), tmp_path / "plain"), wanted, zero_ns, ours.fps)
    common = sorted((set(mine) & set(other)) - lost)
    # A busy machine has gaps, which leave out ticks, in both bags the same.
    assert len(common) >= 15, f"only {len(common)} frames of six seconds in common"
    # What was on its way when the recorder closed its bag is in the plain bag alone.
    late = math.ceil(latency_s(tmp_path / "plain", wanted) * ours.fps)
    edges = {common[0] - 1, *range(common[-1] + 1, common[-1] + 2 + late)}
    assert in_runs(set(mine) - lost) ^ in_runs(set(other) - lost) <= edges, (
        "frames are missing elsewhere than at the edges"
    )
    for key in ("observation.state", "action", "observation.environment_state"):
        np.testing.assert_array_equal(
            ours.column(key)[[mine[tick] for tick in common]],
            theirs.column(key)[[other[tick] for tick in common]],
            err_msg=key,
        )
    tick = common[len(common) // 2]
    for key in ours.image_keys:
        pair = ours[mine[tick]][key], theirs[other[tick]][key]
        # Each was encoded on its own.
        assert np.abs(np.subtract(*pair, dtype=np.int16)).mean() < 2.0, key


def convert(bag: Path, out: Path, *options: str) -> LeRobotDatasetReader:
    command = [str(bag), "--out", str(out), "--jobs", "1", "--min-seconds", "0", *options]
    assert cli.main(command) == 0
    return LeRobotDatasetReader(out)


def latency_s(bag: Path, topics: set[str]) -> float:
    """Longest time from a stamp to the message's arrival."""
    with open_bag(bag) as opened:
        return max(
            (message.log_ns - header_stamp_ns(message.data)) / 1e9
            for message in opened.messages(topics)
        )


def lost_ticks(bags: tuple[Path, Path], topics: set[str], zero_ns: int, fps: float) -> set[int]:
    """Ticks that may rest on a message which only one of two bags of the same time holds.

    Cameras publish as best effort: on a busy machine the middleware may lose an image for one
    listener and not for the other.
    """
    heard = []
    for bag in bags:
        with open_bag(bag) as opened:
            found = opened.messages(topics)
            heard.append({(message.topic, header_stamp_ns(message.data)) for message in found})
    first, last = (f(stamp for _, stamp in heard[0]) for f in (min, max))
    alone = {stamp for _, stamp in heard[0] ^ heard[1] if first <= stamp <= last - LATE_NS}
    return {
        tick
        for stamp in alone
        for tick in range(
            math.floor((stamp - zero_ns) * fps / 1e9),
            math.ceil((stamp + SERVES_NS - zero_ns) * fps / 1e9) + 1,
        )
    }


def in_runs(ticks: set[int]) -> set[int]:
    """Ticks with a neighbour: of a single frame the converter makes no episode."""
    return {tick for tick in ticks if {tick - 1, tick + 1} & ticks}


def starts_ns(dataset: LeRobotDatasetReader) -> list[int]:
    """Times of the episodes' first ticks."""
    report = json.loads((dataset.root / "meta" / "koch_report.json").read_text())
    return [episode["start_ns"] for bag in report for episode in bag["episodes"]]


def ticks(dataset: LeRobotDatasetReader, zero_ns: int) -> dict[int, int]:
    """Tick, counted from a time, to the dataset's row."""
    return {
        round((start - zero_ns) * dataset.fps / 1e9) + frame: row.from_index + frame
        for start, row in zip(starts_ns(dataset), dataset.episodes, strict=True)
        for frame in range(row.length)
    }
