# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Whom an address reaches, tokens, and clients that come, are turned away and go."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from koch_core.listening import Acceptor, is_local, is_short, same_token

SECRET = "correct horse"


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.9", "::1", "localhost"])
def test_loopback_is_this_computer_alone(address: str) -> None:
    assert is_local(address)


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.168.1.7", "robot.local", "", "127.1"])
def test_all_else_is_open_to_others(address: str) -> None:
    assert not is_local(address)


def test_tokens() -> None:
    assert same_token(SECRET, SECRET)
    for wrong in ("", "Correct horse", SECRET + "x", SECRET[:-1], "ä", "\ud800", None, 3, b"x"):
        assert not same_token(wrong, SECRET)
    assert [is_short(text) for text in ("", "x", "1234567", "12345678")] == [0, 1, 1, 0]


@pytest.fixture
def acceptor() -> Iterator[Acceptor]:
    """Answers each letter with a capital one, until the client goes."""

    def talk(connection: socket.socket, peer: str) -> None:
        assert peer == "127.0.0.1"
        while letter := connection.recv(1):
            connection.sendall(letter.upper())

    with Acceptor("127.0.0.1", 0, talk, most=2) as made:
        thread = threading.Thread(target=made.run)
        thread.start()
        yield made
        made.close()
        made.send_away()
        thread.join(5.0)
        assert not thread.is_alive()


def answered(connection: socket.socket) -> bytes:
    """What came back; nothing where the connection was ended or reset."""
    try:
        return connection.recv(1)
    except ConnectionError:
        return b""


def called(acceptor: Acceptor) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", acceptor.port), 5.0)
    connection.sendall(b"a")
    return connection


def test_clients_are_served_side_by_side_and_more_are_turned_away(acceptor: Acceptor) -> None:
    first, second = called(acceptor), called(acceptor)
    assert (first.recv(1), second.recv(1)) == (b"A", b"A")
    assert answered(called(acceptor)) == b""
    first.close()
    end = time.monotonic() + 5.0
    while answered(called(acceptor)) != b"A":  # its thread notices, and its place is free again
        assert time.monotonic() < end


def test_closing_stays_with_those_who_are_here_until_they_are_sent_away(
    acceptor: Acceptor,
) -> None:
    client = called(acceptor)
    assert client.recv(1) == b"A"
    acceptor.close()
    acceptor.close()
    client.sendall(b"b")
    assert client.recv(1) == b"B"
    with pytest.raises(OSError):  # noqa: PT011 - refused or reset, as the system likes
        called(acceptor).recv(1)
    acceptor.send_away()
    assert client.recv(1) == b""


def test_a_taken_port_is_an_error(acceptor: Acceptor) -> None:
    with pytest.raises(OSError, match="in use"):
        Acceptor("127.0.0.1", acceptor.port, lambda *_: None, most=1)
