# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What the command line writes to a terminal: lines, colours and their absence."""

from __future__ import annotations

import os
import sys
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
