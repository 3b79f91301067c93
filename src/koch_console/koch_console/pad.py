# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Who moves a follower's hand by the page's pad, and until when. No ROS."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from koch_console.commands import PadWord

#: A press of which nothing is heard for so long is over, as the jog node has it [s].
SILENT_S = 0.3
_LEAST_S = 0.02  # a page sends each 0.06 s; a flood is not passed on
_AGAIN = "The press was over; let go and press again."
_Page = TypeVar("_Page")


class Pad(Generic[_Page]):
    """Passes on the words of one page at a time, each when it comes; it repeats none.

    A press that was ended here counts no more until its page has let go: what comes late of it
    moves nothing.

    Args:
        move: Moves a hand; says why not.
        on_end: Is told which page's press was ended here, and why.
    """

    def __init__(
        self, move: Callable[[PadWord], str], on_end: Callable[[_Page, str], None]
    ) -> None:
        self._move, self._on_end = move, on_end
        self.holder: _Page | None = None
        self._arm = ""
        self._ended: set[_Page] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._moved_s = 0.0

    def hear(self, page: _Page, word: PadWord) -> str:
        """Take a page's word; why it moves nothing, empty where it does."""
        if not word.shares:
            self.let_go(page)
            return ""
        if page in self._ended:
            return _AGAIN
        if self.holder not in (None, page):
            return "Another page holds the pad."
        if self.holder is page and word.arm != self._arm:
            self.end("One arm at a time; press again.")
            return ""
        loop = asyncio.get_running_loop()
        if self.holder is None or loop.time() - self._moved_s >= _LEAST_S:
            if problem := self._move(word):
                if self.holder is None:
                    return problem
                self.end(problem)
                return ""
            self.holder, self._arm, self._moved_s = page, word.arm, loop.time()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_later(SILENT_S, self._on_silence)
        return ""

    def let_go(self, page: _Page) -> None:
        """A page lets go, or is gone; nothing where it does not press."""
        self._ended.discard(page)
        if self.holder is page:
            self._free()

    def end(self, why: str) -> None:
        """End the press that is under way, if one is."""
        page = self.holder
        if page is None:
            return
        self._ended.add(page)
        self._free()
        self._on_end(page, why)

    def _on_silence(self) -> None:
        self.end(f"Nothing came for {SILENT_S:g} s, so the hand rests. Press again.")

    def _free(self) -> None:
        """Let the hand rest at once; the jog node's deadman would take its time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.holder = None
        self._move(PadWord(self._arm, {}))
