# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A connection to `koch bridge`; the messages are told in `koch_vla.bridge`.

Written again here, as LeRobot's environment holds no package of koch_vla: a frame is a length
(4 bytes, big-endian) and one msgpack map. Only numbers, texts, lists, maps and bytes are read.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np

PROTOCOL = 1
DEFAULT_ADDRESS = "127.0.0.1:8791"
TOKEN = "KOCH_BRIDGE_TOKEN"
_MAX_BYTES = 64 * 1024 * 1024
_LENGTH = struct.Struct(">I")


class BridgeError(ConnectionError):
    """The bridge refuses, or is not there."""


class Link:
    """One connection; not thread-safe.

    Args:
        address: HOST:PORT of `koch bridge`.
        deadline_s: How long each answer may take [s].

    Attributes:
        about: What the bridge says of the robot.

    Raises:
        BridgeError: There is no bridge, or it refuses.
    """

    def __init__(self, address: str, deadline_s: float) -> None:
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit():
            raise BridgeError(f"address {address!r}: expected HOST:PORT as {DEFAULT_ADDRESS}")
        self._deadline_s = deadline_s
        try:
            self._socket = socket.create_connection((host.strip("[]"), int(port)), deadline_s)
        except OSError as error:
            raise BridgeError(f"no bridge at {address} ({error}): start `koch bridge`") from error
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        hello = {"kind": "hello", "protocol": PROTOCOL, "token": os.environ.get(TOKEN, "")}
        self.about = self.ask(hello, "welcome")

    def ask(self, message: dict[str, Any], expected: str) -> dict[str, Any]:
        """Send a message and return the answer of the expected kind.

        Raises:
            BridgeError: The bridge says why not, does not answer in time, or is gone.
        """
        body = msgpack.packb(message, default=_plain)
        end = time.monotonic() + self._deadline_s
        try:
            self._socket.settimeout(self._deadline_s)
            self._socket.sendall(_LENGTH.pack(len(body)) + body)
            (length,) = _LENGTH.unpack(self._exactly(_LENGTH.size, end))
            if length > _MAX_BYTES:
                raise BridgeError(f"a frame of {length} bytes")
            answer = msgpack.unpackb(self._exactly(length, end), object_hook=_restored)
        except (OSError, ValueError) as error:
            self.close()  # half an answer may be on its way
            text = str(error) or f"no answer within {self._deadline_s:.1f} s"
            raise BridgeError(f"the bridge: {text}") from error
        if not isinstance(answer, dict) or answer.get("kind") != expected:
            text = answer.get("text") if isinstance(answer, dict) else None
            raise BridgeError(f"the bridge: {text or f'no {expected}'}")
        return answer

    def close(self) -> None:
        """Close the connection; idempotent. The arm holds its pose."""
        self._socket.close()

    def _exactly(self, count: int, end: float) -> bytes:
        parts = b""
        while len(parts) < count:
            self._socket.settimeout(max(1e-3, end - time.monotonic()))
            part = self._socket.recv(count - len(parts))
            if not part:
                raise OSError("it closed the connection")
            parts += part
        return parts


@dataclass
class BridgeAddress:
    """Where the bridge is.

    Attributes:
        address: HOST:PORT of `koch bridge`.
        deadline_s: How long each of its answers may take [s].
    """

    address: str = DEFAULT_ADDRESS
    deadline_s: float = 2.0


class Linked:
    """What LeRobot asks of the robot and of the teleoperator alike; first among their bases."""

    _link: Link | None = None
    _about: dict[str, Any] | None = None

    def __init__(self, config: Any) -> None:
        super().__init__(config)  # type: ignore[call-arg]  # LeRobot's base comes next
        self.config = config

    @property
    def about(self) -> dict[str, Any]:
        """What the bridge says; LeRobot asks for features before it connects."""
        if self._about is None:
            link = self._link or Link(self.config.address, self.config.deadline_s)
            if self._link is None:
                link.close()
            self._about = link.about
        return self._about

    @property
    def action_features(self) -> dict[str, Any]:
        """A number for each joint."""
        return dict.fromkeys(self.about["action"], float)

    @property
    def is_connected(self) -> bool:
        """A connection is open."""
        return self._link is not None

    @property
    def is_calibrated(self) -> bool:
        """The rig's arms are, or its graph would not run."""
        return True

    def connect(self, calibrate: bool = True) -> None:
        """Connect to the bridge; the arm does not move before the first action."""
        if self._link is None:
            self._link = Link(self.config.address, self.config.deadline_s)

    def calibrate(self) -> None:
        """Nothing: `koch calibrate` does it."""

    def configure(self) -> None:
        """Nothing: the rig file does it."""

    def ask(self, message: dict[str, Any], expected: str) -> dict[str, Any]:
        """What `Link.ask` does, of the open connection."""
        if self._link is None:
            raise BridgeError("not connected: call connect() first")
        return self._link.ask(message, expected)

    def disconnect(self) -> None:
        """Leave; the arm holds its pose."""
        if self._link is not None:
            self._link.close()
            self._link = None


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        array = np.ascontiguousarray(value, value.dtype.newbyteorder("<"))
        return {"dtype": array.dtype.str, "shape": list(array.shape), "data": array.tobytes()}
    raise TypeError(f"{type(value).__name__} cannot be sent")


def _restored(value: dict[str, Any]) -> Any:
    if value.keys() == {"dtype", "shape", "data"}:
        if value["dtype"] not in ("<f4", "<f8"):
            raise ValueError(f"an array of {value['dtype']!r}")
        return np.frombuffer(value["data"], value["dtype"]).reshape(value["shape"])
    if value.keys() == {"jpeg"}:
        return value["jpeg"]
    return value
