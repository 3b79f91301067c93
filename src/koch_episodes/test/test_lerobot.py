# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""LeRobot itself (each that KOCH_LEROBOT_PYTHON names) loads, samples and batches our data.

And the other way: what it records, alone or behind our episodes, is valid and read here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from koch_episodes.convert import ConvertOptions, convert
from koch_episodes.dataset import Codec, LeRobotDatasetReader, validate_dataset

# On a busy machine LeRobot's import alone took a minute and a half.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LeRobot = Callable[..., dict[str, Any]]

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


RECORD = """
import json, sys
import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset
ours, theirs, stored = sys.argv[1:]
info = json.load(open(ours + "/meta/info.json"))
own = ("timestamp", "frame_index", "episode_index", "index", "task_index")
features = {
    key: {"dtype": spec["dtype"], "shape": tuple(spec["shape"]), "names": spec["names"]}
    for key, spec in info["features"].items() if key not in own
}

def record(data, episode):
    for k in range(20):
        frame = {"task": "Theirs."}
        for key, spec in features.items():
            if spec["dtype"] in ("video", "image"):
                frame[key] = np.full(spec["shape"], 20 + 60 * episode + 5 * k, np.uint8)
            else:  # the last joint never moves
                frame[key] = np.array([episode, *range(k, k + 4), 57.3], np.float32)
        data.add_frame(frame)
    data.save_episode()

add = getattr(LeRobotDataset, "resume", LeRobotDataset)("local/ours", root=ours)
record(add, 0)
add.finalize()
for root, as_video in ((theirs, True), (stored, False)):
    for spec in features.values():
        if len(spec["shape"]) == 3:
            spec["dtype"] = "video" if as_video else "image"
    made = LeRobotDataset.create(
        "local/made", info["fps"], features, root=root, robot_type=info["robot_type"],
        use_videos=as_video,
    )
    record(made, 1)
    record(made, 2)
    made.finalize()
print(json.dumps({}))
"""


def check_recorded(root: Path, first: int, episodes: tuple[int, ...], *, within: float) -> None:
    """Our reader finds in LeRobot's episodes what it was given, and nothing is wrong with them."""
    assert not [str(found) for found in validate_dataset(root, decode=True).findings]
    reader, camera = LeRobotDatasetReader(root), "observation.images.above"
    for place, episode in enumerate(episodes, first):
        assert reader.episodes[place].length == 20
        for k in range(20):
            frame = reader.frame(place, k)
            assert frame["action"].tolist() == [episode, *range(k, k + 4), pytest.approx(57.3)]
            assert frame["task"] == "Theirs."
            shade = frame[camera].mean(axis=(0, 1))
            assert np.abs(shade - (20 + 60 * episode + 5 * k)).max() <= within


def test_what_lerobot_records_is_read_here_and_continued(
    lerobot: LeRobot, write_bag: Callable[..., Path], tmp_path: Path
) -> None:
    """It records behind our episodes, we convert behind its own; AV1 is what it encodes."""
    bags = [write_bag(f"episode_{k}", seconds=1.0) for k in range(2)]
    ours, theirs, stored = (tmp_path / name for name in ("ours", "theirs", "stored"))
    convert(bags[:1], ours, ConvertOptions(codec=Codec.AV1))
    lerobot(RECORD, str(ours), str(theirs), str(stored))
    check_recorded(ours, 1, (0,), within=3.0)
    check_recorded(theirs, 0, (1, 2), within=3.0)
    check_recorded(stored, 0, (1, 2), within=0.0)
    convert(bags[1:], theirs, ConvertOptions(codec=Codec.AV1), append=True)
    check_recorded(theirs, 0, (1, 2), within=3.0)
    found = lerobot(SCRIPT, str(theirs), "observation.images.above")
    assert found["length"] == 70
    assert found["states"][5] == LeRobotDatasetReader(theirs)[45]["observation.state"].tolist()


def test_lerobot_reads_interventions_outcomes_and_rewards(
    lerobot: LeRobot,
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
    found = lerobot(TABLES, str(out))
    reader = LeRobotDatasetReader(out)
    for key in ("intervention", "next.done", "next.reward", "next.success"):
        assert found[key] == reader.column(key).astype(float).tolist()
    assert sum(found["intervention"]) == 9
    assert found["outcomes"] == ["success", "success"]
    assert found["q50"] == pytest.approx(float(np.median(reader.column("action")[:, 0])))


@pytest.mark.parametrize("codec", list(Codec))
def test_lerobot_reads_what_we_read(
    lerobot: LeRobot, write_bag: Callable[..., Path], tmp_path: Path, codec: Codec
) -> None:
    bags = [write_bag(f"episode_{k}", seconds=1.0) for k in range(2)]
    out, camera = tmp_path / "out", "observation.images.above"
    convert(bags, out, ConvertOptions(codec=codec))
    found = lerobot(SCRIPT, str(out), camera)
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
