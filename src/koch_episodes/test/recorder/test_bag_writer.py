# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What the bag writer writes, everybody reads; a full disk costs only the last moments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from mcap.reader import make_reader
from rosbags.highlevel import AnyReader

from koch_episodes.bag import open_bag
from koch_episodes.bag.definitions import Definitions
from koch_episodes.bag.qos import OfferedQos
from koch_episodes.bag.repair import repair
from koch_episodes.bag.writer import BagWriter
from koch_episodes.errors import BagError

CUSTOM = {"koch.task": "Grüße / and : slashes", "koch.index": "7", "koch.outcome": "unlabelled"}


def _information(bag: Path) -> dict[str, Any]:
    raw = yaml.safe_load((bag / "metadata.yaml").read_text(encoding="utf-8"))
    return dict(raw["rosbag2_bagfile_information"])


def test_rosbags_reads_all_messages_with_types(tmp_path: Path, fill: Any) -> None:
    writer = BagWriter(tmp_path / "bag", CUSTOM)
    fill(writer, 250)
    bag = writer.finish({"koch.outcome": "success"})
    with AnyReader([bag]) as reader:
        assert reader.message_count == 250
        connection = reader.connections[0]
        rows = [reader.deserialize(data, connection.msgtype) for _, _, data in reader.messages()]
    assert rows[200].position[0] == pytest.approx(0.2)
    assert rows[200].name[5] == "gripper"


def test_mcap_reads_it_with_checksums_and_sequence_numbers(tmp_path: Path, fill: Any) -> None:
    writer = BagWriter(tmp_path / "bag", CUSTOM)
    fill(writer, 250)
    bag = writer.finish({})
    with (bag / "bag_0.mcap").open("rb") as file:
        reader = make_reader(file, validate_crcs=True)
        summary = reader.get_summary()
        assert summary is not None
        assert summary.statistics is not None
        assert summary.statistics.message_count == 250
        assert len(summary.chunk_indexes) == 5
        rows = list(reader.iter_messages())
    assert [message.sequence for _, _, message in rows] == list(range(1, 251))
    assert rows[0][0] is not None
    assert rows[0][0].encoding == "ros2msg"


def test_message_indexes_point_at_the_messages(tmp_path: Path, fill: Any) -> None:
    writer = BagWriter(tmp_path / "bag", CUSTOM)
    fill(writer, 120)
    bag = writer.finish({})
    with AnyReader([bag]) as reader:  # rosbags goes through the message indexes
        start = reader.start_time + 300_000_000
        times = [time for _, time, _ in reader.messages(start=start)]
    assert len(times) == 90
    assert min(times) >= start


def test_metadata_is_version_nine_with_custom_data(tmp_path: Path, fill: Any) -> None:
    writer = BagWriter(tmp_path / "bag", CUSTOM)
    fill(writer, 100)
    bag = writer.finish({"koch.outcome": "success"})
    info = _information(bag)
    assert info["version"] == 9
    assert info["storage_identifier"] == "mcap"
    assert info["relative_file_paths"] == ["bag_0.mcap"]
    assert info["message_count"] == 100
    assert info["duration"] == {"nanoseconds": 990_000_000}
    assert info["custom_data"] == {**CUSTOM, "koch.outcome": "success"}
    topic = info["topics_with_message_count"][0]["topic_metadata"]
    assert topic["type_description_hash"].startswith("RIHS01_a13ee3a330e346c9")


def test_custom_data_survive_in_the_file_alone(tmp_path: Path, fill: Any) -> None:
    writer = BagWriter(tmp_path / "bag", CUSTOM)
    fill(writer, 10)
    bag = writer.finish({"koch.outcome": "failure"})
    with open_bag(bag / "bag_0.mcap") as alone:
        assert alone.custom["koch.outcome"] == "failure"
        assert alone.custom["koch.task"] == CUSTOM["koch.task"]


def test_qos_profiles_are_kept(tmp_path: Path) -> None:
    writer = BagWriter(tmp_path / "bag", {})
    topic, type_hash = Definitions().topic("/robot_description", "std_msgs/msg/String")
    number = writer.add_topic(topic, type_hash=type_hash, qos=[OfferedQos(latched=True, depth=1)])
    writer.write(number, b"\0\1\0\0\1\0\0\0\0", 1, 1)
    bag = writer.finish({})
    with AnyReader([bag]) as reader:
        qos = reader.connections[0].ext.offered_qos_profiles[0]  # type: ignore[union-attr]
    assert qos.durability.name == "TRANSIENT_LOCAL"
    assert qos.history.name == "KEEP_LAST"
    assert qos.depth == 1


def test_nothing_appears_under_the_name_before_the_end(tmp_path: Path, fill: Any) -> None:
    writer = BagWriter(tmp_path / "bag", CUSTOM)
    fill(writer, 10)
    assert [path.name for path in tmp_path.iterdir()] == ["bag.partial"]
    writer.finish({})
    assert [path.name for path in tmp_path.iterdir()] == ["bag"]
    assert {path.name for path in (tmp_path / "bag").iterdir()} == {"bag_0.mcap", "metadata.yaml"}


def test_existing_folder_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "bag").mkdir()
    with pytest.raises(BagError, match="exists already"):
        BagWriter(tmp_path / "bag", {})


def test_full_disk_keeps_everything_before_it(tmp_path: Path, fill: Any, disk: Any) -> None:
    writer = BagWriter(tmp_path / "bag", CUSTOM, reserve_bytes=1 << 16)
    number = fill(writer, 200)
    disk.room = 1000
    writer.write(number, b"\0\1\0\0" + b"x" * 5000, 2, 2)
    with pytest.raises(OSError, match="No space left"):
        writer.flush()
    bag = writer.finish({"koch.verdict": "amber: disk full"})
    with open_bag(bag) as read:
        assert read.damage == []
        assert sum(1 for _ in read.messages(read.topics)) == 201  # the reserve took the last one
        assert read.custom["koch.verdict"] == "amber: disk full"


def test_disk_full_beyond_the_reserve_leaves_a_repairable_bag(
    tmp_path: Path, fill: Any, disk: Any
) -> None:
    writer = BagWriter(tmp_path / "bag", CUSTOM, reserve_bytes=0)
    fill(writer, 200)
    disk.room = 10
    with pytest.raises(OSError, match="No space left"):
        writer.finish({})
    writer.abandon()
    disk.room = 1 << 30
    result = repair(tmp_path / "bag.partial")
    assert result.whole
    assert result.messages == 200


def test_definitions_of_nested_types_are_complete() -> None:
    topic, type_hash = Definitions().topic("/d", "diagnostic_msgs/msg/DiagnosticArray")
    for name in ("DiagnosticStatus", "KeyValue"):
        assert f"{'=' * 80}\nMSG: diagnostic_msgs/{name}\n" in topic.definition
    assert f"{'=' * 80}\nMSG: std_msgs/Header\n" in topic.definition
    assert type_hash.startswith("RIHS01_")


def test_definition_of_an_unknown_type_is_empty() -> None:
    topic, type_hash = Definitions().topic("/d", "no_such_msgs/msg/Thing")
    assert (topic.definition, type_hash) == ("", "")


def test_definition_without_files_comes_from_rosbags() -> None:
    nowhere = Definitions(lambda package: iter(()))
    topic, type_hash = nowhere.topic("/j", "sensor_msgs/msg/JointState")
    assert "float64[] position" in topic.definition
    assert type_hash == Definitions().topic("/j", "sensor_msgs/msg/JointState")[1]
