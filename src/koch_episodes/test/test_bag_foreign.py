# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""MCAP files by the mcap library, as Foxglove, PlotJuggler and people's scripts write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mcap.writer import CompressionType, IndexType, Writer

from koch_episodes.bag import Topic, open_bag
from koch_episodes.bag.types import TypeDecoder
from koch_episodes.convert import ConvertOptions, convert
from koch_episodes.errors import MessageTypeError, MissingTopicError

CDR = b"\x00\x01\x00\x00" + bytes(12)
FORMS: dict[str, dict[str, Any]] = {
    "lz4": {"compression": CompressionType.LZ4},
    "zstd": {"compression": CompressionType.ZSTD},
    "no compression": {"compression": CompressionType.NONE},
    "no chunks": {"use_chunking": False},
    "no index": {"index_types": IndexType.NONE},
    "nothing repeated": {"repeat_channels": False, "repeat_schemas": False},
    "no summary": {
        "index_types": IndexType.NONE,
        "repeat_channels": False,
        "repeat_schemas": False,
        "use_statistics": False,
        "use_summary_offsets": False,
    },
}


def write(path: Path, encoding: str = "cdr", **form: Any) -> Path:
    with path.open("wb") as file:
        writer = Writer(file, chunk_size=500, **form)
        writer.start("ros2" if encoding == "cdr" else "")
        schema = writer.register_schema("std_msgs/msg/Float64", "ros2msg", b"float64 data")
        channel = writer.register_channel("/value", encoding, schema)
        for number in range(50):
            writer.add_message(channel, 1000 + number, CDR, 1000 + number)
        writer.finish()
    return path


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_finished_file_of_any_form_is_read_and_not_called_damaged(
    tmp_path: Path, form: dict[str, Any]
) -> None:
    with open_bag(write(tmp_path / "file.mcap", **form)) as bag:
        assert [message.log_ns for message in bag.messages({"/value"})] == list(range(1000, 1050))
        assert bag.topics["/value"].type == "std_msgs/msg/Float64"
        assert bag.damage == []


def test_topic_in_another_encoding_is_named_with_it(tmp_path: Path) -> None:
    path = write(tmp_path / "file.mcap", encoding="json")
    mapping = tmp_path / "map.yaml"
    mapping.write_text("fps: 30\ntask: t\nfeatures: {action: /value}\n")
    why = r"lacks the topic\(s\) /value; it holds /value \(json messages, ROS 2 has cdr\)"
    with pytest.raises(MissingTopicError, match=why):
        convert([path], tmp_path / "out", ConvertOptions(map=mapping))


def test_type_that_the_bag_does_not_define_is_looked_up_where_it_is_installed() -> None:
    """Bags of Humble carry no definitions; our events in one must still split it."""
    types = TypeDecoder()
    types.add(Topic("/episodes/events", "koch_interfaces/msg/EpisodeEvent"))
    with pytest.raises(MessageTypeError, match="neither defined in the bag nor installed"):
        types.add(Topic("/thing", "nobody_msgs/msg/Thing"))


@pytest.mark.parametrize("chunks", [True, False])
def test_disorder_is_mended_by_the_index_and_told_without_one(
    tmp_path: Path, chunks: bool
) -> None:
    """Scripts that convert other logs write one topic after the other."""
    path = tmp_path / "file.mcap"
    with path.open("wb") as file:
        writer = Writer(file, chunk_size=500, use_chunking=chunks)
        writer.start("ros2")
        schema = writer.register_schema("std_msgs/msg/Float64", "ros2msg", b"float64 data")
        for name in ("/a", "/b"):
            channel = writer.register_channel(name, "cdr", schema)
            for number in range(50):
                writer.add_message(channel, number * 100_000_000, CDR, 0)
        writer.finish()
    with open_bag(path) as bag:
        times = [message.log_ns for message in bag.messages({"/a", "/b"})]
        assert (times == sorted(times)) == chunks
        assert ["not in the order of time" in line for line in bag.damage] == [True] * (not chunks)


@pytest.mark.parametrize("log_ns", [2**64 - 5 * 10**9, 2**63 + 1])
def test_log_times_beyond_an_int64_are_read_as_what_they_were(tmp_path: Path, log_ns: int) -> None:
    path = tmp_path / "file.mcap"
    with path.open("wb") as file:
        writer = Writer(file, chunk_size=500)
        writer.start("ros2")
        schema = writer.register_schema("std_msgs/msg/Float64", "ros2msg", b"float64 data")
        channel = writer.register_channel("/value", "cdr", schema)
        for number in range(50):
            writer.add_message(channel, log_ns if number == 20 else 10**9 + number, CDR, 0)
        writer.finish()
    with open_bag(path) as bag:
        times = [message.log_ns for message in bag.messages({"/value"})]
    assert sorted(times)[0] == log_ns - 2**64
    assert len(times) == 50


@pytest.mark.parametrize("first", [5, 45])
def test_type_of_a_topic_is_that_of_most_messages(tmp_path: Path, first: int) -> None:
    path = tmp_path / "file.mcap"
    with path.open("wb") as file:
        writer = Writer(file, chunk_size=500)
        writer.start("ros2")
        channels = []
        for kind in ("std_msgs/msg/Float64", "std_msgs/msg/Float32"):
            schema = writer.register_schema(kind, "ros2msg", b"float64 data")
            channels.append(writer.register_channel("/value", "cdr", schema))
        for number in range(50):
            writer.add_message(channels[number >= first], 1000 + number, CDR, 0)
        writer.finish()
    with open_bag(path) as bag:
        assert bag.topics["/value"].type.endswith("32" if first == 5 else "64")
        types = [message.type[-2:] for message in bag.messages({"/value"})]
    assert types == ["64"] * first + ["32"] * (50 - first)
