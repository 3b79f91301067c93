# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What the command line writes to a terminal: lines, colours and their absence."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import TextIO

COLOURS = {"red": 31, "green": 32, "yellow": 33, "blue": 34, "magenta": 35, "cyan": 36}


def say(text: str = "") -> None:
    """Write one line to standard output and flush it, so that pipes see it at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def complain(text: str) -> None:
    """Write one line to standard error."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def wants_colour(stream: TextIO) -> bool:
    """Say whether escape sequences belong on this stream (see https://no-color.org)."""
    if os.environ.get("NO_COLOR"):
        return False
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def paint(text: str, colour: str, *, enabled: bool) -> str:
    """Wrap a text into the escape sequence of a colour of COLOURS, or leave it alone."""
    return f"\033[{COLOURS[colour]}m{text}\033[0m" if enabled else text


class Progress:
    """Shows how far long work is, and how long it will still take.

    Args:
        say: Writes a line.
        unit: What is counted.
        total: How many there will be.
        done: How many there are already, from before.
        clock: Monotonic time [s].
    """

    def __init__(
        self,
        say: Callable[[str], None],
        unit: str,
        total: int,
        done: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say, self._unit, self._total = say, unit, total
        self._first, self._clock = done, clock
        self._started_s = clock()

    def show(self, done: int, remark: str = "") -> None:
        """Write one line: count, remaining time, remark."""
        left = ""
        if done > self._first:
            each_s = (self._clock() - self._started_s) / (done - self._first)
            left = f", about {duration((self._total - done) * each_s)} left"
        self._say(
            f"      {done}/{self._total} {self._unit}{left}{'  ' + remark if remark else ''}"
        )


def duration(seconds: float) -> str:
    """Write a duration for a person: 42 s, 3 min, 2 h 05 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"
