# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Records docs/sample anew: one demonstration of the scripted hand, and the dataset it makes.

Run it on an idle machine; it refuses an episode with gaps. `python tests/record_sample.py [SEED]`
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from koch_episodes.convert import cli
from koch_episodes.dataset import LeRobotDatasetReader
from koch_vla.nodes.running_graph import RunningGraph, wait_for

SAMPLE = Path(__file__).resolve().parents[1] / "docs" / "sample"
LARGEST_BYTES = 5_000_000
DEMONSTRATION_S = 90.0


def record(folder: Path, seed: int) -> Path:
    """One successful demonstration; the episode's folder."""
    with RunningGraph(folder, SAMPLE / "rig.yaml") as graph:
        graph.wait_healthy(seconds=120.0)
        graph.lay_out(seed)
        graph.begin_demonstration()  # planning takes the processor from the cameras
        started = graph.start_episode()
        assert started.success, started.message
        wait_for(lambda: graph.hand() in ("done", "failed"), "the hand's end", DEMONSTRATION_S)
        assert graph.watcher.task is not None
        assert graph.watcher.task.success, "the block is not in the cup; try another seed"
        stopped = graph.stop_episode()
        assert stopped.success, stopped.message
        return Path(stopped.path)


def main() -> None:
    """Replace the sample."""
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        episode, dataset = record(folder, seed), folder / "dataset"
        assert cli.main([str(episode), "--out", str(dataset), "--jobs", "1"]) == 0
        count = len(LeRobotDatasetReader(dataset).episodes)
        assert count == 1, f"gaps make {count} episodes of it; is the machine busy?"
        size = sum(path.stat().st_size for path in episode.rglob("*"))
        assert size < LARGEST_BYTES, f"the episode has {size} bytes"
        for source, target in ((episode, SAMPLE / episode.name), (dataset, SAMPLE / "dataset")):
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(source, target)
    print(f"{SAMPLE}: {size} bytes of episode")


if __name__ == "__main__":
    main()
