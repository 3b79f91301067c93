# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Reading rosbag2 bags of Humble to Kilted: sqlite3 or MCAP, split, compressed, unfinished.

Damage is noted, not raised: what can be read is read. Only a path that holds no bag at all raises.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml
import zstandard

from koch_episodes.bag.mcap_file import McapFile
from koch_episodes.bag.sqlite_file import SqliteFile
from koch_episodes.bag.storage import RawMessage, StorageFile, Topic
from koch_episodes.errors import BagError
from koch_rig.yaml_source import SAFE_LOADER

_SUFFIXES = (".mcap", ".db3", ".mcap.zstd", ".db3.zstd")
_KINDS: dict[str, Callable[[Path, Callable[[str], None]], StorageFile]] = {
    ".mcap": McapFile,
    ".db3": SqliteFile,
}
_ZSTD = b"\x28\xb5\x2f\xfd"
_LARGEST_MESSAGE = 256 * 1024**2


class Bag:
    """An open bag.

    Args:
        path: Bag folder, or one ``.mcap`` or ``.db3`` file (``.zstd`` behind it allowed).

    Attributes:
        topics: Topic name to description.
        custom: The recorder's custom data, strings.
        foreign: Topics that are not read because they are no ROS 2 messages, name to encoding.
        damage: One line for everything that could not be read.

    Raises:
        BagError: There is no bag, or not one of its files can be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.topics: dict[str, Topic] = {}
        self.custom: dict[str, str] = {}
        self.foreign: dict[str, str] = {}
        self.damage: list[str] = []
        self._files: list[StorageFile] = []
        self._unpacked: tempfile.TemporaryDirectory[str] | None = None
        metadata = self._read_metadata()
        files = self._list_files(metadata)
        if not files:
            raise BagError(path, "holds no .mcap or .db3 file", "Give a rosbag2 folder or file.")
        try:
            self._open_files(files)
        except BaseException:
            self.close()
            raise
        custom = metadata.get("custom_data") or {}
        if isinstance(custom, dict):
            self.custom.update({str(key): str(value) for key, value in custom.items()})
        else:
            self.note("metadata.yaml: custom_data is no list of keys and values")

    @property
    def name(self) -> str:
        """A short name for messages: the folder's or file's."""
        return self.path.name

    def note(self, line: str) -> None:
        """Remember a damage once."""
        if line not in self.damage:
            self.damage.append(line)

    def _read_metadata(self) -> dict[str, Any]:
        path = self.path / "metadata.yaml"
        if not path.is_file():
            if self.path.is_dir():
                self.note("metadata.yaml is missing")
            return {}
        try:
            raw = yaml.load(path.read_text(encoding="utf-8"), Loader=SAFE_LOADER)
            found = raw["rosbag2_bagfile_information"]
            if isinstance(found, dict):
                return found
            self.note("metadata.yaml holds no bag information")
        except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as exc:
            self.note(f"metadata.yaml is unreadable ({type(exc).__name__})")
        return {}

    def _list_files(self, metadata: dict[str, Any]) -> list[Path]:
        if self.path.is_file():
            return [self.path] if self.path.name.endswith(_SUFFIXES) else []
        if not self.path.is_dir():
            return []
        present = sorted(
            (p for p in self.path.iterdir() if p.name.endswith(_SUFFIXES)), key=_natural
        )
        listed = metadata.get("relative_file_paths") or []
        if not isinstance(listed, list):
            self.note("metadata.yaml: relative_file_paths is no list")
            listed = []
        named = [self.path / Path(str(n)).name for n in listed]
        for other in (p for p in named if not p.name.endswith(_SUFFIXES)):
            self.note(f"{other.name} is neither .mcap nor .db3")
        named = [p for p in named if p.name.endswith(_SUFFIXES)]
        # Metadata of a compressed bag may still name the files without their new suffix.
        named = [p if p.exists() else p.with_name(p.name + ".zstd") for p in named]
        for missing in (p for p in named if not p.exists()):
            self.note(f"{missing.name.removesuffix('.zstd')} is missing")
        named = [p for p in named if p.exists()]
        return named + [p for p in present if p not in named]

    def _open_files(self, files: list[Path]) -> None:
        problem: BagError | None = None
        for path in files:
            try:
                plain = self._unpack(path) if path.name.endswith(".zstd") else path
                file = _KINDS[plain.suffix](plain, self.note)
            except BagError as exc:
                problem = exc
                self.note(f"{path.name} cannot be opened: {exc}")
                continue
            self._files.append(file)
            self.topics.update(file.topics)
            self.custom.update(file.custom)
            self.foreign.update(file.foreign)
        if problem is not None and not self._files:
            raise problem
        if len(self._files) > 1:
            self._files.sort(key=_first_ns)

    def _unpack(self, path: Path) -> Path:
        if self._unpacked is None:
            self._unpacked = tempfile.TemporaryDirectory(prefix="koch_bag_")
        target = Path(self._unpacked.name) / path.name.removesuffix(".zstd")
        reader = zstandard.ZstdDecompressor()
        with path.open("rb") as packed, target.open("wb") as plain:
            try:
                for block in reader.read_to_iter(packed):
                    plain.write(block)
            except zstandard.ZstdError as exc:
                self.note(f"{path.name}: compressed file is damaged ({exc})")
        return target

    def messages(self, topics: Collection[str]) -> Iterator[RawMessage]:
        """Yield the messages of some topics, file by file, each in time order.

        Memory stays at a few chunks, whatever the size of the bag.
        """
        wanted = frozenset(topics)
        for file in self._files:
            for message in file.messages(wanted):
                if message.data[:4] == _ZSTD:  # CDR begins with a zero
                    data = self._unpack_message(message)
                    if data is None:
                        continue
                    message = message._replace(data=data)
                yield message

    def _unpack_message(self, message: RawMessage) -> bytes | None:
        try:
            return zstandard.ZstdDecompressor().decompress(
                message.data, max_output_size=_LARGEST_MESSAGE
            )
        except zstandard.ZstdError as exc:
            self.note(f"{message.topic}: a compressed message is damaged ({exc})")
            return None

    def close(self) -> None:
        """Close the files and remove what was unpacked; again: nothing."""
        while self._files:
            self._files.pop().close()
        if self._unpacked is not None:
            self._unpacked.cleanup()
            self._unpacked = None

    def __enter__(self) -> Bag:
        """Return the bag."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the bag."""
        self.close()


def _first_ns(file: StorageFile) -> int:
    """When a file begins [ns]: a bag's list of files may be lost, or in another order."""
    first = next(file.messages(frozenset(file.topics)), None)
    return first.log_ns if first is not None else 1 << 63


def open_bag(path: Path | str) -> Bag:
    """Open a bag folder or a single storage file."""
    return Bag(Path(path))


def _natural(path: Path) -> list[int | str]:
    """Sort ``bag_10`` behind ``bag_9``."""
    parts = re.split(r"(\d+)", path.name)
    return [int(part) if place % 2 else part for place, part in enumerate(parts)]


def is_bag(path: Path) -> bool:
    """Tell whether a folder or file looks like a bag."""
    if path.is_file():
        return path.name.endswith(_SUFFIXES)
    if not path.is_dir():
        return False
    if (path / "metadata.yaml").is_file():
        return True
    return any(p.name.endswith(_SUFFIXES) for p in path.iterdir() if p.is_file())


def find_bags(paths: Iterable[Path]) -> list[Path]:
    """List the bags at or below some paths, in natural order.

    A path that is a bag itself is taken as it is. Below other folders hidden ones, ``trash`` and
    ``*.partial`` (episodes that were never finished) are left out.

    Raises:
        BagError: A path holds no bag.
    """
    found: list[Path] = []
    for path in paths:
        below = [path] if is_bag(path) else list(_below(path))
        if not below:
            why = "holds no bag" if path.exists() else "does not exist"
            raise BagError(path, why, "Give rosbag2 folders, files, or a folder of them.")
        found.extend(item for item in below if item not in found)
    return found


def _below(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir(), key=_natural):
        hidden = path.name.startswith(".") or path.name == "trash"
        if hidden or path.name.endswith(".partial") or path.is_symlink():
            continue
        if is_bag(path):
            yield path
        elif path.is_dir():
            yield from _below(path)
