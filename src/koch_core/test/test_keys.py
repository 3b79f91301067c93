# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Keys from a terminal's bytes, whole or apart."""

from __future__ import annotations

import os

import pytest

from koch_core.keys import (
    ESCAPE,
    LEFT,
    RIGHT,
    KeyDecoder,
    read_available,
)

SEQUENCES = {
    b"\x1b[C": [RIGHT], b"\x1bOC": [RIGHT], b"\x1b[D": [LEFT], b"\x1bOD": [LEFT],
    b"\x1b[A": [], b"\x1b[3~": [], b"\x1b[15~": [], b"\x1b[1;5C": [], b"q": ["q"],
}  # fmt: skip


class Clock:
    """Time that the test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("apart_s", [0.0, 0.06, 0.15, 0.3])
@pytest.mark.parametrize("data", SEQUENCES)
def test_a_key_is_one_key_however_its_bytes_come(data: bytes, apart_s: float) -> None:
    clock = Clock()
    decoder = KeyDecoder(clock)
    found = []
    for byte in data:
        decoder.feed(bytes([byte]))
        found += decoder.keys()
        clock.now += apart_s
        found += decoder.keys()
    clock.now += 10.0
    assert found + decoder.keys() == SEQUENCES[data]


def test_escape_alone_is_the_escape_key_after_a_while() -> None:
    clock = Clock()
    decoder = KeyDecoder(clock)
    decoder.feed(b"\x1b")
    assert decoder.keys() == []
    clock.now = 0.5
    assert decoder.keys() == [ESCAPE]
    assert decoder.keys() == []


def test_escape_before_another_key_is_both() -> None:
    decoder = KeyDecoder()
    decoder.feed(b"\x1bn\x1b\x1b[C")
    assert decoder.keys() == [ESCAPE, "n", ESCAPE, RIGHT]


def test_a_sequence_that_never_ends_is_dropped_and_the_next_key_counts() -> None:
    clock = Clock()
    decoder = KeyDecoder(clock)
    decoder.feed(b"\x1b[")
    clock.now = 1.0
    assert decoder.keys() == []
    decoder.feed(b"C")
    assert decoder.keys() == ["C"]


def test_all_waiting_bytes_are_read_at_once() -> None:
    read, write = os.pipe()
    os.write(write, b"x" * 3000)
    assert read_available(read) == b"x" * 3000
    assert read_available(read) == b""
    os.close(write)
    assert read_available(read) == b""
    os.close(read)
