# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Options that mean nothing are refused; names and texts that are no UTF-8 stop nothing."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import pytest

from koch_core.errors import KochError
from koch_episodes.convert import ConvertOptions, convert
from koch_episodes.convert.cli import main
from koch_episodes.dataset import Codec, LeRobotDatasetReader
from koch_episodes.errors import (
    DatasetFormatError,
    DatasetWriteError,
    EpisodeError,
    OptionError,
    OutputUnwritableError,
)
from koch_rig.units import Units

WriteBag = Callable[..., Path]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("--crf 99", "--crf: got 99, expected 0 to 51 for h264"),
        ("--crf -1", "--crf: got -1"),
        ("--vcodec av1 --crf 64", "expected 0 to 63 for av1"),
        ("--gop 0", "--gop: got 0, expected 1 or more"),
        ("--preset quick", "--preset: got 'quick', expected one of ultrafast"),
        ("--vcodec av1 --preset ultrafast", "expected one of 0, 1"),
        ("--vcodec copy --crf 20", "--crf: got 20, expected nothing: --vcodec copy"),
        ("--min-seconds nan", "--min-seconds: got nan"),
        ("--fps 0", "--fps: got 0, expected 1 or more"),
        ("--jobs 0", "--jobs: got 0, expected 1 or more"),
        ("--task \udcff", "expected text in UTF-8"),
        ("--map m.yaml --action-from leader", "--action-from: got 'leader', expected nothing"),
    ],
)
def test_senseless_option_is_refused_before_anything_is_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str, why: str
) -> None:
    out = tmp_path / "out"
    assert main([str(tmp_path / "bag"), "--out", str(out), *words.split()]) == 2
    assert why in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_bag_whose_name_is_no_utf8_is_converted(
    write_bag: WriteBag, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = write_bag(seconds=1.0).rename(tmp_path / os.fsdecode(b"bag\xff"))
    out = tmp_path / "out"
    assert main([str(bag), "--out", str(out)]) == 0
    assert list(json.loads((out / "meta/koch.json").read_text())["bags"].values()) == [bag.name]
    assert main([str(bag), "--out", os.fsdecode(b"out\xfe")]) == 2
    assert "expected a path in UTF-8" in capsys.readouterr().err


def test_blank_task_is_none(write_bag: WriteBag, tmp_path: Path) -> None:
    convert([write_bag(seconds=1.0)], tmp_path / "out", ConvertOptions(task=" \n"))
    assert LeRobotDatasetReader(tmp_path / "out").tasks == ("Pick up the block.",)


def test_values_too_large_cost_their_bag_only(write_bag: WriteBag, tmp_path: Path) -> None:
    def huge(messages: list[Any]) -> list[Any]:
        for message in messages:
            if message[0] == "/follower/joint_states":
                message[4].position = message[4].position + 1e39
        return messages

    mapping = tmp_path / "map.yaml"
    mapping.write_text("fps: 30\ntask: t\nfeatures: {action: /follower/joint_states}\n")
    bags = [write_bag("huge", seconds=1.0, change=huge), write_bag("good", seconds=1.0)]
    result = convert(bags, tmp_path / "out", ConvertOptions(map=mapping))
    assert result.info.total_episodes == 1
    assert "action: values too large for 32 bits" in result.failed["huge"]


def test_dataset_is_brought_back_when_appending_was_cut_off(
    write_bag: WriteBag, tmp_path: Path
) -> None:
    """Between two renames of the end the dataset stands aside, and nothing in its place."""
    out, bags = tmp_path / "out", [write_bag(f"b{k}", seconds=1.0 + k) for k in range(2)]
    convert(bags[:1], out, ConvertOptions())
    out.rename(tmp_path / ".out.old")
    result = convert(bags, out, ConvertOptions(), append=True)
    assert result.skipped == ["b0"]
    assert result.info.total_episodes == 2
    assert not (tmp_path / ".out.old").exists()


def test_what_does_not_fit_is_refused_before_it_is_converted(
    write_bag: WriteBag, tmp_path: Path
) -> None:
    bags, done = [write_bag(f"b{k}", seconds=1.0 + k) for k in range(2)], []
    convert(bags[:1], tmp_path / "out", ConvertOptions())

    def note(*_: object) -> None:
        done.append(1)

    for out, options in ((tmp_path / "out", ConvertOptions(fps=15)), (tmp_path, ConvertOptions())):
        with pytest.raises(KochError, match=r"expected 30 as it has|expected a LeRobot dataset"):
            convert(bags, out, options, append=True, progress=note)
    assert done == []
    assert {path.name for path in tmp_path.iterdir()} == {"b0", "b1", "out"}


@pytest.mark.parametrize("append", [False, True])
def test_refusal_leaves_nothing_behind(write_bag: WriteBag, tmp_path: Path, append: bool) -> None:
    bag = write_bag("b0", seconds=1.0)
    if append:
        convert([bag], tmp_path / "out", ConvertOptions())
    before = {path.name for path in tmp_path.iterdir()}
    options = ConvertOptions() if append else ConvertOptions(outcomes=("none ended so",))
    with pytest.raises(EpisodeError, match=r"in the dataset already|no episode could be"):
        convert([bag], tmp_path / "out", options, append=append)
    assert {path.name for path in tmp_path.iterdir()} == before


def test_refusal_keeps_what_an_interrupted_run_finished(
    write_bag: WriteBag, tmp_path: Path
) -> None:
    bags = [write_bag(f"b{k}", seconds=1.0 + k) for k in range(2)]

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(bags, tmp_path / "out", ConvertOptions(), progress=interrupt)
    done = sorted((tmp_path / ".out.parts").glob("*/part_*"))
    assert done
    with pytest.raises(EpisodeError):
        convert(bags, tmp_path / "out", ConvertOptions(outcomes=("none ended so",)), resume=True)
    convert(bags, tmp_path / "out", ConvertOptions(), resume=True)
    assert not (tmp_path / ".out.parts").exists()


def test_copy_of_a_bag_is_converted_once(write_bag: WriteBag, tmp_path: Path) -> None:
    bags = [write_bag("first", seconds=1.0), write_bag("other", seconds=2.0)]
    copy = tmp_path / "copy"
    shutil.copytree(bags[0], copy)
    result = convert([bags[0], bags[1], copy], tmp_path / "out", ConvertOptions(), jobs=1)
    assert result.skipped == ["copy"]
    assert [report["bag"] for report in result.reports] == ["first", "other"]


def test_a_dataset_whose_koch_json_is_damaged_is_not_appended_to(
    write_bag: WriteBag, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    convert([write_bag("one", seconds=1.0)], out, ConvertOptions())
    (out / "meta/koch.json").write_text('{"units": ')
    bags = [write_bag("two", seconds=1.0)]
    with pytest.raises(DatasetFormatError, match=r"koch\.json: got unreadable file"):
        convert(bags, out, ConvertOptions(units=Units.RADIANS), append=True)
    assert len(LeRobotDatasetReader(out).episodes) == 1


def test_other_codec_is_not_appended(write_bag: WriteBag, tmp_path: Path) -> None:
    bags = [write_bag(f"b{k}", seconds=1.0 + k) for k in range(2)]
    convert(bags[:1], tmp_path / "out", ConvertOptions())
    with pytest.raises(DatasetWriteError, match="vcodec: got copy, expected h264 as it has"):
        convert(bags, tmp_path / "out", ConvertOptions(codec=Codec.COPY), append=True)


def test_present_folder_is_a_place_like_any_other(
    write_bag: WriteBag, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bags = [write_bag(f"b{k}", seconds=1.0 + k) for k in range(2)]
    convert(bags[:1], tmp_path / "out", ConvertOptions())
    monkeypatch.chdir(tmp_path / "out")
    assert convert(bags, Path(), ConvertOptions(), append=True).info.total_episodes == 2
    monkeypatch.chdir(tmp_path)
    assert LeRobotDatasetReader(tmp_path / "out").info.total_episodes == 2


def test_disk_that_is_full_while_videos_are_joined_is_named(
    write_bag: WriteBag, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise av.error.OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("koch_episodes.dataset.video_files._append", full)
    bags = [write_bag(f"b{k}", seconds=1.0 + k) for k in range(2)]
    with pytest.raises(OutputUnwritableError, match="No space left on device"):
        convert(bags, tmp_path / "out", ConvertOptions())


def test_option_is_refused_in_python_too() -> None:
    with pytest.raises(OptionError, match="--gop"):
        ConvertOptions(gop=-3)


def test_bag_without_task_says_what_to_give(write_bag: WriteBag, tmp_path: Path) -> None:
    mapping = tmp_path / "map.yaml"
    mapping.write_text("fps: 30\nfeatures: {action: /follower/joint_states}\n")
    bag = write_bag(seconds=1.0, custom={})
    with pytest.raises(EpisodeError, match="Give --task"):
        convert([bag], tmp_path / "out", ConvertOptions(map=mapping))


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EACCES, "the right to write"),
        (errno.EROFS, "the right to write"),
        (errno.ENOSPC, "Free space"),
        (errno.EDQUOT, "Free space"),
    ],
)
def test_what_to_do_follows_from_why_nothing_can_be_written(number: int, advice: str) -> None:
    cause = OSError(number, os.strerror(number))
    assert advice in str(OutputUnwritableError(Path("out"), cause))
