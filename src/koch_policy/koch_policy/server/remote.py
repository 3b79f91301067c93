# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The way to a policy on another computer: its address, who may come in, and the connection.

    tcp://HOST:PORT      in clear: for a cable or a VPN
    tls://HOST:PORT      encrypted; the server's certificate must be known

The token is in the environment, where neither the list of processes nor ROS parameters show it.
"""

from __future__ import annotations

import os
import socket
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

from koch_policy.errors import PolicyUnavailableError, RuntimeChoiceError
from koch_policy.files import is_address
from koch_policy.server.protocol import Channel

TOKEN = "KOCH_POLICY_TOKEN"
AUTHORITY = "KOCH_POLICY_CA"
PORT = 8766
_CONNECT_S = 5.0
# A link that was cut is noticed after 10 + 3 * 5 s of silence, also by who waits for words.
_KEEP_ALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}


@dataclass(frozen=True)
class Address:
    """Where a policy server listens.

    Attributes:
        host: Name or number.
        port: TCP port.
        is_encrypted: TLS.
    """

    host: str
    port: int
    is_encrypted: bool

    @classmethod
    def parsed(cls, text: str) -> Address:
        """Read `tcp://HOST[:PORT]` or `tls://HOST[:PORT]`.

        Raises:
            RuntimeChoiceError: It is something else.
        """
        parts = urlsplit(text)
        try:
            port = PORT if parts.port is None else parts.port
        except ValueError:
            port = 0
        extra = parts.path or parts.query or parts.fragment or parts.username
        if not is_address(text) or not parts.hostname or not port or extra:
            raise RuntimeChoiceError(text, "is no address", f"tcp://HOST[:{PORT}] or tls://...")
        return cls(parts.hostname, port, parts.scheme == "tls")

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'tls' if self.is_encrypted else 'tcp'}://{host}:{self.port}"


class RemoteServer:
    """A connection to a policy server that someone else started.

    Raises:
        PolicyUnavailableError: No one answers there, or its certificate is not known.
    """

    load_s = 60.0  # it has loaded the policy already
    hung = "it hangs, or the way to it"
    again = "it is being called again"

    def __init__(self, address: Address) -> None:
        self.name = str(address)
        try:
            connection = socket.create_connection((address.host, address.port), _CONNECT_S)
            keep_alive(connection)
            if address.is_encrypted:
                authority = os.environ.get(AUTHORITY) or None
                context = ssl.create_default_context(cafile=authority)
                connection = context.wrap_socket(connection, server_hostname=address.host)
        except OSError as exc:  # ssl.SSLError is one
            raise PolicyUnavailableError(
                f"no policy server at {self.name}: {exc}. Is `koch serve` running there, and the "
                f"way open?{_about_certificate(exc)}"
            ) from exc
        self.channel = Channel(connection)

    def fate(self) -> str:
        """What became of the server: from here no one can tell."""
        return ""

    def close(self) -> None:
        """Hang up; idempotent."""
        self.channel.close()


def keep_alive(connection: socket.socket) -> None:
    """Send small messages at once, and notice a peer that is gone."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEP_ALIVE.items():
        if (number := getattr(socket, name, None)) is not None:  # Linux has them
            connection.setsockopt(socket.IPPROTO_TCP, number, value)


def _about_certificate(exc: OSError) -> str:
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f" Name the file of its certificate in {AUTHORITY}."
    return ""
