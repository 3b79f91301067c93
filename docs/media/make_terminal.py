# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Draws docs/media/terminal.webp: a real run of `koch demo` in a terminal, sixty times as fast.

python docs/media/make_terminal.py [--words "demo --quick" --speed 60]

The run takes its time, six minutes for the demo. What it prints is drawn as it was printed. Only
the waits are shorter, and the checkout's folder is called ~/koch_vla.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont
from webp import save

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
ROWS, COLUMNS = 24, 96
FONT = "fonts/ttf/DejaVuSansMono.ttf"  # comes with matplotlib
FONT_PX, LINE_PX, EDGE_PX = 13, 17, 10
PAPER, INK, FAINT = "#11161c", "#d7dee6", "#7ee787"
SHORTEST_S, LONGEST_S, END_S = 0.1, 1.5, 5.0  # of one image
CONTROLS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
MAX_BYTES = 1_000_000


class PrintedScreen:
    """The lines of a terminal, as far as koch uses one: new line, return, clear to the end."""

    def __init__(self) -> None:
        self.lines = [""]
        self._fresh = True

    def write(self, text: str) -> None:
        """Show a text."""
        for part in re.split(r"(\r\n|\n|\r|\x1b\[[0-9;?]*[A-Za-z])", text):
            if part in ("\n", "\r\n"):
                self.lines.append("")
            elif part == "\r" or part == "\x1b[K":
                self._fresh = True  # what comes next replaces the line
            elif part and not CONTROLS.fullmatch(part):
                self.lines[-1] = part if self._fresh else self.lines[-1] + part
            if part != "\r" and part != "\x1b[K" and part:
                self._fresh = False

    @property
    def shown(self) -> tuple[str, ...]:
        """What is on the screen now."""
        wrapped = [
            line[at : at + COLUMNS]
            for line in self.lines
            for at in range(0, max(1, len(line)), COLUMNS)
        ]
        return tuple(wrapped[-ROWS:])


def run(words: list[str]) -> list[tuple[float, str]]:
    """Run koch in a terminal; what it printed, and when [s]."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    process = subprocess.Popen(
        ["./koch", *words], stdin=slave, stdout=slave, stderr=slave, cwd=ROOT
    )
    os.close(slave)
    begin, printed = time.monotonic(), []
    while True:
        try:
            data = os.read(master, 65536)
        except OSError:  # the run is over
            break
        text = data.decode("utf-8", "replace").replace(str(ROOT), "~/koch_vla")
        sys.stdout.write(text)
        sys.stdout.flush()
        printed.append((time.monotonic() - begin, text))
    assert process.wait() == 0, f"koch {shlex.join(words)} failed: not an image for a README"
    return printed


def images(
    command: str, printed: list[tuple[float, str]], speed: float
) -> list[tuple[tuple[str, ...], float]]:
    """Screens and how long each stays [s]."""
    screen = PrintedScreen()
    screen.write(f"$ {command}\n")
    found, since_s = [(screen.shown, 0.0)], 0.0
    for at_s, text in printed:
        screen.write(text)
        if (at_s - since_s) / speed < SHORTEST_S:
            continue
        found[-1] = (found[-1][0], min(LONGEST_S, (at_s - since_s) / speed))
        found.append((screen.shown, SHORTEST_S))
        since_s = at_s
    found.append((screen.shown, END_S))
    return found


def draw(lines: tuple[str, ...]) -> Image.Image:
    """One screen."""
    font = ImageFont.truetype(str(Path(matplotlib.get_data_path()) / FONT), FONT_PX)
    width = round(COLUMNS * font.getlength("m")) + 2 * EDGE_PX
    image = Image.new("RGB", (width, ROWS * LINE_PX + 2 * EDGE_PX), PAPER)
    pen = ImageDraw.Draw(image)
    for row, line in enumerate(lines):
        ink = FAINT if line.startswith(("$", "[")) else INK
        pen.text((EDGE_PX, EDGE_PX + row * LINE_PX), line, fill=ink, font=font)
    return image


def main() -> None:
    """Run, draw, write the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--words", default="demo", help="what koch is asked for")
    parser.add_argument("--more", default="", help="further words, not shown: --folder, --fresh")
    parser.add_argument("--speed", type=float, default=60.0)
    options = parser.parse_args()
    printed = run([*shlex.split(options.words), *shlex.split(options.more)])
    shown = images(f"./koch {options.words}", printed, options.speed)
    drawn = [draw(lines) for lines, _ in shown]
    durations = [round(1e3 * seconds) for _, seconds in shown]
    save(HERE / "terminal.webp", drawn, durations, quality=50, most=MAX_BYTES)


if __name__ == "__main__":
    main()
