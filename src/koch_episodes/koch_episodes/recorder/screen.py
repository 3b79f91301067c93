# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The terminal view of a recording: readable from where the arm stands. No ROS."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

from koch_core.health import Light
from koch_core.terminal import (
    LinePart,
    clip,
    columns,
    fit,
    fold,
    rows,
)
from koch_episodes.recorder.session import RecorderPhase

CLEAR, HOME, CLEAN_LINE, CLEAN_BELOW = "\033[2J", "\033[H", "\033[K", "\033[J"
HIDE_CURSOR, SHOW_CURSOR = "\033[?25l", "\033[?25h"
OTHER_SCREEN, FIRST_SCREEN = "\033[?1049h", "\033[?1049l"
_INVERSE = {
    RecorderPhase.IDLE: "\033[7m",
    RecorderPhase.WAITING: "\033[30;43m",
    RecorderPhase.RECORDING: "\033[97;41;1m",
    RecorderPhase.SAVING: "\033[30;46m",
    RecorderPhase.RESETTING: "\033[30;44m",
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
KEYS = "n → next    r ← again    s success    f failure    u undo    h highlight    q Esc stop"
SHORT_KEYS = "n next  r again  s success  f failure  u undo  h highlight  q stop"
_KEPT_LINES = 6  # about finished episodes
_MESSAGE_LINES = 3


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
        self.history: deque[str] = deque(maxlen=_KEPT_LINES)
        self.message = ""

    def remember(self, line: str) -> None:
        """Add a line on a finished episode."""
        self.history.append(line)

    def _paint(self, text: str, code: str) -> str:
        return f"{code}{text}{_PLAIN}" if self._colour else text

    def lines(
        self, status: Any, recorded: int, *, waits: bool, width: int = 80, height: int = 24
    ) -> list[str]:
        """The view as lines that fit a terminal.

        Args:
            status: koch_interfaces/EpisodeStatus.
            recorded: Episodes of this run that are saved.
            waits: The next episode needs a key.
            width: Columns of the terminal.
            height: Its lines. Where they are too few, what is past goes first, then the empty
                lines, then the big clock becomes a small one; keys and complaints stay.
        """
        blocks = self._blocks(status, recorded, waits=waits, width=width)
        for spare in ("history", "gaps", "clock"):
            if sum(map(len, blocks.values())) <= height:
                break
            blocks = _without(blocks, spare, clock(self._left_s(status)), height)
        shown = [line for block in blocks.values() for line in block]
        return [clip(line, width) for line in shown][:height]

    def _left_s(self, status: Any) -> float:
        return float(status.remaining_s if status.remaining_s >= 0.0 else status.elapsed_s)

    def _blocks(
        self, status: Any, recorded: int, *, waits: bool, width: int
    ) -> dict[str, list[str]]:
        """The parts of the view from top to bottom."""
        phase, light = RecorderPhase(status.phase), Light(status.light)
        goal = f"/{self._goal}" if self._goal else ""
        word = "PRESS n TO RECORD" if waits and phase is RecorderPhase.IDLE else phase.name
        title = f" {word}   episode {status.episode_index}   {recorded}{goal} saved"
        lamp = self._paint(f"● {light.name}", _COLOUR[light])
        minutes = status.disk_minutes_left
        room = f"{minutes:.0f} min of recording left" if minutes >= 0.0 else "unknown"
        message = fold(self.message, width - 1).split("\n")[:_MESSAGE_LINES]
        return {
            "title": [self._paint(clip(title, width).ljust(width), _INVERSE[phase])],
            "gap 1": [""],
            "clock": ["    " + row for row in big(clock(self._left_s(status)))],
            "gap 2": [""],
            "task": [f" {status.task}"],
            "light": [f" {lamp}  {status.reason}"],
            "streams": [self._stream(item, width) for item in status.streams],
            "disk": [f" disk: {room}"],
            "history": ["", *(f" {line}" for line in self.history)],
            "message": ["", *(f" {line}" for line in message)] if self.message else [],
            "keys": ["", f" {KEYS}" if width > len(KEYS) + 1 else f" {SHORT_KEYS}"],
        }

    def _stream(self, item: Any, width: int) -> str:
        lamp = self._paint("●", _COLOUR[Light(item.light)])
        wanted = f"/{item.expected_hz:.0f}" if item.expected_hz else ""
        parts = [
            LinePart(f"  {lamp} {item.name:<28}", 0, f"  {lamp} {item.name}"),
            LinePart(f"{item.rate_hz:6.1f}{wanted:<4} Hz"),
            LinePart(f"{item.max_gap_s * 1e3:5.0f} ms gap", 2),
        ]
        if item.lost:
            parts.append(LinePart(f"lost {item.lost}", 1))
        return fit(parts, width, " ")

    def draw(self, status: Any, recorded: int, *, waits: bool) -> str:
        """The view with escape sequences that put it in the place of the last one."""
        # A line break behind the last line would scroll the first one away.
        lines = self.lines(status, recorded, waits=waits, width=columns(), height=rows() - 1)
        return HOME + "".join(f"{line}{CLEAN_LINE}\r\n" for line in lines) + CLEAN_BELOW


def _without(
    blocks: dict[str, list[str]], spare: str, small_clock: str, height: int
) -> dict[str, list[str]]:
    """The view with less of what can be spared."""
    if spare == "clock":
        return {**blocks, "clock": [f"    {small_clock}"]}
    if spare == "gaps":
        return {name: [line for line in block if line] for name, block in blocks.items()}
    over = sum(map(len, blocks.values())) - height
    history = blocks["history"]
    return {**blocks, "history": [history[0], *history[1 + over :]]}
