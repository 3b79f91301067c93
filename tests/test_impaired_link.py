# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The relay of `benchmarks/measure_remote.py` is as bad as it says, and loses no byte."""

from __future__ import annotations

import importlib.util
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from repository import ROOT

pytest.importorskip("mujoco")
pytest.importorskip("torch")


def module() -> Any:
    path = ROOT / "benchmarks" / "measure_remote.py"
    spec = importlib.util.spec_from_file_location("measure_remote", path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules["measure_remote"] = loaded
    spec.loader.exec_module(loaded)
    return loaded


bench: Any = module()


@pytest.fixture
def echo() -> Iterator[int]:
    """A server that sends back what it gets."""
    server = socket.create_server(("127.0.0.1", 0))

    def talk(connection: socket.socket) -> None:
        while data := connection.recv(65536):
            connection.sendall(data)

    def run() -> None:
        while True:
            try:
                threading.Thread(target=talk, args=(server.accept()[0],), daemon=True).start()
            except OSError:
                return

    threading.Thread(target=run, daemon=True).start()
    yield server.getsockname()[1]
    server.close()


def round_trip_s(relay: Any, size: int = 10, *, then_cut: bool = False) -> float:
    """Seconds until all bytes are back, in order."""
    host, port = relay.address.removeprefix("tcp://").split(":")
    sent = np.random.default_rng(size).bytes(size)
    with socket.create_connection((host, int(port)), 5.0) as connection:
        connection.settimeout(30.0)
        if then_cut:
            relay.cut()
        begin = time.monotonic()
        connection.sendall(sent)
        got = b""
        while len(got) < size:
            part = connection.recv(65536)
            assert part, "the connection was closed"
            got += part
    assert got == sent
    return time.monotonic() - begin


@pytest.mark.parametrize(
    ("link", "size", "least_s"),
    [
        (bench.Link(0.05), 10, 0.1),
        (bench.Link(bits_per_s=1e6), 50_000, 0.4),
        (bench.Link(0.02, 0.01), 200_000, 0.02),
    ],
    ids=["delay", "rate", "jitter"],
)
def test_a_link_takes_its_time_and_keeps_the_order(
    echo: int, link: Any, size: int, least_s: float
) -> None:
    relay = bench.Relay(echo, link, 1)
    took_s = round_trip_s(relay, size)
    relay.close()
    assert least_s <= took_s < least_s + 5.0


def test_nothing_passes_a_cut_and_nothing_is_lost_in_it(echo: int) -> None:
    relay = bench.Relay(echo, bench.Link(cut_s=1.0), 1)
    took_s = round_trip_s(relay, 10, then_cut=True)
    relay.close()
    # Retransmissions 0.2, 0.6 and 1.4 s after the first: the third one passes.
    assert 1.4 <= took_s < 6.0


def test_losses_are_as_often_as_said_and_cost_what_tcp_pays() -> None:
    relay = bench.Relay(1, bench.Link(0.02, loss=0.05), 3)
    stalls_s = np.array([relay._stall_s(bench.SEGMENT_BYTES) for _ in range(4000)])
    relay.close()
    part = float(np.mean(stalls_s > 0.0))
    assert abs(part - 0.05) < 0.011  # three standard deviations
    assert stalls_s[stalls_s > 0.0].min() == pytest.approx(0.24)  # round trip and timer
    whole = bench.Relay(1, bench.Link(0.02), 3)
    assert whole._stall_s(1_000_000) == 0.0
    whole.close()
