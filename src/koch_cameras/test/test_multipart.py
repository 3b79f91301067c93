# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The multipart reader against spellings and cuts that occur in the field."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from koch_cameras.errors import SourceLostError, StreamFormatError
from koch_cameras.multipart import ByteStream, MultipartReader, boundary_of, timestamp_ns


def reader(data: bytes, boundary: str = "frame", chunk: int = 7) -> MultipartReader:
    """Reader over bytes that arrive in chunks."""
    rest = bytearray(data)

    def receive(count: int) -> bytes:
        piece = bytes(rest[: min(count, chunk)])
        del rest[: len(piece)]
        return piece

    return MultipartReader("test", boundary, ByteStream("test", receive))


def part(body: bytes, *headers: bytes, newline: bytes = b"\r\n") -> bytes:
    return newline.join([b"--frame", *headers, b"", body]) + newline


@settings(max_examples=60, deadline=None)
@given(
    bodies=st.lists(st.binary(max_size=60), min_size=1, max_size=4),
    chunk=st.integers(1, 50),
    with_length=st.booleans(),
)
def test_bodies_survive_any_chunking(bodies, chunk, with_length):
    if not with_length:  # without a length the boundary may not occur in the image
        bodies = [body.replace(b"--frame", b"").rstrip(b"\r\n") for body in bodies]
    data = b"".join(
        part(body, *([b"Content-Length: %d" % len(body)] if with_length else [b"A: b"]))
        for body in bodies
    )
    source = reader(data + b"--frame--\r\n", chunk=chunk)
    assert [source.next_part().body for _ in bodies] == bodies
    with pytest.raises(SourceLostError, match="ended the stream"):
        source.next_part()


def test_headers_are_kept_in_lower_case():
    headers = (b"X-Timestamp: 12.5", b"Content-Length: 2", b"Content-type:image/jpeg")
    found = reader(part(b"ab", *headers)).next_part().headers
    assert found == {"x-timestamp": "12.5", "content-length": "2", "content-type": "image/jpeg"}


@pytest.mark.parametrize("declared", ["frame", "--frame", '"frame"'])
@pytest.mark.parametrize("newline", [b"\r\n", b"\n"])
def test_boundary_spellings(declared, newline):
    boundary = boundary_of(f"multipart/x-mixed-replace;boundary={declared}")
    source = reader(b"preamble\r\n" + part(b"ab", b"A: b", newline=newline) * 2, boundary)
    with_end = source.next_part()
    assert with_end.body == b"ab"


@pytest.mark.parametrize("lie", [-3, 3])
def test_wrong_content_length_loses_at_most_the_next_part(lie):
    bodies = [bytes([65 + index]) * 20 for index in range(4)]
    data = b"".join(
        part(body, b"Content-Length: %d" % (len(body) + (lie if index == 0 else 0)))
        for index, body in enumerate(bodies)
    )
    source = reader(data)
    assert source.next_part().body != bodies[0]
    rest = [source.next_part().body for _ in range(2)]
    assert rest[-1] in bodies[2:]


def test_unusable_content_length_falls_back_to_the_boundary():
    source = reader(part(b"abc", b"Content-Length: many") * 2)
    assert source.next_part().body == b"abc"


def test_closed_connection_is_a_loss():
    with pytest.raises(SourceLostError, match="closed the connection"):
        reader(b"--frame\r\nContent-Length: 10\r\n\r\nabc").next_part()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"--frame\r\n" + b"A: b\r\n" * 70, "endless headers"),
        (b"--frame\r\n" + b"A" * 10_000, "within 8192 bytes"),
        (b"--frame\r\nContent-Length: 99999999999\r\n\r\n", "a part of 99999999999 bytes"),
    ],
)
def test_nonsense_is_refused(data, reason):
    with pytest.raises(StreamFormatError, match=reason):
        reader(data, chunk=5000).next_part()


@pytest.mark.parametrize("kind", ["image/jpeg", "text/html; boundary=x", "multipart/mixed", ""])
def test_other_content_types_have_no_boundary(kind):
    assert boundary_of(kind) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1700000000.123456789", 1_700_000_000_123_456_789),
        ("1700000000.1", 1_700_000_000_100_000_000),
        ("12", 12_000_000_000),
        ("0.000000001", 1),
        ("3.", 3_000_000_000),
        (".5", None),
        ("nan", None),
        ("-1.5", None),
        ("1e9", None),
        ("", None),
        (None, None),
        ("99999999999", None),
    ],
)
def test_timestamps_parse_exactly_or_not_at_all(text, expected):
    assert timestamp_ns(text) == expected
