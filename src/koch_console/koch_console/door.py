# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The door of the HTTP server: how many connections, of whom, how long they may say nothing."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from aiohttp import web

MOST_CONNECTIONS = 200
MOST_OF_ADDRESS = 120  # twenty browsers: each opens six at most
FIRST_S = 10.0  # within which a new connection must have asked for something
_FULL = "Too many connections are open from your address, and all are in use.\n"


class PageDoor:
    """Lets connections in. At a limit the longest idle one makes room; where none is, it is a 503.

    Each address has a limit of its own, so that one of them cannot shut out the others.

    Args:
        runner: The server behind it.
    """

    def __init__(self, runner: web.AppRunner) -> None:
        self._runner = runner
        self._busy: set[Any] = set()  # transports with a request of known people in progress
        self._silent: set[Any] = set()  # transports that have asked for nothing yet

    def arrival(self) -> asyncio.BaseProtocol:
        """A protocol for a new connection."""
        return _Arrival(self)

    def begin(self, transport: Any) -> None:
        """A connection's head has been read: it is no slow stranger."""
        self._silent.discard(transport)

    def keep(self, transport: Any) -> None:
        """A request of known people is in progress: it makes room for nobody."""
        self._busy.add(transport)

    def end(self, transport: Any) -> None:
        """The request is answered."""
        self._busy.discard(transport)

    def come(self, transport: asyncio.Transport) -> None:
        """Let a connection in, or refuse it."""
        assert self._runner.server is not None
        alive = [item for item in self._runner.server.connections if item.transport is not None]
        per_address = Counter(_address(item.transport) for item in alive)
        crowded = _address(transport)
        if per_address[crowded] < MOST_OF_ADDRESS:
            if len(alive) < MOST_CONNECTIONS:
                self._welcome(transport)
                return
            crowded = per_address.most_common(1)[0][0]
        mine = (item for item in alive if _address(item.transport) == crowded)
        idle = next((item for item in mine if item.transport not in self._busy), None)
        if idle is None:
            _refuse(transport)
            return
        idle.force_close()
        self._welcome(transport)

    def _welcome(self, transport: asyncio.Transport) -> None:
        assert self._runner.server is not None
        protocol = self._runner.server()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        self._silent.add(transport)
        asyncio.get_running_loop().call_later(FIRST_S, self._look, transport)

    def _look(self, transport: asyncio.Transport) -> None:
        """End a connection whose head has not come in time."""
        if transport in self._silent:
            self._silent.discard(transport)
            transport.abort()


class _Arrival(asyncio.Protocol):
    """Hands a new connection to the door, which gives it another protocol."""

    def __init__(self, door: PageDoor) -> None:
        self._door = door

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let it in, or refuse it."""
        assert isinstance(transport, asyncio.Transport)
        self._door.come(transport)


def _address(transport: asyncio.BaseTransport | None) -> str:
    peer = None if transport is None else transport.get_extra_info("peername")
    return str(peer[0]) if peer else ""


def _refuse(transport: asyncio.Transport) -> None:
    head = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nRetry-After: 5\r\n"
    head += f"Content-Length: {len(_FULL)}\r\nConnection: close\r\n\r\n"
    transport.write((head + _FULL).encode())
    transport.close()
