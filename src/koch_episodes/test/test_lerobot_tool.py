# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""LeRobot's edit tool on our results, our edits on its results; its loader reads every frame."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from koch_episodes.dataset import DatasetWriter, FeatureSpec, validate_dataset
from koch_episodes.dataset.edit.cli import main

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

LeRobot = Callable[..., dict[str, Any]]
CAMERA = "observation.images.front"
FEATURES = {
    "action": FeatureSpec("float32", (2,), ("a", "b")),
    "observation.state": FeatureSpec("float32", (2,), ("x", "y")),
    "intervention": FeatureSpec("bool", (1,)),
    CAMERA: FeatureSpec("video", (48, 64, 3), ("height", "width", "channels")),
}

# What `lerobot-edit-dataset` calls; each result in a folder of its own.
EDIT = """
import json, sys
from pathlib import Path
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.datasets import dataset_tools as tools
ours, more, out = map(Path, sys.argv[1:])
def opened(root):
    return LeRobotDataset("local/" + root.name, root=root, video_backend="pyav")
tools.delete_episodes(opened(ours), [1], output_dir=out / "deleted", repo_id="local/deleted")
tools.split_dataset(opened(ours), {"one": [0, 3], "two": [1, 2]}, output_dir=out / "parts")
tools.merge_datasets([opened(ours), opened(more)], "local/merged", output_dir=out / "merged")
tools.remove_feature(opened(ours), "intervention", output_dir=out / "removed",
                     repo_id="local/removed")
copy = opened(out / "deleted")
tools.modify_tasks(copy, new_task="Said again.")
found = [str(path.parent.parent) for path in out.rglob("info.json") if "_old" not in str(path)]
print(json.dumps(found))
"""

LOAD = """
import json, sys
from lerobot.datasets.lerobot_dataset import LeRobotDataset
found = {}
for root in sys.argv[1:]:
    data = LeRobotDataset("local/data", root=root, video_backend="pyav")
    rows = []
    for i in range(len(data)):
        item = data[i]
        rows.append([int(item["episode_index"]), int(item["frame_index"]), item["task"],
                     item["action"].tolist(),
                     float(item["observation.images.front"].mean() * 255)])
    found[root] = {"rows": rows, "episodes": data.num_episodes, "keys": sorted(data.features),
                   "count": int(data.meta.stats["action"]["count"][0])}
print(json.dumps(found))
"""


def write(root: Path, first: int, lengths: tuple[int, ...]) -> Path:
    """action[1] is 100 * episode + frame, and the image has the shade of both."""
    with DatasetWriter(root, FEATURES, fps=10, robot_type="r", version="v3.0") as writer:
        for episode, length in enumerate(lengths, first):
            steps = np.arange(length)
            writer.add_episode(
                {
                    "action": np.stack([steps, steps + 100.0 * episode], 1),
                    "observation.state": np.stack([steps, steps], 1) * 0.5,
                    "intervention": steps > 5,
                },
                {CAMERA: [np.full((48, 64, 3), shade(episode, k), np.uint8) for k in steps]},
                f"Aufgabe „{episode % 2}“",
                "success" if episode % 2 else "failure",
            )
    return root


def shade(episode: int, frame: int) -> int:
    return 20 + 30 * episode + frame


def run(*words: object) -> None:
    assert main([str(word) for word in words]) == 0


Piece = tuple[int, int, int]  # episode of the original, first frame, behind the last


def check(told: dict[str, Any], pieces: list[Piece], task: str | None = None) -> None:
    """What LeRobot's loader hands out is that of the wanted stretches, frame by frame."""
    assert told["episodes"] == len(pieces)
    assert told["count"] == sum(stop - start for _, start, stop in pieces)
    rows = iter(told["rows"])
    for place, (episode, start, stop) in enumerate(pieces):
        for k in range(start, stop):
            number, frame, said, action, mean = next(rows)
            assert (number, frame) == (place, k - start)
            assert action == [k, 100.0 * episode + k]
            assert said == (task or f"Aufgabe „{episode % 2}“")
            assert abs(mean - shade(episode, k)) < 3
    assert next(rows, None) is None


def test_each_edits_what_the_other_made(lerobot: LeRobot, tmp_path: Path) -> None:
    raw, more = write(tmp_path / "raw", 0, (15, 9, 24)), write(tmp_path / "more", 3, (12,))
    run("trim", raw, "--start", 0.3, "--in-place")
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    run("merge", raw, more, "--out", ours)
    whole = [(0, 3, 15), (1, 3, 9), (2, 3, 24), (3, 0, 12)]
    lerobot(EDIT, str(ours), str(more), str(theirs))
    wanted = {
        ours: whole,
        theirs / "deleted": [whole[0], *whole[2:]],
        theirs / "merged": [*whole, whole[3]],
        theirs / "removed": whole,
    }
    parts = {path.name.rpartition("_")[2]: path for path in theirs.glob("parts*/*")}
    parts |= {path.name.rpartition("_")[2]: path for path in theirs.glob("parts_*")}
    wanted |= {parts["one"]: [whole[0], whole[3]], parts["two"]: [whole[1], whole[2]]}
    edits = {
        ("trim", theirs / "deleted", "--end", 0.2): [(0, 3, 13), (2, 3, 22), (3, 0, 10)],
        ("delete", theirs / "merged", "--episodes", "length < 10"): [
            whole[0], *whole[2:], whole[3]
        ],
        ("relabel", theirs / "removed", "--task", "Said again."): whole,
        ("merge", parts["one"], parts["two"]): [whole[0], whole[3], whole[1], whole[2]],
        ("delete", parts["one"], "--episodes", "task ~ '1'"): [whole[0]],
        ("recompute-stats", parts["two"]): [whole[1], whole[2]],
    }  # fmt: skip
    for number, (words, pieces) in enumerate(edits.items()):
        out = tmp_path / f"again_{number}_{words[0]}"
        run(*words, "--out", out)
        assert not [str(found) for found in validate_dataset(out, decode=True).errors]
        wanted[out] = pieces
    found = lerobot(LOAD, *map(str, wanted))
    for root, pieces in wanted.items():
        again = root == theirs / "deleted" or root.name in ("again_0_trim", "again_2_relabel")
        check(found[str(root)], pieces, "Said again." if again else None)
    assert "intervention" not in found[str(theirs / "removed")]["keys"]
