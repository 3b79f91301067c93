# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A sign of life while something takes long: which step it is, and since when."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import TextIO

from koch_core.terminal import (
    CLEAR_LINE,
    clip,
    columns,
    fold,
)

_FIRST_S = 1.0  # what is quicker says nothing
_TERMINAL_S = 1.0
_PLAIN_S = 2.0
_PATIENT_S = 30.0  # a log file needs no line every two seconds of a long run


class Working:
    """Says every second what is going on: one line that is rewritten, or lines in a log.

    A context manager. The line goes away at the end.

    Args:
        text: The step, or a function that gives the whole line.
        stream: Where to write; standard error if absent.
        in_logs: Write lines where the stream is no terminal.
        at_once: Begin before the first second is over. What imports a large library holds up every
            thread, and on a busy machine the first line would come only at its end.
    """

    def __init__(
        self,
        text: str | Callable[[], str],
        stream: TextIO | None = None,
        *,
        in_logs: bool = True,
        at_once: bool = False,
    ) -> None:
        self._stream = stream or sys.stderr
        self._is_terminal = self._stream.isatty()
        self._is_quiet = not (in_logs or self._is_terminal)
        self._done = threading.Event()
        self._began_s = time.monotonic()
        self._lock = threading.Lock()
        self._drawn = False
        self._at_once = at_once
        self._thread = threading.Thread(target=self._run, name="working", daemon=True)
        self.now(text)

    def now(self, text: str | Callable[[], str]) -> None:
        """Begin another step."""
        self._since_s = time.monotonic()
        self._text = text

    def say(self, line: str, stream: TextIO | None = None, *, indent: str = "    ") -> None:
        """Write a line that stays, where the sign of life is or to another stream.

        On a terminal it breaks between words; what follows a break is indented.
        """
        with self._lock:
            self._wipe()
            chosen = stream or self._stream
            text = fold(line, columns(chosen), indent) if chosen.isatty() else line
            chosen.write(text + "\n")
            chosen.flush()

    def __enter__(self) -> Working:
        """Start."""
        if self._at_once:
            self._draw()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, and wipe the line."""
        self._done.set()
        self._thread.join()
        with self._lock:
            self._wipe()
            self._stream.flush()

    def _run(self) -> None:
        wait_s = _FIRST_S
        while not self._done.wait(wait_s):
            with self._lock:
                self._draw()
            running_s = time.monotonic() - self._began_s
            plain_s = _PLAIN_S if running_s < _PATIENT_S else _PATIENT_S
            wait_s = _TERMINAL_S if self._is_terminal else plain_s

    def _draw(self) -> None:
        if self._is_quiet:
            return
        text = self._text
        if not callable(text):
            line = f"{text} ({time.monotonic() - self._since_s:.0f} s)"
        else:
            line = text()
        if self._is_terminal:
            self._stream.write(CLEAR_LINE + clip(line, columns(self._stream) - 1))
            self._drawn = True
        else:
            self._stream.write(line + "\n")
        self._stream.flush()

    def _wipe(self) -> None:
        if self._drawn:
            self._stream.write(CLEAR_LINE)
            self._drawn = False
