# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Writing one rosbag2 MCAP bag that appears whole or, as ``*.partial``, not yet.

A reserve file in the folder holds a few megabytes of the disk: when the disk is full, giving them
back makes room for the index of what was recorded until then.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from koch_core.options import did_you_mean
from koch_core.registry import Registry
from koch_episodes.bag import metadata
from koch_episodes.bag.mcap_writer import McapWriter
from koch_episodes.bag.qos import OfferedQos, plain
from koch_episodes.bag.storage import Topic
from koch_episodes.errors import BagError, StorageError

PARTIAL = ".partial"
RESERVE = ".reserve"
RECORD = "koch"
_RESERVE_BYTES = 4 << 20


def partial_folder(folder: Path) -> Path:
    """Where a new bag is until it is whole.

    Raises:
        BagError: Something is there already, or where the bag is to be.
    """
    partial = folder.with_name(folder.name + PARTIAL)
    for path in (folder, partial):
        if path.exists():
            raise BagError(path, "exists already", "Choose another name, or move it away.")
    return partial


class EpisodeWriter(Protocol):
    """What the recorder asks of a bag that it writes; `BagWriter` tells the terms."""

    partial: Path

    @property
    def pending(self) -> int:
        """Bytes that the next flush writes."""
        ...

    def add_topic(
        self, topic: Topic, *, type_hash: str = "", qos: Sequence[OfferedQos] = ()
    ) -> int:
        """Describe a topic; returns the number under which its messages are written."""
        ...

    def write(
        self, topic: int, data: bytes, log_ns: int, publish_ns: int, sequence: int = 0
    ) -> None:
        """Take one serialised message."""
        ...

    def flush(self) -> None:
        """Hand what was taken to the operating system."""
        ...

    def sync(self) -> None:
        """Bring what was flushed onto the disk itself."""
        ...

    def finish(self, custom: Mapping[str, str]) -> Path:
        """Close the bag and give it its name."""
        ...

    def abandon(self) -> None:
        """Close the file and leave the partial folder as it is."""
        ...


MakeWriter = Callable[[Path, Mapping[str, str]], EpisodeWriter]
"""Folder and first custom data to a writer."""

#: Writers of episodes, by the recorder's parameter `storage`.
WRITERS: Registry[MakeWriter] = Registry("bag writer", "koch_vla.bag_writers")
DEFAULT_WRITER = "mcap"


def find_writer(name: str) -> MakeWriter:
    """Return the writer of a name.

    Raises:
        StorageError: Nothing registers it, or what it needs is not installed.
    """
    try:
        found = WRITERS.find(name)
    except ImportError as exc:
        what = f"what can be imported, and {exc.name} cannot"
        raise StorageError(name, what, "Source a ROS installation that has it.") from exc
    if found is None:
        raise StorageError(name, f"one of {', '.join(WRITERS)}", did_you_mean(name, WRITERS))
    return found


@WRITERS.register(DEFAULT_WRITER)
class BagWriter:
    """Writes a bag. One thread at a time.

    Args:
        folder: Where the bag appears when it is whole.
        custom: The recorder's custom data; on the disk from the first moment.
        reserve_bytes: Size of the reserve file.

    Raises:
        BagError: Something is there already.
        OSError: The folder cannot be made.
    """

    def __init__(
        self, folder: Path, custom: Mapping[str, str], *, reserve_bytes: int = _RESERVE_BYTES
    ) -> None:
        self.folder = folder
        self.partial = partial_folder(folder)
        self.partial.mkdir(parents=True)
        self.custom = dict(custom)
        self._topics: dict[int, tuple[Topic, str, tuple[OfferedQos, ...]]] = {}
        self._reserve = self.partial / RESERVE
        self.file = f"{folder.name}_0.mcap"
        try:
            self._allocate(reserve_bytes)
            self._mcap = McapWriter(self.partial / self.file)
            self._mcap.add_metadata(RECORD, self.custom)
        except OSError:
            self._release()
            raise

    def _allocate(self, size: int) -> None:
        with self._reserve.open("xb") as file:
            if hasattr(os, "posix_fallocate") and size:
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.write(b"\0" * size)

    def _release(self) -> None:
        self._reserve.unlink(missing_ok=True)

    @property
    def size(self) -> int:
        """Bytes on the disk."""
        return self._mcap.size

    @property
    def pending(self) -> int:
        """Bytes that the next flush writes."""
        return self._mcap.pending

    @property
    def count(self) -> int:
        """Messages taken."""
        return self._mcap.count

    def add_topic(
        self, topic: Topic, *, type_hash: str = "", qos: Sequence[OfferedQos] = ()
    ) -> int:
        """Describe a topic; returns the number under which its messages are written.

        Raises:
            OSError: It cannot be written.
        """
        number = self._mcap.add_topic(
            topic, type_hash=type_hash, qos=metadata.dump(plain(qos)).strip()
        )
        self._topics[number] = (topic, type_hash, tuple(qos))
        return number

    def write(
        self, topic: int, data: bytes, log_ns: int, publish_ns: int, sequence: int = 0
    ) -> None:
        """Take one serialised message; it reaches the file with the next flush."""
        self._mcap.add_message(topic, data, log_ns, publish_ns, sequence)

    def flush(self) -> None:
        """Hand what was taken to the operating system.

        Raises:
            OSError: The disk is full; nothing of the bag is damaged.
        """
        self._mcap.flush()

    def sync(self) -> None:
        """Bring what was flushed onto the disk itself; may take long."""
        self._mcap.sync()

    def finish(self, custom: Mapping[str, str]) -> Path:
        """Close the bag and give it its name.

        What a full disk does not take any more is left out; all that was flushed is kept.

        Args:
            custom: Final custom data, added to that of the beginning.

        Returns:
            The folder of the whole bag.

        Raises:
            OSError: Not even the index can be written; the partial folder stays for a repair.
        """
        self.custom.update(custom)
        try:
            self._mcap.flush()
        except OSError:
            self._release()
            self._flush_or_drop()
        self._release()
        info = self._information()
        self._mcap.add_metadata(RECORD, self.custom)
        self._mcap.add_metadata("rosbag2", {"serialized_metadata": metadata.dump(info).strip()})
        self._mcap.finish()
        metadata.write(self.partial, info)
        return name_for_good(self.partial, self.folder)

    def _flush_or_drop(self) -> None:
        """Use a part of the reserve for the last messages, if they fit into half of it."""
        if self._mcap.pending > _RESERVE_BYTES // 2:
            self._mcap.drop_pending()
            return
        try:
            self._mcap.flush()
        except OSError:
            self._mcap.drop_pending()

    def _information(self) -> dict[str, object]:
        topics = [
            metadata.TopicRecord(topic, type_hash, qos, self._mcap.counts[number])
            for number, (topic, type_hash, qos) in self._topics.items()
        ]
        return metadata.information(
            self.file,
            topics,
            self.custom,
            start_ns=self._mcap.start_ns,
            end_ns=self._mcap.end_ns,
        )

    def abandon(self) -> None:
        """Close the file and leave the partial folder as it is; harmless when finished."""
        self._mcap.close()


def name_for_good(partial: Path, folder: Path) -> Path:
    """Give a whole bag its name, so that both last over a power cut."""
    sync_folder(partial)
    partial.rename(folder)
    sync_folder(folder.parent)
    return folder


def sync_folder(folder: Path) -> None:
    """Make a new name in a folder last over a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
