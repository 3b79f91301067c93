# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A policy on another computer: who gets in, what comes back, and a link that is cut."""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from koch_core.image import decode_image, encode_jpeg
from koch_policy.errors import PolicyUnavailableError, RuntimeChoiceError
from koch_policy.runtime import load_policy
from koch_policy.server.client import ServedPolicyError
from koch_policy.server.listen import (
    MOST_CLIENTS,
    Door,
    DoorError,
    Listener,
    OwnPolicy,
    checkpoint_policy,
)
from koch_policy.server.remote import AUTHORITY, TOKEN, Address

SECRET = "a long secret"
CAMERA = "observation.images.above"


@pytest.fixture(scope="module")
def checkpoint(make: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(make.checkpoint("act", tmp_path_factory.mktemp("act"), images=True))


@pytest.fixture(scope="module")
def served(checkpoint: Path) -> OwnPolicy:
    return checkpoint_policy(load_policy(checkpoint, "torch", full_horizon=True), checkpoint)


@pytest.fixture
def listen(served: OwnPolicy) -> Iterator[Callable[..., Listener]]:
    """Starts listeners, which end with the test."""
    begun: list[Listener] = []

    def start(token: str = "", port: int = 0, **more: Any) -> Listener:
        begun.append(Listener(served, Door("127.0.0.1", port, token, **more)))
        threading.Thread(target=begun[-1].run, daemon=True).start()
        return begun[-1]

    yield start
    for each in begun:
        each.close()


def observation(policy: Any) -> dict[str, Any]:
    draw = np.random.default_rng(4)
    seen: dict[str, Any] = {"task": "reach left"}
    for key, feature in policy.config.input_features.items():
        if key == CAMERA:
            seen[key] = encode_jpeg(draw.integers(0, 255, (48, 64, 3), dtype=np.uint8), 90)
        else:
            seen[key] = draw.normal(size=feature.shape).astype(np.float32)
    return seen


def test_a_chunk_from_afar_is_the_chunk_from_here(
    listen: Callable[..., Listener], checkpoint: Path
) -> None:
    here = load_policy(checkpoint, "torch", full_horizon=True)
    afar = load_policy(f"tcp://127.0.0.1:{listen().port}")
    seen = observation(here)
    got = afar.predict(seen)
    expected = here.predict({**seen, CAMERA: decode_image(seen[CAMERA])})
    np.testing.assert_array_equal(got, expected)
    assert afar.config.horizon_steps == len(expected)
    assert afar.extras.names == here.extras.names
    assert afar.runtime == here.runtime


def test_who_does_not_know_the_token_stays_out(
    listen: Callable[..., Listener], monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"tcp://127.0.0.1:{listen(SECRET).port}"
    for token in (None, "", "another secret", SECRET + " "):
        monkeypatch.delenv(TOKEN, raising=False)
        if token is not None:
            monkeypatch.setenv(TOKEN, token)
        with pytest.raises(ServedPolicyError, match="token is missing or wrong"):
            load_policy(address)
    monkeypatch.setenv(TOKEN, SECRET)
    assert load_policy(address).config.action_dim == 6


@pytest.mark.parametrize("bind", ["0.0.0.0", "::", "192.0.2.1", "some-host"])
def test_other_computers_need_a_token(bind: str) -> None:
    with pytest.raises(DoorError, match=TOKEN):
        Door(bind, 0)
    with pytest.raises(DoorError, match="5 letters"):
        Door(bind, 0, "short")
    Door(bind, 0, SECRET)


@pytest.mark.parametrize(
    "first",
    [
        struct.pack(">I", 60_000_000) + b"x" * 5000,
        struct.pack(">I", 4096) + b"x",
        b"GET / HTTP/1.1\r\nHost: here\r\n\r\n",
        b"",
    ],
    ids=["huge", "slow", "browser", "silent"],
)
def test_a_stranger_is_hung_up_on_and_nobody_else_waits(
    listen: Callable[..., Listener], first: bytes
) -> None:
    port = listen().port
    with socket.create_connection(("127.0.0.1", port)) as stranger:
        stranger.sendall(first)
        policy = load_policy(f"tcp://127.0.0.1:{port}")  # is served beside it
        policy.predict(observation(policy))
        stranger.settimeout(15.0)
        while True:
            try:
                if not stranger.recv(4096):
                    break
            except ConnectionResetError:
                break


def test_more_clients_than_there_is_room_for_are_turned_away(
    listen: Callable[..., Listener],
) -> None:
    address = f"tcp://127.0.0.1:{listen().port}"
    here: list[Any] = [load_policy(address) for _ in range(MOST_CLIENTS)]
    with pytest.raises(ServedPolicyError, match="no room"):
        load_policy(address)
    here[0].close()
    end = time.monotonic() + 10
    while True:
        try:
            load_policy(address)
        except ServedPolicyError:
            assert time.monotonic() < end
            time.sleep(0.1)
        else:
            break
    for each in here:
        each.close()


class Wire:
    """A way between two ports that can be cut; what is on it then is lost."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._cut = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, is_cut: bool) -> None:
        self._cut.set() if is_cut else self._cut.clear()

    def _accept(self) -> None:
        while True:
            near, _ = self._socket.accept()
            far = socket.create_connection(("127.0.0.1", self._port))
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        while data := one.recv(65536):
            if not self._cut.is_set():  # else it never arrives, as behind a pulled plug
                other.sendall(data)


@pytest.mark.slow
def test_a_cut_link_is_named_and_mended(listen: Callable[..., Listener]) -> None:
    wire = Wire(listen().port)
    policy: Any = load_policy(f"tcp://127.0.0.1:{wire.port}")
    seen = observation(policy)
    whole = policy.predict(seen)
    wire.cut(True)
    begin = time.monotonic()
    with pytest.raises(PolicyUnavailableError, match=r"tcp://127\.0\.0\.1.*has not answered"):
        policy.predict(seen)
    assert time.monotonic() - begin < policy.deadline_s + 1.0
    begin = time.monotonic()
    with pytest.raises(PolicyUnavailableError):  # at once: a run holds the arm meanwhile
        policy.predict(seen)
    assert time.monotonic() - begin < 0.2
    wire.cut(False)
    end = time.monotonic() + 60
    while policy.trouble:
        assert time.monotonic() < end, policy.trouble
        time.sleep(0.1)
    np.testing.assert_array_equal(policy.predict(seen), whole)
    policy.close()


def test_another_policy_behind_the_address_is_refused(
    listen: Callable[..., Listener], make: Any, tmp_path: Path
) -> None:
    first = listen()
    policy: Any = load_policy(f"tcp://127.0.0.1:{first.port}")
    seen = observation(policy)
    first.close()
    other = make.checkpoint("act", tmp_path, images=True, chunk_size=6, n_action_steps=6)
    loaded = load_policy(other, "torch", full_horizon=True)
    second = Listener(checkpoint_policy(loaded, Path(other)), Door("127.0.0.1", first.port))
    threading.Thread(target=second.run, daemon=True).start()
    policy._server.channel._socket.shutdown(socket.SHUT_RDWR)
    with pytest.raises(PolicyUnavailableError):
        policy.predict(seen)
    end = time.monotonic() + 20
    while "changed" not in policy.trouble:
        assert time.monotonic() < end, policy.trouble
        time.sleep(0.05)
    assert "config.chunk_size: 8 -> 6" in policy.trouble
    second.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate")
    folder = tmp_path_factory.mktemp("certificate")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    command += " -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout key.pem -out cert.pem"
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    return folder / "cert.pem", folder / "key.pem"


def test_tls_wants_a_certificate_that_is_known(
    listen: Callable[..., Listener],
    certificate: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port = listen(certificate=certificate[0], key=certificate[1]).port
    with pytest.raises(PolicyUnavailableError, match=AUTHORITY):
        load_policy(f"tls://localhost:{port}")
    with pytest.raises(PolicyUnavailableError):
        load_policy(f"tcp://localhost:{port}")
    monkeypatch.setenv(AUTHORITY, str(certificate[0]))
    assert load_policy(f"tls://localhost:{port}").config.action_dim == 6


def test_a_key_that_does_not_fit_is_refused(certificate: tuple[Path, Path]) -> None:
    with pytest.raises(DoorError, match="no certificate with its key"):
        Door("127.0.0.1", 0, certificate=certificate[1]).context()


@pytest.mark.parametrize(
    "text", ["tcp://", "tcp://host:0", "tcp://host:99999", "tcp://host/path", "tcp://a@host:1"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(RuntimeChoiceError, match="address"):
        load_policy(text)


def test_addresses_are_read_as_they_are_written() -> None:
    for text in ("tcp://gpu-box:8766", "tls://[fe80::1]:9000"):
        assert str(Address.parsed(text)) == text
    assert Address.parsed("tcp://gpu-box").port == 8766


def test_nobody_listening_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free = taken.getsockname()[1]
    with pytest.raises(PolicyUnavailableError, match="Is `koch serve` running"):
        load_policy(f"tcp://127.0.0.1:{free}")


def test_what_the_server_decides_is_not_asked_for_here() -> None:
    with pytest.raises(RuntimeChoiceError, match="takes no runtime, precision"):
        load_policy("tcp://127.0.0.1:1", "openvino", precision="bf16")
