# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Keys from a terminal, one at a time, without waiting for Enter. No ROS."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from types import TracebackType
from typing import Any

from koch_episodes.recorder.plan import Key

_SEQUENCES = {b"\x1b[C": Key.NEXT, b"\x1bOC": Key.NEXT, b"\x1b[D": Key.AGAIN, b"\x1bOD": Key.AGAIN}
_LETTERS = {
    b"n": Key.NEXT,
    b" ": Key.NEXT,
    b"r": Key.AGAIN,
    b"q": Key.QUIT,
    b"s": Key.SUCCESS,
    b"f": Key.FAILURE,
    b"u": Key.UNDO,
    b"\x1b": Key.QUIT,
}


def parse(data: bytes) -> list[Key]:
    """Turn what a terminal sent into keys; what means nothing is left out."""
    keys = []
    while data:
        if data[:3] in _SEQUENCES:
            keys.append(_SEQUENCES[data[:3]])
            data = data[3:]
        elif data[:2] in (b"\x1b[", b"\x1bO"):
            data = data[3:]  # another arrow or function key; not the Esc key
        else:
            key = _LETTERS.get(data[:1].lower())
            if key is not None:
                keys.append(key)
            data = data[1:]
    return keys


class Keyboard:
    """Reads keys of standard input where that is a terminal; else there are none."""

    def __init__(self) -> None:
        self._file = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else -1
        self._saved: list[Any] = []

    @property
    def present(self) -> bool:
        """Somebody can press keys."""
        return self._file >= 0

    def __enter__(self) -> Keyboard:
        """Switch the terminal to single keys."""
        if self.present:
            self._saved = termios.tcgetattr(self._file)
            tty.setcbreak(self._file)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Put the terminal back."""
        if self._saved:
            termios.tcsetattr(self._file, termios.TCSADRAIN, self._saved)

    def read(self) -> list[Key]:
        """Return the keys pressed since the last call, without waiting."""
        if not self.present or not select.select([self._file], [], [], 0.0)[0]:
            return []
        return parse(os.read(self._file, 64))
