# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Keys from a terminal, one at a time, without waiting for Enter. No ROS."""

from __future__ import annotations

import sys
import termios
import tty
from typing import Any

from koch_core.closing import Opening
from koch_core.keys import (
    ESCAPE,
    LEFT,
    RIGHT,
    KeyDecoder,
    forget_typed,
    read_available,
)
from koch_episodes.recorder.plan import Key

_MEANINGS = {
    RIGHT: Key.NEXT,
    "n": Key.NEXT,
    " ": Key.NEXT,
    LEFT: Key.AGAIN,
    "r": Key.AGAIN,
    ESCAPE: Key.QUIT,
    "q": Key.QUIT,
    "s": Key.SUCCESS,
    "f": Key.FAILURE,
    "u": Key.UNDO,
    "h": Key.HIGHLIGHT,
}


def parse(data: bytes) -> list[Key]:
    """Turn all that a terminal sent into keys; what means nothing is left out."""
    decoder = KeyDecoder()
    decoder.feed(data)
    return _meanings(decoder.keys(at_end=True))


def _meanings(names: list[str]) -> list[Key]:
    return [_MEANINGS[name.lower()] for name in names if name.lower() in _MEANINGS]


class Lines:
    """Reads whole lines of standard input, terminal or not, without waiting for them.

    A line of one letter that is a key means that key; any other line is a text.
    """

    present = False  # no single keys
    echoes = True  # what is typed shows: nothing may be drawn over it

    def __init__(self) -> None:
        self._file = sys.stdin.fileno()
        self._rest = b""

    def __enter__(self) -> Lines:
        """Nothing to do: a terminal hands out whole lines by itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to do."""

    def read(self) -> list[Key | str]:
        """Return what the lines that came since the last call say; empty ones say nothing."""
        self._rest += read_available(self._file)
        *lines, self._rest = self._rest.split(b"\n")
        texts = [line.decode("utf-8", "replace").strip() for line in lines]
        return [_MEANINGS.get(text.lower(), text) for text in texts if text]

    def forget(self) -> None:
        """Nothing is forgotten: a line that came early is meant for the run that begins."""


class Keyboard(Opening):
    """Reads keys of standard input where that is a terminal; else there are none."""

    echoes = False

    def __init__(self) -> None:
        self._file = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else -1
        self._saved: list[Any] = []
        self._decoder = KeyDecoder()

    @property
    def present(self) -> bool:
        """Someone can press keys."""
        return self._file >= 0

    def open(self) -> None:
        """Switch the terminal to single keys; what was typed before is forgotten."""
        if self.present:
            self._saved = termios.tcgetattr(self._file)
            tty.setcbreak(self._file, termios.TCSAFLUSH)

    def close(self) -> None:
        """Put the terminal back; keys that were meant for this program do not reach the shell."""
        if self._saved:
            termios.tcsetattr(self._file, termios.TCSAFLUSH, self._saved)

    def read(self) -> list[Key]:
        """Return the keys pressed since the last call, without waiting."""
        return _meanings(self.read_names())

    def read_names(self) -> list[str]:
        """Return the same by name, those without a meaning as well."""
        if not self.present:
            return []
        self._decoder.feed(read_available(self._file))
        return self._decoder.keys()

    def forget(self) -> None:
        """Forget keys that were pressed while no one listened: they answer another question."""
        if self.present:
            forget_typed(self._file)
            self._decoder.clear()
