# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What `koch record` does next: a number of timed episodes, and the keys pressed. No ROS.

Keys as LeRobot's: right arrow ends the episode (or the pause) early, left arrow records it again,
Esc stops. Letters do the same where arrows are awkward.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from koch_episodes.recorder.session import RecorderPhase


class Key(enum.Enum):
    """Keys that mean something."""

    NEXT = "next"
    AGAIN = "again"
    QUIT = "quit"
    SUCCESS = "success"
    FAILURE = "failure"
    UNDO = "undo"
    HIGHLIGHT = "highlight"


class RecordCommand(enum.Enum):
    """Requests to the recorder."""

    START = "start"
    STOP = "stop"
    DISCARD = "discard"
    UNDO = "undo"
    LABEL = "label"


@dataclass(frozen=True)
class RecordStep:
    """A request.

    Attributes:
        verb: Which.
        outcome: success, failure or empty; of STOP and LABEL.
    """

    verb: RecordCommand
    outcome: str = ""


@dataclass(frozen=True)
class PlanSettings:
    """What was asked for.

    Attributes:
        episodes: How many to record; 0: until someone quits.
        wait: Wait for a key before each episode.
        retry: A start that failed is tried again at once (no one is there to press a key).
        tries: So often in a row.
    """

    episodes: int = 1
    wait: bool = False
    retry: bool = False
    tries: int = 3


# A held key repeats every 30 ms, and a second tap comes within half a second.
HELD_KEY_S = 0.5


class Presses:
    """Lets each press of a key count once, in the phase that the person saw.

    A key that is held down or tapped twice goes on arriving after the phase has changed. There it
    would skip the reset pause, end the next episode or discard the last one.
    """

    def __init__(self) -> None:
        self._last: tuple[Key, RecorderPhase, float] | None = None

    def meant(self, keys: list[Key], phase: RecorderPhase, now_s: float) -> list[Key]:
        """Return the keys without repeats of one that was pressed for an earlier phase.

        Args:
            keys: Pressed since the last call.
            phase: Shown while they were pressed.
            now_s: Time [s].
        """
        found = []
        for key in keys:
            seen = phase
            if self._last is not None and self._last[0] is key:
                _, before, at_s = self._last
                seen = before if now_s - at_s < HELD_KEY_S else phase
            if seen is phase:
                found.append(key)
            self._last = key, seen, now_s
        return found


class RecordPlan:
    """Decides from the recorder's phase and the keys what to ask for next.

    Args:
        settings: What was asked for.
        saved_before: Episodes that the recorder had saved already.
    """

    def __init__(self, settings: PlanSettings, saved_before: int = 0) -> None:
        self.settings = settings
        self._before = saved_before
        self._quit = False
        self._held = settings.wait
        self._failures = 0
        self._skip_pause = False
        self._starting = self._cancel = False
        self.done = False
        self.failed = False

    def recorded(self, saved: int) -> int:
        """How many of this plan's episodes are saved."""
        return max(0, saved - self._before)

    @property
    def waits_for_key(self) -> bool:
        """The next episode needs a key."""
        return self._held and not self.done

    def start_failed(self) -> None:
        """A start was refused: some stream is dead."""
        if self._quit:
            return
        self._failures += 1
        if not self.settings.retry:
            self._held = True
        elif self._failures >= self.settings.tries:
            self.failed = self.done = True

    def next(self, phase: RecorderPhase, saved: int, keys: list[Key]) -> RecordStep | None:
        """Return the next request, or None. Not to be called while one is under way.

        Args:
            phase: The recorder's.
            saved: Episodes that it says it has saved.
            keys: Pressed since the last call.
        """
        step = self._decide(phase, saved, keys)
        self._starting = step is not None and step.verb is RecordCommand.START
        return step

    def _decide(self, phase: RecorderPhase, saved: int, keys: list[Key]) -> RecordStep | None:
        cancel, self._cancel = self._cancel, False
        if phase is RecorderPhase.RECORDING:
            # Cancelled while it waited, but the start was quicker.
            return RecordStep(RecordCommand.DISCARD) if cancel else self._recording(keys)
        if phase is RecorderPhase.WAITING:
            if Key.QUIT in keys:
                self._quit = True
                return RecordStep(RecordCommand.STOP)
            return None
        if phase is RecorderPhase.SAVING:
            self._quit = self._quit or Key.QUIT in keys
            return None
        return self._between(phase, saved, keys)

    def meanwhile(self, phase: RecorderPhase, keys: list[Key]) -> RecordStep | None:
        """Return a request that may overtake the one under way, or None.

        Who presses a key now has not seen what the request brings, so that keys are not kept
        for the phase that follows. Only the wish to quit holds in every phase: it cancels a start
        that waits for streams.
        """
        if Key.QUIT in keys:
            self._quit = True
            self._cancel = self._starting
        if not self._cancel or phase is not RecorderPhase.WAITING:
            return None
        self._cancel = False
        return RecordStep(RecordCommand.STOP)

    def _recording(self, keys: list[Key]) -> RecordStep | None:
        self._failures = 0
        self._held = self.settings.wait
        self._skip_pause = False
        for key in keys:
            if key is Key.AGAIN:
                return RecordStep(RecordCommand.DISCARD)
            if key is Key.QUIT:
                self._quit = True
                return RecordStep(RecordCommand.STOP)
            if key not in (Key.UNDO, Key.HIGHLIGHT):
                return RecordStep(RecordCommand.STOP, "" if key is Key.NEXT else key.value)
        return None

    def _between(self, phase: RecorderPhase, saved: int, keys: list[Key]) -> RecordStep | None:
        for key in keys:
            if key is Key.QUIT:
                self._quit = True
            elif key is Key.NEXT:
                self._held, self._skip_pause = False, True
            elif key is Key.AGAIN and self.recorded(saved):
                return RecordStep(RecordCommand.DISCARD)
            elif key is Key.UNDO:
                return RecordStep(RecordCommand.UNDO)
            elif key in (Key.SUCCESS, Key.FAILURE):
                return RecordStep(RecordCommand.LABEL, key.value)
        complete = 0 < self.settings.episodes <= self.recorded(saved)
        if self._quit or complete or self.failed:
            self.done = True
            return None
        if self._held or (phase is RecorderPhase.RESETTING and not self._skip_pause):
            return None
        self._skip_pause = False
        return RecordStep(RecordCommand.START)
