# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Reader of multipart/x-mixed-replace streams that keeps the part headers.

PyAV's demuxer for such streams drops the headers and with them the server's X-Timestamp. The
reader survives what servers in the field do: no Content-Length, a wrong one, bare newlines, a
boundary declared with its dashes, text before the first boundary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from koch_cameras.errors import SourceLostError, StreamFormatError

_CHUNK_BYTES = 1 << 17
_MAX_LINE_BYTES = 8192
_MAX_HEADER_LINES = 64
_MAX_PART_BYTES = 32 << 20


@dataclass(frozen=True)
class MultipartPart:
    """One part: header names in lower case, and the body."""

    headers: Mapping[str, str]
    body: bytes


class ByteStream:
    """Buffered reading of lines, counts and up to a marker."""

    def __init__(self, source: str, receive: Callable[[int], bytes]) -> None:
        """Wrap a source of bytes.

        Args:
            source: Name for messages.
            receive: Returns at least one byte and at most the count given, b"" at the end. It
                raises on a timeout.
        """
        self._source = source
        self._receive = receive
        self._buffer = bytearray()

    def line(self, limit: int = _MAX_LINE_BYTES) -> bytes:
        """Next line without its end."""
        end = self._find(b"\n", limit)
        text = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return text.rstrip(b"\r")

    def exactly(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        while len(self._buffer) < count:
            self._fill()
        return self._take(count)

    def until(self, marker: bytes) -> bytes:
        """Bytes up to the marker, which stays in the stream."""
        return self._take(self._find(marker, _MAX_PART_BYTES))

    def _take(self, count: int) -> bytes:
        with memoryview(self._buffer) as view:
            data = bytes(view[:count])
        del self._buffer[:count]
        return data

    def _find(self, marker: bytes, limit: int) -> int:
        start = 0
        while (at := self._buffer.find(marker, start)) < 0:
            if len(self._buffer) > limit:
                raise StreamFormatError(self._source, f"no {marker!r} within {limit} bytes")
            start = max(0, len(self._buffer) - len(marker) + 1)
            self._fill()
        return at

    def _fill(self) -> None:
        chunk = self._receive(_CHUNK_BYTES)
        if not chunk:
            raise SourceLostError(self._source, "the server closed the connection")
        self._buffer += chunk


class MultipartReader:
    """Splits a byte stream into parts."""

    def __init__(self, source: str, boundary: str, stream: ByteStream) -> None:
        """Start before the first boundary.

        Args:
            source: Name for messages.
            boundary: The parameter of Content-Type. RFC 2046 puts "--" before it in the body, but
                many cameras declare it with the dashes: both spellings are accepted.
            stream: The body of the HTTP reply.
        """
        self._source = source
        self._marker = b"--" + boundary.encode("latin-1").removeprefix(b"--")
        self._stream = stream

    def next_part(self) -> MultipartPart:
        """Wait for the next part.

        Raises:
            SourceLostError: The connection ended, or the server sent the closing boundary.
            StreamFormatError: No boundary or endless headers.
        """
        self._skip_to_boundary()
        headers = self._headers()
        length = _content_length(headers)
        if length is None:
            body = self._stream.until(b"\n" + self._marker).removesuffix(b"\r")
        elif length > _MAX_PART_BYTES:
            raise StreamFormatError(self._source, f"a part of {length} bytes")
        else:
            body = self._stream.exactly(length)
        return MultipartPart(headers, body)

    def _skip_to_boundary(self) -> None:
        """A Content-Length that was too small leaves a rest of the image, skipped as well."""
        skipped = 0
        while skipped <= _MAX_PART_BYTES:
            text = self._stream.line(_MAX_PART_BYTES)
            at = text.rfind(self._marker)
            if at >= 0 and text[at:].rstrip() == self._marker:
                return
            if at >= 0 and text[at:].rstrip() == self._marker + b"--":
                raise SourceLostError(self._source, "the server ended the stream")
            skipped += len(text) + 1
        raise StreamFormatError(self._source, f"no boundary {self._marker!r}")

    def _headers(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        for _ in range(_MAX_HEADER_LINES):
            line = self._stream.line()
            if not line.strip():
                return headers
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.strip().lower()] = value.strip()
        raise StreamFormatError(self._source, "a part with endless headers")


def boundary_of(content_type: str) -> str | None:
    """The boundary of a multipart Content-Type, or None for any other type."""
    kind, _, rest = content_type.partition(";")
    if not kind.strip().lower().startswith("multipart/"):
        return None
    for item in rest.split(";"):
        name, _, value = item.partition("=")
        if name.strip().lower() == "boundary" and value.strip():
            return value.strip().strip('"')
    return None


def timestamp_ns(text: str | None) -> int | None:
    """Parse X-Timestamp, seconds with fraction, to [ns] without the rounding of a float.

    Returns:
        None for an absent or malformed value.
    """
    whole, _, fraction = (text or "").strip().partition(".")
    digits = whole + fraction
    if not (whole and digits.isascii() and digits.isdigit()) or len(whole) > 10:
        return None
    return int(whole) * 1_000_000_000 + int(fraction[:9].ljust(9, "0") or "0")


def _content_length(headers: Mapping[str, str]) -> int | None:
    text = headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() else None
