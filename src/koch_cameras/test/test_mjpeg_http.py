# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""MJPEG over HTTP from a server that misbehaves on demand."""

from __future__ import annotations

import socket
import time

import pytest

from koch_cameras import errors
from koch_cameras.frame import Encoding, TimeBase
from koch_cameras.mjpeg_http import MjpegHttpSource, public_url
from koch_cameras.open_source import open_source
from koch_cameras.source import SourceConfig


def test_bytes_and_server_time_pass_untouched(mjpeg_server, jpeg):
    server = mjpeg_server(stamp=lambda index: f"{1000 + index}.250000001")
    source = MjpegHttpSource(SourceConfig(server.url, 64, 48))
    frames = [source.read() for _ in range(3)]
    source.close()
    for index, frame in enumerate(frames):
        assert frame.jpeg == jpeg(index)
        assert frame.time_ns == (1000 + index) * 1_000_000_000 + 250_000_001
        assert frame.time_base is TimeBase.SERVER
        assert (frame.sequence, frame.encoding) == (index, Encoding.JPEG)


@pytest.mark.parametrize(
    "quirk",
    [
        {"content_length": False},
        {"declared": "--frame"},
        {"newline": b"\n", "content_length": False},
    ],
)
def test_without_server_time_the_arrival_counts(mjpeg_server, jpeg, quirk):
    source = MjpegHttpSource(SourceConfig(mjpeg_server(**quirk).url))
    before_ns = time.monotonic_ns()
    frames = [source.read() for _ in range(3)]
    source.close()
    assert [frame.jpeg for frame in frames] == [jpeg(0), jpeg(1), jpeg(2)]
    assert frames[0].time_ns < before_ns < frames[1].time_ns < frames[2].time_ns
    assert frames[2].time_base is TimeBase.MONOTONIC


def test_password_is_sent_and_not_shown(mjpeg_server):
    server = mjpeg_server(login="Basic bWU6c2VjcmV0")
    url = server.url.replace("http://", "http://me:secret@")
    source = MjpegHttpSource(SourceConfig(url))
    source.close()
    assert public_url(url) == server.url
    with pytest.raises(errors.SourceLostError, match=r"HTTP 401.*user:password@"):
        MjpegHttpSource(SourceConfig(server.url))


def test_stall_raises_within_the_timeout(mjpeg_server, read_many):
    server = mjpeg_server()
    source = MjpegHttpSource(SourceConfig(server.url, timeout_s=0.3))
    server.stalled.set()
    began = time.monotonic()
    with pytest.raises(errors.SourceStalledError, match=r"no image for 0\.3 s"):
        read_many(source, 10)
    assert time.monotonic() - began < 1.5
    source.close()


def test_closed_connection_and_dead_server_are_losses(mjpeg_server, read_many):
    server = mjpeg_server()
    source = MjpegHttpSource(SourceConfig(server.url))
    server.stop()
    with pytest.raises(errors.SourceLostError):
        read_many(source, 10)
    source.close()
    with pytest.raises(errors.SourceLostError, match="refused"):
        MjpegHttpSource(SourceConfig(server.url))


def test_truncated_corrupt_and_empty_parts_are_dropped_one_by_one(mjpeg_server, jpeg):
    def frame(index: int) -> bytes:
        whole = jpeg(index)
        return {3: whole[:-40], 4: b"", 5: b"<html>", 6: b"\xff\xd8\xff\xd9"}.get(index, whole)

    source = MjpegHttpSource(SourceConfig(mjpeg_server(frame=frame).url, 64, 48))
    good = [source.read().sequence for _ in range(3)]
    for reason in ("cut off", "0 bytes", "neither JPEG nor PNG", "header"):
        with pytest.raises(errors.CorruptFrameError, match=reason):
            source.read()
    assert good == [0, 1, 2]
    assert source.read().sequence == 7
    source.close()


def test_size_is_checked_at_the_start_and_watched_later(mjpeg_server, jpeg, read_many):
    server = mjpeg_server(frame=lambda index: jpeg(index, 32 if index > 2 else 64))
    with pytest.raises(errors.ModeNotOfferedError, match=r"wanted .*640x480.*got MJPG 64x48"):
        MjpegHttpSource(SourceConfig(server.url, 640, 480))
    server._count = 0
    source = MjpegHttpSource(SourceConfig(server.url, 64, 48))
    with pytest.raises(errors.FrameSizeError, match="32x48, expected 64x48"):
        read_many(source, 8)
    source.close()


def test_stream_of_garbage_is_refused(mjpeg_server):
    server = mjpeg_server(frame=lambda index: b"garbage", interval_s=0.0)
    with pytest.raises(errors.StreamFormatError, match="without a whole JPEG"):
        MjpegHttpSource(SourceConfig(server.url))


@pytest.mark.parametrize("place", ["ftp://host/a", "http://", "gopher:x", ""])
def test_unknown_kinds_of_source_are_refused(place):
    with pytest.raises(errors.UnsupportedSourceError, match="Give a device index"):
        open_source(SourceConfig(place))


def test_server_that_drips_bytes_does_not_escape_the_timeout(mjpeg_server, jpeg):
    """Each recv returns in time, but the image never ends."""
    whole = jpeg(0)
    server = mjpeg_server(interval_s=0.0)
    send = server._send_part

    def drip(client: socket.socket) -> None:
        if server._count < 1:
            send(client)
            return
        client.sendall(b"--frame\r\nContent-Length: %d\r\n\r\n" % len(whole))
        for position in range(len(whole)):
            client.sendall(whole[position : position + 1])
            time.sleep(0.02)

    server._send_part = drip
    source = MjpegHttpSource(SourceConfig(server.url, timeout_s=0.4))
    source.read()
    began = time.monotonic()
    with pytest.raises(errors.SourceStalledError):
        source.read()
    assert time.monotonic() - began < 1.5
    source.close()
