# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch bridge`: lets programs without ROS, such as LeRobot, read and drive the running graph.

A client connects to a TCP port and speaks the policy server's frames (`koch_policy.server`), that
is msgpack behind a length; nothing that is read can run code:

    hello {protocol, token}        -> welcome {protocol, robot_type, fps, state, action, cameras}
    observe {}                     -> observation {state, images: {name: JPEG}}
    leader {}                      -> action {action}
    command {action}               -> done {driver}
    any of them                    -> error {text}

Numbers are in the units of LeRobot's datasets, `state` and `action` of welcome name them. Commands
pass the guard like those of a policy. A client that goes, or says nothing, commands nothing: the
guard then holds the arm. One client commands at a time.
"""

from __future__ import annotations

import logging
import socket
import threading
from typing import Any, Protocol

import numpy as np

from koch_core.closing import Opening
from koch_core.errors import KochError
from koch_core.listening import SHORTEST_TOKEN, Acceptor, is_local, same_token
from koch_policy.server.protocol import PROTOCOL, Channel, LinkError, ProtocolError

TOKEN = "KOCH_BRIDGE_TOKEN"
_HELLO_S, _HELLO_BYTES = 5.0, 4096  # a stranger gets no more time and memory than that
_MOST_CLIENTS = 4  # robot, leader, a viewer, and one that is just leaving
_LOGGER = logging.getLogger(__name__)


class BridgeAccessError(KochError):
    """The bridge would be open to people whom no one let in."""

    def __init__(self, host: str) -> None:
        super().__init__(
            f"--host {host}: other computers could drive the arm. Set {TOKEN} to a secret of at "
            f"least {SHORTEST_TOKEN} characters, here and for the client, or leave --host out."
        )


class BridgePortError(KochError):
    """No one can listen there."""

    def __init__(self, host: str, port: int, why: object) -> None:
        super().__init__(f"{host}:{port}: {why}. Is another bridge running? Choose a --port.")


class Refused(KochError):
    """What a client asked for cannot be done now; it is told why."""


class BridgedRobot(Protocol):
    """What a bridge asks of the graph; called from the threads of its clients."""

    def describe(self) -> dict[str, Any]:
        """Return robot_type, fps, state, action and cameras (name: [height, width])."""
        ...

    def take(self) -> None:
        """Someone is going to command: open the human's enable switch.

        Raises:
            Refused: It may still be closed.
        """
        ...

    def observe(self) -> dict[str, Any]:
        """Return `state` and `images`.

        Raises:
            Refused: A stream is silent.
        """
        ...

    def leader(self) -> Any:
        """Return where the leaders are, as an action."""
        ...

    def command(self, action: Any) -> str:
        """Send an action; who drives the arm now.

        Raises:
            Refused: It is no action, or the guard has stopped the arm.
        """
        ...


def check_access(host: str, token: str) -> None:
    """Refuse to listen for other computers without a secret.

    Raises:
        BridgeAccessError: There is none, or a short one.
    """
    if not is_local(host) and len(token) < SHORTEST_TOKEN:
        raise BridgeAccessError(host)


class BridgeServer(Opening):
    """Listens, and answers each client in a thread of its own.

    Args:
        robot: What clients read and drive.
        host: Address.
        port: 0 for any; `port` then tells which.
        token: What a client must say; empty: nothing.

    Raises:
        BridgeAccessError: Other computers reach it and there is no token.
        BridgePortError: The port is taken.
    """

    def __init__(self, robot: BridgedRobot, host: str, port: int, token: str = "") -> None:
        check_access(host, token)
        self._robot, self._token = robot, token
        try:
            self._clients = Acceptor(host, port, self._serve, most=_MOST_CLIENTS)
        except OSError as error:
            raise BridgePortError(host, port, error.strerror or error) from error
        self.port = self._clients.port
        self._commands = threading.Lock()  # held by the client that commands
        self._has_taken = False  # whether that client drives in the human's place
        self._thread = threading.Thread(target=self._clients.run, name="bridge", daemon=True)

    def open(self) -> None:
        """Let clients in."""
        self._thread.start()

    def close(self) -> None:
        """Send all clients away; idempotent."""
        self._clients.close()
        self._clients.send_away()

    def _serve(self, connection: socket.socket, peer: str) -> None:
        # Small frames both ways: waiting to fill a packet would cost 40 ms.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        channel, holds = Channel(connection), False
        try:
            self._greet(channel)
            _LOGGER.info("client %s is there", peer)
            while True:
                message = channel.receive()
                if message["kind"] == "command" and not holds:
                    holds = self._commands.acquire(blocking=False)
                channel.send(self._answer(message, may_command=holds))
        except LinkError as error:
            _LOGGER.info("client %s gone: %s", peer, error)
        finally:
            if holds:
                self._has_taken = False
                self._commands.release()
            channel.close()

    def _greet(self, channel: Channel) -> None:
        hello = channel.receive(_HELLO_S, most_bytes=_HELLO_BYTES)
        text = ""
        if hello["kind"] != "hello" or hello.get("protocol") != PROTOCOL:
            text = f"this bridge speaks protocol {PROTOCOL}, the client {hello.get('protocol')!r}"
        elif self._token and not same_token(hello.get("token"), self._token):
            text = f"a wrong token, or none: set {TOKEN} as it is set for the bridge"
        if text:
            channel.send({"kind": "error", "text": text})
            raise ProtocolError(text, "a hello")
        channel.send({"kind": "welcome", "protocol": PROTOCOL, **self._robot.describe()})

    def _answer(self, message: dict[str, Any], *, may_command: bool) -> dict[str, Any]:
        kind = message["kind"]
        try:
            if kind == "observe":
                return {"kind": "observation", **self._robot.observe()}
            if kind == "leader":
                return {"kind": "action", "action": self._robot.leader()}
            if kind != "command":
                raise Refused(f"a message {kind!r}: expected observe, leader or command")
            if not may_command:
                raise Refused("another client commands; one can at a time")
            if not self._has_taken:
                self._robot.take()
                self._has_taken = True
            driver = self._robot.command(message.get("action"))
            return {"kind": "done", "driver": driver}
        except KochError as error:
            return {"kind": "error", "text": str(error)}


def checked_action(action: Any, width: int) -> Any:
    """An action as float64.

    Raises:
        Refused: It is none.
    """
    if not isinstance(action, np.ndarray) or action.shape != (width,):
        got = getattr(action, "shape", type(action).__name__)
        raise Refused(f"an action of {got}: expected an array of {width} numbers")
    values = np.asarray(action, np.float64)
    if not np.isfinite(values).all():
        raise Refused("an action that holds a number which is not finite")
    return values
