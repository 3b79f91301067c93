# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The server's side of a connection: answers a client until it goes."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from koch_core.errors import KochError
from koch_policy.server.protocol import PROTOCOL, Channel, LinkError, ProtocolError

_WARM_UPS = 2
_HELLO_S, _HELLO_BYTES = 5.0, 4096  # a stranger gets no more time and memory than that
_LOGGER = logging.getLogger(__name__)


class Served(Protocol):
    """What a server asks of a policy."""

    def describe(self) -> dict[str, Any]:
        """Return `config`, `metadata`, `rename`, `runtime` and `server`; see `protocol`."""
        ...

    def example(self) -> dict[str, Any]:
        """Return a made-up observation, to warm up with."""
        ...

    def predict(
        self, observation: Mapping[str, Any], noise: Any | None, within_s: float = math.inf
    ) -> Any:
        """Return a chunk (T, A), float32; one that begins later than that is of no use [s]."""
        ...

    def observe(self, observation: Mapping[str, Any]) -> None:
        """Take in an observation without predicting."""
        ...

    def reset(self) -> None:
        """Forget all history."""
        ...


def serve(
    channel: Channel,
    load: Callable[[], Served],
    admits: Callable[[Any], bool] = lambda token: True,
) -> int:
    """Greet a client, load the policy, and answer until the client goes.

    Args:
        channel: The connection.
        load: Returns the policy.
        admits: Whether a client with this token may come in.

    Returns:
        0 when it has gone, 1 when there was nothing to serve.
    """
    try:
        hello = channel.receive(_HELLO_S, most_bytes=_HELLO_BYTES)
        if hello["kind"] != "hello" or hello.get("protocol") != PROTOCOL:
            text = f"this server speaks protocol {PROTOCOL}, the client {hello.get('protocol')!r}"
            channel.send({"kind": "error", "text": f"{text}. Take both from one release."})
            return 1
        try:
            is_known = admits(hello.get("token"))
        except KochError as exc:
            channel.send({"kind": "error", "text": str(exc)})
            return 1
        if not is_known:
            _LOGGER.warning("a client with a wrong token was turned away")
            channel.send({"kind": "error", "text": "the token is missing or wrong"})
            return 1
        try:
            policy = load()
            welcome = {**policy.describe(), "warm_up_s": _warm_up(policy)}
        except Exception as exc:  # whatever a foreign library raises; the client is told
            _LOGGER.exception("loading failed")
            channel.send({"kind": "error", "text": _told(exc)})
            return 1
        channel.send({"kind": "welcome", "protocol": PROTOCOL, **welcome})
        while True:
            channel.send(_answer(policy, channel.receive()))
    except LinkError as exc:
        _LOGGER.info("client gone: %s", exc)
        return 0


def _answer(policy: Served, message: dict[str, Any]) -> dict[str, Any]:
    kind, observation = message["kind"], message.get("observation", {})
    try:
        if kind == "predict":
            within_s = float(message.get("within_s", math.inf))
            chunk = policy.predict(observation, message.get("noise"), within_s)
            actions = np.ascontiguousarray(chunk)
            return {"kind": "chunk", "actions": actions}
        if kind == "observe":
            policy.observe(observation)
        elif kind == "reset":
            policy.reset()
        else:
            raise ProtocolError(f"a message {kind!r}", "predict, observe or reset")
    except Exception as exc:  # one bad observation must not end the server
        _LOGGER.exception("%s failed", kind)
        return {"kind": "error", "text": _told(exc)}
    return {"kind": "done"}


def _warm_up(policy: Served) -> float:
    """Predict a few times; seconds of the last."""
    duration_s = 0.0
    for _ in range(_WARM_UPS):
        begin = time.monotonic()
        policy.predict(policy.example(), None)
        duration_s = time.monotonic() - begin
    policy.reset()
    return duration_s


def _told(exc: Exception) -> str:
    """One sentence; the traceback stays in the server's own log."""
    if isinstance(exc, KochError):
        return str(exc)
    return f"{type(exc).__name__}: {str(exc).partition(chr(10))[0][:500]}"
