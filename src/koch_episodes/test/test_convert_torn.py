# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Episodes that a slow stream tears to pieces: what is kept, and what the user is told."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from koch_episodes.convert import ConvertOptions, convert
from koch_episodes.convert.cli import main
from koch_episodes.dataset import Codec, LeRobotDatasetReader
from koch_episodes.errors import EpisodeError

WriteBag = Callable[..., Path]
CAMERA_TOPIC = "/cameras/above/image_raw/compressed"


def thinned(keep: Callable[[int], bool]) -> Any:
    """Drop the images that `keep` (given their number) is false for."""

    def change(messages: list[Any]) -> list[Any]:
        numbers = iter(range(len(messages)))
        return [m for m in messages if m[0] != CAMERA_TOPIC or keep(next(numbers))]

    return change


def slow_for_a_second(number: int) -> bool:
    """30 Hz, and 7.5 Hz from 2 s to 3 s: 133 ms between images, 80 ms allowed."""
    return not 60 <= number < 90 or number % 4 == 0


def test_fragments_are_left_out_and_counted(write_bag: WriteBag, tmp_path: Path) -> None:
    bag = write_bag(seconds=6.0, change=thinned(slow_for_a_second))
    result = convert([bag], tmp_path / "out", ConvertOptions(codec=Codec.COPY))
    reader = LeRobotDatasetReader(tmp_path / "out")
    assert [episode.length for episode in reader.episodes] == [63, 92]
    assert result.reports[0]["notes"] == ["episode 0: 6 piece(s) shorter than 1 s left out"]
    split = result.reports[0]["split"]
    assert (split["episodes"], split["pieces"]) == (1, 8)
    camera = split["streams"].pop(CAMERA_TOPIC)
    assert not split["streams"]  # the arm kept its pace
    assert camera["max_age_ms"] == 80
    assert camera["needed_ms"] == pytest.approx(101, abs=0.1)
    everything = ConvertOptions(codec=Codec.COPY, min_seconds=0.0)
    convert([bag], tmp_path / "all", everything)
    assert len(LeRobotDatasetReader(tmp_path / "all").episodes) == 8


def test_advice_is_given_once_and_keeps_its_word(
    write_bag: WriteBag, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bags = [
        write_bag(f"episode_{n}", seconds=6.0, change=thinned(slow_for_a_second)) for n in range(2)
    ]
    command = ["--vcodec", "copy", "--jobs", "1", *map(str, bags), "--out"]
    assert main([*command, str(tmp_path / "out")]) == 0
    told = capsys.readouterr().err
    assert told.count("warning: 2 recorded episode(s) fell into 16 pieces at gaps") == 1
    assert len(re.findall(r"    gap: ", told)) == 6  # three of each bag
    assert told.count("and 4 more gaps (in meta/koch_report.json)") == 2
    rate = re.search(r"At --fps (\d+) it would be 2 piece", told)
    assert rate is not None
    assert main([*command, str(tmp_path / "slow"), "--fps", rate[1]]) == 0
    assert len(LeRobotDatasetReader(tmp_path / "slow").episodes) == 2
    assert "warning" not in capsys.readouterr().err


def test_maximum_age_named_by_the_advice_closes_the_gaps(
    write_bag: WriteBag, rig_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = np.random.default_rng(3)
    keep = set(np.cumsum(generator.integers(2, 5, 60)).tolist())  # 67 to 133 ms apart
    bag = write_bag(seconds=6.0, change=thinned(lambda number: number in keep))
    command = ["--vcodec", "copy", "--jobs", "1", str(bag), "--out"]
    assert main([*command, str(tmp_path / "out"), "--min-seconds", "0"]) == 0
    needed = re.search(r"came at [\d.]+ Hz.*With (\d+) in a copy", capsys.readouterr().err)
    assert needed is not None
    text = rig_file.read_text()
    rig_file.write_text(text.replace("max_age_ms: 80", f"max_age_ms: {needed[1]}"))
    assert main([*command, str(tmp_path / "whole"), "--rig", str(rig_file)]) == 0
    assert len(LeRobotDatasetReader(tmp_path / "whole").episodes) == 1


def test_stream_that_stopped_is_no_slow_stream(write_bag: WriteBag, tmp_path: Path) -> None:
    bag = write_bag(seconds=5.0, change=thinned(lambda number: not 60 <= number < 90))
    result = convert([bag], tmp_path / "out", ConvertOptions(codec=Codec.COPY))
    assert result.reports[0]["split"]["pieces"] == 2
    assert result.reports[0]["split"]["streams"] == {}


def test_episode_of_fragments_only_is_refused_with_the_advice(
    write_bag: WriteBag, tmp_path: Path
) -> None:
    bag = write_bag(seconds=4.0, camera_hz=7.5)
    with pytest.raises(
        EpisodeError, match=r"shorter than 1 s left out.*At --fps 15 it would be 1"
    ):
        convert([bag], tmp_path / "out", ConvertOptions())
    convert([bag], tmp_path / "slow", ConvertOptions(fps=15))
    report = json.loads((tmp_path / "slow/meta/koch_report.json").read_text())[0]
    assert report["split"] == {}
    assert report["episodes"][0]["frames"] >= 58


def test_what_is_told_of_many_episodes_is_bounded(
    write_bag: Callable[..., Path],
    episode_event: Callable[..., Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Two hundred starts and stops within two seconds: a bag's events may be many."""

    def nervous(messages: list[Any]) -> list[Any]:
        name, begin = "koch_interfaces/msg/EpisodeEvent", messages[0][3]
        for k in range(400):
            stamp = begin + k * 5_000_000
            event = episode_event(stamp, k % 2, k // 2)
            messages.append(("/episodes/events", name, stamp + 1_000_000, stamp, event))
        return sorted(messages, key=lambda message: message[2])

    bag = write_bag("nervous", seconds=3.0, custom={}, change=nervous)
    topics = tmp_path / "map.yaml"
    features = f"action: /follower/joint_command, observation.images.a: {CAMERA_TOPIC}"
    topics.write_text(f"fps: 30\nfeatures: {{{features}}}")
    out = tmp_path / "out"
    assert main([str(bag), "--out", str(out), "--map", str(topics), "--jobs", "1"]) == 2
    told = capsys.readouterr().err
    assert "no two frames in a row" in told
    assert len(told) < 2000
