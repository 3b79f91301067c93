# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""LeRobot itself (each that KOCH_LEROBOT_PYTHON names) loads, samples and batches our data."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from koch_episodes.convert import ConvertOptions, convert
from koch_episodes.dataset import Codec, LeRobotDatasetReader

# On a busy machine LeRobot's import alone took a minute and a half.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SCRIPT = """
import json, sys
import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset
root, camera = sys.argv[1:]
plain = LeRobotDataset("local/test", root=root, video_backend="pyav")
steps = {"action": [k / 30 for k in range(10)], camera: [-1 / 30, 0.0]}
windows = LeRobotDataset("local/test", root=root, video_backend="pyav", delta_timestamps=steps)
batch = next(iter(torch.utils.data.DataLoader(windows, batch_size=4, shuffle=True)))
print(json.dumps({
    "length": len(plain),
    "task": plain[0]["task"],
    "states": [plain[i]["observation.state"].tolist() for i in range(0, len(plain), 9)],
    "shades": [float(plain[i][camera][:, 8:40, 4:28].mean()) for i in range(0, len(plain), 9)],
    "batch": {k: list(batch[k].shape) for k in ("action", camera)},
    "padded": int(windows[len(windows) - 1]["action_is_pad"].sum()),
}))
"""

TABLES = """
import json, sys
from lerobot.datasets.lerobot_dataset import LeRobotDataset
data = LeRobotDataset("local/test", root=sys.argv[1], video_backend="pyav")
keys = ("intervention", "next.done", "next.reward", "next.success")
print(json.dumps({
    **{key: [float(data[i][key]) for i in range(len(data))] for key in keys},
    "outcomes": list(data.meta.episodes["outcome"]),
    "q50": float(data.meta.stats["action"]["q50"][0]),
}))
"""


def test_lerobot_reads_interventions_outcomes_and_rewards(
    lerobot_python: str,
    write_bag: Callable[..., Path],
    episode_event: Callable[..., Any],
    tmp_path: Path,
) -> None:
    def helped(messages: list[Any]) -> list[Any]:
        name, begin = "koch_interfaces/msg/EpisodeEvent", messages[0][3]
        for seconds, kind in ((0.3, 3), (0.6, 4)):
            stamp = begin + round(seconds * 1e9)
            event = episode_event(stamp, kind)
            messages.append(("/episodes/events", name, stamp + 1_000_000, stamp, event))
        return sorted(messages, key=lambda message: message[2])

    bags = [write_bag(f"e{k}", seconds=1.0, change=helped if k else None) for k in range(2)]
    out = tmp_path / "out"
    convert(bags, out, ConvertOptions(rewards=True))
    found = lerobot(lerobot_python, TABLES, tmp_path, str(out))
    reader = LeRobotDatasetReader(out)
    for key in ("intervention", "next.done", "next.reward", "next.success"):
        assert found[key] == reader.column(key).astype(float).tolist()
    assert sum(found["intervention"]) == 9
    assert found["outcomes"] == ["success", "success"]
    assert found["q50"] == pytest.approx(float(np.median(reader.column("action")[:, 0])))


def lerobot(python: str, script: str, folder: Path, *arguments: str) -> dict[str, Any]:
    """Run a script in LeRobot's environment; returns the JSON of its last line."""
    done = subprocess.run(
        [python, "-c", script, *arguments],
        capture_output=True,
        text=True,
        env={
            **{k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
            "HF_HUB_OFFLINE": "1",
            "HF_HOME": str(folder / "hf"),
        },
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("codec", list(Codec))
def test_lerobot_reads_what_we_read(
    lerobot_python: str, write_bag: Callable[..., Path], tmp_path: Path, codec: Codec
) -> None:
    bags = [write_bag(f"episode_{k}", seconds=1.0) for k in range(2)]
    out, camera = tmp_path / "out", "observation.images.above"
    convert(bags, out, ConvertOptions(codec=codec))
    found = lerobot(lerobot_python, SCRIPT, tmp_path, str(out), camera)
    reader = LeRobotDatasetReader(out)
    assert found["length"] == len(reader) == 60
    assert found["task"] == reader[0]["task"]
    assert found["batch"] == {"action": [4, 10, 6], camera: [4, 2, 3, 48, 64]}
    assert found["padded"] == 9
    for place, index in enumerate(range(0, 60, 9)):
        ours = reader[index]
        assert found["states"][place] == ours["observation.state"].tolist()
        shade = float(ours[camera][8:40, 4:28].mean()) / 255
        assert found["shades"][place] == pytest.approx(shade, abs=0.01)
