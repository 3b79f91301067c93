# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Recorded episodes as the page needs them."""

import os
import shutil
from pathlib import Path

import pytest
import yaml

from koch_console.episodes import Episodes, range_of
from koch_console.scene import describe_scene
from koch_core.errors import KochError
from koch_rig.load import load_rig

SAMPLE = Path(__file__).resolve().parents[3] / "docs" / "sample"


def test_the_sample_is_listed_with_what_a_person_wants_to_know():
    facts = {facts["name"]: facts for facts in Episodes(SAMPLE).facts()}["episode_000000"]
    assert facts["task"].startswith("Pick up")
    assert (facts["outcome"], facts["verdict"], facts["length_s"]) == ("success", "green", 13.1)


def test_an_episode_holds_curves_and_films_in_order_of_time():
    episode = Episodes(SAMPLE).open("episode_000000")
    film = episode.films["above"]
    times = [time_s for time_s, _, _ in film.images]
    assert times == sorted(times)
    for _, first, length in film.images:
        assert film.data[first : first + 2] == b"\xff\xd8"
        assert film.data[first + length - 2 : first + length] == b"\xff\xd9"
    curve = episode.curves["follower/joint_states"]
    assert curve["names"][0] == "shoulder_pan"
    assert len(curve["times"]) == len(curve["values"]) > 400
    assert max(b - a for a, b in zip(curve["times"], curve["times"][1:], strict=False)) < 0.1


@pytest.mark.parametrize(
    "name", ["..", ".", "", "../sample/episode_000000", "/etc", "none", "episode_000000/"]
)
def test_no_name_is_a_path(name):
    episodes = Episodes(SAMPLE)
    assert episodes.open(name) is None
    assert episodes.first_image(name) is None


def test_another_episode_of_the_same_name_is_not_the_old_one(tmp_path):
    shutil.copytree(SAMPLE / "episode_000000", tmp_path / "episode_000000")
    episodes = Episodes(tmp_path)
    episodes.facts()
    old = episodes.open("episode_000000")
    assert episodes.open("episode_000000") is old
    os.utime(tmp_path / "episode_000000" / "metadata.yaml", (1.0, 1.0))
    episodes.facts()
    assert episodes.open("episode_000000") is not old


def test_what_cannot_be_read_is_listed_with_the_reason(tmp_path):
    shutil.copytree(SAMPLE / "episode_000000", tmp_path / "torn")
    (tmp_path / "torn" / "metadata.yaml").write_text("{")
    foreign = shutil.copytree(SAMPLE / "episode_000000", tmp_path / "foreign") / "metadata.yaml"
    raw = yaml.safe_load(foreign.read_text())
    raw["rosbag2_bagfile_information"]["custom_data"] = {"koch.quality": "[1]"}
    foreign.write_text(yaml.safe_dump(raw))
    shutil.copytree(SAMPLE / "episode_000000", tmp_path / "new.partial")
    episodes = Episodes(tmp_path)
    found = episodes.facts()
    assert sorted(facts["name"] for facts in found) == ["foreign", "torn"]
    assert all("cannot be read" in facts["problem"] for facts in found)
    assert Episodes(tmp_path / "absent").facts() == []


@pytest.mark.parametrize(
    ("header", "span"),
    [
        ("bytes=0-9", (0, 10)),
        ("bytes=5-", (5, 100)),
        ("bytes=-10", (90, 100)),
        ("bytes=90-200", (90, 100)),
        ("bytes=-500", (0, 100)),
        ("bytes=100-", None),
        ("bytes=9-5", None),
        ("bytes=-0", None),
        ("bytes=-", None),
        ("bytes=", None),
        ("bytes=a-b", None),
        ("bytes=0-1,5-6", None),
        ("bytes=" + "9" * 5000 + "-", None),
        ("bytes=\u0661-\u0662", None),
        ("items=0-1", None),
    ],
)
def test_ranges_of_bytes(header, span):
    assert range_of(header, 100) == span


def test_the_scene_has_each_joint_and_a_shape_for_each_moving_link():
    rig = load_rig(SAMPLE / "rig.yaml")
    scene = describe_scene(rig)
    assert [arm["name"] for arm in scene["arms"]] == list(rig.arms)
    for arm in scene["arms"]:
        moving = [joint for joint in arm["joints"] if joint["moves"]]
        assert [joint["name"] for joint in moving] == list(rig.arms[arm["name"]].model.joints)
        assert all(arm["shapes"][joint["child"]] for joint in moving)
        frames = {joint["child"] for joint in arm["joints"]}
        assert arm["tip"] in frames
        assert all(joint["parent"] in frames | {"world"} for joint in arm["joints"])
    drawn = {joint["child"] for arm in scene["arms"] for joint in arm["joints"]}
    assert {camera["frame"] for camera in scene["cameras"]} <= drawn


def test_marks_are_made_undone_and_obeyed_and_the_recording_stays(tmp_path):
    shutil.copytree(SAMPLE / "episode_000000", tmp_path / "one")
    before = {p.name: p.read_bytes() for p in (tmp_path / "one").iterdir()}
    episodes = Episodes(tmp_path)
    episodes.edit("one", {"trim": [1.0, 9.0]})
    episodes.edit("one", {"outcome": "failure"})
    episodes.edit("one", {"delete": True})
    (facts,) = Episodes(tmp_path).facts()  # a console that starts again
    assert facts["deleted"]
    assert facts["outcome"] == "failure"
    assert len(facts["marked"]) == 3
    episodes.edit("one", {"delete": False})
    assert not episodes.facts()[0]["deleted"]
    begin, end = episodes.open("one").describe()["kept"]
    assert (begin, end) == (pytest.approx(1.0, abs=0.1), pytest.approx(9.0, abs=0.1))
    for _ in range(4):
        episodes.undo("one")
    assert episodes.facts()[0]["marked"] == []
    assert {p.name: p.read_bytes() for p in (tmp_path / "one").iterdir()} == before
    for wrong in ({"trim": [90.0, 91.0]}, {"shell": "x"}, {"task": "half \ud800"}, {}):
        with pytest.raises(KochError):
            episodes.edit("one", wrong)
    with pytest.raises(KochError, match="nothing to undo"):
        episodes.undo("one")
    with pytest.raises(KochError, match="no recording"):
        episodes.edit("../one", {"delete": True})


def test_recordings_are_ranked_by_the_doctors_figures_without_those_left_out(tmp_path):
    for name in ("one", "two", "torn"):
        shutil.copytree(SAMPLE / "episode_000000", tmp_path / name)
    (tmp_path / "torn" / "metadata.yaml").write_text("{")
    episodes = Episodes(tmp_path)
    rows = episodes.quality()
    assert {row["name"] for row in rows} == {"one", "two"}
    assert "duplicate" in rows[0]["complaints"][0]
    assert episodes.quality() is rows  # nothing has changed
    episodes.edit("two", {"delete": True})
    (row,) = episodes.quality()
    assert row["name"] == "one"
    assert not any("duplicate" in text for text in row["complaints"])
