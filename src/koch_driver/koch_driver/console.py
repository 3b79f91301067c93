# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A small terminal: single keys, prompts and a block of lines that is drawn over itself."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from typing import TYPE_CHECKING, TextIO

from koch_driver.errors import DialogueEnded

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

_ENTER = ("\n", "\r")
_QUIT = ("q", "\x03", "\x1b")


class Console:
    """Keys from standard input (a terminal, or a pipe in scripts), text to standard output.

    A context manager: inside, a terminal hands out keys at once and does not echo them.
    """

    def __init__(self, stdin_fd: int = 0, out: TextIO | None = None) -> None:
        self._fd = stdin_fd
        self._out = out or sys.stdout
        self._saved: list[object] | None = None
        self._drawn = 0

    def __enter__(self) -> Console:
        if os.isatty(self._fd):
            self._saved = termios.tcgetattr(self._fd)
            tty.setcbreak(self._fd)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._saved is not None:
            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._saved)  # type: ignore[arg-type]
            self._saved = None

    def say(self, text: str) -> None:
        """Print a paragraph below everything drawn so far."""
        self._drawn = 0
        self._out.write(text + "\n")
        self._out.flush()

    def draw(self, lines: Sequence[str]) -> None:
        """Draw a block over the block drawn before."""
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        self._out.write(up + "".join(f"\x1b[2K{line}\n" for line in lines))
        self._out.flush()
        self._drawn = len(lines)

    def key(self, wait_s: float | None) -> str | None:
        """Next key; None when none came in time.

        Raises:
            DialogueEnded: q, Esc or Ctrl-C was pressed, or the input ended.
        """
        ready, _, _ = select.select([self._fd], [], [], wait_s)
        if not ready:
            return None
        data = os.read(self._fd, 1)
        if not data:
            raise DialogueEnded("the input ended")
        key = data.decode("latin-1").lower()
        if key in _QUIT:
            raise DialogueEnded("you ended it")
        return key

    def enter_pressed(self, wait_s: float) -> bool:
        """Whether ENTER comes within the time; other keys are passed over."""
        key = self.key(wait_s)
        return key in _ENTER

    def wait_enter(self, text: str) -> None:
        """Say something and wait for ENTER."""
        self.say(text)
        while not self.enter_pressed(3600.0):
            continue

    def choose(self, text: str, keys: str) -> str:
        """Say something and wait for one of `keys`; ENTER is the first of them."""
        self.say(text)
        while True:
            key = self.key(None)
            if key in _ENTER:
                return keys[0]
            if key is not None and key in keys:
                return key
