# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What a graph writes to the terminal: each node's lines behind its name, and one status line."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import TextIO

from koch_core.terminal import (
    CLEAR_LINE,
    LinePart,
    columns,
    fit,
    fold,
    paint,
    wants_colour,
)
from koch_vla.log_line import LogLine, parse, time_of_day
from koch_vla.node_spec import NodeSpec

PALETTE = ("cyan", "green", "magenta", "blue")  # yellow and red are for levels
LEVEL_COLOURS = {"WARN": "yellow", "ERROR": "red", "FATAL": "red"}
WIDEST_LABEL = 16  # a longer one moves its own lines only
CONTINUED = " " * 9  # under the label


class PrefixedOutput:
    """Writes `12:03:41 label LEVEL text`, labels padded to one width; ROS's own prefix is gone.

    Args:
        specs: The nodes that will speak.
        stream: Where to; standard output by default.
        log: A file that gets the same lines without colours and unbroken.
        clock: The time for lines that carry none, seconds since 1970.

    On a terminal lines break between words and the status stays the last line; elsewhere each
    new status is a line. May be called from any thread.
    """

    def __init__(
        self,
        specs: Sequence[NodeSpec],
        stream: TextIO | None = None,
        log: TextIO | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._stream = sys.stdout if stream is None else stream
        self._log = log
        self._clock = clock
        self._width = min(WIDEST_LABEL, max((len(spec.label) for spec in specs), default=0))
        self._colours = {
            spec.full_name: PALETTE[index % len(PALETTE)] for index, spec in enumerate(specs)
        }
        self._terminal = self._stream.isatty()
        self._colourful = wants_colour(self._stream)
        self._status: Sequence[LinePart] = ()
        self._lock = threading.Lock()

    def __call__(self, spec: NodeSpec, line: str) -> None:
        """Write one line of a node."""
        colour = self._colours.get(spec.full_name, PALETTE[0])
        self._line(spec.label, colour, parse(line))

    def say(self, text: str) -> None:
        """Write a line of `koch up` itself."""
        self._line("koch up", "", LogLine(None, "", text))

    def status(self, parts: Sequence[LinePart]) -> None:
        """Replace the status line; no parts take it away."""
        with self._lock:
            if self._terminal:
                self._status = tuple(parts)
                self._stream.write(CLEAR_LINE + self._status_text())
            elif tuple(parts) != self._status:
                self._status = tuple(parts)
                text = fit(parts, None)
                self._stream.write(text + "\n" if text else "")
            self._stream.flush()

    def _status_text(self) -> str:
        # The last column stays free: some terminals wrap as soon as it is written.
        return fit(self._status, columns(self._stream) - 1)

    def _line(self, label: str, colour: str, line: LogLine) -> None:
        when = time_of_day(self._clock() if line.when_s is None else line.when_s)
        name = label.ljust(self._width)
        plain = f"{when} {name} {line.words}"
        with self._lock:
            shown = fold(plain, columns(self._stream), CONTINUED) if self._terminal else plain
            if self._colourful:
                shown = _coloured(shown, label, colour, line.level)
            self._write(shown)
            if self._log is not None:
                self._log.write(plain + "\n")
                self._log.flush()

    def _write(self, line: str) -> None:
        if self._terminal and self._status:
            self._stream.write(f"{CLEAR_LINE}{line}\n{self._status_text()}")
        else:
            self._stream.write(line + "\n")
        self._stream.flush()


def _coloured(text: str, label: str, colour: str, level: str) -> str:
    """Paint the label, and the level where it is a complaint."""
    if colour:
        text = text.replace(label, paint(label, colour, enabled=True), 1)
    if level in LEVEL_COLOURS:
        text = text.replace(level, paint(level, LEVEL_COLOURS[level], enabled=True), 1)
    return text
