# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A pseudo-terminal of 80 x 24 for a command, and what a person would see on it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

COLUMNS, LINES = 80, 24
LONG_WORD = 60
_SEQUENCE = re.compile(r"\033\[([?0-9;]*)([A-Za-z])|\033[()][A-Za-z0-9]|\033[=>]")


class Glass:
    """Follows what is written as a terminal does, and notes each line that was too long.

    Attributes:
        lines: What is shown, top to bottom.
        wrapped: Lines that ran over the right edge, whole.
        scrolled: Lines that left at the top while a screen was drawn in place.
    """

    def __init__(self, columns: int = COLUMNS, lines: int = LINES) -> None:
        self._columns, self._height = columns, lines
        self.lines = [""] * lines
        self.wrapped: list[str] = []
        self.scrolled: list[str] = []
        self._row = self._column = 0
        self._rest = ""
        self._in_place = self._runs_over = False

    def write(self, text: str) -> None:
        """Take what a program wrote."""
        text = self._rest + text
        start = text.rfind("\033", max(0, len(text) - 12))
        is_open = start >= 0 and _SEQUENCE.match(text, start) is None
        text, self._rest = (text[:start], text[start:]) if is_open else (text, "")
        place = 0
        while place < len(text):
            found = _SEQUENCE.match(text, place)
            if found:
                self._control(found[1] or "", found[2] or "")
                place = found.end()
                continue
            self._char(text[place])
            place += 1

    def _control(self, values: str, kind: str) -> None:
        if kind == "H":
            self._row = self._column = 0
            self._in_place = True
        elif kind == "J":
            first = 0 if values == "2" else self._row + (self._column > 0)
            self.lines = [*self.lines[:first], *[""] * (self._height - first)]
        elif kind == "K":
            self.lines[self._row] = self.lines[self._row][: self._column]
            if values == "2":
                self.lines[self._row] = ""
        elif kind == "A":
            self._row = max(0, self._row - int(values or 1))
        elif kind == "l" and values == "?1049":
            self._in_place = False

    def _char(self, char: str) -> None:
        if char == "\r":
            self._column = 0
        elif char == "\n":
            self._column = 0  # as the line discipline turns it into \r\n
            self._runs_over = False
            self._down()
        elif char >= " ":
            width = 2 if unicodedata.east_asian_width(char) in "WF" else 1
            if self._column + width > self._columns:
                if not self._runs_over:
                    self.wrapped.append(self.lines[self._row])
                self._runs_over = True
                self._column = 0
                self._down()
            if self._runs_over:
                self.wrapped[-1] += char
            line = self.lines[self._row].ljust(self._column)
            self.lines[self._row] = line[: self._column] + char + line[self._column + 1 :]
            self._column += width

    def _down(self) -> None:
        if self._row + 1 < self._height:
            self._row += 1
            return
        gone, self.lines = self.lines[0], [*self.lines[1:], ""]
        if self._in_place:
            self.scrolled.append(gone)


class NarrowTerminal:
    """Runs a command on a terminal of 80 x 24.

    Args:
        command: Its words.
        environment: Its variables; COLUMNS and NO_COLOR are taken away.
        folder: Where it runs.

    A context manager; the command's process group is killed at its end.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], folder: Path | None = None
    ) -> None:
        self.glass = Glass()
        self.text = ""
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        variables = {k: v for k, v in environment.items() if k not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            list(command),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**variables, "TERM": "xterm-256color"},
            cwd=folder,
            start_new_session=True,
        )
        os.close(slave)

    def __enter__(self) -> NarrowTerminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        os.close(self._master)

    def press(self, keys: str) -> None:
        """Type something."""
        os.write(self._master, keys.encode())

    def read(self, seconds: float) -> bool:
        """Take what comes within a time; False when the command has closed the terminal."""
        ready, _, _ = select.select([self._master], [], [], seconds)
        if not ready:
            return True
        try:
            data = os.read(self._master, 65536)
        except OSError:  # EIO: nobody has it open any more
            return False
        text = data.decode("utf-8", "replace")
        self.text += text
        self.glass.write(text)
        return bool(data)

    def wait_for(self, what: str | Callable[[], bool], seconds: float = 60.0) -> None:
        """Read until a text was written, or something holds."""

        def is_there() -> bool:
            return what in self.text if isinstance(what, str) else what()

        deadline = time.monotonic() + seconds
        while not is_there():
            is_open = self.read(0.1)
            late = time.monotonic() > deadline
            if not (is_open or is_there()) or late:
                raise AssertionError(f"no {what!r} in:\n{self.text[-4000:]}")

    def end(self, seconds: float = 60.0) -> int:
        """Read until the command ends; its exit code."""
        deadline = time.monotonic() + seconds
        while self.read(0.1) or self.process.poll() is None:
            assert time.monotonic() < deadline, f"still running:\n{self.text[-4000:]}"
        return self.process.wait()

    def check(self) -> None:
        """Everything that was shown fitted; a long path may run over, since it stays whole."""
        long = [line for line in self.glass.wrapped if max(map(len, line.split())) < LONG_WORD]
        assert not long, f"longer than the terminal: {long}"
        assert not self.glass.scrolled, f"higher than the terminal: {self.glass.scrolled}"
