# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Datasets as the page needs them, and the edits that wait beside them."""

import shutil
from pathlib import Path

import pytest

from koch_console.datasets import Datasets
from koch_core.errors import KochError
from koch_episodes.dataset import LeRobotDatasetReader
from koch_episodes.dataset.edit.cli import main

SAMPLE = Path(__file__).resolve().parents[3] / "docs" / "sample" / "dataset"


@pytest.fixture
def datasets(tmp_path):
    shutil.copytree(SAMPLE, tmp_path / "blocks")
    return Datasets(tmp_path)


def test_datasets_are_listed_and_a_damaged_one_hides_no_other(datasets):
    bad = datasets.root / "deep" / "bad" / "meta"
    bad.mkdir(parents=True)
    (bad / "info.json").write_text("{")
    (datasets.root / ".blocks.writing" / "meta").mkdir(parents=True)
    (datasets.root / ".blocks.writing" / "meta" / "info.json").write_text("{}")
    good, broken = datasets.facts()
    assert (good["name"], good["format"], good["pending"]) == ("blocks", "v3.0", 0)
    assert broken["name"] == "deep/bad"
    assert "cannot be read" in broken["problem"]


def test_an_episode_has_curves_and_videos_below_the_dataset(datasets):
    (first, *_) = datasets.describe("blocks")["episodes"]
    episode = datasets.episode("blocks", first["number"])
    assert set(episode["curves"]) == {"observation.state", "action"}
    curve = episode["curves"]["action"]
    assert len(curve["times"]) == len(curve["values"])
    assert curve["times"][-1] <= episode["length_s"]
    assert len(curve["names"]) == len(curve["values"][0]) == 6
    for camera in episode["videos"]:
        assert datasets.video("blocks", 0, camera).is_relative_to(datasets.root)
    with pytest.raises(KochError, match="no episode 99"):
        datasets.episode("blocks", 99)
    with pytest.raises(KochError, match="no such camera"):
        datasets.video("blocks", 0, "../../../meta/info.json")


@pytest.mark.parametrize("name", ["", "..", ".", "../blocks", "/etc", "blocks/", "blocks/meta"])
def test_no_name_becomes_a_path(datasets, name):
    with pytest.raises(KochError, match="no dataset"):
        datasets.root_of(name)


def test_edits_wait_are_taken_back_and_are_gone_once_a_revision_has_them(datasets):
    length = datasets.describe("blocks")["episodes"][0]["length_s"]
    datasets.edit("blocks", {"episode": 0, "outcome": "failure"})
    datasets.edit("blocks", {"episode": 0, "trim": [1.0, 3.0]})
    datasets.edit("blocks", {"episode": 0, "delete": True})
    datasets.undo("blocks")
    again = Datasets(datasets.root).describe("blocks")  # a console that starts again
    assert [list(edit) for edit in again["pending"]] == [
        ["episode", "outcome"],
        ["episode", "trim"],
    ]
    assert again["episodes"][0]["change"]["trim"] == (1.0, 3.0)
    assert "--keep 0:1-3" in again["commands"][1]
    assert again["new"] == "blocks_r2"

    words, new = datasets.application("blocks")
    datasets.edit("blocks", {"episode": 0, "task": "meanwhile"})
    assert len(datasets.describe("blocks")["pending"]) == 3  # nothing is lost before it is made
    assert main(list(words[1:])) == 0
    (episode,) = LeRobotDatasetReader(new).episodes
    assert episode.outcome == "failure"
    assert episode.length == round(2.0 * datasets.describe("blocks")["fps"])
    after = datasets.describe("blocks")
    assert after["pending"] == [{"episode": 0, "task": "meanwhile"}]
    assert after["new"] == "blocks_r3"
    assert after["episodes"][0]["length_s"] == length
    assert sorted(path.name for path in datasets.root.iterdir()) == [
        "blocks", "blocks.edits.json", "blocks_r2",
    ]  # fmt: skip


def test_wrong_edits_are_refused_and_change_nothing(datasets):
    wrong = [
        {"episode": 9, "delete": True},
        {"episode": 0, "trim": [99.0, 100.0]},
        {"episode": 0, "trim": [1.0, 1.001]},
        {"episode": 0, "shell": "rm"},
        {"episode": 0, "task": "half \ud800"},
        {},
    ]
    for edit in wrong:
        with pytest.raises(KochError):
            datasets.edit("blocks", edit)
    for work in (datasets.undo, datasets.application):
        with pytest.raises(KochError, match="No edit waits"):
            work("blocks")
    assert datasets.edited == 0
    assert not (datasets.root / "blocks.edits.json").exists()


def test_episodes_are_ranked_by_the_doctors_figures(datasets):
    (row,) = datasets.quality("blocks")
    assert set(row) >= {"episode", "jerk", "idle_fraction", "offset_fraction", "complaints"}
