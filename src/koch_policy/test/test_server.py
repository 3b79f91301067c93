# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The policy server: what its messages carry and refuse, and a server that dies or hangs."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

from koch_policy.errors import PolicyUnavailableError, RuntimeChoiceError
from koch_policy.server import client, protocol
from koch_policy.server.client import ServedPolicy, ServedPolicyError, ServerProcess
from koch_policy.server.protocol import Channel, LateError, LinkClosedError, ProtocolError
from koch_rig.arm_model import KOCH_V1_1

J = len(KOCH_V1_1.joints)

SIDE = Path(__file__).with_name("served_side.py")
STATE = np.arange(J, dtype=np.float32)
SEEN = {"observation.state": STATE, "task": "slowly"}


def start(*arguments: str) -> ServerProcess:
    """A server in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return ServerProcess([sys.executable, str(SIDE), *arguments], environment)


@pytest.fixture
def served() -> Iterator[ServedPolicy]:
    """A policy in a server, which is taken for hung after half a second."""
    policy = ServedPolicy(start, deadline_s=0.5)
    yield policy
    policy.close()


@pytest.fixture
def ends() -> Iterator[tuple[Channel, socket.socket]]:
    """A channel and the bare socket at its other end."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Channel(ours), theirs


def until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Wait for a condition."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


# -- messages ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64", "int64", ">f4"])
@pytest.mark.parametrize("shape", [(), (0,), (6,), (2, 4, 5, 3)])
def test_arrays_come_as_they_were(dtype: str, shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(1).uniform(0, 200, shape).astype(dtype)
    if array.ndim == 4:
        array = array[:, ::2]  # not contiguous
    message = {"kind": "x", "text": "größer", "list": [1, 2.5, None, True], "a": {"b": array}}
    found = protocol.unpacked(protocol.packed(message))
    assert found["a"]["b"].dtype == array.dtype.newbyteorder("<")
    np.testing.assert_array_equal(found["a"]["b"], array)
    assert {**found, "a": 0} == {**message, "a": 0}


def test_a_jpeg_comes_as_it_was() -> None:
    found = protocol.unpacked(protocol.packed({"kind": "x", "image": b"\xff\xd8 bytes"}))
    assert found["image"] == b"\xff\xd8 bytes"


def test_text_and_objects_are_no_arrays() -> None:
    for array in (np.array(["a"]), np.array([object()]), np.array([1j])):
        with pytest.raises(ProtocolError, match="one of"):
            protocol.packed({"kind": "x", "a": array})


def array_of(**changes: Any) -> bytes:
    """A message with an array, one part of it changed."""
    array = {"dtype": "<f4", "shape": [2, 3], "data": bytes(24), **changes}
    return bytes(msgpack.packb({"kind": "x", "a": array}))


HOSTILE = {
    "empty map": msgpack.packb({}),
    "no map": msgpack.packb([1, 2]),
    "number": msgpack.packb(7),
    "kind is no text": msgpack.packb({"kind": 3}),
    "kind is an array": msgpack.packb({"kind": {"dtype": "|u1", "shape": [0], "data": b""}}),
    "pickle": pickle.dumps({"kind": "x"}),
    "object array": array_of(dtype="|O"),
    "dtype is a list": array_of(dtype=["<f4"]),
    "negative size": array_of(shape=[-2, -3]),
    "fractional size": array_of(shape=[2.0, 3.0]),
    "truth as a size": array_of(shape=[True, 6]),
    "shape too large": array_of(shape=[2**31, 2**31]),
    "too few bytes": array_of(data=bytes(23)),
    "no bytes": array_of(data="text"),
    "many dimensions": array_of(shape=[1] * 40, data=bytes(4)),
    "extension type": msgpack.packb({"kind": "x", "e": msgpack.ExtType(5, b"abc")}),
    "number as a key": msgpack.packb({"kind": "x", 5: 1}),
    "nested too deeply": b"\x81\xa1k" + b"\x91" * 5000 + b"\xc0",
    "two maps": msgpack.packb({"kind": "x"}) * 2,
    "list too long": msgpack.packb({"kind": "x", "l": [0] * 200_000}),
    "cut off": msgpack.packb({"kind": "x", "t": "long text"})[:-3],
}


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_what_is_no_message_is_refused(name: str) -> None:
    with pytest.raises(ProtocolError):
        protocol.unpacked(HOSTILE[name])


def test_random_bytes_are_refused_or_a_message() -> None:
    draw = np.random.default_rng(5)
    good = np.frombuffer(array_of(), np.uint8)
    for _ in range(3000):
        bad = good.copy()
        bad[draw.integers(0, len(bad), 3)] = draw.integers(0, 256, 3)
        with contextlib.suppress(ProtocolError):
            protocol.unpacked(bad.tobytes())


@pytest.mark.parametrize("length", [0, protocol.MAX_BYTES + 1, 2**32 - 1])
def test_a_frame_of_impossible_length_is_refused(ends: Any, length: int) -> None:
    channel, other = ends
    other.sendall(struct.pack(">I", length))
    with pytest.raises(ProtocolError, match=f"frame of {length} bytes"):
        channel.receive(1.0)


def test_a_message_too_large_is_not_sent(ends: Any) -> None:
    channel, _ = ends
    with pytest.raises(ProtocolError, match="to send"):
        channel.send({"kind": "x", "a": np.zeros(protocol.MAX_BYTES, np.uint8)})


def test_a_frame_that_trickles_is_late(ends: Any) -> None:
    channel, other = ends
    body = protocol.packed({"kind": "x", "text": "y" * 40})

    def trickle() -> None:
        try:
            other.sendall(struct.pack(">I", len(body)))
            for byte in body:
                other.sendall(bytes([byte]))
                time.sleep(0.05)
        except OSError:
            return  # given up on

    threading.Thread(target=trickle, daemon=True).start()
    begin = time.monotonic()
    with pytest.raises(LateError):
        channel.receive(0.3)
    assert time.monotonic() - begin < 1.0


def test_a_frame_that_is_cut_off_is_an_end(ends: Any) -> None:
    channel, other = ends
    other.sendall(struct.pack(">I", 100) + b"abc")
    other.close()
    with pytest.raises(LinkClosedError):
        channel.receive(1.0)


# -- the server's process -------------------------------------------------------------------------


def test_a_chunk_comes_through_a_server(served: ServedPolicy) -> None:
    chunk = served.predict(SEEN)
    assert chunk.dtype == np.float32
    np.testing.assert_allclose(chunk[:, 2], 2.0 + 0.1 * np.arange(30), rtol=1e-6)
    assert (served.config.horizon_steps, served.config.action_dim) == (30, J)
    assert (served.extras.units, served.extras.fps) == ("radians", 30.0)


def test_a_bad_observation_is_told_and_the_next_one_works(served: ServedPolicy) -> None:
    pid = served.pid
    with pytest.raises(ServedPolicyError, match=r"KeyError.*observation.state"):
        served.predict({"task": "slowly"})
    assert served.predict(SEEN).shape == (30, J)
    assert served.pid == pid


@pytest.mark.parametrize(
    ("blow", "told"),
    [
        (signal.SIGKILL, r"ended by SIGKILL"),
        (signal.SIGSTOP, r"not answered for 0\.5 s: it hangs"),
    ],
)
def test_a_server_that_dies_or_hangs_is_named_and_started_again(
    served: ServedPolicy, blow: signal.Signals, told: str
) -> None:
    pid = served.pid
    os.kill(pid, blow)
    with pytest.raises(PolicyUnavailableError, match=rf"process {pid}\).*{told}.*started again"):
        served.predict(SEEN)
    begin = time.monotonic()
    with pytest.raises(PolicyUnavailableError, match=told):
        served.predict(SEEN)
    assert time.monotonic() - begin < 0.1, "a tick must not wait for the restart"
    served.reset()  # waits
    assert served.pid not in (0, pid)
    assert served.trouble == ""
    assert served.restarts == 1
    assert served.predict(SEEN).shape == (30, J)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_pauses_between_attempts_grow_and_its_words_are_told() -> None:
    begun: list[float] = []

    def sometimes() -> ServerProcess:
        begun.append(time.monotonic())
        return start() if len(begun) in (1, 4) else start("--refuse", "no memory left")

    policy = ServedPolicy(sometimes, deadline_s=0.5)
    os.kill(policy.pid, signal.SIGKILL)
    with pytest.raises(PolicyUnavailableError):
        policy.predict(SEEN)
    until(lambda: len(begun) == 3)
    assert "no memory left" in policy.trouble
    until(lambda: policy.trouble == "")
    pauses = np.diff(begun)[1:]
    assert pauses[0] > 0.9
    assert pauses[1] > 1.9
    assert policy.predict(SEEN).shape == (30, J)
    policy.close()


def test_a_server_that_cannot_load_says_why() -> None:
    with pytest.raises(ServedPolicyError, match="ValueError: such weights"):
        ServedPolicy(lambda: start("--refuse", "such weights"))


def test_a_server_that_does_not_start_says_why() -> None:
    def no_server() -> ServerProcess:
        return ServerProcess([sys.executable, "-c", "raise SystemExit('no such module')"], {})

    with pytest.raises(PolicyUnavailableError, match="ended with code 1: no such module"):
        ServedPolicy(no_server)


def test_a_closed_policy_leaves_no_process(served: ServedPolicy) -> None:
    pid = served.pid
    os.kill(pid, signal.SIGSTOP)
    served.close()
    served.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(PolicyUnavailableError, match="closed"):
        served.predict(SEEN)


def test_a_server_ends_with_its_client() -> None:
    server = start()
    server.channel.close()
    until(lambda: server.fate() == "ended with code 0")
    server.close()


@pytest.mark.parametrize(
    "first",
    [{"kind": "hello", "protocol": 99}, {"kind": "predict"}, {"kind": "hello"}],
)
def test_another_protocol_is_refused_in_words(first: dict[str, Any]) -> None:
    server = start()
    answer = server.channel.ask(first, 20.0)
    assert answer["kind"] == "error"
    assert "protocol 1" in answer["text"]
    server.close()


def test_a_hostile_client_ends_its_own_connection_only() -> None:
    server = start()
    server.channel.ask({"kind": "hello", "protocol": protocol.PROTOCOL}, 20.0)
    answer = server.channel.ask({"kind": "__import__"}, 5.0)
    assert answer["kind"] == "error"
    server.channel._socket.sendall(struct.pack(">I", 5) + b"\x80\x04\x95.x")
    until(lambda: server.fate() == "ended with code 0")
    server.close()


# -- which Python has LeRobot ---------------------------------------------------------------------


def test_the_named_python_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KOCH_LEROBOT_PYTHON", "/nowhere/python")
    with pytest.raises(RuntimeChoiceError, match="'/nowhere/python', which is not there"):
        client.lerobot_python()


def test_the_environment_of_the_set_up_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("KOCH_LEROBOT_PYTHON", raising=False)
    monkeypatch.setenv("KOCH_ROOT", str(tmp_path))
    python = tmp_path / ".venv-lerobot" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    assert client.lerobot_python() == str(python)
