# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The folder of episodes: names, trash with undo, labels, free space, and a lock.

    root/episode_000012/            a whole episode: metadata.yaml and one .mcap
    root/episode_000013.partial/    being recorded, or left behind by a crash
    root/trash/episode_000011/      discarded; undo brings it back
    root/highlights/episode_000014/ the last seconds, saved when asked; shares messages with others
    root/trash/quarantine/          what a crash left behind and nothing could be saved from

An episode's number is never used twice, so that undo always finds its place free.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from koch_core.errors import KochError
from koch_episodes.bag import metadata
from koch_episodes.bag.repair import QUARANTINE, Repaired, repair_all
from koch_episodes.errors import EpisodeError

TRASH = "trash"
HIGHLIGHTS = "highlights"
REASON = "discarded.txt"
_LOCK = ".recorder.lock"
_NAME = re.compile(r"^episode_(\d+)")


class RootInUseError(KochError):
    """Another recorder writes into the folder."""

    def __init__(self, root: Path, owner: str) -> None:
        super().__init__(
            f"Episode folder {root}: another recorder ({owner or 'unknown process'}) writes "
            "there. Stop it, or choose another folder with the parameter 'root'."
        )


class RootUnusableError(KochError):
    """The folder cannot be made or written."""

    def __init__(self, root: Path, cause: OSError) -> None:
        super().__init__(
            f"Episode folder {root} cannot be used: {cause.strerror or cause}. "
            "Choose another with the parameter 'root'."
        )


class EpisodeStore:
    """The episodes of one root folder.

    Args:
        root: Folder; made when missing.

    Raises:
        RootInUseError: Another recorder holds it.
        RootUnusableError: It cannot be made or written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.trash = root / TRASH
        try:
            root.mkdir(parents=True, exist_ok=True)
            self._lock: IO[str] = (root / _LOCK).open("a+", encoding="ascii")
        except OSError as exc:
            raise RootUnusableError(root, exc) from exc
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            self._lock.seek(0)
            owner = self._lock.read().strip()
            self._lock.close()
            raise RootInUseError(root, owner) from exc
        with contextlib.suppress(OSError):  # for messages only; a full disk is told later
            os.ftruncate(self._lock.fileno(), 0)
            os.write(self._lock.fileno(), f"pid {os.getpid()}\n".encode())
        self._next = 1 + max((number for _, number in self._numbered()), default=-1)

    def close(self) -> None:
        """Let another recorder have the folder."""
        self._lock.close()

    def repair(self) -> list[Repaired]:
        """Make whole, or set aside, what a crash left behind."""
        return [
            *repair_all(self.root, self.trash),
            *repair_all(self.root / HIGHLIGHTS, self.trash),
        ]

    def _numbered(self) -> Iterator[tuple[Path, int]]:
        for folder in (
            self.root,
            self.root / HIGHLIGHTS,
            self.trash,
            self.trash / QUARANTINE,
        ):
            if folder.is_dir():
                for path in folder.iterdir():
                    match = _NAME.match(path.name)
                    if match and path.is_dir():
                        yield path, int(match.group(1))

    @property
    def next_index(self) -> int:
        """Number of the next episode."""
        return self._next

    def take_index(self) -> int:
        """Use up a number."""
        self._next += 1
        return self._next - 1

    def folder(self, index: int) -> Path:
        """Where an episode is when it is whole."""
        return self.root / f"episode_{index:06d}"

    def highlight(self, index: int) -> Path:
        """Where a highlight is when it is whole."""
        return self.root / HIGHLIGHTS / self.folder(index).name

    def last(self) -> Path | None:
        """The whole episode with the highest number."""
        found = [(n, p) for p, n in self._numbered() if p.parent == self.root and _whole(p)]
        return max(found)[1] if found else None

    def discard(self, episode: Path, reason: str) -> Path:
        """Move an episode into the trash.

        Raises:
            OSError: It cannot be moved.
        """
        self.trash.mkdir(exist_ok=True)
        (episode / REASON).write_text(reason + "\n", encoding="utf-8")
        target = self.trash / episode.name
        episode.rename(target)
        return target

    def undo(self) -> Path:
        """Bring the last discarded episode back.

        Raises:
            EpisodeError: The trash is empty.
            OSError: It cannot be moved.
        """
        candidates = []
        if self.trash.is_dir():
            candidates = [path for path in self.trash.iterdir() if (path / REASON).is_file()]
        if not candidates:
            raise EpisodeError("to bring back", f"the trash {self.trash} is empty")
        # The time of the reason file is the time of the discard.
        path = max(candidates, key=lambda p: ((p / REASON).stat().st_mtime_ns, p.name))
        target = self.root / path.name
        if target.exists():
            raise EpisodeError(path.name, f"{target} exists", "Move it away first.")
        path.rename(target)
        (target / REASON).unlink()
        return target

    def label(self, episode: Path, values: dict[str, str]) -> None:
        """Set custom data of a whole episode, in its metadata.yaml.

        The copy inside the MCAP file stays as it was; the folder's file is the one that counts.

        Raises:
            BagError: The metadata cannot be read.
            OSError: They cannot be written.
        """
        metadata.add_custom(episode, values)

    def free_bytes(self) -> int:
        """Room left on the disk for this user."""
        return shutil.disk_usage(self.root).free


def _whole(path: Path) -> bool:
    return path.suffix == "" and (path / metadata.FILE_NAME).is_file()
