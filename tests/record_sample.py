# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Records docs/sample again: one demonstration of the scripted expert, and the dataset it makes.

Run it on an idle machine: an episode with gaps is refused, and the next seed tried.
`python tests/record_sample.py [SEED]`
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path

from koch_episodes.convert import cli
from koch_episodes.dataset import LeRobotDatasetReader
from koch_episodes.inspect_bag import Verdict, inspect_bag
from koch_vla.nodes.running_graph import RunningGraph, wait_for

SAMPLE = Path(__file__).resolve().parents[1] / "docs" / "sample"
LARGEST_BYTES = 5_000_000
DEMONSTRATION_S = 90.0
LOOK_S = 3.0  # at the result, before the recording ends
ATTEMPTS = 6


def record(graph: RunningGraph, seed: int) -> Path:
    """One successful demonstration; the episode's folder."""
    graph.take_up()
    graph.lay_out(seed)
    graph.begin_demonstration()  # planning takes the processor from the cameras
    started = graph.start_episode()
    assert started.success, started.message
    wait_for(lambda: graph.hand() in ("done", "failed"), "the hand's end", DEMONSTRATION_S)
    time.sleep(LOOK_S)
    stopped = graph.stop_episode()
    assert stopped.success, stopped.message
    assert graph.watcher.task is not None
    assert graph.watcher.task.success, "the block is not in the cup"
    return Path(stopped.path)


def convert(episode: Path, dataset: Path) -> int:
    """Turn an episode into a dataset in one piece; the episode's size in bytes."""
    facts = inspect_bag(episode)
    assert facts.verdict is Verdict.GOOD, "; ".join(facts.reasons)
    assert cli.main([str(episode), "--out", str(dataset), "--jobs", "1"]) == 0
    count = len(LeRobotDatasetReader(dataset).episodes)
    assert count == 1, f"gaps make {count} episodes of it"
    size = sum(path.stat().st_size for path in episode.rglob("*"))
    assert size < LARGEST_BYTES, f"the episode has {size} bytes"
    return size


def main() -> int:
    """Replace the sample; 1 when no attempt was good enough."""
    first = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with RunningGraph(folder, SAMPLE / "rig.yaml", ["world.style=human"]) as graph:
            graph.wait_healthy(seconds=120.0)
            for seed in range(first, first + ATTEMPTS):
                dataset = folder / f"dataset_{seed}"
                try:
                    episode = record(graph, seed)
                    size = convert(episode, dataset)
                    break
                except AssertionError as error:
                    print(f"seed {seed}: {error}; is the machine busy?", flush=True)
            else:
                return 1
        shutil.rmtree(SAMPLE / "dataset", ignore_errors=True)
        shutil.rmtree(SAMPLE / "episode_000000", ignore_errors=True)
        shutil.copytree(episode, SAMPLE / "episode_000000")
        shutil.copytree(dataset, SAMPLE / "dataset")
    print(f"{SAMPLE}: seed {seed}, {size} bytes of episode")
    return 0


if __name__ == "__main__":
    sys.exit(main())
