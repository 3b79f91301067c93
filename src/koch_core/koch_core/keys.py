# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Keys of a terminal from its bytes, also where the bytes of one key come apart."""

from __future__ import annotations

import os
import select
import termios
import time
from collections.abc import Callable

ESCAPE, RIGHT, LEFT = "escape", "right", "left"
_ARROWS = {b"C": RIGHT, b"D": LEFT}
# An arrow is three bytes. A slow line or a loaded machine delivers them apart, so that an escape
# byte is the Esc key only when nothing has followed for this long. A person does not notice it.
_ESCAPE_S = 0.4


class KeyDecoder:
    """Turns bytes into keys: a character each, or the names above.

    Other escape sequences (function keys, Delete, arrows with a modifier) mean nothing. They are
    swallowed whole, so that no byte of theirs counts as a letter.

    Args:
        clock: Seconds, never going back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._rest = b""
        self._fed_s = 0.0

    def feed(self, data: bytes) -> None:
        """Take in what was read."""
        if data:
            self._rest += data
            self._fed_s = self._clock()

    def keys(self, *, at_end: bool = False) -> list[str]:
        """Return the keys that are complete.

        Args:
            at_end: No more bytes will come: what is not complete will never be.
        """
        found: list[str] = []
        while self._rest:
            key, used = _first_key(self._rest)
            if not used:
                if not at_end and self._clock() - self._fed_s < _ESCAPE_S:
                    break
                key, used = (ESCAPE if self._rest == b"\x1b" else ""), len(self._rest)
            self._rest = self._rest[used:]
            if key:
                found.append(key)
        return found

    def clear(self) -> None:
        """Forget what was fed."""
        self._rest = b""


def read_available(file: int) -> bytes:
    """Return all bytes that wait in a file descriptor, without waiting for more."""
    data = b""
    while select.select([file], [], [], 0.0)[0]:
        more = os.read(file, 1024)
        if not more:
            break
        data += more
    return data


def forget_typed(file: int) -> None:
    """Throw away what was typed into a terminal and not read yet; elsewhere do nothing."""
    if os.isatty(file):
        termios.tcflush(file, termios.TCIFLUSH)


def _first_key(data: bytes) -> tuple[str, int]:
    """The key at the start and its count of bytes; no bytes while it is not complete."""
    if data[:1] != b"\x1b":
        return data[:1].decode("latin-1"), 1
    if len(data) == 1:
        return "", 0
    if data[1:2] not in (b"[", b"O"):
        return ESCAPE, 1
    for place, byte in enumerate(data[2:], start=2):
        # ECMA-48: parameters and intermediates 0x20-0x3f, then one final byte.
        if not 0x20 <= byte <= 0x3F:
            return (_ARROWS.get(data[2:3], "") if place == 2 else ""), place + 1
    return "", 0
