# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Bags of every storage and compression, whole and damaged."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from rosbags.rosbag2 import CompressionMode, StoragePlugin

from koch_episodes.bag import find_bags, open_bag
from koch_episodes.cdr import header_stamp_ns
from koch_episodes.errors import BagError

STATE = "/follower/joint_states"
WriteBag = Callable[..., Path]


def stamps(path: Path, topic: str = STATE) -> list[int]:
    with open_bag(path) as bag:
        return [header_stamp_ns(message.data) for message in bag.messages([topic])]


@pytest.mark.parametrize("storage", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
@pytest.mark.parametrize(
    "compression",
    [CompressionMode.NONE, CompressionMode.FILE, CompressionMode.MESSAGE, CompressionMode.STORAGE],
)
def test_every_storage_and_compression_reads_the_same(
    write_bag: WriteBag, storage: StoragePlugin, compression: CompressionMode
) -> None:
    if storage is StoragePlugin.SQLITE3 and compression is CompressionMode.STORAGE:
        storage = StoragePlugin.MCAP  # sqlite3 has no storage compression
    path = write_bag(seconds=0.5, storage=storage, compression=compression)
    with open_bag(path) as bag:
        assert bag.custom["koch.task"] == "Pick up the block."
        assert bag.topics[STATE].type == "sensor_msgs/msg/JointState"
        assert "float64[] position" in bag.topics[STATE].definition
        assert not bag.damage
        times = [message.log_ns for message in bag.messages(bag.topics)]
    assert times == sorted(times)
    assert len(times) == 50 + 50 + 15


def test_single_file_and_missing_metadata_are_read(write_bag: WriteBag) -> None:
    path = write_bag(seconds=0.5)
    whole = stamps(path)
    (path / "metadata.yaml").unlink()
    assert stamps(path) == whole
    assert stamps(path / f"{path.name}.mcap") == whole
    with open_bag(path / f"{path.name}.mcap") as bag:
        assert bag.custom["koch.index"] == "0"


def test_split_bag_is_read_in_natural_order(write_bag: WriteBag, tmp_path: Path) -> None:
    whole = tmp_path / "split"
    whole.mkdir()
    for number in range(11):
        part = write_bag(
            f"part{number}", seconds=0.1, start_ns=1_760_000_000_000_000_000 + number * 100_000_000
        )
        shutil.copy(part / f"part{number}.mcap", whole / f"split_{number}.mcap")
    assert len(stamps(whole)) == 110
    assert stamps(whole) == sorted(stamps(whole))


@pytest.mark.parametrize(
    ("listed", "damage"),
    [
        (["/elsewhere/split_2.mcap", "split_1.mcap", "split_0.mcap"], []),
        (["notes.txt"], ["notes.txt is neither .mcap nor .db3"]),
        ("split_0.mcap", ["metadata.yaml: relative_file_paths is no list"]),
        (7, ["metadata.yaml: relative_file_paths is no list"]),
    ],
    ids=["backwards", "other files", "text", "number"],
)
def test_list_of_files_that_says_nothing_changes_no_message(
    write_bag: WriteBag, tmp_path: Path, listed: object, damage: list[str]
) -> None:
    whole = tmp_path / "split"
    whole.mkdir()
    for number in range(3):
        start = 1_760_000_000_000_000_000 + number * 100_000_000
        part = write_bag(f"part{number}", seconds=0.1, start_ns=start)
        shutil.copy(part / f"part{number}.mcap", whole / f"split_{number}.mcap")
    (whole / "notes.txt").write_text("none of ours")
    expected = stamps(whole)
    content = {"relative_file_paths": listed, "custom_data": ["koch.task"]}
    raw = yaml.safe_dump({"rosbag2_bagfile_information": content})
    (whole / "metadata.yaml").write_text(raw)
    assert stamps(whole) == expected == sorted(expected)
    with open_bag(whole) as bag:
        assert bag.damage == [*damage, "metadata.yaml: custom_data is no list of keys and values"]


def test_compressed_messages_are_known_without_metadata(write_bag: WriteBag) -> None:
    path = write_bag(seconds=0.5, compression=CompressionMode.MESSAGE)
    (path / "metadata.yaml").unlink()
    with open_bag(path) as bag:
        assert all(message.data[0] == 0 for message in bag.messages(bag.topics))


@pytest.mark.parametrize("compression", [CompressionMode.NONE, CompressionMode.STORAGE])
def test_truncated_mcap_gives_everything_before_the_cut(
    write_bag: WriteBag, compression: CompressionMode
) -> None:
    path = write_bag(seconds=3.0, compression=compression)
    whole = stamps(path)
    file = path / f"{path.name}.mcap"
    data = file.read_bytes()
    generator = random.Random(1)
    for cut in [9, 60, len(data) - 1, *(generator.randrange(len(data)) for _ in range(25))]:
        file.write_bytes(data[:cut])
        found = stamps(path)
        assert found == whole[: len(found)]
        if compression is CompressionMode.NONE and cut < 0.95 * len(data):
            assert len(found) >= len(whole) * (cut / len(data)) - 80


def test_flipped_bytes_in_a_chunk_cost_at_most_that_chunk(write_bag: WriteBag) -> None:
    path = write_bag(seconds=30.0, compression=CompressionMode.STORAGE)
    file = path / f"{path.name}.mcap"
    data = bytearray(file.read_bytes())
    whole = stamps(path)
    data[len(data) // 2 : len(data) // 2 + 40] = bytes(40)
    file.write_bytes(data)
    with open_bag(path) as bag:
        found = [header_stamp_ns(message.data) for message in bag.messages([STATE])]
        assert bag.damage
        # Checksums are compared once: what was refused stays refused.
        assert [header_stamp_ns(message.data) for message in bag.messages([STATE])] == found
    assert len(whole) > len(found) > 0.4 * len(whole)
    assert set(found) < set(whole)


def test_truncated_sqlite_gives_its_beginning(write_bag: WriteBag) -> None:
    path = write_bag(seconds=3.0, storage=StoragePlugin.SQLITE3)
    file = path / f"{path.name}.db3"
    data = file.read_bytes()
    whole = stamps(path)
    generator = random.Random(2)
    counts = []
    for _ in range(15):
        file.write_bytes(data[: generator.randrange(100, len(data))])
        try:
            found = stamps(path)
        except BagError:
            continue  # cut inside the schema pages
        assert set(found) <= set(whole)
        counts.append(len(found))
    assert max(counts) > 100


@pytest.mark.parametrize("content", [b"", b"not a bag at all", b"\x89MCAP0\r\n"])
def test_senseless_file_is_refused_or_empty(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.mcap"
    file.write_bytes(content)
    if content.startswith(b"\x89MCAP"):
        assert stamps(file) == []
        return
    with pytest.raises(BagError, match="does not begin like MCAP"):
        stamps(file)


def test_finding_leaves_out_trash_and_partial_episodes(
    write_bag: WriteBag, tmp_path: Path
) -> None:
    for name in ("s/episode_2", "s/episode_10", "s/trash/episode_3", "s/episode_4.partial"):
        write_bag(name, seconds=0.1)
    found = find_bags([tmp_path / "s"])
    assert [path.name for path in found] == ["episode_2", "episode_10"]
    with pytest.raises(BagError, match="does not exist"):
        find_bags([tmp_path / "nothing"])
