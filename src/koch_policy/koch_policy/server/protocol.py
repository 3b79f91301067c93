# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Messages between a policy server and its client: msgpack in frames on a stream socket.

A frame is a length (4 bytes, big-endian, at most MAX_BYTES) and one msgpack map. The client
speaks, the server answers each message with one:

    hello {protocol[, token]}         -> welcome {protocol, server, runtime, warm_up_s,
                                                  config, metadata, rename}
    predict {observation[, noise, within_s]} -> chunk {actions}
    observe {observation}, reset {}          -> done {}
    any of them                              -> error {text}

`config` is the content of the checkpoint's config.json (features, steps), `metadata` that of its
koch.json (fingerprint, units, names, fps), `rename` tells which names of the rig the policy calls
otherwise. `within_s` is how long the client waits: what could begin only later is not computed.
An array is {dtype, shape, data}, in C order; an image may be {jpeg} instead. Nothing that is read
can run code, and nothing is larger than the receiver has room for.
"""

from __future__ import annotations

import math
import socket
import struct
import time
from collections.abc import Mapping
from typing import Any

import msgpack
import numpy as np

from koch_core.errors import KochError

PROTOCOL = 1
MAX_BYTES = 64 * 1024 * 1024  # two steps of six raw 1080p images are 75 MB: send JPEGs then
_LENGTH = struct.Struct(">I")
_ARRAY, _JPEG = {"dtype", "shape", "data"}, {"jpeg"}
_DTYPES = ("|u1", "<f4", "<f8", "<i8")
_MAX_DIMENSIONS = 6
_MAX_ITEMS = 100_000  # entries of one list or map
_REST_S = 30.0  # once a frame has begun, the rest of it has to come


class LinkError(KochError):
    """The other end of a connection cannot be talked to any more."""


class LinkClosedError(LinkError):
    """The connection is gone."""

    def __init__(self, what: str) -> None:
        super().__init__(f"the connection was closed ({what}).")


class LateError(LinkError):
    """The other end did not answer in time."""

    def __init__(self, deadline_s: float) -> None:
        super().__init__(f"no answer within {deadline_s:.1f} s.")
        self.deadline_s = deadline_s


class ProtocolError(LinkError):
    """The other end sent what is no message of this protocol."""

    def __init__(self, got: str, expected: str) -> None:
        super().__init__(f"got {got}; expected {expected}. Are both ends of the same release?")


class Channel:
    """One end of a connection. Not thread-safe: one thread talks."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    def close(self) -> None:
        """Close the connection; idempotent."""
        self._socket.close()

    def send(self, message: Mapping[str, Any], deadline_s: float = _REST_S) -> None:
        """Send a message.

        Raises:
            ProtocolError: It is too large.
            LinkError: The other end is gone, or takes nothing.
        """
        body = packed(message)
        if len(body) > MAX_BYTES:
            raise ProtocolError(f"a message of {len(body)} bytes to send", f"up to {MAX_BYTES}")
        try:
            self._socket.settimeout(deadline_s)
            self._socket.sendall(_LENGTH.pack(len(body)) + body)
        except TimeoutError as exc:
            raise LateError(deadline_s) from exc
        except OSError as exc:
            raise LinkClosedError(str(exc)) from exc

    def receive(
        self, deadline_s: float | None = None, most_bytes: int = MAX_BYTES
    ) -> dict[str, Any]:
        """Return the next message; waits without end where there is no deadline.

        Raises:
            LateError: It did not come, or not wholly.
            LinkClosedError: The other end is gone.
            ProtocolError: The bytes are no message.
        """
        begin = time.monotonic()
        (length,) = _LENGTH.unpack(self._exactly(_LENGTH.size, deadline_s))
        if not 0 < length <= most_bytes:
            raise ProtocolError(f"a frame of {length} bytes", f"1 to {most_bytes}")
        if deadline_s is None:
            left_s = _REST_S
        else:
            left_s = max(1e-3, begin + deadline_s - time.monotonic())
        return unpacked(self._exactly(length, left_s))

    def ask(self, message: Mapping[str, Any], deadline_s: float) -> dict[str, Any]:
        """Send a message and return the answer; both within the deadline."""
        begin = time.monotonic()
        try:
            self.send(message, deadline_s)
            return self.receive(max(1e-3, begin + deadline_s - time.monotonic()))
        except LateError as exc:
            raise LateError(deadline_s) from exc

    def _exactly(self, count: int, deadline_s: float | None) -> bytes:
        """Read so many bytes; memory grows as they come, not as the other end announces."""
        end = None if deadline_s is None else time.monotonic() + deadline_s
        parts, missing = [], count
        while missing:
            try:
                if end is not None:
                    self._socket.settimeout(max(1e-3, end - time.monotonic()))
                else:
                    self._socket.settimeout(None)
                part = self._socket.recv(min(missing, 1 << 20))
            except TimeoutError as exc:
                raise LateError(deadline_s or 0.0) from exc
            except OSError as exc:
                raise LinkClosedError(str(exc)) from exc
            if not part:
                raise LinkClosedError("end of stream")
            parts.append(part)
            missing -= len(part)
            if missing and end is not None and time.monotonic() > end:
                raise LateError(deadline_s or 0.0)
        return b"".join(parts)


def packed(message: Mapping[str, Any]) -> bytes:
    """Return a message's bytes. Values: numbers, text, arrays, JPEGs as bytes, lists, maps."""
    result: bytes = msgpack.packb(_plain(message), use_bin_type=True)
    return result


def unpacked(body: bytes) -> dict[str, Any]:
    """Return the message in these bytes; arrays share their memory and are read-only.

    Raises:
        ProtocolError: They hold something else.
    """
    try:
        message = msgpack.unpackb(
            body,
            raw=False,
            strict_map_key=True,
            max_array_len=_MAX_ITEMS,
            max_map_len=_MAX_ITEMS,
            max_ext_len=0,
        )
        result = _restored(message)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as exc:
        raise ProtocolError(f"bytes that cannot be read ({exc})", "one msgpack map") from exc
    if not isinstance(result, dict) or not isinstance(result.get("kind"), str):
        raise ProtocolError(f"a {type(result).__name__}", "a map with its `kind`")
    return result


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return {"jpeg": value}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        dtype = value.dtype.newbyteorder("<")
        if dtype.str not in _DTYPES:
            raise ProtocolError(f"an array of {value.dtype}", f"one of {', '.join(_DTYPES)}")
        array = np.ascontiguousarray(value, dtype)
        return {"dtype": dtype.str, "shape": list(value.shape), "data": array.tobytes()}
    return value


def _restored(value: Any) -> Any:
    if isinstance(value, list):
        return [_restored(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == _ARRAY:
        return _array(value["dtype"], value["shape"], value["data"])
    if value.keys() == _JPEG and isinstance(value["jpeg"], bytes):
        return value["jpeg"]
    if not all(isinstance(key, str) for key in value):
        raise ValueError("a key that is no text")
    return {key: _restored(item) for key, item in value.items()}


def _array(dtype: Any, shape: Any, data: Any) -> Any:
    if dtype not in _DTYPES or not isinstance(data, bytes) or not isinstance(shape, list):
        raise ValueError(f"no array: dtype {dtype!r}, shape {shape!r}")
    sizes_fit = all(type(size) is int and size >= 0 for size in shape)
    count = len(data) // np.dtype(dtype).itemsize
    if len(shape) > _MAX_DIMENSIONS or not sizes_fit or math.prod(shape) != count:
        raise ValueError(f"{len(data)} bytes are no {dtype} of shape {shape}")
    return np.frombuffer(data, dtype).reshape(shape)
