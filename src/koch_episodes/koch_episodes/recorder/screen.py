# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The terminal view of a recording: readable from where the arm stands. No ROS."""

from __future__ import annotations

import math
import shutil
from collections import deque
from typing import Any

from koch_episodes.recorder.quality import Light
from koch_episodes.recorder.session import Phase

CLEAR, HOME, CLEAN_LINE, CLEAN_BELOW = "\033[2J", "\033[H", "\033[K", "\033[J"
HIDE_CURSOR, SHOW_CURSOR = "\033[?25l", "\033[?25h"
OTHER_SCREEN, FIRST_SCREEN = "\033[?1049h", "\033[?1049l"
_INVERSE = {
    Phase.IDLE: "\033[7m",
    Phase.WAITING: "\033[30;43m",
    Phase.RECORDING: "\033[97;41;1m",
    Phase.SAVING: "\033[30;46m",
    Phase.RESETTING: "\033[30;44m",
}
_COLOUR = {Light.GREEN: "\033[32m", Light.AMBER: "\033[33m", Light.RED: "\033[31m"}
_PLAIN = "\033[0m"
_DIGITS = {
    "0": ("███", "█ █", "█ █", "█ █", "███"),
    "1": ("  █", "  █", "  █", "  █", "  █"),
    "2": ("███", "  █", "███", "█  ", "███"),
    "3": ("███", "  █", "███", "  █", "███"),
    "4": ("█ █", "█ █", "███", "  █", "  █"),
    "5": ("███", "█  ", "███", "  █", "███"),
    "6": ("███", "█  ", "███", "█ █", "███"),
    "7": ("███", "  █", "  █", "  █", "  █"),
    "8": ("███", "█ █", "███", "█ █", "███"),
    "9": ("███", "█ █", "███", "  █", "███"),
    ":": (" ", "█", " ", "█", " "),
    "/": ("  █", "  █", " █ ", "█  ", "█  "),
    " ": ("  ", "  ", "  ", "  ", "  "),
}
KEYS = "n → next    r ← again    s success    f failure    u undo    q Esc stop"


def big(text: str) -> list[str]:
    """Digits five lines high."""
    rows = ["  ".join(_DIGITS[char][row] for char in text if char in _DIGITS) for row in range(5)]
    return [row.rstrip() for row in rows]


def clock(seconds: float) -> str:
    """Seconds as M:SS."""
    whole = max(0, math.ceil(seconds - 1e-6))
    return f"{whole // 60}:{whole % 60:02d}"


class Screen:
    """Draws statuses.

    Args:
        goal: Number of episodes wanted, 0 for no limit.
        colour: Escape sequences for colours are understood.
    """

    def __init__(self, goal: int, *, colour: bool = True) -> None:
        self._goal = goal
        self._colour = colour
        self.history: deque[str] = deque(maxlen=6)
        self.message = ""

    def remember(self, line: str) -> None:
        """Add a line on a finished episode."""
        self.history.append(line)

    def _paint(self, text: str, code: str) -> str:
        return f"{code}{text}{_PLAIN}" if self._colour else text

    def lines(self, status: Any, recorded: int, *, waits: bool, width: int = 80) -> list[str]:
        """The view as lines.

        Args:
            status: koch_interfaces/EpisodeStatus.
            recorded: Episodes of this run that are saved.
            waits: The next episode needs a key.
            width: Columns of the terminal.
        """
        phase, light = Phase(status.phase), Light(status.light)
        goal = f"/{self._goal}" if self._goal else ""
        word = "PRESS n TO RECORD" if waits and phase is Phase.IDLE else phase.name
        title = f" {word}   episode {status.episode_index}   {recorded}{goal} saved"
        left = status.remaining_s if status.remaining_s >= 0.0 else status.elapsed_s
        result = [self._paint(title.ljust(width), _INVERSE[phase]), ""]
        result += ["    " + row for row in big(clock(left))]
        result += ["", f" {status.task}"[:width], ""]
        lamp = self._paint(f"● {light.name}", _COLOUR[light])
        result += [f" {lamp}  {status.reason}"[: width + 12], ""]
        result += [self._stream(item) for item in status.streams]
        minutes = status.disk_minutes_left
        room = f"{minutes:.0f} min of recording left" if minutes >= 0.0 else "unknown"
        result += ["", f" disk: {room}", ""]
        result += [f" {line}"[:width] for line in self.history]
        if self.message:
            result += ["", f" {self.message}"[: 3 * width]]
        return [*result, "", f" {KEYS}"]

    def _stream(self, item: Any) -> str:
        lamp = self._paint("●", _COLOUR[Light(item.light)])
        wanted = f"/{item.expected_hz:.0f}" if item.expected_hz else ""
        lost = f"  lost {item.lost}" if item.lost else ""
        gap = f"{item.max_gap_s * 1e3:5.0f} ms gap"
        return f"  {lamp} {item.name:<28} {item.rate_hz:6.1f}{wanted:<4} Hz {gap}{lost}"

    def draw(self, status: Any, recorded: int, *, waits: bool) -> str:
        """The view with escape sequences that put it in the place of the last one."""
        width = shutil.get_terminal_size().columns
        lines = self.lines(status, recorded, waits=waits, width=width)
        return HOME + "".join(f"{line}{CLEAN_LINE}\r\n" for line in lines) + CLEAN_BELOW
