# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch dataset doctor` of bags: each planted fault is found in the right bag, with a command."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from koch_episodes.dataset.edit.bag_doctor import look_at_bags
from koch_episodes.dataset.edit.cli import main
from koch_episodes.dataset.edit.doctor import ranked

WriteBag = Callable[..., Path]
Messages = list[Any]
COMMAND = "/follower/joint_command"


def of(messages: Messages, topic: str) -> Messages:
    return [message for message in messages if message[0] == topic]


def silent(messages: Messages) -> Messages:
    begin = messages[0][3]
    late = begin + 2_000_000_000, begin + 2_800_000_000
    return [m for m in messages if m[0] != COMMAND or not late[0] < m[3] < late[1]]


def still(messages: Messages) -> Messages:
    begin, first = messages[0][3], of(messages, COMMAND)[0][4].position.copy()
    for message in of(messages, COMMAND):
        if message[3] - begin < 1_500_000_000:
            message[4].position[:] = first
    return messages


def frozen(messages: Messages) -> Messages:
    images = of(messages, "/cameras/above/image_raw/compressed")
    for message in images:
        message[4].data = images[0][4].data
    return messages


def jumping(messages: Messages) -> Messages:
    commands = of(messages, COMMAND)
    for message in commands[150:156]:
        message[4].position[:] += 2.0
    return messages


def sagging(messages: Messages) -> Messages:
    """Rests for a second in the middle, the joints far from their commands."""
    for topic, by in ((COMMAND, 0.3), ("/follower/joint_states", 0.0)):
        mine = of(messages, topic)
        for message in mine[150:260]:
            message[4].position[:] = mine[150][4].position
        for message in mine:
            message[4].position[2] += by
    return messages


def drifting(messages: Messages) -> Messages:
    begin = messages[0][3]
    found = []
    for topic, kind, log, stamp, message in messages:
        if topic.endswith("compressed"):
            late = stamp + (stamp - begin) // 20
            message.header.stamp.sec = late // 1_000_000_000
            message.header.stamp.nanosec = late % 1_000_000_000
        found.append((topic, kind, log, stamp, message))
    return found


PLANTS = [
    (silent, "gap", "trim"),
    (still, "idle", "trim"),
    (frozen, "images", "delete"),
    (jumping, "jump", "delete"),
    (sagging, "offset", "calibrate"),
    (drifting, "clock", "convert"),
]


def run(*words: object) -> int:
    return main([str(word) for word in words])


def test_sound_bags_have_no_complaints(write_bag: WriteBag, tmp_path: Path) -> None:
    for k in range(4):
        write_bag(f"all/episode_{k:06d}", seconds=4.0 + 0.1 * k)
    looks, found = look_at_bags([tmp_path / "all"])
    assert len(looks) == 4
    assert not [each.text for each in found]


@pytest.mark.parametrize(("plant", "kind", "edit"), PLANTS, ids=[p[1] for p in PLANTS])
def test_fault_is_found_in_its_bag(
    write_bag: WriteBag,
    tmp_path: Path,
    plant: Callable[[Messages], Messages],
    kind: str,
    edit: str,
) -> None:
    for k in range(4):
        change = plant if k == 2 else None
        write_bag(f"all/episode_{k:06d}", seconds=4.0 + 0.1 * k, change=change)
    bad = str(tmp_path / "all" / "episode_000002")
    _, found = look_at_bags([tmp_path / "all"])
    (complaint,) = (each for each in found if each.kind == kind)
    assert complaint.bags == (bad,)
    words = shlex.split(complaint.remedy)
    assert edit in words
    if words[:2] == ["koch", "dataset"]:
        assert bad in words
        assert run(*words[2:]) == 0
        _, after = look_at_bags([tmp_path / "all"])
        assert kind not in {each.kind for each in after}


def test_sessions_with_unlike_calibrations_and_labels(
    write_bag: WriteBag, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from koch_episodes.bag.metadata import add_custom

    bags = [write_bag(f"all/episode_{k:06d}", seconds=3.0 + 0.1 * k) for k in range(4)]
    text = json.dumps({"other": 1})
    add_custom(bags[1], {"koch.calibration.follower": text})
    add_custom(bags[3], {"koch.task": "pick up the  block"})
    page = tmp_path / "page.html"
    assert run("doctor", tmp_path / "all", "--json", "--report", page) == 1
    (found,) = json.loads(capsys.readouterr().out).values()
    by_kind = {each["kind"]: each for each in found}
    assert by_kind["calibration"]["bags"] == [str(bags[1])]
    assert "another calibration of follower" in by_kind["calibration"]["text"]
    assert by_kind["label"]["bags"] == [str(bags[3])]
    assert [each["weight"] for each in found] == sorted(
        (each["weight"] for each in found), reverse=True
    )
    words = shlex.split(by_kind["label"]["remedy"])
    assert run(*words[2:]) == 0
    capsys.readouterr()
    assert run("doctor", tmp_path / "all", "--json") == 1
    (found,) = json.loads(capsys.readouterr().out).values()
    assert {each["kind"] for each in found} == {"calibration"}
    text = page.read_text()
    assert text.count("<polyline") > 10
    assert "data:image/jpeg;base64," in text
    assert not re.search(r'(src|href)="(?!data:)', text)  # one file


def test_a_bag_twice_is_a_duplicate(write_bag: WriteBag, tmp_path: Path) -> None:
    import shutil

    bag = write_bag("all/episode_000000", seconds=3.0)
    shutil.copytree(bag, tmp_path / "all" / "again")
    _, found = look_at_bags([tmp_path / "all"])
    (complaint,) = (each for each in found if each.kind == "duplicate")
    assert len(complaint.bags) == 1


def test_damaged_bag_is_named(write_bag: WriteBag, tmp_path: Path) -> None:
    bag = write_bag("all/episode_000000", seconds=3.0)
    write_bag("all/episode_000001", seconds=3.0)
    file = next(bag.glob("*.mcap"))
    file.write_bytes(file.read_bytes()[:-20000])
    _, found = look_at_bags([tmp_path / "all"])
    assert next(each for each in found if each.kind == "damage").bags == (str(bag),)


def test_report_of_a_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from koch_episodes.dataset import DatasetWriter, FeatureSpec

    features = {
        "action": FeatureSpec("float32", (2,), ("a", "b")),
        "observation.images.x": FeatureSpec("video", (32, 48, 3), ("h", "w", "c")),
    }
    with DatasetWriter(tmp_path / "d", features, fps=10, robot_type="r") as writer:
        for _ in range(2):
            writer.add_episode(
                {"action": np.linspace([0, 0], [1, 2], 30)},
                {"observation.images.x": [np.zeros((32, 48, 3), np.uint8)] * 30},
                "<b>go</b>",
            )
    page = tmp_path / "neu ü" / "page.html"
    assert run("doctor", tmp_path / "d", "--report", page) == 1
    assert f"page: {page}" in capsys.readouterr().out
    assert "<polyline" in page.read_text()
    (tmp_path / "file").touch()
    assert run("doctor", tmp_path / "d", "--report", tmp_path / "file" / "page.html") == 2


@pytest.mark.parametrize(
    ("plant", "figure"), [(silent, "gap_s"), (still, "idle_fraction"), (jumping, "jerk")]
)
def test_the_faulty_bag_comes_first_with_its_figures(
    write_bag: WriteBag, tmp_path: Path, plant: Callable[[Messages], Messages], figure: str
) -> None:
    for k in range(4):
        change = plant if k == 2 else None
        write_bag(f"all/episode_{k:06d}", seconds=4.0 + 0.1 * k, change=change)
    worst, *others = ranked(*look_at_bags([tmp_path / "all"], images=False))
    assert worst.episode == 2
    assert worst.complaints
    assert worst.weight > 0.0 == max(item.weight for item in others)
    assert getattr(worst, figure) > 2 * max(getattr(item, figure) for item in others)


def test_an_arm_that_stands_still_is_not_far_from_its_commands(
    write_bag: WriteBag, tmp_path: Path
) -> None:
    """By its own range, which is noise, it would be hundreds of ranges away."""

    def standing(messages: Messages) -> Messages:
        for topic, by in ((COMMAND, 0.02), ("/follower/joint_states", 0.0)):
            for number, message in enumerate(of(messages, topic)):
                message[4].position[:] = by + 1e-5 * (number % 2)
        return messages

    for k in range(4):
        change = standing if k == 2 else None
        write_bag(f"all/episode_{k:06d}", seconds=4.0 + 0.1 * k, change=change)
    rows = ranked(*look_at_bags([tmp_path / "all"], images=False))
    assert 0.0 < next(row.offset_fraction for row in rows if row.episode == 2) < 0.5
