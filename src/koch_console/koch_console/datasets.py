# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""LeRobot datasets for the page: list, curves, videos, and edits that wait to be applied. No ROS.

A browser names a dataset; only names that were found below the folder are looked up, so that no
name is a path.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from koch_core.errors import KochError
from koch_episodes.dataset.edit.pending import (
    PendingEdit,
    commands,
    pending_file,
    read_pending,
    together,
    write_pending,
)
from koch_episodes.dataset.layout import INFO, read_json

if TYPE_CHECKING:
    from koch_episodes.dataset.edit.source import SourceDataset
    from koch_episodes.dataset.format import Episode

# What needs pyarrow is imported in the functions: the page shall not wait for it.
_DEEPEST = 3  # folders below the root
_MOST_LISTED = 200
_MOST_EDITS = 5000
_CURVE_HZ = 50.0
_APPLIED = ".applied.json"


class DatasetsError(KochError):
    """A dataset is not there, or an edit does not fit it."""


class Datasets:
    """The datasets below one folder; methods may be called from any thread.

    Args:
        root: Their folder; it may not exist yet.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock = threading.Lock()
        self._open: tuple[str, float, SourceDataset] | None = None
        self._ranked: tuple[str, float, list[dict[str, Any]]] | None = None
        #: Grows with each edit, so that every open page looks again.
        self.edited = 0

    def facts(self) -> list[Mapping[str, Any]]:
        """All datasets in order of their names."""
        return [self._facts(name, path) for name, path in self._found().items()]

    def _found(self) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for depth in range(1, _DEEPEST + 1):
            for path in sorted(self.root.glob("*/" * depth + INFO)):
                root = path.parents[1]
                name = str(root.relative_to(self.root))
                if not any(part.startswith(".") for part in Path(name).parts):
                    found[name] = root
        return dict(list(found.items())[:_MOST_LISTED])

    def _facts(self, name: str, root: Path) -> Mapping[str, Any]:
        try:
            info = read_json(root / INFO)
            return {
                "name": name,
                "episodes": int(info["total_episodes"]),
                "seconds": round(int(info["total_frames"]) / float(info["fps"]), 1),
                "format": str(info["codebase_version"]),
                "pending": len(self._pending(root)),
            }
        except (KochError, KeyError, TypeError, ValueError, ZeroDivisionError) as exc:
            return {"name": name, "problem": f"cannot be read: {exc!s:.200}"}

    def root_of(self, name: str) -> Path:
        """The folder of a dataset.

        Raises:
            DatasetsError: There is none of that name.
        """
        root = self._found().get(name)
        if root is None:
            raise DatasetsError(f"There is no dataset {name!r:.80} in {self.root}.")
        return root

    def _source(self, name: str) -> SourceDataset:
        from koch_episodes.dataset.edit.source import SourceDataset

        root = self.root_of(name)
        changed_s = (root / INFO).stat().st_mtime
        with self._lock:
            if self._open is None or self._open[:2] != (name, changed_s):
                self._open = name, changed_s, SourceDataset(root)
            return self._open[2]

    def describe(self, name: str) -> Mapping[str, Any]:
        """Episodes of a dataset, the edits that wait, and the commands that do the same.

        Raises:
            KochError: There is no such dataset, or it cannot be read.
        """
        source = self._source(name)
        pending = self._pending(source.root)
        changes = together(pending)
        fps = source.info.fps
        return {
            "name": name,
            "root": str(source.root),
            "fps": fps,
            "episodes": [
                {
                    "number": episode.index,
                    "length_s": round(episode.length / fps, 3),
                    "task": episode.tasks[0] if episode.tasks else "",
                    "outcome": episode.outcome,
                    "change": vars(changes[episode.index]) if episode.index in changes else None,
                }
                for episode in source.episodes
            ],
            "pending": [edit.plain() for edit in pending],
            "new": self.new_revision(source.root).name,
            "commands": commands(source.root, pending, self.new_revision(source.root)),
        }

    @staticmethod
    def new_revision(root: Path) -> Path:
        """A folder beside a dataset for its next revision: `blocks`, `blocks_r2`, `blocks_r3`."""
        stem, mark, number = root.name.rpartition("_r")
        if not mark or not number.isdigit():
            stem, number = root.name, "1"
        count = int(number) + 1
        while (new := root.with_name(f"{stem}_r{count}")).exists():
            count += 1
        return new

    # -- an episode -----------------------------------------------------------------------------

    def episode(self, name: str, number: int) -> Mapping[str, Any]:
        """Curves of an episode in the dataset's units, and its cameras.

        Raises:
            KochError: There is no such episode, or it cannot be read.
        """
        from koch_episodes.dataset.load import column_array

        source = self._source(name)
        episode = self._episode(source, number)
        step = max(1, round(source.info.fps / _CURVE_HZ))
        times = [round(k / source.info.fps, 4) for k in range(0, episode.length, step)]
        curves = {}
        for key in ("observation.state", "action"):
            spec = source.features.get(key)
            if spec is None or not spec.is_numeric:
                continue
            values = column_array(source.rows(episode, [key])[key], spec.shape)
            rows = values.reshape(episode.length, -1)[::step].round(4).tolist()
            names = spec.names or [f"{key} {place}" for place in range(len(rows[0]))]
            curves[key] = {"names": list(names), "times": times, "values": rows}
        return {
            "number": number,
            "length_s": round(episode.length / source.info.fps, 4),
            "curves": curves,
            "videos": {
                key: {"from_s": place.from_s, "to_s": place.to_s}
                for key, place in episode.videos.items()
            },
        }

    def video(self, name: str, number: int, key: str) -> Path:
        """The file that has an episode's images of a camera.

        Raises:
            KochError: There is none.
        """
        source = self._source(name)
        place = self._episode(source, number).videos.get(key)
        if place is None or not place.path.resolve().is_relative_to(source.root.resolve()):
            raise DatasetsError("There is no such camera.")
        return place.path

    @staticmethod
    def _episode(source: SourceDataset, number: int) -> Episode:
        for episode in source.episodes:
            if episode.index == number:
                return episode
        raise DatasetsError(f"There is no episode {number} in {source.root}.")

    def quality(self, name: str) -> list[dict[str, Any]]:
        """Figures of all episodes, the most doubtful first. Takes seconds.

        Raises:
            KochError: There is no such dataset, or it cannot be read.
        """
        from koch_episodes.dataset.edit.doctor import rank

        root = self.root_of(name)
        changed_s = (root / INFO).stat().st_mtime
        if self._ranked is None or self._ranked[:2] != (name, changed_s):
            self._ranked = name, changed_s, [vars(item) for item in rank(root)]
        return self._ranked[2]

    # -- edits that wait ------------------------------------------------------------------------

    def edit(self, name: str, plain: Mapping[str, Any]) -> None:
        """Add an edit of one episode to those that wait.

        Raises:
            KochError: It is none, or does not fit the dataset.
        """
        source = self._source(name)
        edit = PendingEdit.of(plain)
        episode = self._episode(source, edit.episode)
        if isinstance(edit.value, tuple):
            first, last = (round(second * source.info.fps) for second in edit.value)
            if first >= min(last, episode.length):
                raise DatasetsError("Nothing would be left of the episode; delete it instead.")
        with self._lock:
            pending = read_pending(pending_file(source.root))
            if len(pending) >= _MOST_EDITS:
                raise DatasetsError(f"{_MOST_EDITS} edits wait already; apply them first.")
            write_pending(pending_file(source.root), [*pending, edit])
            self.edited += 1

    def undo(self, name: str) -> None:
        """Take back the newest edit that waits.

        Raises:
            DatasetsError: None waits.
        """
        root = self.root_of(name)
        with self._lock:
            pending = self._pending(root)
            if not pending:
                raise DatasetsError("No edit waits.")
            write_pending(pending_file(root), pending[:-1])
            self.edited += 1

    def application(self, name: str) -> tuple[Sequence[str], Path]:
        """Words of the `koch` command that applies what waits, and the folder that it makes.

        Raises:
            KochError: No edit waits.
        """
        root = self.root_of(name)
        with self._lock:
            pending = self._pending(root)
            if not together(pending):
                raise DatasetsError("No edit waits.")
            new = self.new_revision(root)
            write_pending(_applied(new), pending)
        words = ["dataset", "apply", str(root), "--edits", str(_applied(new)), "--out", str(new)]
        return words, new

    def _pending(self, root: Path) -> list[PendingEdit]:
        """What waits, without what the dataset's new revisions hold by now."""
        path = pending_file(root)
        pending = read_pending(path)
        for applied in root.parent.glob(f"*{_APPLIED}"):
            made = read_pending(applied)
            new = applied.with_name(applied.name[: -len(_APPLIED)])
            if made and pending[: len(made)] == made and (new / INFO).is_file():
                pending = pending[len(made) :]
                write_pending(path, pending)
                applied.unlink(missing_ok=True)
        return pending


def _applied(new: Path) -> Path:
    """The edits from which a revision is made: set aside, since others may wait meanwhile."""
    return new.with_name(f"{new.name}{_APPLIED}")
