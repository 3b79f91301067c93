# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What the guard's state means for a run: when it must end, and why one may not begin. No ROS."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

# Half of a second's commands: a policy whose commands are refused does not drive the arm.
_REFUSED = 15
_WINDOW_S = 1.2


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
