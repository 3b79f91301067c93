# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch up --set recorder.storage=rosbag2`: the graph records with what a ROS installation brings.

rosbag2_py is not on PyPI; here its documented interface stands over another library.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from mcap.reader import make_reader
from repository import ROOT
from small_images import with_small_rig

from koch_episodes.bag import open_bag
from koch_episodes.bag.mcap_writer import LIBRARY
from koch_vla.nodes.running_graph import RunningGraph

pytestmark = [
    pytest.mark.ros,
    pytest.mark.slow,
    pytest.mark.alone,
    pytest.mark.timeout(240),
]


def test_an_episode_of_the_graph_is_written_by_rosbag2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The graph's processes get this path.
    monkeypatch.syspath_prepend(ROOT / "src" / "koch_episodes" / "test" / "stand_ins")
    rig_file = with_small_rig(tmp_path)
    with RunningGraph(tmp_path / "graph", rig_file, ["recorder.storage=rosbag2"]) as graph:
        graph.wait_healthy(seconds=120.0)
        started = graph.start_episode()
        assert started.success, started.message
        stopped = graph.stop_episode()
        assert stopped.success, stopped.message
    episode = Path(stopped.path)
    with next(episode.glob("*.mcap")).open("rb") as file:
        assert make_reader(file).get_header().library != LIBRARY  # not our own writer's
    follower = graph.rig.follower.name
    with open_bag(episode) as bag:
        assert bag.damage == []
        assert bag.custom["koch.task"] == graph.rig.task
        assert f"/{follower}/joint_states" in {m.topic for m in bag.messages(bag.topics)}
