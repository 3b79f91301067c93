# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Clocks that are set back, stamps that are wrong: a sample is named by its place in the bag."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from koch_episodes.bag.clock import REFUSED, Runs, Times
from koch_episodes.convert import ConvertOptions, convert
from koch_episodes.convert.options import StampFrom
from koch_episodes.dataset import Codec, LeRobotDatasetReader, Version
from koch_episodes.errors import EpisodeError
from koch_episodes.inspect_bag import inspect_bag

NS = 1_000_000_000
START_NS = 1_760_000_000 * NS
EVENT_FIELDS = (
    "std_msgs/Header header\nuint8 kind\nuint32 episode_index\n"
    "string task\nstring outcome\nstring detail\n"
)
STATE, COMMAND, CAMERA, EVENTS = "/state", "/command", "/camera/compressed", "/episodes/events"
EVENT = "koch_interfaces/msg/EpisodeEvent"
STORE = get_typestore(Stores.ROS2_JAZZY)
STORE.register(get_types_from_msg(EVENT_FIELDS, EVENT))
MAP = f"""fps: 30
task: t
features:
  observation.state: {STATE}
  observation.images.front: {CAMERA}
  action: {COMMAND}
"""
Row = tuple[int, str, str, Any]  # log time, topic, type, message


def header(stamp_ns: int) -> Any:
    time = STORE.types["builtin_interfaces/msg/Time"](stamp_ns // NS, stamp_ns % NS)
    return STORE.types["std_msgs/msg/Header"](time, "")


def joint_state(stamp_ns: int, value: float) -> Any:
    none, kind = np.zeros(0), STORE.types["sensor_msgs/msg/JointState"]
    return kind(header(stamp_ns), ["j"], np.array([value]), none, none)


def compressed(stamp_ns: int, jpeg: bytes) -> Any:
    kind = STORE.types["sensor_msgs/msg/CompressedImage"]
    return kind(header(stamp_ns), "jpeg", np.frombuffer(jpeg, np.uint8))


def jpeg_of(number: int) -> bytes:
    """Its brightness tells its number, modulo 32."""
    grey = np.full((48, 64, 3), 16 + number % 32 * 7, np.uint8)
    data: bytes = simplejpeg.encode_jpeg(grey, quality=92, colorsubsampling="422")
    return data


def a_run(first: int, seconds: float, sim_ns: int, log_ns: int) -> list[Row]:
    """A stretch of a clock: the state is the number of the image of that time."""
    rows: list[Row] = []
    for k in range(round(seconds * 100)):
        t = round(k * NS / 100)
        value = first + 30 * k / 100
        state = joint_state(sim_ns + t, value)
        rows.append((log_ns + t + 2_000_000, STATE, "sensor_msgs/msg/JointState", state))
        command = joint_state(sim_ns + t, value + 1000)
        rows.append((log_ns + t + 3_000_000, COMMAND, "sensor_msgs/msg/JointState", command))
    for k in range(round(seconds * 30)):
        t = round(k * NS / 30)
        image = compressed(sim_ns + t, jpeg_of(first + k))
        rows.append((log_ns + t + 20_000_000, CAMERA, "sensor_msgs/msg/CompressedImage", image))
    return rows


def event(
    sim_ns: int, log_ns: int, kind: int, index: int, task: str = "", outcome: str = ""
) -> Row:
    message = STORE.types[EVENT](header(sim_ns), kind, index, task, outcome, "")
    return log_ns, EVENTS, EVENT, message


def write(path: Path, rows: Sequence[Row], storage: StoragePlugin = StoragePlugin.MCAP) -> Path:
    """Write in the given order, whatever the log times."""
    with Writer(path, version=9, storage_plugin=storage) as writer:
        connections: dict[str, Any] = {}
        for log_ns, topic, kind, message in rows:
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=STORE)
            writer.write(connections[topic], log_ns, bytes(STORE.serialize_cdr(message, kind)))
    return path


def by_log(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: row[0])


def converted(
    bag: Path, tmp_path: Path, text: str = MAP, **options: Any
) -> tuple[LeRobotDatasetReader, dict[str, Any]]:
    mapping = tmp_path / "map.yaml"
    mapping.write_text(text)
    out = tmp_path / "out"
    found = convert([bag], out, ConvertOptions(map=mapping, codec=Codec.COPY, **options))
    return LeRobotDatasetReader(out), found.reports[0]


def shift_of(reader: LeRobotDatasetReader) -> float:
    """By how many images the image of a frame is another than its state says, at worst."""
    worst = 0.0
    for index, state in enumerate(reader.column("observation.state").ravel().tolist()):
        grey = float(np.asarray(reader.image("observation.images.front", index)).mean())
        shown = (grey - 16) / 7
        off = (shown - int(state) + 16) % 32 - 16
        worst = max(worst, abs(round(off)))
    return worst


@pytest.mark.parametrize(
    ("storage", "log", "version"),
    [
        (StoragePlugin.MCAP, "wall", Version.V30),
        (StoragePlugin.MCAP, "simulated", Version.V21),
        (StoragePlugin.SQLITE3, "simulated", Version.V30),
    ],
)
def test_each_run_of_a_reset_clock_keeps_its_own_images_and_task(
    tmp_path: Path, storage: StoragePlugin, log: str, version: Version
) -> None:
    """The recorder's clock is the wall's, or was reset too (`--use-sim-time`)."""
    rows: list[Row] = []
    for number, seconds in enumerate((2.0, 3.0, 2.5, 2.2)):
        sim = NS
        wall = START_NS + number * 60 * NS if log == "wall" else sim
        length = seconds - 0.2
        part = a_run(500 * number, seconds, sim, wall)
        part.append(event(sim + NS // 5, wall + NS // 5, 0, number, f"task {number}"))
        end = round(length * NS)
        part.append(event(sim + end, wall + end, 1, number, outcome="success"))
        rows += by_log(part)
    bag = write(tmp_path / "bag", rows, storage)
    reader, report = converted(bag, tmp_path, version=version)
    assert [e.tasks for e in reader.episodes] == [(f"task {k}",) for k in range(4)]
    assert [e.length for e in reader.episodes] == [49, 79, 64, 55]
    state = reader.column("observation.state").ravel()
    first = [int(state[episode.from_index]) for episode in reader.episodes]
    assert first == [6, 506, 1006, 1506]
    assert shift_of(reader) <= 1
    assert {e["outcome"] for e in report["episodes"]} == {"success"}
    assert report["split"] == {}  # no frame rate makes one episode of them
    facts = inspect_bag(bag)
    assert facts.topics[CAMERA].stream.rate_hz == pytest.approx(30, abs=0.1)
    assert any("set back 3 time(s)" in reason for reason in facts.reasons)


def test_clock_reset_within_an_episode_gives_two_pieces_of_it(tmp_path: Path) -> None:
    wall, again = START_NS, START_NS + 3 * NS
    rows = a_run(0, 3.0, 5 * NS, wall) + a_run(300, 3.0, NS, again)
    rows.append(event(5 * NS + NS // 2, wall + NS // 2, 0, 7, "first"))
    rows.append(event(2 * NS + NS // 2, again + 3 * NS // 2, 1, 7, outcome="failure"))
    rows.append(event(3 * NS, again + 2 * NS, 0, 8, "second"))
    reader, _ = converted(write(tmp_path / "bag", by_log(rows)), tmp_path, min_seconds=0.5)
    assert [e.tasks[0] for e in reader.episodes] == ["first", "first", "second"]
    lengths = [e.length for e in reader.episodes]
    assert lengths[0] == pytest.approx(75, abs=1)
    assert lengths[1] == pytest.approx(46, abs=1)
    assert shift_of(reader) <= 1


@pytest.mark.parametrize("back_s", [0.203, 0.553, 0.703, 0.957, 1.303])
def test_times_that_are_there_twice_are_never_mixed(tmp_path: Path, back_s: float) -> None:
    """A corrected clock, without any word: the stamps lie between those of before."""
    again = 8 * NS - round(back_s * NS)
    rows = a_run(0, 3.0, 5 * NS, START_NS) + a_run(100, 3.0, again, START_NS + 3 * NS)
    reader, report = converted(write(tmp_path / "bag", by_log(rows)), tmp_path)
    ahead = reader.column("observation.state").ravel() >= 95
    assert np.count_nonzero(np.diff(ahead)) == 1
    assert shift_of(reader) <= 1
    assert len(reader.episodes) == 2 or report["refused"]


@pytest.mark.parametrize("early", [True, False])
def test_event_at_the_reset_belongs_to_the_run_of_its_stamp(tmp_path: Path, early: bool) -> None:
    """It is sent by another node than the samples: one before the reset may come after these."""
    wall, again = START_NS, START_NS + 3 * NS
    rows = a_run(0, 3.0, 9 * NS, wall) + a_run(300, 3.0, NS, again)
    rows.append(event(9 * NS + NS // 2, wall + NS // 2, 0, 0, "first"))
    off = -40_000_000 if early else 60_000_000
    rows.append(event(12 * NS - 1, again + (60_000_000 if early else -1), 1, 0, outcome="success"))
    rows.append(event(NS, again + off, 0, 1, "second"))
    rows.append(event(3 * NS, again + 2 * NS, 1, 1, outcome="failure"))
    reader, _ = converted(write(tmp_path / "bag", by_log(rows)), tmp_path)
    assert [e.tasks for e in reader.episodes] == [("first",), ("second",)]
    assert [e.length for e in reader.episodes] == [pytest.approx(75, abs=2), 61]


def test_by_the_recorders_clock_events_are_timed_by_it_too(tmp_path: Path) -> None:
    rows = []
    for number in range(2):
        wall = START_NS + 10 * number * NS
        rows += a_run(500 * number, 3.0, NS, wall)
        rows.append(event(NS + NS // 2, wall + NS // 2, 0, number, f"task {number}"))
        rows.append(event(3 * NS, wall + 2 * NS, 1, number, outcome="success"))
    bag = write(tmp_path / "bag", by_log(rows))
    reader, _ = converted(bag, tmp_path, stamps=StampFrom.RECEIVE)
    assert [e.tasks for e in reader.episodes] == [("task 0",), ("task 1",)]
    assert [e.length for e in reader.episodes] == [46, 46]
    assert shift_of(reader) <= 1


@pytest.mark.parametrize(
    ("topic", "off_s", "numbers"),
    [(CAMERA, 1.5, (90,)), (CAMERA, -86400, (30, 60, 61)), (STATE, -0.7, (40, 41))],
)
def test_odd_stamps_are_refused_samples_and_nothing_else(
    tmp_path: Path, topic: str, off_s: float, numbers: tuple[int, ...]
) -> None:
    rows, count = [], 0
    for row in by_log(a_run(0, 5.0, START_NS, START_NS)):
        if row[1] == topic:
            if count in numbers:
                stamp = row[3].header.stamp
                whole = stamp.sec * NS + stamp.nanosec + round(off_s * NS)
                stamp.sec, stamp.nanosec = divmod(whole, NS)
            count += 1
        rows.append(row)
    reader, report = converted(write(tmp_path / "bag", rows), tmp_path)
    assert report["refused"] == {topic: {"stamp far off those of its neighbours": len(numbers)}}
    assert len(reader.episodes) == 1
    assert len(reader) >= 147
    assert shift_of(reader) <= len(numbers)


def test_stamps_that_stand_still_are_refused(tmp_path: Path) -> None:
    """A camera's clock stops while images go on: the last one is none of the moment it stopped."""
    rows = by_log(a_run(0, 5.0, START_NS, START_NS))
    for _, topic, _, message in rows:
        if topic == CAMERA and message.header.stamp.sec - START_NS // NS >= 2:
            message.header.stamp.sec, message.header.stamp.nanosec = divmod(START_NS + 2 * NS, NS)
    reader, report = converted(write(tmp_path / "bag", rows), tmp_path)
    assert report["refused"] == {CAMERA: {"stamp far off those of its neighbours": 86}}
    assert [e.length for e in reader.episodes] == [67]  # 2 s, and the last image's maximum age
    assert shift_of(reader) <= 7  # that age; before, 59


def test_stamps_that_are_few_or_stand_still_together_are_kept() -> None:
    k = np.arange(600)
    paused = np.minimum(k, 300) / 100 + 5 + np.maximum(k - 450, 0) / 100
    pairs = (k - k % 2) / 100 + 5  # each stamp twice
    streams = [times(s, 2 * k + n, k / 100) for n, s in enumerate((paused, paused))]
    assert not np.any(Runs(streams).of_streams)
    streams = [times(s, 2 * k + n, k / 100) for n, s in enumerate((pairs, k / 100 + 5))]
    assert not np.any(Runs(streams).of_streams)


def test_event_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    """A start event that is lost leaves the bag in one piece."""
    rows = a_run(0, 3.0, START_NS, START_NS)
    rows.append(event(START_NS + NS, START_NS + NS, 0, 0, "WORD"))
    bag = write(tmp_path / "bag", by_log(rows))
    (file,) = bag.glob("*.mcap")
    file.write_bytes(file.read_bytes().replace(b"WORD", b"\xff\xfe\xc3("))
    _, report = converted(bag, tmp_path)
    assert any(EVENTS in line and "utf-8" in line for line in report["damage"])


@pytest.mark.parametrize("off_s", [-86400, -1.51, -0.7, 0.55, 1.51, 86400])
@pytest.mark.parametrize("numbers", [(90,), (0,), (149,), (40, 41), (30, 60, 61)])
def test_odd_stamps_of_any_size_are_found_wherever_they_are(
    off_s: float, numbers: tuple[int, ...]
) -> None:
    k = np.arange(150)
    stamps = k / 30 + 1e6
    odd = stamps + np.where(np.isin(k, numbers), off_s, 0.0)
    runs = Runs([times(odd, logs_s=stamps + 0.02)])
    assert runs.count == 1
    assert np.flatnonzero(runs.of_streams[0] == REFUSED).tolist() == list(numbers)


def times(stamps_s: Any, places: Any = None, logs_s: Any = None) -> Times:
    stamps = np.round(np.asarray(stamps_s) * 1e9).astype(np.int64)
    logs = stamps if logs_s is None else np.round(np.asarray(logs_s) * 1e9).astype(np.int64)
    return Times(np.arange(len(stamps)) if places is None else places, stamps, logs)


def test_late_messages_with_right_stamps_are_kept() -> None:
    order = [*range(50), 53, 54, 55, 56, 50, 51, 52, *range(57, 100)]
    runs = Runs([times(np.array(order) / 30 + 100)])
    assert runs.count == 1
    assert np.all(runs.of_streams[0] == 0)


def test_messages_in_any_order_are_one_run() -> None:
    rng = np.random.default_rng(2)
    blocks = np.split(np.arange(400) / 100 + 1000, 10)
    for _ in range(10):
        runs = Runs([times(np.concatenate([blocks[k] for k in rng.permutation(10)]))])
        assert runs.count == 1
        assert not np.any(runs.of_streams[0])


def test_stream_that_goes_back_alone_has_a_clock_of_its_own() -> None:
    k = np.arange(300)
    alone = np.where(k < 200, k / 30, k / 30 - 4) + 100
    runs = Runs(
        [times(k / 30 + 100, 3 * k), times(k / 30 + 100, 3 * k + 1), times(alone, 3 * k + 2)]
    )
    assert runs.count == 1
    assert np.all(runs.of_streams[0] == 0)
    assert np.flatnonzero(runs.of_streams[2] == REFUSED).tolist() == list(range(200, 300))


def test_camera_that_comes_back_late_after_a_reset_is_in_the_new_run() -> None:
    k = np.arange(600)
    state = times(np.where(k < 300, k / 100 + 5, (k - 300) / 100), k * 2)
    seen = np.flatnonzero((k % 3 == 0) & ((k < 290) | (k > 420)))
    camera = times(state.stamps[seen] / 1e9, seen * 2 + 1)
    runs = Runs([state, camera])
    assert runs.count == 2
    assert runs.of_streams[1].tolist() == [0 if place < 300 else 1 for place in seen.tolist()]


@pytest.mark.parametrize("pause_s", [0.0, 30.0])
@pytest.mark.parametrize("speed", [0.1, 1.0, 8.0])
def test_slow_paused_or_quick_simulation_is_one_run(pause_s: float, speed: float) -> None:
    k = np.arange(400)
    logs = k / 100 / speed + np.where(k >= 200, pause_s, 0.0)
    runs = Runs([times(k / 100 + 3, logs_s=logs)])
    assert runs.count == 1
    assert not np.any(runs.of_streams[0])


@pytest.mark.parametrize("place", [0, 1, 98, 99])
def test_odd_stamp_near_an_end_is_one_sample(place: int) -> None:
    seconds = np.arange(100) / 30 + 3
    odd = seconds.copy()
    odd[place] += 3600.0
    found = Runs([times(odd, logs_s=seconds)]).of_streams[0]
    assert np.flatnonzero(found == REFUSED).tolist() == [place]


def test_gap_of_a_stream_is_no_odd_stamp() -> None:
    k = np.array([*range(100), *range(400, 402), *range(700, 800)])
    assert not np.any(Runs([times(k / 30 + 3)]).of_streams[0])


Change = Callable[[float], float]


@pytest.mark.parametrize(
    ("change", "wanted_ms", "fault"),
    [
        (lambda t: 0.0, 0.0, ""),
        (lambda t: 0.5, -518.0, "ahead of their own arrival"),
        (lambda t: -0.5, 482.0, "lag"),
        (lambda t: 0.01 * t, None, "stamps drift by 1 %"),
        (lambda t: -0.01 * t, None, "stamps drift by 1 %"),
    ],
    ids=["sound", "ahead", "behind", "fast", "slow"],
)
def test_stamps_are_compared_with_the_arrival(
    tmp_path: Path, change: Change, wanted_ms: float | None, fault: str
) -> None:
    rows = []
    for log_ns, topic, kind, message in by_log(a_run(0, 10.0, START_NS, START_NS)):
        if topic == CAMERA:
            stamp = message.header.stamp
            true_ns = stamp.sec * NS + stamp.nanosec
            shift = change((true_ns - START_NS) / NS)
            stamp.sec, stamp.nanosec = divmod(true_ns + round(shift * NS), NS)
        rows.append((log_ns, topic, kind, message))
    bag = write(tmp_path / "bag", rows)
    _, report = converted(bag, tmp_path)
    clocks = report["clocks"]
    assert fault in clocks[CAMERA]["fault"]
    assert bool(clocks[CAMERA]["fault"]) == bool(fault)
    assert not any(clocks[topic]["fault"] for topic in (STATE, COMMAND))
    assert any(fault in reason for reason in inspect_bag(bag).reasons) == bool(fault)
    if not fault:
        return
    assert "subtract by how many ms" in clocks[CAMERA]["fault"], "no other camera tells its way"
    offset = clocks[CAMERA]["offset_ms"]
    if wanted_ms is not None:
        assert offset == pytest.approx(wanted_ms, abs=36)  # half a frame more or less is good
    stamp = "" if wanted_ms is not None else ", stamp: receive"
    entry = f"{{topic: {CAMERA}, offset_ms: {offset}{stamp}}}"
    (tmp_path / "again").mkdir()
    reader, report = converted(bag, tmp_path / "again", MAP.replace(f" {CAMERA}", f" {entry}"))
    assert not any(clock["fault"] for clock in report["clocks"].values())
    assert shift_of(reader) <= 1


def test_cameras_that_drift_apart_are_both_told(tmp_path: Path) -> None:
    rows = []
    for log_ns, topic, kind, message in by_log(a_run(0, 10.0, START_NS, START_NS)):
        rows.append((log_ns, topic, kind, message))
        if topic == CAMERA:
            true_ns = message.header.stamp.sec * NS + message.header.stamp.nanosec
            shift = round(0.01 * (true_ns - START_NS))
            other = compressed(true_ns + shift, bytes(message.data))
            rows.append((log_ns, "/other/compressed", kind, other))
            message.header.stamp.sec, message.header.stamp.nanosec = divmod(true_ns - shift, NS)
    text = MAP + "  observation.images.other: /other/compressed\n"
    _, report = converted(write(tmp_path / "bag", rows), tmp_path, text)
    faulty = {topic for topic, clock in report["clocks"].items() if clock["fault"]}
    assert faulty == {CAMERA, "/other/compressed"}


def test_simulation_at_half_speed_is_no_drift(tmp_path: Path) -> None:
    rows = by_log(a_run(0, 6.0, NS, START_NS))
    slow = [(START_NS + 2 * (row[0] - START_NS), *row[1:]) for row in rows]
    _, report = converted(write(tmp_path / "bag", slow), tmp_path)
    assert not any(clock["fault"] for clock in report["clocks"].values())


def test_value_that_holds_counts_from_when_it_is_sent_until_the_episode_ends(
    tmp_path: Path,
) -> None:
    """A gripper's command is sent only when it changes."""
    rows = a_run(0, 4.0, START_NS, START_NS)
    sent = {0.0: 1.0, 1.005: 2.0, 2.505: 3.0}
    for at, value in sent.items():
        stamp = START_NS + round(at * NS)
        rows.append((stamp, "/gripper", "sensor_msgs/msg/JointState", joint_state(stamp, value)))
    text = MAP.replace(
        f"action: {COMMAND}", f"action: [{COMMAND}, {{topic: /gripper, names: [j], rule: hold}}]"
    )
    reader, _ = converted(write(tmp_path / "bag", by_log(rows)), tmp_path, text)
    assert [episode.length for episode in reader.episodes] == [120]
    times = np.arange(120) / 30
    wanted = [max(at for at in sent if at <= time + 1e-6) for time in times]
    assert reader.column("action")[:, 1].tolist() == [sent[at] for at in wanted]


def test_few_odd_messages_at_the_head_decide_nothing(tmp_path: Path) -> None:
    rows, count = [], 0
    for row in by_log(a_run(0, 3.0, START_NS, START_NS)):
        if row[1] == CAMERA:
            if count < 20:
                image = np.zeros((96, 128, 3), np.uint8)
                row[3].data = np.frombuffer(simplejpeg.encode_jpeg(image), np.uint8)
            if count == 20:
                row[3].header.stamp.sec = row[3].header.stamp.nanosec = 0
            count += 1
        rows.append(row)
    reader, report = converted(write(tmp_path / "bag", rows), tmp_path)
    assert reader.features["observation.images.front"].shape[:2] == (48, 64)
    assert report["refused"][CAMERA] == {
        "image of 128x96 px, not as the others": 20,
        "header stamp is zero or negative": 1,
    }
    assert shift_of(reader) <= 1


def test_most_of_all_bags_decide_and_an_unforeseen_error_stops_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bags = []
    for number in range(3):
        rows = a_run(0, 1.5, START_NS + number * 100 * NS, START_NS + number * 100 * NS)
        if number == 0:
            large = simplejpeg.encode_jpeg(np.zeros((96, 128, 3), np.uint8))
            for row in rows:
                if row[1] == CAMERA:
                    row[3].data = np.frombuffer(large, np.uint8)
        bags.append(write(tmp_path / f"bag_{number}", by_log(rows)))
    mapping = tmp_path / "map.yaml"
    mapping.write_text(MAP)
    options = ConvertOptions(map=mapping, codec=Codec.COPY)
    result = convert(bags, tmp_path / "out", options)
    assert list(result.failed) == ["bag_0"]
    assert "45 x image of 128x96 px, not as the others" in result.failed["bag_0"]

    def broken(*_: Any) -> None:
        raise OverflowError("int too big")

    monkeypatch.setattr("koch_episodes.convert.worker.select_segments", broken)
    with pytest.raises(EpisodeError, match=r"OverflowError: int too big.*error of the converter"):
        convert(bags[1:], tmp_path / "none", options)
