# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A policy for other computers: accepts clients, lets in who knows the token, answers them.

Each client has a thread and one question at a time, so a slow one waits for itself alone. The
policy is loaded once. One that keeps a history of its own serves one client.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import platform
import socket
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from koch_core.errors import KochError
from koch_core.image import decode_image, image_size
from koch_core.listening import SHORTEST_TOKEN, Acceptor, is_local, is_short, same_token
from koch_policy.files import CONFIG, read_json
from koch_policy.metadata import METADATA
from koch_policy.policy import Policy
from koch_policy.runtime.base import EnginePolicy
from koch_policy.server.protocol import Channel, LinkError
from koch_policy.server.remote import TOKEN, keep_alive
from koch_policy.server.serve import serve
from koch_policy.server.turns import Turns

MOST_CLIENTS = 16
#: Who has not shown the token yet; one more, and the one who has waited longest must go.
MOST_STRANGERS = 32
_HELLO_S = 5.0
_MAX_PIXELS = 40_000_000
_LOGGER = logging.getLogger(__name__)


class DoorError(KochError):
    """The server would be open to people whom no one let in, or cannot listen."""


@dataclass(frozen=True)
class Door:
    """Where a server listens and whom it lets in.

    Attributes:
        bind: Address.
        port: TCP port, 0 for any that is free.
        token: What a client must know; empty: everyone on this computer may come in.
        certificate, key: PEM files for TLS; None: in clear.
    """

    bind: str
    port: int
    token: str = ""
    certificate: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        """Refuse to be open to strangers.

        Raises:
            DoorError: Other computers reach it and there is no token, or a short one.
        """
        if not self.is_local and not self.token:
            raise DoorError(
                f"--bind {self.bind}: other computers could ask this policy; set a token of "
                f"{SHORTEST_TOKEN} letters or more in {TOKEN}, here and there."
            )
        if is_short(self.token):
            raise DoorError(f"{TOKEN} has {len(self.token)} letters, not {SHORTEST_TOKEN}.")

    @property
    def is_local(self) -> bool:
        """Whether this computer alone reaches it."""
        return is_local(self.bind)

    def context(self) -> ssl.SSLContext | None:
        """Return what encrypts; None for nothing.

        Raises:
            DoorError: The certificate cannot be read.
        """
        if self.certificate is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self.certificate, self.key)
        except (OSError, ssl.SSLError) as exc:
            raise DoorError(f"{self.certificate}: no certificate with its key ({exc}).") from exc
        return context


class OwnPolicy:
    """A policy of this release, for `koch_policy.server.serve.serve`.

    Args:
        policy: The policy.
        folder: Its checkpoint.
    """

    def __init__(self, policy: EnginePolicy, folder: Path) -> None:
        self._policy = policy
        self.turns = Turns(policy)
        metadata = folder / METADATA
        length = len(self.predict(self.example(), None))
        self._about = {
            "config": {**read_json(folder / CONFIG), "chunk_size": length},
            "metadata": read_json(metadata) if metadata.is_file() else {},
            "rename": dict(policy.rename),
            "runtime": policy.runtime,
            "server": f"koch serve, Python {platform.python_version()}",
        }

    def describe(self) -> dict[str, Any]:
        """Return what a client must know; `chunk_size` is the length of what `predict` returns."""
        return self._about

    def example(self) -> dict[str, Any]:
        """Return a made-up observation."""
        return self._policy.example()

    def predict(
        self, observation: Mapping[str, Any], noise: Any | None, within_s: float = math.inf
    ) -> Any:
        """Return a chunk; those who wait at the same time are predicted together."""
        seen = {key: _decoded(key, value) for key, value in observation.items()}
        return self.turns.predict(seen, noise, within_s)

    def observe(self, observation: Mapping[str, Any]) -> None:
        """Nothing to remember: an observation brings its history along."""

    def reset(self) -> None:
        """Nothing was remembered."""


def _decoded(key: str, value: Any) -> Any:
    """Turn JPEGs into images; of several steps, into a stack of them."""
    if isinstance(value, list) and value and isinstance(value[0], bytes):
        return np.stack([_decoded(key, each) for each in value])
    if not isinstance(value, bytes):
        return value
    height, width = image_size(value)
    if height * width > _MAX_PIXELS:
        raise DoorError(f"{key}: an image of {width}x{height} is too large.")
    return decode_image(value)


class Listener:
    """Accepts clients of one policy.

    Args:
        policy: What answers them.
        door: Where, and whom.

    Attributes:
        port: The TCP port.

    Raises:
        DoorError: The port is taken, or the certificate cannot be read.
    """

    def __init__(self, policy: OwnPolicy, door: Door) -> None:
        self._policy = policy
        self._door = door
        self._lock = threading.Lock()
        self._strangers: list[socket.socket] = []
        self._admitted = 0
        self._context = door.context()
        try:
            most = MOST_CLIENTS + 2 * MOST_STRANGERS  # who must go needs a moment for it
            self._clients = Acceptor(door.bind, door.port, self._talk, most=most)
        except OSError as exc:
            raise DoorError(f"cannot listen on {door.bind}:{door.port} ({exc.strerror}).") from exc
        self.port = self._clients.port

    def run(self) -> None:
        """Accept until `close`."""
        self._clients.run()

    def close(self) -> None:
        """Accept no one any more."""
        self._clients.close()

    def _talk(self, connection: socket.socket, peer: str) -> None:
        accepted, entered = connection, False
        self._make_room(accepted)

        def admits(token: Any) -> bool:
            nonlocal entered
            entered = self._admits(accepted, token)
            return entered

        try:
            keep_alive(connection)
            connection.settimeout(_HELLO_S)
            if self._context is not None:
                connection = self._context.wrap_socket(connection, server_side=True)
            _LOGGER.info("%s has come", peer)
            serve(Channel(connection), lambda: self._policy, admits=admits)
        except (OSError, LinkError) as exc:
            _LOGGER.warning("%s: %s", peer, exc)
        finally:
            connection.close()  # with TLS no longer the one that was accepted
            with self._lock:
                self._admitted -= entered
                if accepted in self._strangers:
                    self._strangers.remove(accepted)
            _LOGGER.info("%s is gone", peer)

    def _make_room(self, connection: socket.socket) -> None:
        """Let a stranger in, if need be for another: they cannot keep the arms out."""
        with self._lock:
            self._strangers.append(connection)
            if len(self._strangers) > MOST_STRANGERS:
                with contextlib.suppress(OSError):
                    self._strangers.pop(0).shutdown(socket.SHUT_RDWR)

    def _admits(self, connection: socket.socket, token: Any) -> bool:
        if self._door.token and not same_token(token, self._door.token):
            return False
        with self._lock:
            if connection not in self._strangers:  # it had to go while it spoke
                return False
            if self._admitted >= MOST_CLIENTS:
                raise DoorError(f"{MOST_CLIENTS} arms are here already: there is no room.")
            self._strangers.remove(connection)
            self._admitted += 1
        return True


def token_of_environment() -> str:
    """Return the token that both ends must know; empty without one."""
    return os.environ.get(TOKEN, "")


def checkpoint_policy(policy: Policy, folder: Path) -> OwnPolicy:
    """Return a loaded checkpoint as what a listener serves.

    Raises:
        DoorError: It runs in a process of LeRobot's: that one has a history of its own.
    """
    if not isinstance(policy, EnginePolicy):
        raise DoorError("koch serve runs policies by torch and openvino, not LeRobot's runtime.")
    return OwnPolicy(policy, folder)
