# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Prefixes each line of a graph's output with its node's name, in a colour of its own."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from typing import TextIO

from koch_vla.node_spec import NodeSpec
from koch_vla.terminal import paint, wants_colour

PALETTE = ("cyan", "green", "yellow", "magenta", "blue")


class PrefixedOutput:
    """Writes `label | line`, labels padded to one width.

    Args:
        specs: The nodes that will speak.
        stream: Where to; standard output by default.
        log: A file that gets the same lines without colours.
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
        self._enabled = wants_colour(self._stream)
        self._lock = threading.Lock()

    def __call__(self, spec: NodeSpec, line: str) -> None:
        """Write one line of a node."""
        label = spec.label.ljust(self._width)
        colour = self._colours.get(spec.full_name, PALETTE[0])
        with self._lock:
            self._stream.write(f"{paint(label, colour, enabled=self._enabled)} | {line}\n")
            self._stream.flush()
            if self._log is not None:
                self._log.write(f"{label} | {line}\n")
                self._log.flush()
