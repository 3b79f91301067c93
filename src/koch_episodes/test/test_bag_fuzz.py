# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Bags cut off or changed at random places: what is readable is read, the rest is one error."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from rosbags.rosbag2 import CompressionMode, StoragePlugin

from koch_core.errors import KochError
from koch_episodes.bag import open_bag
from koch_episodes.convert import ConvertOptions, convert
from koch_episodes.convert.schema import find_map
from koch_episodes.convert.survey import survey_bag
from koch_episodes.dataset import Codec, LeRobotDatasetReader

WriteBag = Callable[..., Path]
ROUNDS = 40
KINDS = [
    (StoragePlugin.MCAP, CompressionMode.NONE),
    (StoragePlugin.MCAP, CompressionMode.STORAGE),
    (StoragePlugin.SQLITE3, CompressionMode.NONE),
]


def storage_file(bag: Path) -> Path:
    return next(path for path in bag.iterdir() if path.suffix in (".mcap", ".db3"))


def read_everything(bag: Path, rig: Path | None = None) -> int:
    """Read as the converter does, twice; returns the count of messages, 0 with a clear error."""
    try:
        feature_map, _, _ = find_map([bag], ConvertOptions(rig=rig))
        with open_bag(bag) as opened:
            survey_bag(opened, feature_map.sources)
            first = [(m.topic, m.log_ns) for m in opened.messages(opened.topics)]
            assert first == [(m.topic, m.log_ns) for m in opened.messages(opened.topics)]
    except KochError as exc:
        named = bag.name in str(exc)
    else:
        return len(first)
    assert named
    return 0


@pytest.mark.parametrize(("storage", "compression"), KINDS)
def test_cut_off_anywhere(
    write_bag: WriteBag, rig_file: Path, storage: StoragePlugin, compression: CompressionMode
) -> None:
    """These bags have their custom data, and the rig, at the end."""
    bag = write_bag(seconds=2.0, storage=storage, compression=compression)
    file = storage_file(bag)
    data, whole = file.read_bytes(), read_everything(bag)
    (bag / "metadata.yaml").unlink()
    generator = random.Random(1)
    counts = []
    for _ in range(ROUNDS):
        file.write_bytes(data[: generator.randrange(len(data))])
        counts.append(read_everything(bag, rig_file))
    assert max(counts) <= whole
    if compression is CompressionMode.NONE:  # compressed, all of it is one chunk
        assert max(counts) > 0.5 * whole


@pytest.mark.parametrize(("storage", "compression"), KINDS)
def test_bytes_changed_anywhere(
    write_bag: WriteBag, storage: StoragePlugin, compression: CompressionMode
) -> None:
    bag = write_bag(seconds=2.0, storage=storage, compression=compression)
    file = storage_file(bag)
    data = file.read_bytes()
    (bag / "metadata.yaml").unlink()
    generator = random.Random(2)
    edge = min(len(data), 8192)  # where the structure of a file is
    readable = 0
    for _ in range(ROUNDS):
        changed = bytearray(data)
        for _ in range(generator.choice((1, 3, 30, 300))):
            near = generator.randrange(edge)
            place = generator.choice((near, len(data) - 1 - near, generator.randrange(len(data))))
            changed[place] = generator.randrange(256)
        file.write_bytes(changed)
        readable += read_everything(bag) > 0
    assert readable > 0


def test_beginning_of_a_cut_off_sqlite_bag_becomes_an_episode(
    write_bag: WriteBag, tmp_path: Path
) -> None:
    """SQLite itself refuses a file that is shorter than its header says."""
    bag = write_bag(seconds=3.0, storage=StoragePlugin.SQLITE3)
    file = storage_file(bag)
    file.write_bytes(file.read_bytes()[: int(0.7 * file.stat().st_size)])
    with pytest.raises(sqlite3.DatabaseError), sqlite3.connect(file) as base:
        base.execute("SELECT name FROM sqlite_master").fetchall()
    result = convert([bag], tmp_path / "out", ConvertOptions(codec=Codec.COPY))
    assert "cut off; read as far as it goes" in result.reports[0]["damage"][0]
    assert 30 < len(LeRobotDatasetReader(tmp_path / "out")) < 90
