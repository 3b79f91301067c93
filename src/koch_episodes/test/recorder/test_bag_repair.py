# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A bag cut off anywhere is made whole again with everything flushed before the cut."""

from __future__ import annotations

import errno
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from mcap.reader import make_reader
from rosbags.highlevel import AnyReader

from koch_episodes.bag import open_bag
from koch_episodes.bag.repair import repair, repair_all
from koch_episodes.bag.writer import BagWriter
from koch_episodes.errors import BagError

CUSTOM = {"koch.task": "t", "koch.index": "3", "koch.outcome": "unlabelled"}


@pytest.fixture
def crashed(tmp_path: Path, fill: Any) -> tuple[Path, list[int]]:
    """A partial bag of 400 messages, and the file's size after each flush of 50."""
    writer = BagWriter(tmp_path / "whole/episode_000003", CUSTOM)
    sizes: list[int] = []
    flush = writer.flush
    writer.flush = lambda: (flush(), sizes.append(writer.size))[0]  # type: ignore[method-assign]
    fill(writer, 400)
    writer.abandon()
    return writer.partial, sizes


def _cut(source: Path, folder: Path, size: int) -> Path:
    target = folder / source.name
    shutil.copytree(source, target)
    file = next(target.glob("*.mcap"))
    file.write_bytes(file.read_bytes()[:size])
    return target


def _cuts(sizes: list[int]) -> list[int]:
    generator = random.Random(0)
    near = [size + step for size in sizes for step in (-1, 0, 1)]
    inside = [generator.randrange(sizes[0] // 2, sizes[-1]) for _ in range(40)]
    return sorted({cut for cut in near + inside if cut <= sizes[-1]})


def test_every_cut_keeps_all_that_was_flushed(
    crashed: tuple[Path, list[int]], tmp_path: Path
) -> None:
    partial, sizes = crashed
    for number, cut in enumerate(_cuts(sizes)):
        flushed = 50 * sum(size <= cut for size in sizes)
        result = repair(_cut(partial, tmp_path / f"cut_{number}", cut))
        assert result.whole
        assert flushed <= result.messages < flushed + 51, cut
        with next(result.path.glob("*.mcap")).open("rb") as file:
            rows = list(make_reader(file, validate_crcs=True).iter_messages())
        assert [message.sequence for _, _, message in rows] == list(
            range(1, result.messages + 1)
        ), cut


def test_repaired_bag_is_a_whole_bag_for_everybody(
    crashed: tuple[Path, list[int]], tmp_path: Path
) -> None:
    partial, sizes = crashed
    result = repair(_cut(partial, tmp_path / "cut", sizes[3] + 777))
    assert result.path.name == "episode_000003"
    with AnyReader([result.path]) as reader:
        assert reader.message_count == result.messages
        start = reader.start_time + 1_000_000_000
        assert len(list(reader.messages(start=start))) == result.messages - 100
    with open_bag(result.path) as bag:
        assert bag.damage == []
        assert bag.custom["koch.outcome"] == "unlabelled"
        assert bag.custom["koch.repaired"].startswith("repaired: ")
        assert bag.custom["koch.task"] == "t"
        assert bag.topics["/follower/joint_states"].type == "sensor_msgs/msg/JointState"


def test_flipped_bit_costs_one_chunk(crashed: tuple[Path, list[int]], tmp_path: Path) -> None:
    partial, sizes = crashed
    target = _cut(partial, tmp_path / "flip", sizes[-1])
    file = next(target.glob("*.mcap"))
    data = bytearray(file.read_bytes())
    data[(sizes[3] + sizes[4]) // 2 - 2000] ^= 0x40
    file.write_bytes(data)
    result = repair(target)
    assert result.messages == 350
    assert "1 broken chunk(s) left out" in result.detail


def test_nothing_to_save_is_quarantined_with_the_reason(
    crashed: tuple[Path, list[int]], tmp_path: Path
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    shutil.copytree(crashed[0], root / "episode_000000.partial")
    _cut(crashed[0], root, 3).rename(root / "episode_000001.partial")
    (root / "episode_000002.partial").mkdir()
    good, short, empty = repair_all(root, root / "trash")
    assert good.whole
    assert not short.whole
    assert not empty.whole
    assert "does not begin like MCAP" in (short.path / "reason.txt").read_text()
    assert "holds no .mcap file" in (empty.path / "reason.txt").read_text()
    assert sorted(path.name for path in root.iterdir()) == ["episode_000000", "trash"]


@pytest.mark.parametrize("full_at", ["flush", "finish", "metadata"])
def test_full_disk_leaves_the_bag_for_the_next_start(
    crashed: tuple[Path, list[int]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    full_at: str,
) -> None:
    root = tmp_path / "root"
    _cut(crashed[0], root, crashed[1][3] + 5)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        if full_at == "metadata":
            disk.setattr("koch_episodes.bag.metadata.write", full)
        else:
            disk.setattr(f"koch_episodes.bag.mcap_writer.McapWriter.{full_at}", full)
        (left,) = repair_all(root, root / "trash")
    assert not left.whole
    assert "No space left on device; it stays as it is" in left.detail
    assert [path.name for path in root.iterdir()] == ["episode_000003.partial"]
    (done,) = repair_all(root, root / "trash")
    assert done.whole
    assert done.messages >= 200


def test_finished_but_not_renamed_bag_is_only_renamed(tmp_path: Path, fill: Any) -> None:
    writer = BagWriter(tmp_path / "bag", CUSTOM)
    fill(writer, 60)
    bag = writer.finish({"koch.outcome": "success"})
    bag.rename(tmp_path / "bag.partial")
    before = (tmp_path / "bag.partial/bag_0.mcap").read_bytes()
    result = repair(tmp_path / "bag.partial")
    assert (result.path / "bag_0.mcap").read_bytes() == before
    assert result.messages == 60
    with open_bag(result.path) as read:
        assert read.custom["koch.outcome"] == "success"


def test_repair_never_takes_a_name_that_is_used(
    crashed: tuple[Path, list[int]], tmp_path: Path
) -> None:
    target = _cut(crashed[0], tmp_path / "root", 10**9)
    (tmp_path / "root/episode_000003").mkdir()
    assert repair(target).path.name == "episode_000003_2"


def test_empty_bag_is_not_called_whole(tmp_path: Path) -> None:
    writer = BagWriter(tmp_path / "bag", CUSTOM)
    writer.abandon()
    with pytest.raises(BagError, match="holds no message"):
        repair(writer.partial)
