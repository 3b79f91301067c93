# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The converter: what ends up in the dataset, and that live and offline agree."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from koch_core.files import OutputBusyError
from koch_core.frame import Frame, FrameAssembler, FrameFeature
from koch_core.image import decode_image
from koch_core.stream import StreamBuffer
from koch_episodes.bag import open_bag
from koch_episodes.bag.types import TypeDecoder
from koch_episodes.convert import ActionFrom, ConvertOptions, convert
from koch_episodes.dataset import Codec, LeRobotDatasetReader, Version, validate_dataset
from koch_episodes.dataset.edit.make import make
from koch_episodes.dataset.edit.options import EDITS, Relabel
from koch_episodes.decode import joint_vector
from koch_episodes.errors import DatasetWriteError
from koch_rig.arm_model import KOCH_V1_1
from koch_rig.calibration import load_calibration
from koch_rig.load import load_rig
from koch_rig.units import JointUnits, Units

J = len(KOCH_V1_1.joints)

WriteBag = Callable[..., Path]
NS = 1_000_000_000
CAMERA = "observation.images.above"


def image_number(image: np.ndarray[Any, Any], around: int) -> int:
    """Tell the number of a test scene from its left half's brightness."""
    level = float(image[8:40, 4:28].mean())
    candidates = range(max(0, around - 12), around + 13)
    return min(candidates, key=lambda number: abs(16 + (number * 7) % 224 - level))


def live_frames(bag_path: Path, rig_file: Path, ticks: list[int]) -> list[Frame]:
    """Play a bag as the policy node sees it: arrival order, frames 40 ms after each tick."""
    rig = load_rig(rig_file)
    buffers = {
        name: StreamBuffer(name, 500, s.max_age_s, s.offset_s) for name, s in rig.streams.items()
    }
    units = JointUnits(rig.follower, load_calibration(rig.follower.calibration_path))
    features = [
        FrameFeature(
            "observation.state",
            "follower/joint_states",
            decode=lambda m: units.rad_to(Units.LEROBOT, joint_vector(list(m.name), m.position)),
        ),
        FrameFeature(CAMERA, "cameras/above", decode=lambda m: decode_image(bytes(m.data))),
    ]
    assembler = FrameAssembler(features, buffers)
    topics = {stream.topic: name for name, stream in rig.streams.items()}
    frames, types = [], TypeDecoder()
    with open_bag(bag_path) as bag:
        for topic in topics:
            types.add(bag.topics[topic])
        messages = list(bag.messages(topics))
    for tick in ticks:
        while messages and messages[0].log_ns <= tick + 40_000_000:
            raw = messages.pop(0)
            message = types.decode(
                {t.name: t.type for t in bag.topics.values()}[raw.topic], raw.data
            )
            stamp = message.header.stamp
            buffers[topics[raw.topic]].push(stamp.sec * NS + stamp.nanosec, message)
        frame = assembler.assemble(tick)
        assert isinstance(frame, Frame), str(frame)
        frames.append(frame)
    return frames


def test_live_and_offline_frames_are_the_same(
    write_bag: WriteBag, rig_file: Path, tmp_path: Path
) -> None:
    bag = write_bag(seconds=3.0, camera_hz=29.0)
    out = tmp_path / "out"
    convert([bag], out, ConvertOptions(rig=rig_file, codec=Codec.COPY))
    reader = LeRobotDatasetReader(out)
    start = json.loads((out / "meta/koch_report.json").read_text())[0]["episodes"][0]["start_ns"]
    ticks = [start + round(k * NS / 30) for k in range(len(reader))]
    assert len(ticks) > 80
    for index, frame in enumerate(live_frames(bag, rig_file, ticks)):
        state = frame.values["observation.state"].astype(np.float32)
        np.testing.assert_array_equal(reader.column("observation.state")[index], state)
        stored = reader.image(CAMERA, index).astype(int)
        assert np.abs(stored - frame.values[CAMERA]).mean() < 3.0  # another chroma upsampling
        assert image_number(stored, index) == image_number(frame.values[CAMERA], index)


def test_frames_hold_newest_observation_and_next_command(
    write_bag: WriteBag, rig_file: Path, tmp_path: Path
) -> None:
    bag = write_bag(seconds=2.0)
    out = tmp_path / "out"
    convert([bag], out, ConvertOptions(rig=rig_file, units=Units.RADIANS))
    reader = LeRobotDatasetReader(out)
    # The last stream to begin is the command (2 ms); ticks are there + k / 30.
    for index in range(len(reader)):
        elapsed = 2_000_000 + round(index * NS / 30)
        seen = elapsed // 10_000_000 * 10_000_000
        sent = -(-(elapsed - 2_000_000) // 10_000_000) * 10_000_000
        phase = np.arange(J)
        np.testing.assert_allclose(
            reader.column("observation.state")[index], 0.5 * np.sin(seen / NS + phase), atol=1e-6
        )
        np.testing.assert_allclose(
            reader.column("action")[index], 0.5 * np.sin(sent / NS + phase) + 0.01, atol=1e-6
        )
        assert image_number(reader.image(CAMERA, index), index) == index


@pytest.mark.parametrize("version", list(Version))
@pytest.mark.parametrize("codec", list(Codec))
def test_every_codec_and_layout_is_valid(
    write_bag: WriteBag, tmp_path: Path, version: Version, codec: Codec
) -> None:
    bags = [write_bag(f"episode_{k}", seconds=1.0 + 0.2 * k) for k in range(2)]
    out = tmp_path / "out"
    result = convert(bags, out, ConvertOptions(version=version, codec=codec))
    assert not result.failed
    assert result.info.total_episodes == 2
    report = validate_dataset(out, decode=True)
    assert not report.findings
    reader = LeRobotDatasetReader(out)
    for index in (0, 10, 29, 30, 45, len(reader) - 1):
        inside = int(reader.column("frame_index")[index])
        assert image_number(reader.image(CAMERA, index), inside) == inside


TWO_CAMERAS = """
fps: 30
task: Nothing.
features:
  observation.state: {topic: /follower/joint_states, max_age_ms: 50}
  observation.images.above: {topic: /cameras/above/image_raw/compressed, max_age_ms: 80}
  observation.images.again: {topic: /cameras/above/image_raw/compressed, max_age_ms: 80}
  action: {topic: /follower/joint_command, max_age_ms: 50}
"""


@pytest.mark.parametrize("codec", list(Codec))
def test_broken_image_is_left_out_of_every_camera(
    write_bag: WriteBag, tmp_path: Path, codec: Codec
) -> None:
    """Of the second camera too, whether it is encoded beside the first or (AV1) behind it."""

    def broken(messages: list[Any]) -> list[Any]:
        images = [m for m in messages if m[0].startswith("/cameras")]
        image = images[20][4]
        image.data = image.data.copy()
        image.data[-60:-58] = (0xFF, 0xC4)  # a marker inside the scan
        return messages

    mapping = tmp_path / "map.yaml"
    mapping.write_text(TWO_CAMERAS)
    bag = write_bag(seconds=2.0, change=broken)
    convert([bag], tmp_path / "out", ConvertOptions(map=mapping, codec=codec))
    assert not validate_dataset(tmp_path / "out", decode=True).findings
    reader = LeRobotDatasetReader(tmp_path / "out")
    for camera in (CAMERA, "observation.images.again"):
        shown = [image_number(reader.image(camera, k), k) for k in (19, 20, 21, 40)]
        assert shown == [19, 19, 21, 40]


def test_units_action_source_and_computed_features(
    write_bag: WriteBag, rig_file: Path, tmp_path: Path
) -> None:
    bag = write_bag(seconds=1.0, leader=True)
    plain = {"rig": rig_file, "units": Units.RADIANS}
    convert([bag], tmp_path / "leader", ConvertOptions(action_from=ActionFrom.LEADER, **plain))
    convert([bag], tmp_path / "delta", ConvertOptions(delta_actions=True, tcp_pose=True, **plain))
    convert([bag], tmp_path / "degrees", ConvertOptions(rig=rig_file, units=Units.DEGREES))
    leader, delta, degrees = (
        LeRobotDatasetReader(tmp_path / name) for name in ("leader", "delta", "degrees")
    )
    state = leader.column("observation.state")
    assert leader.features["action"].names == degrees.features["action"].names
    assert leader.features["action"].names[0] == "shoulder_pan.pos"  # type: ignore[index]
    assert np.abs(leader.column("action") - state - 0.02).max() < 0.01
    assert np.abs(delta.column("action") - 0.01).max() < 0.01
    pan = degrees.column("observation.state")[:, 0]
    np.testing.assert_allclose(pan, np.rad2deg(state[:, 0]), atol=0.2)
    pose = delta.column("observation.tcp_pose")
    assert pose.shape == (len(delta), 9)
    np.testing.assert_allclose(np.linalg.norm(pose[:, 3:6], axis=1), 1.0, atol=1e-5)


def test_append_adds_only_new_bags_and_changes_no_old_file(
    write_bag: WriteBag, tmp_path: Path
) -> None:
    bags = [write_bag(f"episode_{k}", seconds=1.0) for k in range(3)]
    out = tmp_path / "out"
    convert(bags[:2], out, ConvertOptions())
    old = {
        p: p.read_bytes()
        for p in out.rglob("*")
        if p.suffix in (".mp4", ".parquet") and "tasks" not in p.name
    }
    result = convert(bags, out, ConvertOptions(task="another task / ü"), append=True)
    assert result.skipped == ["episode_0", "episode_1"]
    assert result.info.total_episodes == 3
    assert all(path.read_bytes() == content for path, content in old.items())
    assert not validate_dataset(out, decode=True).findings
    reader = LeRobotDatasetReader(out)
    assert reader[0]["task"] == "Pick up the block."
    assert reader[-1]["task"] == "another task / ü"
    assert len(json.loads((out / "meta/koch_report.json").read_text())) == 3
    other = write_bag("episode_3", seconds=1.0)
    with pytest.raises(DatasetWriteError, match=r"units: got radians, expected lerobot"):
        convert([other], out, ConvertOptions(units=Units.RADIANS), append=True)
    assert len(LeRobotDatasetReader(out).episodes) == 3


def test_output_is_the_same_whatever_the_jobs(write_bag: WriteBag, tmp_path: Path) -> None:
    bags = [write_bag(f"episode_{k}", seconds=0.7) for k in range(3)]
    for name, jobs in (("one", 1), ("two", 2)):
        convert(bags, tmp_path / name, ConvertOptions(codec=Codec.COPY), jobs=jobs)
    one, two = (
        {
            p.relative_to(tmp_path / n).as_posix(): p.read_bytes()
            for p in sorted((tmp_path / n).rglob("*"))
            if p.is_file()
        }
        for n in ("one", "two")
    )
    assert one == two


def test_workers_do_not_run_the_script_that_converts(write_bag: WriteBag, tmp_path: Path) -> None:
    """No `if __name__ == "__main__"`: each worker would convert everything, and so on."""
    bags = [str(write_bag(f"episode_{k}", seconds=0.7)) for k in range(2)]
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\n"
        "from koch_episodes.convert import ConvertOptions, convert\n"
        "print('running')\n"
        f"bags = [Path(bag) for bag in {bags!r}]\n"
        f"convert(bags, Path({str(tmp_path / 'out')!r}), ConvertOptions(), jobs=2)\n"
    )
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "running\n", "")
    assert len(LeRobotDatasetReader(tmp_path / "out").episodes) == 2


def test_resume_does_not_redo_finished_bags(
    write_bag: WriteBag, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from koch_episodes.convert import pool

    bags = [write_bag(f"episode_{k}", seconds=0.7) for k in range(3)]
    out = tmp_path / "out"
    done: list[str] = []
    original = pool.convert_bag

    def interrupted(job: Any) -> Any:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(job.bag.name)
        return original(job)

    monkeypatch.setattr(pool, "convert_bag", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert(bags, out, ConvertOptions())
    assert not out.exists()
    done.clear()
    result = convert(bags, out, ConvertOptions(), resume=True)
    assert done == ["episode_2"]
    assert result.info.total_episodes == 3
    assert validate_dataset(out).ok
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_resume_with_other_options_starts_again(write_bag: WriteBag, tmp_path: Path) -> None:
    bag = write_bag(seconds=0.7)
    out = tmp_path / "out"
    work = tmp_path / ".out.parts"
    convert([bag], out, ConvertOptions())
    assert not work.exists()
    first = LeRobotDatasetReader(out).column("action")
    convert([bag], tmp_path / "other", ConvertOptions(units=Units.RADIANS), resume=True)
    assert np.abs(LeRobotDatasetReader(tmp_path / "other").column("action") - first).max() > 1


def test_report_measures_what_happened(write_bag: WriteBag, tmp_path: Path) -> None:
    bag = write_bag(seconds=3.0, camera_hz=15.0)
    convert([bag], tmp_path / "out", ConvertOptions())
    report = json.loads((tmp_path / "out/meta/koch_report.json").read_text())[0]
    episode = report["episodes"][0]
    camera = episode["streams"]["/cameras/above/image_raw/compressed"]
    assert camera["rate_hz"] == pytest.approx(15.0, rel=0.01)
    assert episode["features"][CAMERA]["held_share"] == pytest.approx(0.5, abs=0.03)
    assert episode["features"]["observation.state"]["held_share"] == 0.0
    assert abs(episode["features"]["observation.state"]["time_scale_error"]) < 0.005
    assert report["gaps"] == []


@pytest.mark.parametrize("prefix", ["", "/lab"])
@pytest.mark.parametrize(("begin_s", "end_s"), [(1.6, 2.1), (1.3, None), (-0.5, 1.9)])
def test_images_their_camera_calls_unusable_are_in_no_episode(
    write_bag: WriteBag,
    stream_state: Callable[..., Any],
    tmp_path: Path,
    prefix: str,
    begin_s: float,
    end_s: float | None,
) -> None:
    """The camera says so a second after it began; the converter splits where it began."""
    states = [(begin_s, "frozen: same image for 1.0 s")] + ([(end_s, "")] if end_s else [])

    def tell(messages: list[Any]) -> list[Any]:
        start = messages[0][3]
        for since_s, reason in states:
            since = start + round(since_s * NS)
            said = since + NS
            kind, message = "koch_interfaces/msg/StreamState", stream_state(said, since, reason)
            messages.append(("/cameras/above/state", kind, said, said, message))
        messages.sort(key=lambda item: item[2])
        return [(prefix + topic, *rest) for topic, *rest in messages]

    bag = write_bag(seconds=4.0, change=tell)
    out = tmp_path / "out"
    text = "fps: 30\ntask: look\nfeatures:\n"
    text += f"  {CAMERA}: {prefix}/cameras/above/image_raw/compressed\n"
    text += f"  observation.state: {prefix}/follower/joint_states\n"
    text += f"  action: {prefix}/follower/joint_command\n"
    (tmp_path / "map.yaml").write_text(text)
    convert([bag], out, ConvertOptions(map=tmp_path / "map.yaml"))
    report = json.loads((out / "meta/koch_report.json").read_text())[0]
    lengths = [episode["frames"] for episode in report["episodes"]]
    usable_s = [max(0.0, begin_s), 0.0 if end_s is None else 4.0 - end_s]
    wanted = [seconds for seconds in usable_s if seconds > 0.0]
    assert len(lengths) == len(wanted)
    for length, seconds in zip(lengths, wanted, strict=True):
        assert length == pytest.approx(seconds * 30, abs=4)
    if len(wanted) == 2:
        assert any("frozen" in gap["why"] for gap in report["gaps"])
        # No other rate would have closed that gap.
        assert min(report["split"]["pieces_at_fps"].values()) == 2


def test_nothing_is_appended_while_an_edit_writes_the_dataset(
    write_bag: WriteBag, tmp_path: Path
) -> None:
    bags = [write_bag(f"episode_{k}", seconds=1.0) for k in range(2)]
    out = tmp_path / "out"
    convert(bags[:1], out, ConvertOptions())
    refused = []

    def append(done: int, _: int) -> None:
        with pytest.raises(OutputBusyError, match=r"out: another program is writing there"):
            convert(bags, out, ConvertOptions(), append=True)
        refused.append(done)

    options = Relabel(root=out, task="another task", in_place=True)
    (plan,) = EDITS["relabel"].plans(options)
    make(plan, replaces=True, progress=append)
    assert refused == [1]
    assert LeRobotDatasetReader(out).tasks == ("another task",)
    convert(bags, out, ConvertOptions(), append=True)
    assert len(LeRobotDatasetReader(out).episodes) == 2
