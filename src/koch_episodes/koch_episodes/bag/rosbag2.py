# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Bags through rosbag2_py: whatever storage plug-ins a ROS installation has.

Reading goes this way where a bag's metadata names a storage that is neither MCAP nor sqlite3.
Writing goes this way with the recorder's `storage:=rosbag2`. Our own readers take more damage, and
our own writer loses at most two seconds to kill -9 or a full disk; rosbag2 promises neither.
"""

from __future__ import annotations

import contextlib
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rosbag2_py

from koch_episodes.bag import metadata
from koch_episodes.bag.qos import OfferedQos
from koch_episodes.bag.storage import STORAGES, RawMessage, Topic, TopicTypes
from koch_episodes.bag.writer import WRITERS, name_for_good, partial_folder
from koch_episodes.errors import BagError

_CDR = "cdr"


@STORAGES.register("rosbag2")
class Rosbag2Folder:
    """Topics and messages of a bag folder, as a storage plug-in gives them.

    Args:
        path: The folder, with its metadata.yaml.
        note: Called with a line for every damage found.

    Raises:
        BagError: No plug-in of this ROS installation can open it.
    """

    def __init__(self, path: Path, note: Callable[[str], None]) -> None:
        self._path = path
        self._note = note
        self.types = TopicTypes()
        self.custom: dict[str, str] = {}  # is in metadata.yaml, which the bag reads itself
        self.foreign: dict[str, str] = {}
        reader = self._open()
        counts = {
            entry.topic_metadata.name: int(entry.message_count)
            for entry in reader.get_metadata().topics_with_message_count
        }
        for topic in reader.get_all_topics_and_types():
            if topic.serialization_format == _CDR:
                self.types.add(Topic(topic.name, topic.type), counts.get(topic.name, 0))
            else:
                self.foreign[topic.name] = topic.serialization_format

    def _open(self) -> rosbag2_py.SequentialReader:
        reader = rosbag2_py.SequentialReader()
        # Without an id rosbag2 takes the one that metadata.yaml names.
        options = rosbag2_py.StorageOptions(uri=str(self._path), storage_id="")
        try:
            reader.open(options, rosbag2_py.ConverterOptions(_CDR, _CDR))
        except RuntimeError as exc:
            raise BagError(
                self._path,
                f"cannot be opened by rosbag2 ({exc})",
                "Source a ROS that has the storage plug-in with which it was recorded.",
            ) from exc
        return reader

    def messages(self, topics: frozenset[str]) -> Iterator[RawMessage]:
        """Yield the messages of some topics in time order."""
        wanted = sorted(topics & self.types.topics.keys())
        if not wanted:  # an empty filter lets everything through
            return
        kinds = {name: self.types.topics[name].type for name in wanted}
        reader = self._open()
        reader.set_filter(rosbag2_py.StorageFilter(topics=wanted))
        for name, data, log_ns in self._read(reader):
            yield RawMessage(name, log_ns, data, kinds[name])

    def log_times(self) -> dict[str, npt.NDArray[np.int64]]:
        """Topic to the log times of its messages, [ns]."""
        found: dict[str, array[int]] = {}
        for name, _, log_ns in self._read(self._open()):
            found.setdefault(name, array("q")).append(log_ns)
        return {name: np.array(times, np.int64) for name, times in found.items()}

    def _read(self, reader: rosbag2_py.SequentialReader) -> Iterator[tuple[str, bytes, int]]:
        try:
            while reader.has_next():
                name, data, log_ns = reader.read_next()
                yield name, bytes(data), int(log_ns)
        except RuntimeError as exc:
            self._note(f"{self._path.name}: rosbag2 stopped reading ({exc})")

    def close(self) -> None:
        """Nothing: each reading opens the bag by itself."""


@WRITERS.register("rosbag2")
class Rosbag2Writer:
    """Writes a bag as `BagWriter` does, with rosbag2's own writer and default storage.

    A bag that was not finished stays ``*.partial``; `ros2 bag reindex` may save it.

    Raises:
        BagError: Something is there already.
        OSError: rosbag2 cannot write there.
    """

    def __init__(self, folder: Path, custom: Mapping[str, str]) -> None:
        self.folder = folder
        self.partial = partial_folder(folder)
        self.custom = dict(custom)
        self.pending = 0  # rosbag2 has a cache of its own and writes by itself
        self._names: list[str] = []
        self._writer = rosbag2_py.SequentialWriter()
        options = rosbag2_py.StorageOptions(uri=str(self.partial), storage_id="")
        with _as_os_error():
            self._writer.open(options, rosbag2_py.ConverterOptions(_CDR, _CDR))

    def add_topic(
        self, topic: Topic, *, type_hash: str = "", qos: Sequence[OfferedQos] = ()
    ) -> int:
        """Describe a topic; returns the number under which its messages are written.

        rosbag2 finds the definition by itself. Its Python side offers no way to give `qos`.
        """
        del qos
        known = rosbag2_py.TopicMetadata(
            id=len(self._names),
            name=topic.name,
            type=topic.type,
            serialization_format=_CDR,
            type_description_hash=type_hash,
        )
        with _as_os_error():
            self._writer.create_topic(known)
        self._names.append(topic.name)
        return len(self._names)

    def write(
        self, topic: int, data: bytes, log_ns: int, publish_ns: int, sequence: int = 0
    ) -> None:
        """Hand one serialised message to rosbag2; it keeps one time, that of the arrival."""
        del publish_ns, sequence
        with _as_os_error():
            self._writer.write(self._names[topic - 1], data, log_ns)

    def flush(self) -> None:
        """Nothing: rosbag2 writes by itself."""

    def sync(self) -> None:
        """Nothing: rosbag2 has no call for it."""

    def finish(self, custom: Mapping[str, str]) -> Path:
        """Close the bag and give it its name, as `BagWriter.finish`."""
        with _as_os_error():
            self._writer.close()
        self.custom.update(custom)
        metadata.add_custom(self.partial, self.custom)
        return name_for_good(self.partial, self.folder)

    def abandon(self) -> None:
        """Close the file and leave the partial folder as it is; harmless when finished."""
        with contextlib.suppress(RuntimeError):
            self._writer.close()


@contextlib.contextmanager
def _as_os_error() -> Iterator[None]:
    """What rosbag2 raises, a RuntimeError for everything, as the recorder expects it."""
    try:
        yield
    except RuntimeError as exc:
        raise OSError(f"rosbag2: {exc}") from exc
