# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A hostile client against `koch serve`: arms that are there go on, others still get in."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from koch_policy.errors import PolicyUnavailableError
from koch_policy.runtime import load_policy
from koch_policy.server.client import ServedPolicyError
from koch_policy.server.listen import Door, Listener, checkpoint_policy
from koch_policy.server.protocol import PROTOCOL, Channel, LinkError, packed
from koch_policy.server.remote import TOKEN

SECRET = "a long secret"
STATE = "observation.state"


@pytest.fixture(scope="module")
def checkpoint(make: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(make.checkpoint("act", tmp_path_factory.mktemp("act")))


@pytest.fixture
def port(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setenv(TOKEN, SECRET)
    policy = load_policy(checkpoint, "torch", full_horizon=True)
    listener = Listener(checkpoint_policy(policy, checkpoint), Door("127.0.0.1", 0, SECRET))
    threading.Thread(target=listener.run, daemon=True).start()
    yield listener.port
    listener.close()


def observation(policy: Any) -> dict[str, Any]:
    draw = np.random.default_rng(4)
    features = policy.config.input_features.items()
    seen = {key: draw.normal(size=each.shape).astype(np.float32) for key, each in features}
    return {"task": "reach left", **seen}


def caller(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), 5.0)


def greeted(port: int) -> tuple[socket.socket, Channel]:
    connection = caller(port)
    channel = Channel(connection)
    channel.ask({"kind": "hello", "protocol": PROTOCOL, "token": SECRET}, 30.0)
    return connection, channel


def is_hung_up_on(connection: socket.socket, within_s: float) -> bool:
    connection.settimeout(within_s)
    try:
        while connection.recv(65536):
            pass
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
    return True


def test_a_hundred_strangers_keep_no_arm_out(port: int) -> None:
    here: Any = load_policy(f"tcp://127.0.0.1:{port}")
    seen = observation(here)
    whole = here.predict(seen)
    strangers = [caller(port) for _ in range(100)]
    late: Any = load_policy(f"tcp://127.0.0.1:{port}")
    np.testing.assert_array_equal(late.predict(seen), whole)
    np.testing.assert_array_equal(here.predict(seen), whole)
    assert here.restarts == 0
    assert all(is_hung_up_on(each, 15.0) for each in strangers)
    for each in strangers:
        each.close()


def test_a_greeting_that_drips_is_cut_off(port: int) -> None:
    """A byte now and then does not prolong the time that a stranger has."""
    hello = packed({"kind": "hello", "protocol": PROTOCOL, "token": SECRET})
    frame = struct.pack(">I", len(hello)) + hello
    begin = time.monotonic()
    with caller(port) as connection:
        try:
            for number in range(len(frame)):
                connection.sendall(frame[number : number + 1])
                time.sleep(0.5)
        except OSError:
            pass
        assert time.monotonic() - begin < 15.0
        assert is_hung_up_on(connection, 1.0)


@pytest.mark.parametrize(
    "rubbish",
    [b"\xff" * 4096, struct.pack(">I", 0), struct.pack(">I", 3) + b"\xc1\xc1\xc1",
     struct.pack(">I", 64 * 1024 * 1024 + 1)],
    ids=["noise", "empty", "no-message", "too-large"],
)  # fmt: skip
def test_rubbish_in_the_middle_ends_that_client_alone(port: int, rubbish: bytes) -> None:
    here: Any = load_policy(f"tcp://127.0.0.1:{port}")
    seen = observation(here)
    whole = here.predict(seen)
    connection, channel = greeted(port)
    assert channel.ask({"kind": "predict", "observation": seen}, 30.0)["kind"] == "chunk"
    connection.sendall(rubbish)
    assert is_hung_up_on(connection, 15.0)
    np.testing.assert_array_equal(here.predict(seen), whole)


def test_a_greeting_said_twice_opens_nothing(port: int) -> None:
    connection, channel = greeted(port)
    with connection:
        again = channel.ask({"kind": "hello", "protocol": PROTOCOL, "token": "wrong"}, 30.0)
        assert again["kind"] == "error"
        assert "predict, observe or reset" in again["text"]


@pytest.mark.parametrize(
    "value",
    [np.nan, np.inf, "text", None, [], {"deep": [[1]]}, np.zeros((3, 3), np.float32)],
    ids=["nan", "inf", "text", "none", "empty", "map", "shape"],
)
def test_an_observation_that_is_none_is_refused_with_a_sentence(port: int, value: Any) -> None:
    here: Any = load_policy(f"tcp://127.0.0.1:{port}")
    seen = observation(here)
    bad = np.full_like(seen[STATE], value) if isinstance(value, float) else value
    with pytest.raises(ServedPolicyError, match=STATE):
        here.predict({**seen, STATE: bad})
    assert np.isfinite(here.predict(seen)).all()
    assert here.restarts == 0


@pytest.mark.parametrize("within_s", ["soon", [], np.nan, -1.0, 1e300])
def test_a_strange_deadline_harms_no_one(port: int, within_s: Any) -> None:
    connection, channel = greeted(port)
    with connection:
        here: Any = load_policy(f"tcp://127.0.0.1:{port}")
        message = {"kind": "predict", "observation": observation(here), "within_s": within_s}
        assert channel.ask(message, 30.0)["kind"] in ("chunk", "error")
        del message["within_s"]
        assert channel.ask(message, 30.0)["kind"] == "chunk"


def test_who_reads_no_answers_holds_up_no_one(port: int) -> None:
    """A client that asks and never reads: its own thread waits, the policy does not."""
    here: Any = load_policy(f"tcp://127.0.0.1:{port}")
    seen = observation(here)
    connection, _ = greeted(port)
    body = packed({"kind": "predict", "observation": seen})
    frame = struct.pack(">I", len(body)) + body
    connection.setblocking(False)
    with connection:
        begin = time.monotonic()
        while time.monotonic() - begin < 1.0:
            try:
                connection.send(frame)
            except BlockingIOError:
                break
        for _ in range(5):
            assert np.isfinite(here.predict(seen)).all()
    assert here.restarts == 0


def test_a_server_that_greets_no_one_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half open: it accepts and says nothing."""
    monkeypatch.setattr("koch_policy.server.remote.RemoteServer.load_s", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begin = time.monotonic()
        with pytest.raises(PolicyUnavailableError, match="has not answered for"):
            load_policy(f"tcp://127.0.0.1:{silent.getsockname()[1]}")
        assert time.monotonic() - begin < 10.0


_SKEWED = """
import sys, time
offset = float(sys.argv.pop(1))
for name, factor in (("time", 1), ("time_ns", 10**9), ("monotonic", 1), ("monotonic_ns", 10**9)):
    def skewed(real=getattr(time, name), shift=offset * factor):
        return real() + type(real())(shift)
    setattr(time, name, skewed)
from koch_vla.cli import main
sys.exit(main(sys.argv[1:]))
"""


def begin_server(checkpoint: Path, port: int, offset_s: float) -> tuple[Any, int]:
    """`koch serve` on a computer whose clocks are wrong by so much."""
    words = ["serve", "--policy", str(checkpoint), "--port", str(port), "--runtime", "torch"]
    server = subprocess.Popen(
        [sys.executable, "-c", _SKEWED, str(offset_s), *words, "--threads", "1"],
        env=dict(os.environ), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert server.stdout is not None
    for line in server.stdout:
        if " at tcp://" in line:
            return server, int(line.rpartition(":")[2])
    raise AssertionError(f"koch serve ended with code {server.wait()}")


@pytest.mark.slow
def test_clocks_may_be_wrong_and_the_server_may_be_started_again(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A day ahead, then ten years behind: no stamp crosses the wire, so nothing changes."""
    monkeypatch.setenv(TOKEN, SECRET)
    here = load_policy(checkpoint, "torch", full_horizon=True)
    server, port = begin_server(checkpoint, 0, 86_400.0)
    try:
        afar: Any = load_policy(f"tcp://127.0.0.1:{port}")
        seen = observation(here)
        expected = here.predict(seen)
        np.testing.assert_allclose(afar.predict(seen), expected, rtol=1e-5, atol=1e-6)
        server.kill()
        server.wait()
        with pytest.raises(PolicyUnavailableError):
            afar.predict(seen)
        server, port = begin_server(checkpoint, port, -3.15e8)
        end = time.monotonic() + 60.0
        while afar.trouble:
            assert time.monotonic() < end, afar.trouble
            time.sleep(0.1)
        np.testing.assert_allclose(afar.predict(seen), expected, rtol=1e-5, atol=1e-6)
        assert afar.restarts == 1
        afar.close()
    finally:
        server.kill()
        server.wait()


def test_a_token_of_another_length_or_kind_is_wrong(port: int) -> None:
    for token in ("", SECRET[:-1], SECRET + "x", SECRET.upper(), 5, None, [SECRET], {"a": SECRET}):
        with caller(port) as connection:
            try:
                message = {"kind": "hello", "protocol": PROTOCOL, "token": token}
                answer = Channel(connection).ask(message, 10.0)
            except LinkError as exc:
                raise AssertionError(token) from exc
            assert answer == {"kind": "error", "text": "the token is missing or wrong"}
