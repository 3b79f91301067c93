# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""MJPEG over HTTP with the server's acquisition times."""

from __future__ import annotations

import base64
import contextlib
import http.client
import socket
import ssl
import time
from urllib.parse import unquote, urlsplit, urlunsplit

from koch_cameras.errors import (
    CorruptFrameError,
    FrameSizeError,
    ModeNotOfferedError,
    SourceLostError,
    SourceStalledError,
    StreamFormatError,
    UnsupportedSourceError,
)
from koch_cameras.frame import CameraFrame, Encoding, TimeBase
from koch_cameras.image import jpeg_size
from koch_cameras.multipart import (
    ByteStream,
    MultipartPart,
    MultipartReader,
    boundary_of,
    timestamp_ns,
)
from koch_cameras.source import Mode, SourceConfig

_REDIRECTS = 3
_UNUSABLE_PARTS = 100
_HINTS = {401: "; put user:password@ into the URL", 404: "; check the path of the URL"}


class NotMultipartError(StreamFormatError):
    """The reply is no multipart stream; another reader may understand it."""


class MjpegHttpSource:
    """An open multipart/x-mixed-replace stream.

    The time of an image is the part's X-Timestamp (seconds with fraction, on the server's clock);
    without one, it is the arrival of the part's last byte.
    """

    def __init__(self, config: SourceConfig) -> None:
        """Connect and read the first whole image, which tells the size.

        Raises:
            SourceLostError: No connection, or an HTTP error.
            SourceStalledError: The server is silent.
            NotMultipartError: Something else than a multipart stream.
            ModeNotOfferedError: The images have another size than asked for.
        """
        self._name = public_url(str(config.index_or_path))
        self._timeout_s = config.timeout_s
        self._deadline_s = time.monotonic() + config.timeout_s
        self._sequence = 0
        self._response, self._connection = _open(
            self._name, str(config.index_or_path), config.timeout_s
        )
        try:
            kind = self._response.headers.get("Content-Type", "")
            boundary = boundary_of(kind)
            if boundary is None:
                raise NotMultipartError(self._name, f"the server sends {kind or 'no type'!r}")
            stream = ByteStream(self._name, self._receive)
            self._reader = MultipartReader(self._name, boundary, stream)
            self._first: CameraFrame | None = self._first_frame()
        except BaseException:
            self.close()
            raise
        self._mode = Mode(self._first.width, self._first.height, None, "MJPG")
        wanted = config.capture_size
        if wanted is not None and wanted != (self._mode.width, self._mode.height):
            self.close()
            offered = [str(self._mode)]
            raise ModeNotOfferedError(self._name, config.wanted(), str(self._mode), offered)

    @property
    def mode(self) -> Mode:
        """See FrameSource."""
        return self._mode

    def read(self) -> CameraFrame:
        """See FrameSource."""
        if self._first is not None:
            frame, self._first = self._first, None
            return frame
        frame = self._next()
        expected = (self._mode.width, self._mode.height)
        if (frame.width, frame.height) != expected:
            raise FrameSizeError(self._name, expected, (frame.width, frame.height))
        return frame

    def close(self) -> None:
        """See FrameSource."""
        self._response.close()
        self._connection.close()

    def _first_frame(self) -> CameraFrame:
        """A server may start in the middle of an image, so damage is forgiven here."""
        for _ in range(_UNUSABLE_PARTS):
            with contextlib.suppress(CorruptFrameError):
                return self._next()
        raise StreamFormatError(self._name, f"{_UNUSABLE_PARTS} parts without a whole JPEG")

    def _next(self) -> CameraFrame:
        self._deadline_s = time.monotonic() + self._timeout_s
        part: MultipartPart = self._reader.next_part()
        arrival_ns = time.monotonic_ns()
        sequence, self._sequence = self._sequence, self._sequence + 1
        width, height = jpeg_size(self._name, part.body)
        server_ns = timestamp_ns(part.headers.get("x-timestamp"))
        return CameraFrame(
            sequence,
            arrival_ns if server_ns is None else server_ns,
            TimeBase.MONOTONIC if server_ns is None else TimeBase.SERVER,
            Encoding.JPEG,
            width,
            height,
            part.body,
        )

    def _receive(self, count: int) -> bytes:
        """One recv; a server that drips single bytes does not escape the deadline."""
        if time.monotonic() > self._deadline_s:
            raise SourceStalledError(self._name, self._timeout_s)
        try:
            return self._response.read1(count)
        except TimeoutError as exc:
            raise SourceStalledError(self._name, self._timeout_s) from exc
        except (OSError, http.client.HTTPException, ValueError) as exc:
            raise SourceLostError(self._name, str(exc) or type(exc).__name__) from exc


def public_url(url: str) -> str:
    """The URL without its password, for messages."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _open(
    name: str, url: str, timeout_s: float
) -> tuple[http.client.HTTPResponse, http.client.HTTPConnection]:
    for _ in range(_REDIRECTS + 1):
        connection = _connect(url, timeout_s)
        try:
            response = _request(connection, url)
        except TimeoutError as exc:
            connection.close()
            raise SourceStalledError(name, timeout_s) from exc
        except (OSError, http.client.HTTPException) as exc:
            connection.close()
            raise SourceLostError(name, str(exc) or type(exc).__name__) from exc
        location = response.headers.get("Location")
        if response.status in (301, 302, 303, 307, 308) and location:
            connection.close()
            url = _redirected(url, location)
            continue
        if response.status != 200:
            connection.close()
            hint = _HINTS.get(response.status, "")
            raise SourceLostError(name, f"HTTP {response.status} {response.reason}{hint}")
        return response, connection
    raise SourceLostError(name, f"more than {_REDIRECTS} redirections")


def _connect(url: str, timeout_s: float) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port
    except ValueError as exc:
        raise UnsupportedSourceError(url, ("http", "https")) from exc
    if not host or parts.scheme not in ("http", "https"):
        raise UnsupportedSourceError(url, ("http", "https"))
    if parts.scheme == "https":
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context)
    return http.client.HTTPConnection(host, port, timeout=timeout_s)


def _request(connection: http.client.HTTPConnection, url: str) -> http.client.HTTPResponse:
    parts = urlsplit(url)
    headers = {"Accept": "multipart/x-mixed-replace, */*", "Connection": "keep-alive"}
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = "Basic " + base64.b64encode(login.encode()).decode()
    connection.connect()
    # A server that vanishes without a word (power cut) is noticed by the deadline; keep-alive
    # probes free the socket of one that merely pauses between images.
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    target = urlunsplit(("", "", parts.path or "/", parts.query, ""))
    connection.request("GET", target, headers=headers)
    return connection.getresponse()


def _redirected(url: str, location: str) -> str:
    parts = urlsplit(url)
    target = urlsplit(location)
    if target.netloc:
        return location
    return urlunsplit((parts.scheme, parts.netloc, target.path, target.query, ""))
