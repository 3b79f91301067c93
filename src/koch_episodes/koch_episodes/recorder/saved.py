# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Saved episodes: filing them, throwing the last one away, bringing it back, labelling it."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from koch_core.errors import KochError
from koch_episodes.recorder.bag_thread import Summary
from koch_episodes.recorder.store import EpisodeStore


class EventKind(enum.IntEnum):
    """Numbers of koch_interfaces/EpisodeEvent."""

    START = 0
    STOP = 1
    DISCARD = 2
    LABEL = 5
    UNDO = 6


@dataclass(frozen=True)
class StoreResult:
    """Answer to a request."""

    success: bool
    message: str
    path: str = ""
    verdict: str = ""
    index: int = 0


Emit = Callable[[EventKind, int, str, str, str], None]
"""Publishes an event: kind, episode index, task, outcome, detail."""


class SavedEpisodes:
    """The saved episodes of a session. One thread.

    Args:
        store: The folder of episodes.
        read: Custom data of a recorded episode.
        emit: Publishes events.
    """

    def __init__(
        self, store: EpisodeStore, read: Callable[[Path], Mapping[str, str]], emit: Emit
    ) -> None:
        self._store = store
        self._read = read
        self._emit = emit
        self._last: tuple[int, str, Path] | None = None
        self.saved = 0
        self.last_verdict = ""
        self.last_path = ""

    def put(
        self, summary: Summary, index: int, task: str, verdict: str, *, discard: str
    ) -> StoreResult:
        """File a closed bag.

        Args:
            summary: The bag.
            index: Its number.
            task: Its task.
            verdict: What its quality is.
            discard: Why it goes to the trash; empty: it is kept.

        Raises:
            OSError: It cannot be moved.
        """
        path = summary.path
        self.last_verdict, self.last_path = verdict, str(path)
        if not summary.whole:
            why = f"{path.name} could not be finished ({summary.error}); a restart repairs it"
            return StoreResult(False, why, str(path), verdict, index)
        if discard:
            path = self._store.discard(path, discard)
            self.last_path = str(path)
            message = f"{path.name} is in the trash: {discard}"
        else:
            self.saved += 1
            self._last = (index, task, path)
            message = f"{path.name} saved"
        return StoreResult(True, message, str(path), verdict, index)

    def _identify(self, path: Path) -> tuple[int, str, Path]:
        custom = self._read(path)
        number = custom.get("koch.index", "")
        return int(number) if number.isdigit() else 0, custom.get("koch.task", ""), path

    def _last_saved(self) -> tuple[int, str, Path] | None:
        if self._last is not None and self._last[2].is_dir():
            return self._last
        path = self._store.last()
        return None if path is None else self._identify(path)

    def label(self, outcome: str) -> StoreResult:
        """Set the outcome of the last saved episode."""
        try:
            last = self._last_saved()
            if last is None:
                return StoreResult(False, "there is no episode to label")
            self._store.label(last[2], {"koch.outcome": outcome})
        except (KochError, OSError) as exc:
            return StoreResult(False, str(exc))
        index, task, path = last
        self._emit(EventKind.LABEL, index, task, outcome, "")
        message = f"{path.name} is labelled {outcome}"
        return StoreResult(True, message, str(path), self.last_verdict, index)

    def discard_last(self, reason: str) -> StoreResult:
        """Move the last saved episode to the trash."""
        try:
            last = self._last_saved()
            if last is None:
                return StoreResult(False, "there is no episode to discard")
            path = self._store.discard(last[2], reason)
        except (KochError, OSError) as exc:
            return StoreResult(False, str(exc))
        index, task, _ = last
        self._last = None
        self.saved = max(0, self.saved - 1)
        self.last_path = str(path)
        self._emit(EventKind.DISCARD, index, task, "", reason)
        return StoreResult(True, f"{path.name} is in the trash: {reason}", str(path), index=index)

    def undo(self) -> StoreResult:
        """Bring the last discarded episode back."""
        try:
            path = self._store.undo()
            self._last = index, task, _ = self._identify(path)
        except (KochError, OSError) as exc:
            return StoreResult(False, str(exc))
        self.saved += 1
        self.last_path = str(path)
        self._emit(EventKind.UNDO, index, task, "", path.name)
        return StoreResult(True, f"{path.name} is back", str(path), index=index)
