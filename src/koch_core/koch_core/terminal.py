# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What command lines write to a terminal: lines that fit its columns, colours, progress.

Who writes a line that lives on a screen gives its parts and how dear each is; `fit` shortens and
drops them until the line has room. No one else asks for a width.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
import textwrap
import time
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TextIO

DEFAULT_COLUMNS = 80
CLEAR_LINE = "\r\033[K"
ELLIPSIS = "…"
ESCAPE = re.compile(r"\033\[[0-9;?]*[A-Za-z]")
COLOURS = {"red": 31, "green": 32, "yellow": 33, "blue": 34, "magenta": 35, "cyan": 36}


def say(text: str = "") -> None:
    """Write a line to standard output and flush it, so that pipes see it at once.

    On a terminal it breaks between words, and goes on indented.
    """
    if sys.stdout.isatty():
        text = fold(text, columns(sys.stdout), "    ")
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def complain(text: str) -> None:
    """Write a message to standard error; on a terminal it breaks between words."""
    if sys.stderr.isatty():
        text = fold(text, columns(sys.stderr))
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def interject(text: str) -> None:
    """Write what someone else says, a node or a library, to standard error.

    On a terminal it gets a line of its own and breaks between words. What stood there is wiped;
    a status line draws itself again below, with its next figures.
    """
    if sys.stderr.isatty():
        text = CLEAR_LINE + fold(text, columns(sys.stderr), "    ")
    # One write: a status line of another thread comes before or after it, never between.
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


class Interjections(logging.Handler):
    """Writes what libraries log as `interject` does."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        interject(self.format(record))


def wants_colour(stream: TextIO) -> bool:
    """Say whether escape sequences belong on this stream (see https://no-color.org)."""
    if os.environ.get("NO_COLOR"):
        return False
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def paint(text: str, colour: str, *, enabled: bool) -> str:
    """Wrap a text into the escape sequence of a colour of COLOURS, or leave it alone."""
    return f"\033[{COLOURS[colour]}m{text}\033[0m" if enabled else text


def columns(stream: TextIO | None = None) -> int:
    """How many characters a line of the terminal behind a stream holds.

    $COLUMNS counts first, as everywhere; a terminal that does not know its size has 80.
    """
    wanted = os.environ.get("COLUMNS", "")
    if wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    try:
        size = os.get_terminal_size((stream or sys.stdout).fileno())
    except (OSError, ValueError):  # a pipe, a file, a buffer
        return DEFAULT_COLUMNS
    return size.columns or DEFAULT_COLUMNS


def rows() -> int:
    """How many lines the terminal shows."""
    return shutil.get_terminal_size((DEFAULT_COLUMNS, 24)).lines


def width_of(text: str) -> int:
    """Columns that a text takes; escape sequences take none, wide characters two."""
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    narrow = sum(bool(unicodedata.combining(char)) for char in text)
    return len(ESCAPE.sub("", text)) + wide - narrow


def clip(text: str, width: int) -> str:
    """Cut a text that is too wide, with an ellipsis; colours are closed."""
    if width_of(text) <= width:
        return text
    kept, left, coloured = "", max(0, width - 1), False
    pieces = re.split(f"({ESCAPE.pattern})", text)
    for piece in pieces:
        if ESCAPE.fullmatch(piece):
            kept, coloured = kept + piece, True
            continue
        for char in piece:
            left -= width_of(char)
            if left < 0:
                return kept + ELLIPSIS + ("\033[0m" if coloured else "")
            kept += char
    return kept


@dataclass(frozen=True)
class LinePart:
    """A piece of a line.

    Attributes:
        text: As it reads where there is room.
        rank: What has the highest rank is shortened, then dropped, first; 0 always stays.
        short: A shorter form; empty for none.
    """

    text: str
    rank: int = 0
    short: str = ""


def fit(parts: Sequence[LinePart], width: int | None, gap: str = "  ") -> str:
    """Join parts into one line of at most `width` columns; None for no limit.

    Of equal ranks the last part goes first. What cannot be dropped is cut.
    """
    forms = [[part.text, *([part.short] if part.short else [])] for part in parts]
    for form, part in zip(forms, parts, strict=True):
        if part.rank:
            form.append("")

    def line() -> str:
        return gap.join(form[0] for form in forms if form[0])

    while width is not None and width_of(line()) > width:
        longer = [index for index, form in enumerate(forms) if len(form) > 1]
        if not longer:
            return clip(line(), width)
        del forms[max(longer, key=lambda index: (parts[index].rank, index))][0]
    return line()


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: Its heading.
        rank: The column with the highest rank is left out first; 0 always stays.
        right: Cells end at the same place, as numbers do.
    """

    title: str
    rank: int = 0
    right: bool = False


def table(heads: Sequence[Column], cells: Sequence[Sequence[str]], width: int | None) -> list[str]:
    """Write a table of at most `width` columns, None for no limit; the first line is its head."""
    lines = [[head.title for head in heads], *cells]
    widths = [max(width_of(line[k]) for line in lines) for k in range(len(heads))]
    shown = list(range(len(heads)))
    while width is not None and sum(widths[k] + 2 for k in shown) - 2 > width:
        spare = [k for k in shown if heads[k].rank]
        if not spare:
            break
        shown.remove(max(spare, key=lambda k: (heads[k].rank, k)))

    def cell(line: Sequence[str], k: int) -> str:
        blank = " " * (widths[k] - width_of(line[k]))
        return blank + line[k] if heads[k].right else line[k] + blank

    texts = ["  ".join(cell(line, k) for k in shown).rstrip() for line in lines]
    return texts if width is None else [clip(text, width) for text in texts]


def limit(stream: TextIO | None = None) -> int | None:
    """Columns of a terminal; None, for no limit, where a stream is none."""
    chosen = sys.stdout if stream is None else stream
    return columns(chosen) if chosen.isatty() else None


def fold(text: str, width: int, indent: str = "") -> str:
    """Break the lines of a text that are too long between words; paths stay whole.

    Args:
        text: May hold several lines; each keeps its own indentation.
        width: Columns.
        indent: Put before what a line continues with, behind the line's own indentation.
    """
    lines = []
    for line in text.split("\n"):
        own = line[: len(line) - len(line.lstrip())]
        if width_of(line) <= width:
            lines.append(line)
            continue
        lines += textwrap.wrap(
            line,
            max(width, len(own) + len(indent) + 10),
            subsequent_indent=own + indent,
            break_long_words=False,
            break_on_hyphens=False,
        ) or [""]
    return "\n".join(lines)


class StatusLine:
    """A line that is written over itself on a terminal; elsewhere a line now and then.

    Args:
        stream: Where to; standard output by default.
        every_s: How often a pipe gets a line [s].
        clock: Monotonic time [s].
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        every_s: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = sys.stdout if stream is None else stream
        self._terminal = self._stream.isatty()
        self._every_s, self._clock = every_s, clock
        self._shown_s: float | None = None

    def show(self, parts: Sequence[LinePart]) -> None:
        """Write the line."""
        now_s = self._clock()
        if self._terminal:
            # The last column stays free: some terminals wrap as soon as it is written.
            self._stream.write(CLEAR_LINE + fit(parts, columns(self._stream) - 1))
        elif self._shown_s is None or now_s - self._shown_s >= self._every_s:
            self._stream.write(fit(parts, None) + "\n")
        else:
            return
        self._shown_s = now_s
        self._stream.flush()

    def end(self) -> None:
        """Let what follows begin on a line of its own."""
        if self._terminal and self._shown_s is not None:
            self._stream.write("\n")
            self._stream.flush()
        self._shown_s = None


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
