# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The bridge's door: who may connect from where, and what a wrong client is told."""

from __future__ import annotations

import contextlib
import socket

import numpy as np
import pytest

from koch_policy.server.protocol import PROTOCOL, Channel, LinkError
from koch_vla.bridge import BridgeAccessError, BridgeServer, check_access

SECRET = "a long secret"


class Still:
    """A robot that stands still; it is no fake of ours but the least that the interface asks."""

    def __init__(self) -> None:
        self.taken = 0

    def describe(self) -> dict:
        return {"robot_type": "still", "fps": 30, "state": [], "action": [], "cameras": {}}

    def take(self) -> None:
        self.taken += 1

    def observe(self) -> dict:
        return {"state": np.zeros(0, np.float32), "images": {}}

    def leader(self) -> np.ndarray:
        return np.zeros(0)

    def command(self, action: object) -> str:
        return "policy"


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.7", "::", "robot.local"])
def test_other_computers_need_a_secret(host):
    for token in ("", "short"):
        with pytest.raises(BridgeAccessError, match="KOCH_BRIDGE_TOKEN"):
            check_access(host, token)
    check_access(host, SECRET)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.1.2.3"])
def test_this_computer_needs_none(host):
    check_access(host, "")


def connect(server: BridgeServer) -> Channel:
    return Channel(socket.create_connection(("127.0.0.1", server.port), 5.0))


def test_a_wrong_token_or_protocol_is_told_and_sent_away():
    with BridgeServer(Still(), "127.0.0.1", 0, SECRET) as server:
        for hello, said in (
            ({"protocol": PROTOCOL}, "token"),
            ({"protocol": PROTOCOL, "token": "guess"}, "token"),
            ({"protocol": 99, "token": SECRET}, "protocol"),
        ):
            channel = connect(server)
            answer = channel.ask({"kind": "hello", **hello}, 5.0)
            assert answer["kind"] == "error"
            assert said in answer["text"]
            with pytest.raises(LinkError):
                channel.receive(2.0)
            channel.close()
        channel = connect(server)
        hello = {"kind": "hello", "protocol": PROTOCOL, "token": SECRET}
        assert channel.ask(hello, 5.0)["kind"] == "welcome"
        channel.close()


def test_garbage_ends_its_own_connection_only():
    with BridgeServer(Still(), "127.0.0.1", 0) as server:
        with socket.create_connection(("127.0.0.1", server.port), 5.0) as raw:
            raw.sendall(b"GET / HTTP/1.1\r\n\r\n")
            raw.settimeout(5.0)
            with contextlib.suppress(ConnectionResetError):  # its bytes were not even read
                assert raw.recv(100) == b""
        channel = connect(server)
        assert channel.ask({"kind": "hello", "protocol": PROTOCOL}, 5.0)["kind"] == "welcome"
        channel.close()


def test_the_next_client_may_command_when_the_first_is_gone():
    robot = Still()
    with BridgeServer(robot, "127.0.0.1", 0) as server:
        for count in (1, 2):
            channel = connect(server)
            channel.ask({"kind": "hello", "protocol": PROTOCOL}, 5.0)
            for _ in range(50):
                answer = channel.ask({"kind": "command", "action": np.zeros(0)}, 5.0)
                if answer["kind"] == "done":
                    break
            assert answer == {"kind": "done", "driver": "policy"}
            assert robot.taken == count
            channel.close()
