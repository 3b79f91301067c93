# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The life of episodes: wait for streams, record, save, discard, undo, label. No ROS.

`tick` moves it on; it is called often (20 Hz) by the thread that also calls everything else.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from koch_core.errors import KochError
from koch_core.health import Light
from koch_episodes.bag.writer import BagWriter, EpisodeWriter, MakeWriter
from koch_episodes.recorder.bag_thread import Summary
from koch_episodes.recorder.disk import DiskWatch
from koch_episodes.recorder.provenance import Provenance
from koch_episodes.recorder.quality import Health, StreamReport, verdict
from koch_episodes.recorder.saved import (
    Emit,
    EventKind,
    SavedEpisodes,
    StoreResult,
)
from koch_episodes.recorder.store import EpisodeStore


class RecorderPhase(enum.IntEnum):
    """What the recorder is doing; numbers of koch_interfaces/EpisodeStatus."""

    IDLE = 0
    WAITING = 1
    RECORDING = 2
    SAVING = 3
    RESETTING = 4


@dataclass(frozen=True)
class SessionSettings:
    """How episodes are recorded.

    Attributes:
        start_timeout_s: How long a start waits for dead streams, [s].
        reset_time_s: Pause behind each episode, [s]; a start ends it early.
        discard_red: Episodes with a red verdict go to the trash by themselves.
    """

    start_timeout_s: float = 10.0
    reset_time_s: float = 0.0
    discard_red: bool = False


Done = Callable[[StoreResult], None]


class Recorder(Protocol):
    """What the session needs of the intake."""

    @property
    def error(self) -> str:
        """Why nothing is written any more."""
        ...

    def begin(self, writer: EpisodeWriter) -> None:
        """Write what comes into a bag."""

    def end(
        self, custom: Callable[[tuple[StreamReport, ...], str], Mapping[str, str]]
    ) -> Future[Summary]:
        """Close the bag."""
        ...

    def health(self) -> list[Health]:
        """Judge all streams."""
        ...


@dataclass
class _Episode:
    """The episode in progress."""

    index: int
    task: str
    folder: Path
    duration_s: float
    began_s: float = 0.0
    outcome: str = ""
    keep: bool = True
    reason: str = ""
    notes: list[str] = field(default_factory=list)
    asked: list[Done] = field(default_factory=list)
    light: Light = Light.GREEN
    verdict: str = ""


class RecorderSession:
    """State of recording. One thread.

    Args:
        store: The folder of episodes.
        recorder: Writes the bags.
        provenance: Makes the custom data.
        disk: Watches the room left.
        settings: How episodes are recorded.
        clock: Seconds, never going back.
        emit: Publishes events.
        make_writer: Opens the bag of an episode.
    """

    def __init__(
        self,
        store: EpisodeStore,
        recorder: Recorder,
        provenance: Provenance,
        disk: DiskWatch,
        settings: SessionSettings,
        clock: Callable[[], float],
        emit: Emit,
        make_writer: MakeWriter = BagWriter,
    ) -> None:
        self.settings = settings
        self._make_writer = make_writer
        self._store = store
        self._recorder = recorder
        self._provenance = provenance
        self.disk = disk
        self._clock = clock
        self._emit = emit
        self.phase = RecorderPhase.IDLE
        self.shelf = SavedEpisodes(store, provenance.read, emit)
        self._phase_s = clock()
        self._episode: _Episode | None = None
        self._deadline_s = 0.0
        self._starter: Done | None = None
        self._closing: Future[Summary] | None = None

    # -- what the status shows ------------------------------------------------------------------

    @property
    def index(self) -> int:
        """Number of the current episode, or of the next one."""
        return self._episode.index if self._episode else self._store.next_index

    @property
    def task(self) -> str:
        """Task of the current episode."""
        return self._episode.task if self._episode else ""

    @property
    def elapsed_s(self) -> float:
        """Time in this phase, [s]."""
        return self._clock() - self._phase_s

    @property
    def remaining_s(self) -> float:
        """Time until the phase ends by itself, [s]; -1 when it does not."""
        if self.phase is RecorderPhase.WAITING:
            return max(0.0, self._deadline_s - self._clock())
        if (
            self.phase is RecorderPhase.RECORDING
            and self._episode
            and self._episode.duration_s > 0.0
        ):
            return max(0.0, self._episode.duration_s - self.elapsed_s)
        if self.phase is RecorderPhase.RESETTING:
            return max(0.0, self.settings.reset_time_s - self.elapsed_s)
        return -1.0

    @property
    def path(self) -> str:
        """Folder of the current or last episode."""
        if self._episode and self.phase in (RecorderPhase.RECORDING, RecorderPhase.SAVING):
            return str(self._episode.folder)
        return self.shelf.last_path

    # -- requests -------------------------------------------------------------------------------

    def start(self, task: str, duration_s: float, timeout_s: float, done: Done) -> None:
        """Begin an episode as soon as every stream is alive; `done` gets the answer."""
        if self.phase not in (RecorderPhase.IDLE, RecorderPhase.RESETTING):
            done(
                StoreResult(
                    False, f"episode {self.index} is {self.phase.name.lower()}; stop it first"
                )
            )
            return
        if problem := self.disk.problem():
            done(StoreResult(False, problem))
            return
        task = task or self._provenance.default_task
        index = self._store.next_index
        self._episode = _Episode(index, task, self._store.folder(index), max(0.0, duration_s))
        self._starter = done
        timeout = timeout_s if timeout_s > 0.0 else self.settings.start_timeout_s
        self._deadline_s = self._clock() + timeout
        self._enter(RecorderPhase.WAITING)
        self.tick()

    def stop(self, outcome: str, keep: bool, done: Done) -> None:
        """End the running episode; when none runs, label or discard the last one."""
        episode = self._episode
        if self.phase is RecorderPhase.RECORDING and episode:
            episode.outcome, episode.keep = outcome, keep
            episode.reason = "" if keep else "stopped with keep=false"
            self._close(done)
        elif self.phase is RecorderPhase.WAITING:
            self._cancel("stopped before it began")
            done(StoreResult(True, "the start was cancelled; nothing was recorded"))
        elif self.phase is RecorderPhase.SAVING and episode:
            episode.asked.append(done)
        elif not keep:
            self.discard("stopped with keep=false", done)
        elif outcome:
            done(self.shelf.label(outcome))
        else:
            done(StoreResult(False, "no episode is running"))

    def discard(self, reason: str, done: Done) -> None:
        """Throw the running episode away, or the last saved one."""
        episode = self._episode
        reason = reason or "discarded by hand"
        if self.phase is RecorderPhase.RECORDING and episode:
            episode.keep, episode.reason = False, reason
            self._close(done)
        elif self.phase is RecorderPhase.WAITING:
            self._cancel("discarded before it began")
            done(StoreResult(True, "the start was cancelled; nothing was recorded"))
        elif self.phase is RecorderPhase.SAVING and episode:
            episode.keep, episode.reason = False, reason
            episode.asked.append(done)
        else:
            done(self.shelf.discard_last(reason))

    def undo(self, done: Done) -> None:
        """Bring the last discarded episode back."""
        done(self.shelf.undo())

    def finish(self) -> Future[Summary] | None:
        """End what is running because the recorder ends; the episode so far is kept."""
        if self.phase is RecorderPhase.WAITING:
            self._cancel("the recorder ends")
        if self.phase is RecorderPhase.RECORDING and self._episode:
            self._episode.notes.append("the recorder was shut down")
            self._close(None)
        return self._closing

    # -- time -----------------------------------------------------------------------------------

    def tick(self) -> None:
        """Move on."""
        if self.phase is RecorderPhase.WAITING:
            self._wait()
        elif self.phase is RecorderPhase.RECORDING:
            self._watch()
        elif self.phase is RecorderPhase.SAVING:
            self._finish_saving()
        elif (
            self.phase is RecorderPhase.RESETTING and self.elapsed_s >= self.settings.reset_time_s
        ):
            self._enter(RecorderPhase.IDLE)

    def _enter(self, phase: RecorderPhase) -> None:
        self.phase = phase
        self._phase_s = self._clock()

    def _wait(self) -> None:
        dead = [item for item in self._recorder.health() if not item.alive]
        if not dead:
            self._begin()
        elif self._clock() >= self._deadline_s:
            names = "; ".join(f"{item.name}: {item.reason}" for item in dead)
            self._cancel(f"dead stream(s): {names}")

    def _cancel(self, why: str) -> None:
        starter, self._starter, self._episode = self._starter, None, None
        self._enter(RecorderPhase.IDLE)
        if starter is not None:
            starter(StoreResult(False, why))

    def _begin(self) -> None:
        episode = self._episode
        assert episode is not None
        # While the start waited for streams, a highlight may have taken the number.
        episode.index = self._store.next_index
        episode.folder = self._store.folder(episode.index)
        try:
            custom = self._provenance.begin(episode.task, episode.index)
            writer = self._make_writer(episode.folder, custom)
        except (KochError, OSError) as exc:
            self._cancel(f"the episode cannot be written: {exc}")
            return
        self._store.take_index()
        self._recorder.begin(writer)
        self._enter(RecorderPhase.RECORDING)
        self._emit(EventKind.START, episode.index, episode.task, "", "")
        starter, self._starter = self._starter, None
        if starter is not None:
            starter(
                StoreResult(
                    True,
                    f"recording {writer.partial.name}",
                    str(writer.partial),
                    index=episode.index,
                )
            )

    def _watch(self) -> None:
        episode = self._episode
        assert episode is not None
        if self._recorder.error:
            episode.notes.append(f"stopped early: {self._recorder.error}")
            self._close(None)
        elif problem := self.disk.problem():
            episode.notes.append(f"stopped early: {problem}")
            self._close(None)
        elif 0.0 < episode.duration_s <= self.elapsed_s:
            self._close(None)

    def _close(self, done: Done | None) -> None:
        """Close the bag of the running episode."""
        episode = self._episode
        assert episode is not None
        if done is not None:
            episode.asked.append(done)
        kind = EventKind.STOP if episode.keep else EventKind.DISCARD
        detail = "; ".join(episode.notes) or episode.reason
        self._emit(kind, episode.index, episode.task, episode.outcome, detail)

        def custom(reports: tuple[StreamReport, ...], error: str) -> Mapping[str, str]:
            episode.light, episode.verdict = verdict(reports, episode.notes)
            return self._provenance.end(episode.outcome, episode.verdict, reports)

        self._closing = self._recorder.end(custom)
        self._enter(RecorderPhase.SAVING)

    def _finish_saving(self) -> None:
        if self._closing is None or not self._closing.done():
            return
        episode, closing = self._episode, self._closing
        assert episode is not None
        self._episode, self._closing = None, None
        self._enter(
            RecorderPhase.RESETTING if self.settings.reset_time_s > 0.0 else RecorderPhase.IDLE
        )
        try:
            reply = self._filed(episode, closing.result())
        except (KochError, OSError, RuntimeError) as exc:
            reply = StoreResult(
                False, f"the episode could not be saved: {exc}", index=episode.index
            )
        for done in episode.asked:
            done(reply)

    def _filed(self, episode: _Episode, summary: Summary) -> StoreResult:
        """Put a closed bag where it belongs."""
        red = episode.light is Light.RED
        if summary.whole and episode.keep and self.settings.discard_red and red:
            episode.keep, episode.reason = False, episode.verdict
            self._emit(EventKind.DISCARD, episode.index, episode.task, "", episode.verdict)
        return self.shelf.put(
            summary,
            episode.index,
            episode.task,
            episode.verdict,
            discard="" if episode.keep else episode.reason,
        )
