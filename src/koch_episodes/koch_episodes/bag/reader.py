# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Reading rosbag2 bags of Humble to Kilted: sqlite3 or MCAP, split, compressed, unfinished.

Damage is noted, not raised: what can be read is read. Only a path that holds no bag at all raises.
"""

from __future__ import annotations

import filecmp
import re
import tempfile
from collections.abc import Collection, Iterable, Iterator
from functools import cached_property
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path
from typing import Any

import yaml
import zstandard

from koch_core.closing import Closing
from koch_episodes.bag.marks import Marks, load_marks
from koch_episodes.bag.order import overlap
from koch_episodes.bag.storage import STORAGES, RawMessage, StorageFile, Topic, TopicTypes
from koch_episodes.errors import BagError
from koch_rig.yaml_source import SAFE_LOADER

_SUFFIXES = (".mcap", ".db3", ".mcap.zstd", ".db3.zstd")
# Folders of the recorder beside its episodes. Highlights hold messages of episodes once more.
_ASIDE = {"trash": "discarded bag(s)", "highlights": "highlight(s); name the folder to use them"}
_STORAGES = {".mcap": "mcap", ".db3": "sqlite3"}
_ZSTD = b"\x28\xb5\x2f\xfd"
_LARGEST_MESSAGE = 256 * 1024**2


class Bag(Closing):
    """An open bag.

    Args:
        path: Bag folder, or one ``.mcap`` or ``.db3`` file (``.zstd`` behind it allowed).

    Attributes:
        topics: Topic name to description.
        custom: The recorder's custom data, strings.
        foreign: Topics that are not read because they are no ROS 2 messages, name to encoding.
        damage: One line for everything that could not be read.
        passed_over: One line for every storage file in the folder that is no part of the bag.

    Raises:
        BagError: There is no bag, not one of its files can be opened, or it is not clear which
            of them make it up.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.topics: dict[str, Topic] = {}
        self.custom: dict[str, str] = {}
        self.foreign: dict[str, str] = {}
        self.damage: list[str] = []
        self.passed_over: list[str] = []
        self._is_listed = False
        self._files: list[StorageFile] = []
        self._unpacked: tempfile.TemporaryDirectory[str] | None = None
        metadata = self._read_metadata()
        storage = str(metadata.get("storage_identifier") or "")
        try:
            if storage and storage not in _STORAGES.values():
                self._open_foreign(storage)
            else:
                self._open_files(self._list_files(metadata))
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

    @cached_property
    def marks(self) -> Marks:
        """Edits that the recording itself does not show; a reader that makes episodes obeys them.

        Raises:
            BagError: They cannot be read.
        """
        return load_marks(self.path)

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
        """The files that make up the bag: those of its metadata, else those that are there."""
        if self.path.is_file():
            return [self.path] if self.path.name.endswith(_SUFFIXES) else []
        if not self.path.is_dir():
            return []
        present = sorted(
            (p for p in self.path.iterdir() if p.name.endswith(_SUFFIXES)), key=_natural
        )
        named = self._named_files(metadata)
        if not named:
            return self._without_twins(present)
        self._is_listed = True
        for other in (p for p in present if p not in named):
            self.passed_over.append(f"{other.name}: metadata.yaml does not name it")
        return named

    def _named_files(self, metadata: dict[str, Any]) -> list[Path]:
        """The files that the metadata name and that are there; what else they name is noted."""
        listed = metadata.get("relative_file_paths") or []
        if not isinstance(listed, list):
            self.note("metadata.yaml: relative_file_paths is no list")
            return []
        paths = [self.path / Path(str(name)).name for name in listed]
        for other in (p for p in paths if not p.name.endswith(_SUFFIXES)):
            self.note(f"{other.name} is neither .mcap nor .db3")
        named = []
        for path in (p for p in paths if p.name.endswith(_SUFFIXES)):
            # Metadata of a compressed bag may still name the files without their new suffix.
            packed = path.with_name(path.name + ".zstd")
            if path.exists() or packed.exists():
                named.append(path if path.exists() else packed)
            else:
                self.note(f"{path.name} is missing")
        return named

    def _without_twins(self, present: list[Path]) -> list[Path]:
        """Leave out files that hold what another one holds: packed beside plain, and copies."""
        kept: list[Path] = []
        for path in sorted(present, key=lambda p: p.name.endswith(".zstd")):
            twin = next((other for other in kept if _are_twins(path, other)), None)
            if not path.exists():
                self.passed_over.append(f"{path.name}: a link that leads nowhere")
            elif twin is not None:
                self.passed_over.append(f"{path.name}: the same as {twin.name}")
            else:
                kept.append(path)
        return sorted(kept, key=_natural)

    def _open_foreign(self, storage: str) -> None:
        """Open the folder with another package's reader, else with rosbag2's plug-ins.

        Raises:
            BagError: Neither is there.
        """
        opener = STORAGES.find(storage)
        if opener is None and find_spec("rosbag2_py") is not None:
            opener = STORAGES["rosbag2"]
        if opener is None:
            raise BagError(
                self.path,
                f"is stored as {storage!r}, expected one of {', '.join(_STORAGES.values())}",
                "Source a ROS that has this storage plug-in: rosbag2_py then reads it.",
            )
        self._files = [opener(self.path, self.note)]
        self._learn()

    def _open_files(self, paths: list[Path]) -> None:
        if not paths:
            raise BagError(
                self.path, "holds no .mcap or .db3 file", "Give a rosbag2 folder or file."
            )
        problem: BagError | None = None
        opened: list[tuple[Path, StorageFile]] = []
        for path in paths:
            try:
                plain = self._unpack(path) if path.name.endswith(".zstd") else path
                file = STORAGES[_STORAGES[plain.suffix]](plain, self.note)
            except BagError as exc:
                problem = exc
                self.note(f"{path.name} cannot be opened: {exc}")
                continue
            self._files.append(file)
            opened.append((path, file))
        if problem is not None and not self._files:
            raise problem
        if len(self._files) > 1:
            self._order_files(opened)
        self._learn()

    def _learn(self) -> None:
        """Take together what the files say of the bag."""
        types = TopicTypes()
        for file in self._files:
            types.update(file.types)
            self.custom.update(file.custom)
            self.foreign.update(file.foreign)
        self.topics = types.topics

    def _order_files(self, opened: list[tuple[Path, StorageFile]]) -> None:
        """Put the files in order of time, unless the clock was set back between them.

        Raises:
            BagError: Files that no metadata names hold the same stretch of time.
        """
        times = [file.log_times() for _, file in opened]
        for (one, first), (other, second) in combinations(zip(opened, times, strict=True), 2):
            common = sorted(first.keys() & second.keys())
            if not common or not overlap(
                [first[name] for name in common], [second[name] for name in common]
            ):
                continue
            if self._is_listed:
                return  # the clock was set back between them
            raise BagError(
                self.path,
                f"{one[0].name} and {other[0].name} hold the same stretch of time, and no "
                "metadata.yaml tells which of them counts",
                "Put one of them elsewhere, or run 'ros2 bag reindex'.",
            )
        begins = {
            id(file): min((int(t.min()) for t in found.values()), default=1 << 62)
            for (_, file), found in zip(opened, times, strict=True)
        }
        self._files.sort(key=lambda file: begins[id(file)])

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


def _are_twins(one: Path, other: Path) -> bool:
    """Tell whether two files are one recording by their names, the same file, or equal ones."""
    if _stem(one) == _stem(other) or one.resolve() == other.resolve():
        return True
    return one.exists() and filecmp.cmp(one, other, shallow=False)  # compares sizes first


def _stem(path: Path) -> str:
    return path.name.removesuffix(".zstd").removesuffix(".mcap").removesuffix(".db3")


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


def find_bags(paths: Iterable[Path], passed_over: list[str] | None = None) -> list[Path]:
    """List the bags at or below some paths, in natural order; each once, links followed.

    Below a folder hidden ones, ``trash``, ``highlights`` and ``*.partial`` (episodes that were
    never finished) are left out, and so is all that is inside a bag with metadata. Storage files
    that lie loose in a folder are one bag, whatever other bags it holds.

    Args:
        paths: Bags, or folders of bags.
        passed_over: Where to name what was left out.

    Raises:
        BagError: A path holds no bag.
    """
    found: dict[Path, Path] = {}  # where it really is, to how it was found
    left_out = [] if passed_over is None else passed_over
    for path in paths:
        is_file = path.is_file() and is_bag(path)
        below = [path] if is_file else list(_below(path, frozenset(), left_out))
        if not below:
            why = "holds no bag" if path.exists() else "does not exist"
            raise BagError(path, why, "Give rosbag2 folders, files, or a folder of them.")
        for bag in below:
            real = bag.resolve()
            if real in found and bag != found[real]:
                left_out.append(f"{bag}: the same as {found[real]}")
            found.setdefault(real, bag)
    return list(found.values())


def _below(folder: Path, above: frozenset[Path], left_out: list[str]) -> Iterator[Path]:
    """Bags below a folder; `above` holds the folders on the way, so that no link leads round."""
    if not folder.is_dir() or folder.resolve() in above:
        return
    above |= {folder.resolve()}
    if is_bag(folder):
        yield folder
    is_whole = (folder / "metadata.yaml").is_file()
    for path in sorted(folder.iterdir(), key=_natural):
        if is_whole:
            inside = _below(path, above, []) if path.is_dir() else ()
            left_out += [f"{bag}: inside the bag {folder}" for bag in inside]
            continue
        if path.is_symlink() and not path.exists():
            left_out.append(f"{path}: a link that leads nowhere")
        elif path.name.endswith(".partial"):
            left_out.append(f"{path}: an episode that was never finished")
        elif path.name in _ASIDE:
            aside = sum(1 for _ in _below(path, above, []))
            left_out += [f"{path}: {aside} {_ASIDE[path.name]}"] * bool(aside)
        elif path.name.startswith("."):
            continue
        elif path.is_dir():
            yield from _below(path, above, left_out)
