# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch dataset doctor`: each planted fault is found in the right episode, and repaired."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from koch_episodes.dataset import DatasetWriter, FeatureSpec
from koch_episodes.dataset.edit.cli import main
from koch_episodes.dataset.edit.doctor import examine, rank

CAMERA = "observation.images.front"
FPS, LENGTH = 10, 60
FEATURES = {
    "action": FeatureSpec("float32", (2,), ("a", "b")),
    "observation.state": FeatureSpec("float32", (2,), ("a", "b")),
    CAMERA: FeatureSpec("video", (32, 48, 3), ("height", "width", "channels")),
}
Content = dict[str, Any]
Plant = Callable[[Content], None]


def content(episode: int) -> Content:
    """A smooth motion that is a little other in each episode."""
    phase = np.arange(LENGTH) / 20 + 0.1 * episode
    state = np.stack([np.sin(phase), np.cos(1.3 * phase)], 1)
    rows, columns = np.mgrid[0:32, 0:48]
    images = [
        np.repeat(((rows * 5 + columns * 3 + 4 * k) % 200)[..., None], 3, -1).astype(np.uint8)
        for k in range(LENGTH)
    ]
    return {"state": state, "action": state + 0.02, "images": images, "task": "Stack it."}


def frozen(made: Content) -> None:
    made["images"] = [made["images"][0]] * LENGTH


def dark(made: Content) -> None:
    made["images"] = [np.zeros((32, 48, 3), np.uint8)] * LENGTH


def resting(made: Content) -> None:
    for key in ("action", "state"):
        made[key] = made[key].copy()
        made[key][:25] = made[key][25]


def jumping(made: Content) -> None:
    made["action"] = made["action"].copy()
    made["action"][30] += 5


def jerky(made: Content) -> None:
    noise = np.random.default_rng(0).normal(0, 0.05, made["action"].shape)
    made["action"] = made["action"] + noise


def with_a_gap(made: Content) -> None:
    """The stream was silent for a second; the converter held its last value."""
    for key in ("action", "state"):
        made[key] = made[key].copy()
        made[key][30:40] = made[key][29]


def calibrated_otherwise(made: Content) -> None:
    made["action"] = made["action"] + 0.7


def written_otherwise(made: Content) -> None:
    made["task"] = "stack  it"


def same_as_the_first(made: Content) -> None:
    made.update(content(0))


PLANTS: list[tuple[Plant, str]] = [
    (frozen, "images"),
    (dark, "images"),
    (resting, "idle"),
    (jumping, "jump"),
    (jerky, "jerk"),
    (with_a_gap, "gap"),
    (calibrated_otherwise, "calibration"),
    (written_otherwise, "label"),
    (same_as_the_first, "duplicate"),
]


def write(root: Path, plant: Plant | None) -> Path:
    with DatasetWriter(root, FEATURES, fps=FPS) as writer:
        for episode in range(6):
            made = content(episode)
            if plant is not None and episode == 3:
                plant(made)
            writer.add_episode(
                {"action": made["action"], "observation.state": made["state"]},
                {CAMERA: made["images"]},
                made["task"],
            )
    return root


def test_a_sound_dataset_has_no_complaints(tmp_path: Path) -> None:
    assert examine(write(tmp_path / "data", None)) == []


@pytest.mark.parametrize(("plant", "kind"), PLANTS, ids=lambda p: getattr(p, "__name__", p))
def test_a_fault_is_found_and_mended_by_what_is_told(
    tmp_path: Path, plant: Plant, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write(tmp_path / "data", plant)
    assert main(["doctor", str(root), "--json"]) == 1
    found = {one["kind"]: one for one in json.loads(capsys.readouterr().out)[str(root)]}
    assert found[kind]["episodes"] == [3]
    words = shlex.split(found[kind]["remedy"])
    assert words[:2] == ["koch", "dataset"]
    assert main(words[2:]) == 0
    assert kind not in {complaint.kind for complaint in examine(root)}
    assert main(["doctor", str(root)]) in (0, 1)


@pytest.mark.parametrize("plant", [resting, jumping, jerky, with_a_gap, calibrated_otherwise])
def test_the_faulty_episode_comes_first_with_its_figures(tmp_path: Path, plant: Plant) -> None:
    ranked = rank(write(tmp_path / "data", plant))
    assert sorted(item.episode for item in ranked) == list(range(6))
    worst, others = ranked[0], ranked[1:]
    assert worst.episode == 3
    assert worst.complaints
    assert worst.weight > 0 == max(item.weight for item in others)
    figure = {
        resting: "idle_fraction",
        jerky: "jerk",
        with_a_gap: "gap_s",
        calibrated_otherwise: "offset_fraction",
    }.get(plant, "jerk")
    assert getattr(worst, figure) > 2 * max(getattr(item, figure) for item in others)


def test_a_broken_dataset_is_sent_to_repair(tmp_path: Path) -> None:
    root = write(tmp_path / "data", None)
    info = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps({**info, "total_frames": 1}))
    first = examine(root, images=False)[0]
    assert first.kind == "format"
    assert "koch dataset repair" in first.remedy
