# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Datasets to bags and back: numbers, words and JPEGs are the same afterwards."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore

from koch_episodes.bag.messages import CameraInfo, MessageMaker
from koch_episodes.convert.cli import main
from koch_episodes.dataset import (
    DatasetWriter,
    FeatureSpec,
    LeRobotDatasetReader,
    Version,
    validate_dataset,
)
from koch_episodes.inspect_bag import inspect_bag
from koch_episodes.replay.motion import load_motion
from koch_rig.arm_model import KOCH_V1_1

J = len(KOCH_V1_1.joints)

WriteBag = Callable[..., Path]
ROOT = Path(__file__).resolve().parents[3]


def run(*words: object) -> int:
    return main([str(word) for word in words])


def there_and_back(
    dataset: Path, capsys: pytest.CaptureFixture[str], *more: object
) -> tuple[Path, Path, str]:
    """Dataset to bags, and these by the command that was printed; returns all and the text."""
    bags, back = dataset.with_name("bags"), dataset.with_name("back")
    assert run("--to-bag", dataset, "--out", bags, *more) == 0
    text = capsys.readouterr().out
    (line,) = (line for line in text.splitlines() if line.startswith("back: "))
    words = shlex.split(line.removeprefix("back: "))
    assert words[:2] == ["koch", "convert"]
    words[words.index("NEW")] = str(back)
    assert run(*words[2:], "--jobs", 1) == 0, capsys.readouterr().err
    assert not validate_dataset(back).errors
    return bags, back, text


def rows(dataset: Path) -> pa.Table:
    files = sorted((dataset / "data").rglob("*.parquet"))
    return pa.concat_tables([pq.read_table(file) for file in files])


def same_numbers(one: Path, other: Path) -> None:
    first, second = rows(one), rows(other)
    assert sorted(first.column_names) == sorted(second.column_names)
    for name in first.column_names:
        assert first[name].to_pylist() == second[name].to_pylist(), name
    a, b = LeRobotDatasetReader(one), LeRobotDatasetReader(other)
    assert (a.fps, list(a.tasks), a.info.format) == (b.fps, list(b.tasks), b.info.format)
    for mine, theirs in zip(a.episodes, b.episodes, strict=True):
        assert (mine.length, mine.tasks, mine.outcome) == (
            theirs.length,
            theirs.tasks,
            theirs.outcome,
        )
    for key, spec in a.features.items():
        assert b.features[key].dtype == spec.dtype
        if spec.names is not None:
            assert b.features[key].names == spec.names


def packets(dataset: Path) -> list[bytes]:
    found = []
    for path in sorted(dataset.glob("videos/**/*.mp4")):
        with av.open(str(path)) as container:
            found += [bytes(p) for p in container.demux(container.streams.video[0]) if p.size]
    return found


@pytest.mark.parametrize("units", ["lerobot", "degrees", "radians"])
@pytest.mark.parametrize("form", [version.value for version in Version])
def test_recorded_dataset_comes_back_to_the_bit(
    write_bag: WriteBag, tmp_path: Path, capsys: pytest.CaptureFixture[str], units: str, form: str
) -> None:
    for k in range(2):
        write_bag(f"recorded/episode_{k:06d}", seconds=1.5)
    dataset = tmp_path / "data"
    words = ("--units", units, "--vcodec", "copy", "--format", form, "--jobs", 1)
    assert run(tmp_path / "recorded", "--out", dataset, *words) == 0
    bags, back, text = there_and_back(dataset, capsys)
    assert "numbers come back exactly: action, observation.state" in text
    same_numbers(dataset, back)
    assert packets(dataset) == packets(back)
    _, motion = load_motion(bags / "episode_000000")
    _, recorded = load_motion(tmp_path / "recorded" / "episode_000000")
    np.testing.assert_allclose(motion.positions_rad[0], recorded.at(0.0), atol=0.02)


def test_bag_is_the_recorders(
    write_bag: WriteBag, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bag("recorded", seconds=1.5)
    assert run(tmp_path / "recorded", "--out", tmp_path / "data", "--vcodec", "copy") == 0
    assert run("--to-bag", tmp_path / "data", "--out", tmp_path / "bags") == 0
    bag = tmp_path / "bags" / "episode_000000"
    with Reader(bag) as reader:
        found = {c.topic: c for c in reader.connections}
        assert set(found) == {
            "/follower/joint_states",
            "/follower/joint_command",
            "/cameras/above/image_raw/compressed",
            "/robot_description",
            "/follower/robot_description",
            "/leader/robot_description",
            "/tf_static",
            "/tf",
        }
        assert found["/tf"].msgcount == found["/follower/joint_states"].msgcount
        durability = found["/tf_static"].ext.offered_qos_profiles[0].durability  # type: ignore[union-attr]
        assert durability.name == "TRANSIENT_LOCAL"
        assert (
            found["/follower/joint_states"].msgcount == found["/follower/joint_command"].msgcount
        )
        stamps = [log for _, log, _ in reader.messages()]
        assert stamps == sorted(stamps)
    facts = inspect_bag(bag)
    assert facts.custom["koch.task"] == "Pick up the block."
    assert facts.custom["koch.outcome"] == "success"
    assert facts.verdict.value == "good"


INFO = CameraInfo(
    48, 64, "plumb_bob", (0.1, -0.2, 0.001, 0.0, 0.3), (60.0, 0.0, 31.5, 0.0, 61.0, 23.5, 0, 0, 1),
    (1.0, 0, 0, 0, 1, 0, 0, 0, 1), (60.0, 0, 31.5, 0, 0, 61, 23.5, 0, 0, 0, 1, 0), (2, 1),
    (1, 2, 40, 50), True,
)  # fmt: skip
Message = tuple[str, str, int, int, Any]


def infos_of(bag: Path) -> list[Any]:
    """As rosbags reads them."""
    with AnyReader([bag], default_typestore=get_typestore(Stores.ROS2_JAZZY)) as reader:
        topics = [c for c in reader.connections if c.topic.endswith("/camera_info")]
        messages = reader.messages(topics) if topics else ()  # of no topic are those of all
        return [reader.deserialize(data, c.msgtype) for c, _, data in messages]


def telling(info: CameraInfo) -> Callable[[list[Message]], list[Message]]:
    """Puts a camera_info beside each image."""

    def change(messages: list[Message]) -> list[Message]:
        maker = MessageMaker()
        found: list[Message] = []
        for message in messages:
            found.append(message)
            topic, _, log_ns, stamp_ns, _ = message
            if topic.startswith("/cameras/above"):
                data = maker.camera_info(stamp_ns, info, "above_optical_frame")
                kind = "sensor_msgs/msg/CameraInfo"
                found.append(("/cameras/above/camera_info", kind, log_ns, stamp_ns, data))
        return found

    return change


def test_intrinsics_come_back(
    write_bag: WriteBag, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for k in range(2):
        write_bag(f"recorded/episode_{k:06d}", seconds=1.5, change=telling(INFO))
    dataset = tmp_path / "data"
    words = (tmp_path / "recorded", "--out", dataset, "--vcodec", "copy", "--jobs", 1)
    assert run(*words) == 0
    bags, back, _ = there_and_back(dataset, capsys)
    found = infos_of(bags / "episode_000001")
    assert len(found) == LeRobotDatasetReader(dataset).episode(1).length
    recorded = infos_of(tmp_path / "recorded/episode_000000")[0]
    for message in (found[0], found[-1]):
        assert message.header.frame_id == "above_optical_frame"
        assert str(replace(message, header=None)) == str(replace(recorded, header=None))
    told = [json.loads((root / "meta/koch.json").read_text()) for root in (dataset, back)]
    assert told[0]["camera_info"] == told[1]["camera_info"]


@pytest.mark.parametrize(
    "infos",
    [
        (replace(INFO, k=(0.0,) * 9), replace(INFO, k=(0.0,) * 9)),  # not calibrated
        (INFO, replace(INFO, width=640, height=480)),  # of images of another size
        (INFO, replace(INFO, distortion_model="equidistant", d=(0.1, 0, 0, 0))),  # calibrated anew
    ],
)
def test_no_intrinsics_are_made_up(
    write_bag: WriteBag, tmp_path: Path, infos: tuple[CameraInfo, ...]
) -> None:
    for k, info in enumerate(infos):
        write_bag(f"recorded/episode_{k:06d}", seconds=1.5, change=telling(info))
    words = ("--out", tmp_path / "data", "--vcodec", "copy", "--jobs", 1)
    assert run(tmp_path / "recorded", *words) == 0
    assert run("--to-bag", tmp_path / "data", "--out", tmp_path / "bags") == 0
    assert infos_of(tmp_path / "bags/episode_000000") == []


@pytest.mark.parametrize("change", [{"k": [1.0]}, {"k": None}, {"width": 65}, {"d": ["x"]}])
def test_damaged_intrinsics_are_refused(
    write_bag: WriteBag,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: dict[str, Any],
) -> None:
    write_bag("recorded", seconds=1.5, change=telling(INFO))
    assert run(tmp_path / "recorded", "--out", tmp_path / "data", "--jobs", 1) == 0
    path = tmp_path / "data/meta/koch.json"
    told = json.loads(path.read_text())
    told["camera_info"]["observation.images.above"].update(change)
    path.write_text(json.dumps(told))
    assert run("--to-bag", tmp_path / "data", "--out", tmp_path / "bags") == 2
    assert "camera_info of observation.images.above" in capsys.readouterr().err


def test_derived_columns_are_derived_again(
    write_bag: WriteBag, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bag("recorded", seconds=1.5)
    dataset = tmp_path / "data"
    words = ("--include-rewards", "--include-tcp-pose", "--delta-actions", "--vcodec", "copy")
    assert run(tmp_path / "recorded", "--out", dataset, *words) == 0
    _, back, text = there_and_back(dataset, capsys)
    for key in ("next.done", "next.success", "next.reward", "observation.state"):
        assert rows(dataset)[key].to_pylist() == rows(back)[key].to_pylist()
    for key in ("action", "observation.tcp_pose"):
        one, two = (LeRobotDatasetReader(root).column(key) for root in (dataset, back))
        np.testing.assert_allclose(one, two, atol=1e-5)
        differ = int((one != two).any(axis=1).sum())
        assert (f"{key}: {differ} frames come back with other numbers" in text) == bool(differ)


def test_encoded_videos_come_back_alike_and_it_is_said(
    write_bag: WriteBag, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bag("recorded", seconds=1.5)
    assert run(tmp_path / "recorded", "--out", tmp_path / "data") == 0
    _, back, text = there_and_back(tmp_path / "data", capsys)
    same_numbers(tmp_path / "data", back)
    assert "images were decoded and made JPEGs of quality 95; they come back alike" in text
    one, two = LeRobotDatasetReader(tmp_path / "data"), LeRobotDatasetReader(back)
    for k in range(0, len(one), 10):
        images = [reader.image("observation.images.above", k) for reader in (one, two)]
        assert np.abs(images[0].astype(int) - images[1]).mean() < 4.0


def test_interventions_come_back(
    write_bag: WriteBag,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    episode_event: Callable[..., Any],
) -> None:
    def taken(messages: list[Any]) -> list[Any]:
        begin = messages[0][3]
        for at_s, what in ((0.0, 0), (0.5, 3), (1.0, 4)):
            stamp = begin + round(at_s * 1e9)
            kind = "koch_interfaces/msg/EpisodeEvent"
            event = episode_event(stamp, what)
            messages.append(("/episodes/events", kind, stamp + 5_000_000, stamp, event))
        return sorted(messages, key=lambda message: message[2])

    write_bag("recorded", seconds=1.5, change=taken)
    dataset = tmp_path / "data"
    assert run(tmp_path / "recorded", "--out", dataset, "--vcodec", "copy") == 0
    assert 10 < sum(value for value in rows(dataset)["intervention"].to_pylist()) < 20
    _, back, _ = there_and_back(dataset, capsys)
    same_numbers(dataset, back)


def odd_dataset(root: Path, version: str, lengths: tuple[int, ...] = (12, 3)) -> Path:
    features = {
        "action": FeatureSpec("float32", (2,), ("left arm/j 1", "höhe")),
        "observation.state": FeatureSpec("float64", (3,)),
        "observation.images.top": FeatureSpec("video", (32, 48, 3), ("height", "width", "c")),
        "next.reward": FeatureSpec("float32", (1,), ("reward",)),
        "count.of things": FeatureSpec("int64", (1,), ("count",)),
        "is_done": FeatureSpec("bool", (1,), ("done",)),
        "2d": FeatureSpec("float32", (2,), ("a", "b")),
        "pose": FeatureSpec("float64", (2, 3)),
        "cube": FeatureSpec("int32", (2, 1, 3)),
    }
    rng = np.random.default_rng(1)
    with DatasetWriter(root, features, fps=7, robot_type="other", version=version) as writer:
        for number, length in enumerate(lengths):
            writer.add_episode(
                {
                    "action": rng.normal(size=(length, 2)) * 1e3,
                    "observation.state": rng.normal(size=(length, 3)),
                    "next.reward": rng.normal(size=(length,)),
                    "count.of things": np.arange(length) + (1 << 40),
                    "is_done": np.arange(length) == length - 1,
                    "2d": rng.normal(size=(length, 2)),
                    "pose": rng.normal(size=(length, 2, 3)),
                    "cube": rng.integers(-9, 9, size=(length, 2, 1, 3)),
                },
                {
                    "observation.images.top": [
                        np.full((32, 48, 3), 20 + k + number, np.uint8) for k in range(length)
                    ]
                },
                f"Räum auf {number} 片付け",
                ("success", "")[number % 2],
            )
    images_into_tables(root, "observation.images.top")
    return root


def images_into_tables(root: Path, key: str) -> None:
    """Put PNGs into the frame tables in the place of a video, as LeRobot stores images."""
    shutil.rmtree(root / "videos")
    info = json.loads((root / "meta/info.json").read_text())
    info["features"][key].update(dtype="image")
    (root / "meta/info.json").write_text(json.dumps(info))
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    for path in sorted((root / "data").rglob("*.parquet")):
        found = pq.read_table(path)
        cells = []
        for row in range(len(found)):
            _, data = cv2.imencode(".png", np.full((32, 48, 3), 20 + row % 200, np.uint8))
            cells.append({"bytes": bytes(data), "path": f"{row}.png"})
        pq.write_table(found.append_column(key, pa.array(cells, kind)), path)


@pytest.mark.parametrize("form", [version.value for version in Version])
def test_dataset_of_another_robot_comes_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    dataset = odd_dataset(tmp_path / "data", form)
    bags, back, text = there_and_back(dataset, capsys)
    assert "topics are named after features" in text
    assert "images were copied" in text
    one, two = rows(dataset), rows(back)
    for name in two.column_names:
        assert one[name].to_pylist() == two[name].to_pylist(), name
    reader = LeRobotDatasetReader(back)
    assert reader.fps == 7
    assert reader.info.robot_type == "other"
    assert [e.tasks[0] for e in reader.episodes] == ["Räum auf 0 片付け", "Räum auf 1 片付け"]
    assert [e.outcome for e in reader.episodes] == ["success", ""]
    assert reader.features["action"].names == ("left arm/j 1", "höhe")
    first = LeRobotDatasetReader(dataset)
    for key, spec in first.features.items():
        assert reader.features[key].shape == spec.shape
        assert not spec.is_numeric or reader.features[key].dtype == spec.dtype
    assert first.stats is not None
    assert reader.stats is not None
    for name, value in first.stats["pose"].items():
        np.testing.assert_array_equal(reader.stats["pose"][name], value)
    with Reader(bags / "episode_000000") as bag:
        assert {c.topic for c in bag.connections} >= {"/action", "/count/of_things", "/_2d"}


def test_a_map_names_the_topics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = odd_dataset(tmp_path / "data", "v3.0")
    mapping: dict[str, Any] = {
        "features": {
            "action": [
                {"topic": "/left/cmd", "names": ["left arm/j 1"], "scale": 2.0},
                {"topic": "/right/cmd", "names": ["höhe"], "offset_ms": -20},
            ],
            "observation.state": {"topic": "/state", "dtype": "float64"},
            "observation.images.top": "/cam/compressed",
        }
    }
    path = tmp_path / "map.yaml"
    path.write_text(yaml.safe_dump(mapping))
    bags, back, text = there_and_back(dataset, capsys, "--map", path)
    assert "left out: next.reward, count.of things, is_done, 2d, pose, cube" in text
    for key in ("action", "observation.state", "timestamp"):
        assert rows(dataset)[key].to_pylist() == rows(back)[key].to_pylist()
    with Reader(bags / "episode_000001") as bag:
        assert {c.topic for c in bag.connections} == {
            "/left/cmd",
            "/right/cmd",
            "/state",
            "/cam/compressed",
        }
    mapping["features"]["action"] = "/cmd"
    mapping["features"]["absent"] = "/absent"
    path.write_text(yaml.safe_dump(mapping))
    assert run("--to-bag", dataset, "--out", tmp_path / "other", "--map", path) == 2
    assert "no feature absent" in capsys.readouterr().err


def test_a_dataset_without_images_or_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And with an empty task text, which LeRobot allows."""
    dataset = tmp_path / "data"
    features = {
        "action": FeatureSpec("float32", (2,)),
        "observation.state": FeatureSpec("float32", (3,)),
    }
    with DatasetWriter(dataset, features, fps=30, robot_type=None) as writer:
        writer.add_episode(
            {"action": np.ones((9, 2)), "observation.state": np.zeros((9, 3))}, {}, ""
        )
    _, back, text = there_and_back(dataset, capsys)
    assert "elements are called value_0 and so on: action, observation.state" in text
    assert rows(dataset)["action"].to_pylist() == rows(back)["action"].to_pylist()
    assert LeRobotDatasetReader(back).episodes[0].tasks == ("",)


def test_what_does_not_come_back_is_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], write_bag: WriteBag, rig_file: Path
) -> None:
    dataset = tmp_path / "data"
    names = tuple(f"{joint}.pos" for joint in KOCH_V1_1.joints)
    size = ("height", "width", "channels")
    features = {
        "action": FeatureSpec("float32", (J,), names),
        "observation.state": FeatureSpec("float32", (J,), names),
        "observation.images.above": FeatureSpec("video", (48, 64, 3), size),
        "extra": FeatureSpec("float32", (1,)),
    }
    action = np.zeros((10, 6))
    action[:3, 0] = 130.0  # beyond the calibrated range, where LeRobot's units end
    with DatasetWriter(dataset, features, fps=30, robot_type="koch") as writer:
        writer.add_episode(
            {"action": action, "observation.state": np.zeros((10, 6)), "extra": np.ones(10)},
            {"observation.images.above": [np.zeros((48, 64, 3), np.uint8)] * 10},
            "go",
        )
    assert run("--to-bag", dataset, "--out", tmp_path / "bags", "--rig", rig_file) == 0
    text = capsys.readouterr().out
    assert "action: 3 frames come back with other numbers" in text
    assert "numbers come back exactly: observation.state" in text
    assert "left out: extra" in text


def test_options_without_effect_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = odd_dataset(tmp_path / "data", "v3.0")
    for words in (["--crf", 20], ["--append"], ["--jobs", 2], ["--task", "x"], ["--trim-idle"]):
        assert run("--to-bag", dataset, "--out", tmp_path / "bags", *words) == 2
        assert str(words[0]) in capsys.readouterr().err
    assert run("--to-bag", dataset, dataset, "--out", tmp_path / "bags") == 2
    assert run("--to-bag", dataset, "--out", tmp_path / "data") == 2
    assert run("--to-bag", tmp_path, "--out", tmp_path / "bags") == 2
    assert not (tmp_path / "bags").exists()
    (tmp_path / "bags").mkdir()
    assert run("--to-bag", dataset, "--out", tmp_path / "bags") == 2


def test_killed_run_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = odd_dataset(tmp_path / "data", "v3.0", lengths=(20,) * 40)
    bags, stage = tmp_path / "bags", tmp_path / ".bags.bags"
    words = ["--to-bag", str(dataset), "--out", str(bags)]
    for wanted in (1, 8):
        child = subprocess.Popen(
            [sys.executable, "-m", "koch_episodes.convert.cli", *words, "--resume"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until = time.monotonic() + 60
        while len(list(stage.glob("episode_??????"))) < wanted and time.monotonic() < until:
            time.sleep(0.002)
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert not bags.exists()
    whole = {p.name: p.stat().st_mtime_ns for p in stage.glob("episode_??????")}
    assert run(*words, "--resume") == 0
    assert not stage.exists()
    assert len(list(bags.glob("episode_*"))) == 40
    for name, made in whole.items():
        assert (bags / name).stat().st_mtime_ns == made


def test_full_disk_is_said_and_leaves_no_folder(
    tmp_path: Path,
) -> None:
    dataset = odd_dataset(tmp_path / "data", "v3.0")
    script = (
        "import resource, signal, sys\n"
        "from koch_episodes.convert.cli import main\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    words = ["--to-bag", str(dataset), "--out", str(tmp_path / "bags")]
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "cannot be written: File too large" in done.stderr
    assert not (tmp_path / "bags").exists()


def test_own_message_types_are_those_of_the_interfaces() -> None:
    """What is embedded in bags has the fields of koch_interfaces."""
    from koch_episodes.bag.messages import _OURS

    for kind, text in _OURS.items():
        package, _, name = kind.split("/")
        source = (ROOT / "src" / package / "msg" / f"{name}.msg").read_text()
        plain = [line.partition("#")[0].split() for line in source.splitlines()]
        assert [words for words in plain if words] == [line.split() for line in text.splitlines()]
        topic, type_hash = MessageMaker().topic("/x", kind)
        assert topic.definition
        assert type_hash.startswith("RIHS01_")
