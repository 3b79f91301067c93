# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Bags through rosbag2_py, here its documented interface over another library."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from koch_episodes.bag import reader
from koch_episodes.bag.definitions import Definitions
from koch_episodes.bag.storage import STORAGES
from koch_episodes.bag.writer import WRITERS, BagWriter, find_writer
from koch_episodes.errors import BagError, StorageError

STAND_INS = Path(__file__).resolve().parent / "stand_ins"
MODULE = "koch_episodes.bag.rosbag2"


@pytest.fixture
def rosbag2(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The back end, in an installation that has rosbag2_py."""
    monkeypatch.syspath_prepend(STAND_INS)
    STORAGES.loaded()  # our own, which stay
    monkeypatch.setattr(STORAGES, "_kinds", dict(STORAGES._kinds))
    monkeypatch.setattr(WRITERS, "_kinds", dict(WRITERS._kinds))
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    yield importlib.import_module(MODULE)
    sys.modules.pop(MODULE, None)
    sys.modules.pop("rosbag2_py", None)


def record(make: Callable[..., Any], folder: Path) -> Path:
    """An episode of two topics, as the recorder writes it."""
    store = importlib.import_module("rosbags.typesys").get_typestore(
        importlib.import_module("rosbags.typesys").Stores.LATEST
    )
    text = store.types["std_msgs/msg/String"]
    number = store.types["std_msgs/msg/Int32"]
    writer = make(folder, {"koch.task": "pour"})
    describe = Definitions()
    a = writer.add_topic(describe.topic("/said", "std_msgs/msg/String")[0])
    b = writer.add_topic(describe.topic("/count", "std_msgs/msg/Int32")[0])
    for k in range(20):
        said = bytes(store.serialize_cdr(text(f"word {k}"), "std_msgs/msg/String"))
        writer.write(a, said, 1_000 + 10 * k, 900 + 10 * k)
        writer.write(
            b, bytes(store.serialize_cdr(number(k), "std_msgs/msg/Int32")), 1_005 + 10 * k, 0
        )
        writer.flush()
    assert writer.partial.name.endswith(".partial")
    return writer.finish({"koch.outcome": "success"})


def content(path: Path) -> tuple[Any, ...]:
    """What somebody who reads the bag gets."""
    with reader.Bag(path) as bag:
        assert bag.damage == []
        kinds = {name: topic.type for name, topic in bag.topics.items()}
        messages = [(m.topic, m.log_ns, m.data) for m in bag.messages(["/said", "/count"])]
        return kinds, dict(bag.custom), messages


def test_what_rosbag2_writes_is_what_ours_writes(rosbag2: ModuleType, tmp_path: Path) -> None:
    ours = record(BagWriter, tmp_path / "ours")
    theirs = record(find_writer("rosbag2"), tmp_path / "theirs")
    assert not theirs.with_name("theirs.partial").exists()
    assert content(theirs) == content(ours)
    assert len(content(ours)[2]) == 40


def test_a_name_that_is_taken_is_refused(rosbag2: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(BagError, match="exists already"):
        rosbag2.Rosbag2Writer(tmp_path / "there", {})


def test_what_rosbag2_raises_comes_as_an_error_of_the_disk(
    rosbag2: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OSError, match="rosbag2: "):
        rosbag2.Rosbag2Writer(tmp_path / "file" / "bag", {})


def acme_bag(folder: Path) -> Path:
    """A bag in a storage that only the stand-in's plug-in reads."""
    from rosbags.rosbag2 import Writer

    ours = record(BagWriter, folder.with_name("mcap"))
    store = importlib.import_module("rosbags.typesys").get_typestore(
        importlib.import_module("rosbags.typesys").Stores.LATEST
    )
    with reader.Bag(ours) as bag, Writer(folder, version=9) as writer:
        connections = {
            name: writer.add_connection(name, topic.type, typestore=store)
            for name, topic in bag.topics.items()
        }
        for message in bag.messages(bag.topics):
            writer.write(connections[message.topic], message.log_ns, message.data)
    base = next(folder.glob("*.db3"))
    base.with_suffix(".acme").write_bytes(b"ACME" + base.read_bytes())
    base.unlink()
    metadata = folder / "metadata.yaml"
    text = metadata.read_text().replace("storage_identifier: sqlite3", "storage_identifier: acme")
    metadata.write_text(text.replace(".db3", ".acme"))
    return folder


def test_a_foreign_storage_is_read_through_rosbag2(rosbag2: ModuleType, tmp_path: Path) -> None:
    foreign = acme_bag(tmp_path / "foreign")
    kinds, _, messages = content(foreign)
    expected = content(tmp_path / "mcap")
    assert (kinds, messages) == (expected[0], expected[2])
    with reader.Bag(foreign) as bag:
        assert [m.topic for m in bag.messages(["/count"])] == ["/count"] * 20
        assert list(bag.messages(["/nothing"])) == []


def test_a_storage_that_no_plug_in_reads_says_so(rosbag2: ModuleType, tmp_path: Path) -> None:
    foreign = acme_bag(tmp_path / "foreign")
    next(foreign.glob("*.acme")).write_bytes(b"other")
    with pytest.raises(BagError, match=r"cannot be opened by rosbag2 .* storage plug-in"):
        reader.Bag(foreign)


@pytest.mark.skipif(
    importlib.util.find_spec("rosbag2_py") is not None, reason="this ROS has rosbag2_py"
)
def test_without_ros_both_are_refused_by_name(tmp_path: Path) -> None:
    foreign = acme_bag(tmp_path / "foreign")
    with pytest.raises(
        BagError, match=r"stored as 'acme', expected one of mcap, sqlite3\. Source"
    ):
        reader.Bag(foreign)
    with pytest.raises(StorageError, match="got 'zip', expected one of mcap"):
        find_writer("zip")
