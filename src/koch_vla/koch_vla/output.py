# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What a graph writes to the terminal: each node's lines behind its name, and one status line."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from typing import TextIO

from koch_vla.node_spec import NodeSpec
from koch_vla.terminal import paint, wants_colour

PALETTE = ("cyan", "green", "yellow", "magenta", "blue")
CLEAR_LINE = "\r\033[K"


class PrefixedOutput:
    """Writes `label | line`, labels padded to one width.

    Args:
        specs: The nodes that will speak.
        stream: Where to; standard output by default.
        log: A file that gets the same lines without colours.

    On a terminal the status stays the last line; elsewhere each new status is a line.
    May be called from any thread.
    """

    def __init__(
        self, specs: Sequence[NodeSpec], stream: TextIO | None = None, log: TextIO | None = None
    ) -> None:
        self._stream = sys.stdout if stream is None else stream
        self._log = log
        self._width = max((len(spec.label) for spec in specs), default=0)
        self._colours = {
            spec.full_name: PALETTE[index % len(PALETTE)] for index, spec in enumerate(specs)
        }
        self._terminal = self._stream.isatty()
        self._colourful = wants_colour(self._stream)
        self._status = ""
        self._lock = threading.Lock()

    def __call__(self, spec: NodeSpec, line: str) -> None:
        """Write one line of a node."""
        label = spec.label.ljust(self._width)
        colour = self._colours.get(spec.full_name, PALETTE[0])
        with self._lock:
            self._write(f"{paint(label, colour, enabled=self._colourful)} | {line}")
            if self._log is not None:
                self._log.write(f"{label} | {line}\n")
                self._log.flush()

    def status(self, text: str) -> None:
        """Replace the status line; an empty text takes it away."""
        with self._lock:
            if self._terminal:
                self._status = text
                self._stream.write(CLEAR_LINE + text)
            elif text != self._status:
                self._status = text
                self._stream.write(text + "\n" if text else "")
            self._stream.flush()

    def _write(self, line: str) -> None:
        if self._terminal and self._status:
            self._stream.write(f"{CLEAR_LINE}{line}\n{self._status}")
        else:
            self._stream.write(line + "\n")
        self._stream.flush()
