# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Who else commands the arm, and what its guard's state means for a run. No ROS.

Every other source has priority over the policy.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

POLICY = "policy"
HUMAN = "teleop"
OTHERS = ("trajectory", "replay")
SOURCE_TIMEOUT_S = 0.5
"""The guard's source timeout: so long after its last command a source keeps the arm."""
# A guard says its state once a second; one that is silent for longer has died.
_GUARD_SILENT_S = 3.0
# Half of a second's commands: a policy whose commands are refused does not drive the arm.
_REFUSED = 15
_WINDOW_S = 1.2


class Driven(Protocol):
    """Tells who drives what a policy is to move."""

    def driver(self) -> tuple[str, int] | None:
        """The source that drives now and its newest stamp [ns]; None: the policy may."""
        ...


class Takeover:
    """Remembers who drives; safe between threads.

    The guard decides that, and its word counts while it is there. Without one (an older driver, a
    test without an arm) every other source counts that was heard on its topic a moment ago.

    Args:
        timeout_s: How long a source counts after its last command [s].
        monotonic: Clock [s].
    """

    def __init__(
        self, timeout_s: float = SOURCE_TIMEOUT_S, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._timeout_s = timeout_s
        self._monotonic = monotonic
        self._heard: dict[str, tuple[float, int]] = {}
        self._guard: tuple[float, str, int] = (float("-inf"), "", 0)
        self._lock = threading.Lock()

    def heard(self, source: str, stamp_ns: int) -> None:
        """A source commanded, with this stamp."""
        with self._lock:
            self._heard[source] = (self._monotonic(), stamp_ns)

    def guard_says(self, source: str, stamp_ns: int) -> None:
        """The guard follows this source now, no one where it is empty."""
        with self._lock:
            self._guard = (self._monotonic(), source, stamp_ns)

    def is_told(self) -> bool:
        """Whether a guard or a source was heard since the start; before, no driver is known."""
        with self._lock:
            return bool(self._heard) or self._guard[0] > float("-inf")

    def driver(self) -> tuple[str, int] | None:
        """The source that drives now and its newest stamp [ns]; None: the arm is free."""
        now = self._monotonic()
        with self._lock:
            at, source, stamp_ns = self._guard
            if now - at <= _GUARD_SILENT_S:
                return (source, stamp_ns) if source not in ("", POLICY) else None
            for source in (HUMAN, *OTHERS):
                at, stamp_ns = self._heard.get(source, (float("-inf"), 0))
                if now - at <= self._timeout_s:
                    return source, stamp_ns
        return None


class Takeovers:
    """Who drives any of several arms: a policy of two arms pauses when a human takes one.

    Args:
        arms: Their names.
    """

    def __init__(self, arms: Iterable[str]) -> None:
        self.of = {arm: Takeover() for arm in arms}

    def is_told(self) -> bool:
        """Whether it is known of each arm who drives it."""
        return all(takeover.is_told() for takeover in self.of.values())

    def driver(self) -> tuple[str, int] | None:
        """The first source found that drives one of them; None: all are free."""
        found = (takeover.driver() for takeover in self.of.values())
        return next((driver for driver in found if driver is not None), None)


@dataclass(frozen=True)
class GuardWord:
    """A message of the guard, without ROS.

    Attributes:
        still: Why the arm obeys no one (stopped, or without torque); empty when it does.
        stop_count: Stops and releases so far.
        refused: Refused commands of the policy so far, by the text of the reason.
    """

    still: str
    stop_count: int
    refused: tuple[tuple[str, int], ...] = ()


class GuardWatch:
    """Compares the guard's words with each other.

    Args:
        arm: The arm's name, for the reasons.
        on_end: Called with the reason when a run must end.
        monotonic: Clock [s].
    """

    def __init__(
        self,
        arm: str,
        on_end: Callable[[str], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._arm = arm
        self._on_end = on_end
        self._monotonic = monotonic
        self._stop_count: int | None = None
        self._refused: deque[tuple[float, int]] = deque()
        #: Why no run may begin now; empty when one may.
        self.blocked = ""

    def take(self, word: GuardWord) -> None:
        """Take a message."""
        stopped = self._stop_count not in (None, word.stop_count)
        self._stop_count = word.stop_count
        self.blocked = f"{self._arm}: {word.still}" if word.still else ""
        if self.blocked:
            self._on_end(self.blocked)
        elif stopped:
            # A resume that followed at once lets others begin; what was under way has ended.
            self._on_end(f"{self._arm} was stopped, and resumed before this could be looked at")
        self._count(word.refused)

    def _count(self, refused: Iterable[tuple[str, int]]) -> None:
        refused = tuple(refused)
        total, now = sum(count for _, count in refused), self._monotonic()
        while self._refused and now - self._refused[0][0] > _WINDOW_S:
            self._refused.popleft()
        more = total - (self._refused[0][1] if self._refused else total)
        self._refused.append((now, total))
        if more >= _REFUSED:
            self._refused.clear()
            texts = "; ".join(text for text, _ in refused)
            self._on_end(f"the guard refused {more} commands in a second: {texts}")
