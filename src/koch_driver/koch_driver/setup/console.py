# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A small terminal: single keys, prompts and a block of lines that is drawn over itself."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections import deque
from typing import TYPE_CHECKING, TextIO

from koch_core.closing import Opening
from koch_core.keys import (
    ESCAPE,
    KeyDecoder,
    forget_typed,
    read_available,
)
from koch_core.terminal import columns, fold
from koch_driver.errors import DialogueEnded

if TYPE_CHECKING:
    from collections.abc import Sequence

_ENTER = ("\n", "\r")
_QUIT = ("q", "\x03", ESCAPE)
_LOOK_S = 0.1  # so soon an Esc key is told from the beginning of an arrow


class Console(Opening):
    """Keys from standard input (a terminal, or a pipe in scripts), text to standard output.

    A context manager: inside, a terminal hands out keys at once and does not echo them.
    """

    def __init__(self, stdin_fd: int = 0, out: TextIO | None = None) -> None:
        self._fd = stdin_fd
        self._out = out or sys.stdout
        self._saved: list[object] | None = None
        self._drawn = 0
        self._decoder = KeyDecoder()
        self._waiting: deque[str] = deque()

    def open(self) -> None:
        """Switch the terminal to single keys."""
        if os.isatty(self._fd):
            self._saved = termios.tcgetattr(self._fd)
            tty.setcbreak(self._fd)

    def close(self) -> None:
        """Put the terminal back."""
        if self._saved is not None:
            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._saved)  # type: ignore[arg-type]
            self._saved = None

    @property
    def columns(self) -> int:
        """How many characters a line holds."""
        return columns(self._out)

    def say(self, text: str) -> None:
        """Print a paragraph below everything drawn so far; long lines break between words."""
        self._drawn = 0
        if self._out.isatty():
            text = fold(text, self.columns)
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
        end_s = None if wait_s is None else time.monotonic() + wait_s
        while not self._waiting:
            left_s = _LOOK_S if end_s is None else min(_LOOK_S, max(0.0, end_s - time.monotonic()))
            ready, _, _ = select.select([self._fd], [], [], left_s)
            data = read_available(self._fd) if ready else b""
            self._decoder.feed(data)
            self._waiting.extend(self._decoder.keys(at_end=bool(ready) and not data))
            if ready and not data and not self._waiting:
                raise DialogueEnded("the input ended")
            if end_s is not None and not self._waiting and time.monotonic() >= end_s:
                return None
        key = self._waiting.popleft().lower()
        if key in _QUIT:
            raise DialogueEnded("you ended it")
        return key

    def forget(self) -> None:
        """Forget keys typed before a question is asked: they answer another one."""
        forget_typed(self._fd)
        if os.isatty(self._fd):
            self._decoder.clear()
            self._waiting.clear()

    def enter_pressed(self, wait_s: float) -> bool:
        """Whether ENTER comes within the time; other keys are passed over."""
        key = self.key(wait_s)
        return key in _ENTER

    def choose(self, text: str, keys: str, *, enter: bool = True) -> str:
        """Say something and wait for one of `keys`.

        Args:
            text: The question.
            keys: Letters that answer it.
            enter: ENTER is the first of them. False where an answer writes into a motor's EEPROM:
                that must not happen to a person who presses ENTER to go on.
        """
        self.forget()
        self.say(text)
        while True:
            key = self.key(None)
            if key in _ENTER and not enter:
                self.say(f"ENTER writes nothing: press {' or '.join(keys)} (q ends).")
            elif key in _ENTER:
                return keys[0]
            if key is not None and key in keys:
                return key
