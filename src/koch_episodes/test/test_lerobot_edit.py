# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Datasets with odd features that LeRobot recorded, edited here, and loaded by LeRobot again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from koch_episodes.convert.cli import main as convert
from koch_episodes.dataset import validate_dataset
from koch_episodes.dataset.edit.cli import main

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LeRobot = Callable[..., dict[str, Any]]

RECORD = """
import json, sys
import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset
names = ["height", "width", "channels"]
features = {
    "observation.state": {"dtype": "float32", "shape": (3,), "names": ["x", "y", "z"]},
    "action": {"dtype": "float32", "shape": (2,), "names": {"motors": ["a", "b"]}},
    "pose": {"dtype": "float64", "shape": (2, 3), "names": None},
    "gripped": {"dtype": "bool", "shape": (1,), "names": None},
    "count": {"dtype": "int64", "shape": (1,), "names": None},
    "note": {"dtype": "string", "shape": (1,), "names": None},
    "observation.images.film": {"dtype": "video", "shape": (48, 64, 3), "names": names},
    "observation.images.still": {"dtype": "image", "shape": (32, 40, 3), "names": names},
}
for root in sys.argv[1:]:
    data = LeRobotDataset.create("local/odd", 10, features, root=root, robot_type="odd")
    for episode, length in enumerate((21, 14, 17)):
        for k in range(length):
            shade = 30 + 60 * episode + 2 * k
            data.add_frame({
                "observation.state": np.array([episode, k, 0.5], np.float32),
                "action": np.array([k, episode], np.float32),
                "pose": np.arange(6, dtype=np.float64).reshape(2, 3) + k,
                "gripped": np.array([k > 7]),
                "count": np.array([1000 * episode + k]),
                "note": f"{episode}/{k}",
                "observation.images.film": np.full((48, 64, 3), shade, np.uint8),
                "observation.images.still": np.full((32, 40, 3), shade, np.uint8),
                "task": "first" if k < 9 else f"second {episode}",
            })
        data.save_episode()
    data.finalize()
print(json.dumps({}))
"""

LOAD = """
import json, sys
import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset
found = {}
for root in sys.argv[1:]:
    data = LeRobotDataset("local/odd", root=root, video_backend="pyav")
    batch = next(iter(torch.utils.data.DataLoader(data, batch_size=4, shuffle=True)))
    rows = []
    for i in range(len(data)):
        item = data[i]
        row = {"episode": int(item["episode_index"]), "frame": int(item["frame_index"]),
               "task": item["task"], "state": item["observation.state"].tolist()}
        for key in ("pose", "gripped", "count", "note"):
            if key in item:
                value = item[key]
                row[key] = value.tolist() if hasattr(value, "tolist") else value
        for key in ("film", "still"):
            if "observation.images." + key in item:
                row[key] = float(item["observation.images." + key].mean() * 255)
        rows.append(row)
    found[root] = {"rows": rows, "episodes": data.num_episodes, "keys": sorted(data.features),
                   "count": int(data.meta.stats["action"]["count"][0])}
print(json.dumps(found))
"""


def run(*words: object) -> None:
    assert main([str(word) for word in words]) == 0


def test_lerobot_loads_what_was_edited(lerobot: LeRobot, tmp_path: Path) -> None:
    odd, more = tmp_path / "odd", tmp_path / "more"
    lerobot(RECORD, str(odd), str(more))
    made = {name: tmp_path / name for name in ("trim", "delete", "merge", "drop", "label", "h264")}
    run("trim", odd, "--out", made["trim"], "--start", 0.3, "--end", 0.4)
    run("delete", odd, "--out", made["delete"], "--episodes", "1")
    run("merge", odd, more, "--out", made["merge"])
    run("drop-feature", odd, "--out", made["drop"], "--feature", "pose", "--feature", "note")
    run("relabel", odd, "--out", made["label"], "--rename", "first=1st", "--outcome", "success")
    run("reencode", odd, "--out", made["h264"], "--crf", 12)
    for root in made.values():
        errors = [str(f) for f in validate_dataset(root, decode=True).findings]
        assert not errors, root
    found = lerobot(LOAD, *map(str, made.values()))
    lengths = (21, 14, 17)
    whole = [(episode, 0, length) for episode, length in enumerate(lengths)]
    wanted = {
        "trim": [(episode, 3, length - 4) for episode, length in enumerate(lengths)],
        "delete": [whole[0], whole[2]],
        "merge": [*whole, *whole],
        "drop": whole,
        "label": whole,
        "h264": whole,
    }
    for name, pieces in wanted.items():
        told = found[str(made[name])]
        rows = iter(told["rows"])
        assert told["episodes"] == len(pieces)
        assert told["count"] == sum(stop - start for _, start, stop in pieces)
        for place, (episode, start, stop) in enumerate(pieces):
            for k in range(start, stop):
                check(next(rows), place, episode, k, k - start, name)
        assert next(rows, None) is None
    assert {"pose", "note"}.isdisjoint(found[str(made["drop"])]["keys"])


def test_lerobot_loads_what_went_through_bags(lerobot: LeRobot, tmp_path: Path) -> None:
    """Recorded by LeRobot, played as bags, and back in LeRobot: numbers equal, images alike."""
    odd, bags, back = (tmp_path / name for name in ("odd", "bags", "back"))
    lerobot(RECORD, str(odd))
    assert convert(["--to-bag", str(odd), "--out", str(bags)]) == 0
    words = [str(bags), "--map", str(bags / "map.yaml"), "--out", str(back), "--jobs", "1"]
    assert convert(words) == 0
    rows = iter(lerobot(LOAD, str(back))[str(back)]["rows"])
    for episode, length in enumerate((21, 14, 17)):
        for k in range(length):
            row = next(rows)
            assert (row["episode"], row["frame"], row["task"]) == (episode, k, "first")
            assert row["state"] == [episode, k, 0.5]
            assert row["pose"] == [[k, k + 1, k + 2], [k + 3, k + 4, k + 5]]
            assert row["gripped"] in (k > 7, [k > 7])
            assert row["count"] in (1000 * episode + k, [1000 * episode + k])
            shade = 30 + 60 * episode + 2 * k
            assert abs(row["still"] - shade) < 3
            assert abs(row["film"] - shade) < 3
    assert next(rows, None) is None


DEPTH = """
import inspect, json, sys
import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset
if "depth_encoder" not in inspect.signature(LeRobotDataset.create).parameters:
    print(json.dumps({"knows": False}))
    sys.exit()
root, kind = sys.argv[1:]
names = ["height", "width", "channels"]
features = {
    "action": {"dtype": "float32", "shape": (2,), "names": ["a", "b"]},
    "observation.images.film": {"dtype": "video", "shape": (48, 64, 3), "names": names},
    "observation.images.depth": {"dtype": kind, "shape": (48, 64, 1), "names": names,
                                 "info": {"is_depth_map": True, "depth_unit": "mm"}},
}
data = LeRobotDataset.create("local/deep", 10, features, root=root, robot_type="deep")
for episode, length in enumerate((8, 5)):
    for k in range(length):
        data.add_frame({
            "action": np.array([episode, k], np.float32),
            "observation.images.film": np.full((48, 64, 3), 30 + k, np.uint8),
            "observation.images.depth": np.full((48, 64, 1), 700 + 50 * k, np.uint16),
            "task": "Look.",
        })
    data.save_episode()
data.finalize()
print(json.dumps({"knows": True}))
"""

LOAD_DEPTH = """
import json, sys
from lerobot.datasets.lerobot_dataset import LeRobotDataset
found = {}
for root in sys.argv[1:]:
    data = LeRobotDataset("local/deep", root=root, video_backend="pyav")
    rows = [data[i] for i in range(len(data))]
    found[root] = {
        "rows": [[*row["action"].tolist(), float(row["observation.images.depth"].mean())]
                 for row in rows],
        "high": float(data.meta.stats["observation.images.depth"]["max"].max()),
    }
print(json.dumps(found))
"""


@pytest.mark.parametrize("kind", ["video", "image"])
def test_depth_maps_are_kept_or_refused(
    lerobot: LeRobot, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """LeRobot 0.6 stores them in millimetres, as videos of 12 bits or as TIFF in the tables."""
    deep, key = tmp_path / "deep", "observation.images.depth"
    if not lerobot(DEPTH, str(deep), kind)["knows"]:
        pytest.skip("this LeRobot knows no depth maps")
    assert not [str(found) for found in validate_dataset(deep, decode=True).errors]
    names = ("deep", "delete", "merge", "label", "h264", "stats")
    made = {name: tmp_path / name for name in names}
    run("delete", deep, "--out", made["delete"], "--episodes", "0")
    run("merge", deep, made["delete"], "--out", made["merge"])
    run("relabel", deep, "--out", made["label"], "--task", "Said again.")
    run("reencode", deep, "--out", made["h264"])
    run("recompute-stats", deep, "--out", made["stats"])
    found = lerobot(LOAD_DEPTH, *map(str, made.values()))
    whole = [(0, k) for k in range(8)] + [(1, k) for k in range(5)]
    wanted = dict.fromkeys(names, whole) | {"delete": whole[8:], "merge": whole + whole[8:]}
    for name, frames in wanted.items():
        told = found[str(made[name])]
        for (episode, k), row in zip(frames, told["rows"], strict=True):
            assert row[:2] == [episode, k]
            assert abs(row[2] - (700 + 50 * k)) < 5
        assert told["high"] == (900 if name == "delete" else 1050)
    out = str(tmp_path / "out")
    for words in (["trim", "--start", "0.2"], ["repair"]):
        assert main([words[0], str(deep), *words[1:], "--out", out]) == 2
        assert f"{key} is a depth map" in capsys.readouterr().err
    assert convert(["--to-bag", str(deep), "--out", out]) == 0
    assert f"left out: {key}" in capsys.readouterr().out


def check(row: dict[str, Any], place: int, episode: int, k: int, frame: int, name: str) -> None:
    """A row that LeRobot hands out is that of frame k of the original episode."""
    assert (row["episode"], row["frame"]) == (place, frame)
    assert row["state"] == [episode, k, 0.5]
    first = "1st" if name == "label" else "first"
    assert row["task"] == (first if k < 9 else f"second {episode}")
    assert row["gripped"] in (k > 7, [k > 7])
    assert row["count"] in (1000 * episode + k, [1000 * episode + k])
    if name != "drop":
        assert row["pose"] == [[k, k + 1, k + 2], [k + 3, k + 4, k + 5]]
        assert row["note"] == f"{episode}/{k}"
    shade = 30 + 60 * episode + 2 * k
    assert abs(row["still"] - shade) < 0.6
    assert abs(row["film"] - shade) < 3
