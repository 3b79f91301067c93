# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Listening for other programs: whom an address reaches, tokens, and clients on a TCP port.

The console, the policy server and the bridge ask here. Each says in its own words what is missing.
"""

from __future__ import annotations

import contextlib
import hmac
import ipaddress
import logging
import socket
import threading
from collections.abc import Callable

from koch_core.closing import Closing

#: A shorter token could be guessed over the network.
SHORTEST_TOKEN = 8
_LOGGER = logging.getLogger(__name__)
#: Talks to a client until it goes, and closes the connection.
Talk = Callable[[socket.socket, str], None]


def is_local(address: str) -> bool:
    """Whether what listens on an address is reached from this computer alone."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def is_short(token: str) -> bool:
    """Whether a token is given and too short to be a secret."""
    return 0 < len(token) < SHORTEST_TOKEN


def same_token(given: object, token: str) -> bool:
    """Compare what a stranger gave with a token, in a time that tells nothing of it."""
    text = given if isinstance(given, str) else ""
    return hmac.compare_digest(text.encode(errors="surrogatepass"), token.encode())


class Acceptor(Closing):
    """Accepts clients on a TCP port, each in a thread of its own.

    Args:
        address: Where to listen.
        port: TCP port, 0 for any that is free.
        talk: Talks to one client, with the address that it comes from.
        most: Clients at a time; more are turned away.

    Attributes:
        port: The TCP port.

    Raises:
        OSError: The port is taken, or the address is not this computer's.
    """

    def __init__(self, address: str, port: int, talk: Talk, *, most: int) -> None:
        self._talk = talk
        self._most = most
        self._clients: set[socket.socket] = set()
        self._socket = socket.create_server((address, port))
        self.port = int(self._socket.getsockname()[1])

    def run(self) -> None:
        """Accept until `close`."""
        while True:
            try:
                connection, peer = self._socket.accept()
            except OSError:
                return  # closed
            if len(self._clients) >= self._most:
                _LOGGER.warning("%s turned away: %d clients are here", peer[0], self._most)
                connection.close()
                continue
            self._clients.add(connection)
            arguments = (connection, str(peer[0]))
            threading.Thread(target=self._serve, args=arguments, daemon=True).start()

    def close(self) -> None:
        """Accept no one any more; those who are here stay."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes `accept`
        self._socket.close()

    def send_away(self) -> None:
        """End the connections of those who are here."""
        for connection in list(self._clients):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _serve(self, connection: socket.socket, peer: str) -> None:
        try:
            self._talk(connection, peer)
        finally:
            connection.close()
            self._clients.discard(connection)
