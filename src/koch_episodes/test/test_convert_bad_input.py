# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The converter and what people will feed it: every bad input, each with its outcome."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from koch_episodes.convert import ConvertOptions, StampFrom, convert
from koch_episodes.convert.cli import main
from koch_episodes.dataset import Codec, LeRobotDatasetReader, validate_dataset
from koch_episodes.dataset.stats import sampled_frames
from koch_episodes.errors import (
    EpisodeError,
    MessageTypeError,
    MissingTopicError,
    OutputExistsError,
    OutputUnwritableError,
)

WriteBag = Callable[..., Path]
Message = tuple[str, str, int, int, Any]
CAMERA_TOPIC = "/cameras/above/image_raw/compressed"
CAMERA = "observation.images.above"
NS = 1_000_000_000


def only(topic: str, change: Callable[[int, Message], Message | None]) -> Any:
    """Apply a change to the messages of one topic: (number, message) -> message or None."""

    def apply(messages: list[Message]) -> list[Message]:
        result, number = [], 0
        for message in messages:
            if message[0] == topic:
                changed = change(number, message)
                number += 1
                if changed is None:
                    continue
                message = changed
            result.append(message)
        return result

    return apply


def restamped(message: Message, stamp_ns: int) -> Message:
    stamp = message[4].header.stamp
    stamp.sec, stamp.nanosec = stamp_ns // NS, stamp_ns % NS
    return (*message[:3], stamp_ns, message[4])


def with_data(message: Message, data: bytes) -> Message:
    message[4].data = np.frombuffer(data, np.uint8)
    return message


def converted(bag: Path, tmp_path: Path, **options: Any) -> tuple[LeRobotDatasetReader, Any]:
    result = convert([bag], tmp_path / "out", ConvertOptions(**options))
    assert validate_dataset(tmp_path / "out", decode=True).ok
    return LeRobotDatasetReader(tmp_path / "out"), result.reports[0]


def test_empty_bag(write_bag: WriteBag, tmp_path: Path) -> None:
    bag = write_bag(change=lambda messages: [])
    with pytest.raises(MissingTopicError, match=r"lacks the topic\(s\) /cameras/above"):
        convert([bag], tmp_path / "out", ConvertOptions())
    assert not (tmp_path / "out").exists()


def test_bag_without_a_needed_topic_does_not_stop_the_others(
    write_bag: WriteBag, tmp_path: Path
) -> None:
    bad = write_bag("episode_0", seconds=1.0, change=only(CAMERA_TOPIC, lambda n, m: None))
    good = write_bag("episode_1", seconds=1.0)
    result = convert([bad, good], tmp_path / "out", ConvertOptions())
    assert result.info.total_episodes == 1
    assert "lacks the topic(s) /cameras/above/image_raw/compressed" in result.failed["episode_0"]


def test_wrong_type(write_bag: WriteBag, tmp_path: Path) -> None:
    bag = write_bag(seconds=1.0, custom={})
    mapping = tmp_path / "map.yaml"
    mapping.write_text(
        f"fps: 30\ntask: t\nfeatures:\n"
        f"  observation.state: {{topic: {CAMERA_TOPIC}, names: [a]}}\n"
    )
    with pytest.raises(MessageTypeError, match="CompressedImage, expected numbers"):
        convert([bag], tmp_path / "out", ConvertOptions(map=mapping))


def test_no_task(write_bag: WriteBag, tmp_path: Path) -> None:
    mapping = tmp_path / "map.yaml"
    mapping.write_text("fps: 30\nfeatures:\n  observation.state: /follower/joint_states\n")
    bag = write_bag(seconds=1.0, custom={})
    with pytest.raises(EpisodeError, match=r"no task text.*Give --task"):
        convert([bag], tmp_path / "out", ConvertOptions(map=mapping))
    assert convert([bag], tmp_path / "out", ConvertOptions(map=mapping, task="go"))


def test_joints_permuted_in_the_middle_keep_their_places(
    write_bag: WriteBag, tmp_path: Path
) -> None:
    def permute(number: int, message: Message) -> Message:
        if number >= 100:
            message[4].name = message[4].name[::-1]
            message[4].position = message[4].position[::-1].copy()
        return message

    plain = write_bag("plain")
    swapped = write_bag("swapped", change=only("/follower/joint_states", permute))
    tables = []
    for name, bag in (("a", plain), ("b", swapped)):
        convert([bag], tmp_path / name, ConvertOptions())
        tables.append(LeRobotDatasetReader(tmp_path / name).column("observation.state"))
    np.testing.assert_array_equal(*tables)


def test_joint_missing_from_the_middle_on_ends_the_episode_there(
    write_bag: WriteBag, tmp_path: Path
) -> None:
    def drop(number: int, message: Message) -> Message:
        if number >= 100:
            message[4].name = message[4].name[:-1]
            message[4].position = message[4].position[:-1].copy()
        return message

    bag = write_bag(change=only("/follower/joint_states", drop))
    reader, report = converted(bag, tmp_path)
    assert 29 <= len(reader) <= 32
    assert any("gripper missing" in why for why in report["refused"]["/follower/joint_states"])


def test_not_a_number_never_enters_the_dataset(write_bag: WriteBag, tmp_path: Path) -> None:
    def poison(number: int, message: Message) -> Message:
        if number in (50, 51):
            message[4].position[2] = np.nan
        return message

    reader, report = converted(write_bag(change=only("/follower/joint_states", poison)), tmp_path)
    assert len(reader) == 60
    assert np.isfinite(reader.column("observation.state")).all()
    assert sum(report["refused"]["/follower/joint_states"].values()) == 2


def test_clock_set_back_splits_the_episode(write_bag: WriteBag, tmp_path: Path) -> None:
    def back(messages: list[Message]) -> list[Message]:
        middle = messages[0][3] + NS
        return [restamped(m, m[3] - 3600 * NS) if m[3] >= middle else m for m in messages]

    reader, _ = converted(write_bag(change=back), tmp_path, min_seconds=0.5)
    assert len(reader.episodes) == 2
    assert len(reader) >= 56


def test_single_stamp_in_the_far_future_costs_little(write_bag: WriteBag, tmp_path: Path) -> None:
    def jump(number: int, message: Message) -> Message:
        return restamped(message, message[3] + 10**17) if number == 100 else message

    began = time.monotonic()
    reader, _ = converted(write_bag(change=only("/follower/joint_states", jump)), tmp_path)
    assert len(reader) >= 50
    assert time.monotonic() - began < 20


def test_topic_with_zero_stamps_is_timed_by_the_recorder(
    write_bag: WriteBag, tmp_path: Path
) -> None:
    bag = write_bag(change=only("/follower/joint_states", lambda n, m: restamped(m, 0)))
    reader, report = converted(bag, tmp_path)
    assert len(reader) >= 58
    assert report["notes"] == ["/follower/joint_states: timed by the recorder's clock"]


def test_zero_stamp_among_good_ones_is_refused(write_bag: WriteBag, tmp_path: Path) -> None:
    bag = write_bag(
        change=only("/follower/joint_states", lambda n, m: restamped(m, 0) if n == 70 else m)
    )
    reader, report = converted(bag, tmp_path)
    assert len(reader) == 60
    assert report["refused"]["/follower/joint_states"] == {"header stamp is zero or negative": 1}


@pytest.mark.parametrize(("rate", "held"), [(29.97, 0.02), (15.0, 0.52), (60.0, 0.0)])
def test_camera_rate_differs_from_the_datasets(
    write_bag: WriteBag, tmp_path: Path, rate: float, held: float
) -> None:
    reader, report = converted(write_bag(seconds=4.0, camera_hz=rate), tmp_path)
    assert len(reader) >= 118
    feature = report["episodes"][0]["features"][CAMERA]
    assert feature["held_share"] <= held
    assert abs(feature["time_scale_error"]) < 0.02


def test_dead_camera_splits_and_the_pieces_keep_their_time(
    write_bag: WriteBag, tmp_path: Path
) -> None:
    bag = write_bag(
        seconds=3.0, change=only(CAMERA_TOPIC, lambda n, m: None if 40 <= n < 60 else m)
    )
    reader, report = converted(bag, tmp_path)
    assert [episode.length for episode in reader.episodes] == [42, 30]
    assert report["gaps"][0]["duration_s"] == pytest.approx(18 / 30, abs=0.001)
    assert CAMERA_TOPIC in report["gaps"][0]["why"]
    with pytest.raises(EpisodeError, match=r"gap of 0\.60 s at 1\.40 s"):
        convert([bag], tmp_path / "whole", ConvertOptions(split_at_gaps=False))
    result = convert([bag], tmp_path / "long", ConvertOptions(min_seconds=1.2))
    assert result.info.total_frames == 42
    assert "1 piece(s) shorter than 1.2 s left out" in result.reports[0]["notes"][0]


def test_image_of_another_size_does_not_exist(write_bag: WriteBag, tmp_path: Path) -> None:
    import simplejpeg

    small = simplejpeg.encode_jpeg(np.zeros((24, 32, 3), np.uint8))
    bag = write_bag(
        change=only(CAMERA_TOPIC, lambda n, m: with_data(m, small) if n in (20, 21) else m)
    )
    reader, report = converted(bag, tmp_path)
    assert len(reader) == 60
    assert report["refused"][CAMERA_TOPIC] == {"image of 32x24 px, not as the others": 2}


@pytest.mark.parametrize("kind", ["cut", "garbage in the header", "garbage in the scan", "empty"])
def test_corrupt_image_does_not_exist(write_bag: WriteBag, tmp_path: Path, kind: str) -> None:
    """Of 150 images 100 enter the statistics; broken ones are found among the others too."""
    broken = range(20, 140, 10)
    assert not set(broken) <= set(sampled_frames(150))

    def corrupt(number: int, message: Message) -> Message:
        data = bytes(message[4].data)
        if number not in broken:
            return message
        if kind == "cut":
            return with_data(message, data[: len(data) // 2])
        if kind == "empty":
            return with_data(message, b"")
        scan = data.rindex(b"\xff\xda") + 60
        place = scan if kind == "garbage in the scan" else len(data) // 2
        return with_data(message, data[:place] + b"\xff\xc4" + bytes(90) + data[place + 92 :])

    bag = write_bag(seconds=5.0, change=only(CAMERA_TOPIC, corrupt))
    reader, report = converted(bag, tmp_path)
    assert len(reader) == 150
    assert sum(report["refused"][CAMERA_TOPIC].values()) == len(broken)
    before, held = (reader.image(CAMERA, k).astype(int) for k in (19, 20))
    assert np.abs(before - held).mean() < 2.0


@pytest.mark.parametrize("seconds", [0.01, 0.04])
def test_episode_shorter_than_two_ticks(
    write_bag: WriteBag, tmp_path: Path, seconds: float
) -> None:
    bag = write_bag(seconds=seconds, camera_hz=100.0)
    with pytest.raises(EpisodeError, match=r"shorter than two frames|no usable message"):
        convert([bag], tmp_path / "out", ConvertOptions())


def test_output_that_exists_is_left_alone(write_bag: WriteBag, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("x")
    with pytest.raises(OutputExistsError, match="exists already"):
        convert([write_bag(seconds=0.5)], out, ConvertOptions())
    assert main([str(tmp_path / "episode_000000"), "--out", str(out)]) == 2
    assert [p.name for p in out.iterdir()] == ["mine.txt"]


def test_unwritable_output_is_named(write_bag: WriteBag, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OutputUnwritableError, match="cannot be written"):
        convert([write_bag(seconds=0.5)], tmp_path / "file" / "out", ConvertOptions())


@pytest.mark.parametrize("codec", [Codec.COPY, Codec.H264])
def test_full_disk_is_told_and_finished_bags_survive(
    write_bag: WriteBag, tmp_path: Path, codec: Codec
) -> None:
    """A file size limit fails writes like a full disk does, without root or mounts."""
    bags = [write_bag("episode_0", seconds=0.5), write_bag("episode_1", seconds=30.0)]
    code = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from koch_episodes.convert.cli import main\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))\n"
        f"sys.exit(main(['--vcodec', '{codec.value}', '--jobs', '1', '--out', sys.argv[1],\n"
        "               *sys.argv[2:]]))\n"
    )
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-c", code, str(out), *map(str, bags)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=100,
    )
    assert done.returncode == 2, done.stderr
    assert "cannot be written" in done.stderr
    assert not out.exists()
    assert (
        main(
            [
                *map(str, bags),
                "--vcodec",
                codec.value,
                "--jobs",
                "1",
                "--out",
                str(out),
                "--resume",
            ]
        )
        == 0
    )
    assert validate_dataset(out).ok


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_killed_conversion_leaves_nothing_at_the_output_and_resumes(
    write_bag: WriteBag, tmp_path: Path, jobs: str
) -> None:
    bags = [write_bag(f"episode_{k}", seconds=2.0) for k in range(6)]
    out = tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "koch_episodes.convert.cli",
        *map(str, bags),
        "--out",
        str(out),
        "--jobs",
        jobs,
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    work = tmp_path / ".out.parts"
    until = time.monotonic() + 60
    while len(list(work.glob("*/job.json"))) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists()
    done = len(list(work.glob("*/job.json")))
    assert 2 <= done < 6
    assert main([*command[3:], "--resume"]) == 0
    assert validate_dataset(out, decode=True).ok
    assert len(LeRobotDatasetReader(out).episodes) == 6


@pytest.mark.parametrize(
    "task", ["Nimm den Block ✋ / 把积木放进杯子", 'a/b\\c "q" \n', "../../x"]
)
def test_strange_task_texts_survive(write_bag: WriteBag, tmp_path: Path, task: str) -> None:
    bag = write_bag(seconds=0.5)
    reader, _ = converted(bag, tmp_path, task=task)
    assert reader[0]["task"] == task


def test_memory_does_not_grow_with_length(write_bag: WriteBag, tmp_path: Path) -> None:
    code = (
        "import re, sys\n"
        "from pathlib import Path\n"
        "from koch_episodes.convert.cli import main\n"
        "assert main(['--jobs', '1', '--out', *sys.argv[1:]]) == 0\n"
        # Not ru_maxrss: a child starts with its parent's, here pytest's.
        "status = Path('/proc/self/status').read_text()\n"
        "print(re.search(r'VmHWM:\\s+(\\d+) kB', status)[1])\n"
    )
    peaks = []
    for name, seconds in (("short", 5.0), ("long", 60.0)):
        bag = write_bag(name, seconds=seconds)
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / f"out_{name}"), str(bag)],
            capture_output=True,
            text=True,
            timeout=100,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        peaks.append(int(done.stdout.split()[-1]) / 1024)
    assert peaks[1] < 400
    assert peaks[1] - peaks[0] < 40


def test_streams_with_different_clocks_are_explained(write_bag: WriteBag, tmp_path: Path) -> None:
    bag = write_bag(change=only(CAMERA_TOPIC, lambda n, m: restamped(m, m[3] - 10**15)))
    with pytest.raises(EpisodeError, match=r"never overlap in time.*--stamps receive"):
        convert([bag], tmp_path / "out", ConvertOptions())
    reader, _ = converted(bag, tmp_path, stamps=StampFrom.RECEIVE)
    assert len(reader) >= 57
