# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Test images, an MJPEG server that misbehaves on demand, and a kernel with a fake camera."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import simplejpeg


def image(index: int, width: int = 64, height: int = 48) -> np.ndarray:
    """A smooth RGB image that differs with the index."""
    y, x = np.mgrid[0:height, 0:width]
    red = (x * 255 // width + 7 * index) % 256
    return np.stack([red, y * 255 // height, np.full_like(x, 60)], axis=2).astype(np.uint8)


def jpeg(index: int, width: int = 64, height: int = 48) -> bytes:
    """The image as JPEG."""
    return simplejpeg.encode_jpeg(image(index, width, height), quality=90)


@pytest.fixture(name="image")
def image_fixture() -> Callable[..., np.ndarray]:
    """Make an image."""
    return image


def read_many(source: object, count: int) -> None:
    """Read images until one raises."""
    for _ in range(count):
        source.read()


@pytest.fixture(name="read_many")
def read_many_fixture() -> Callable[..., None]:
    """Read several images."""
    return read_many


@pytest.fixture(name="jpeg")
def jpeg_fixture() -> Callable[..., bytes]:
    """Make a JPEG."""
    return jpeg


@dataclass
class MjpegServer:
    """HTTP server on the loopback; every field may be changed while it runs."""

    frame: Callable[[int], bytes] = jpeg
    interval_s: float = 0.02
    stamp: Callable[[int], str] | None = None
    content_length: bool = True
    declared: str = "frame"
    delimiter: bytes = b"--frame"
    newline: bytes = b"\r\n"
    content_type: str | None = None
    login: str | None = None
    port: int = 0
    stalled: threading.Event = field(default_factory=threading.Event)
    requests: int = 0

    def __post_init__(self) -> None:
        self._count = 0
        self._listener: socket.socket | None = None
        self._clients: set[socket.socket] = set()

    @property
    def url(self) -> str:
        """Where it serves."""
        return f"http://127.0.0.1:{self.port}/stream"

    def start(self) -> MjpegServer:
        """Listen; after a stop, on the same port."""
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        self._listener.listen(8)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()
        return self

    def stop(self) -> None:
        """Close the listener and cut all clients."""
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        self.cut()

    def cut(self) -> None:
        """Cut all clients."""
        for client in list(self._clients):
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        self._clients.add(client)
        with client, contextlib.suppress(OSError):
            request = b""
            while b"\r\n\r\n" not in request:
                request += client.recv(4096)
            self.requests += 1
            if self.login is not None and self.login.encode() not in request:
                client.sendall(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
                return
            kind = self.content_type or f"multipart/x-mixed-replace; boundary={self.declared}"
            client.sendall(f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n\r\n".encode())
            while True:
                while self.stalled.is_set():
                    time.sleep(0.01)
                self._send_part(client)
                time.sleep(self.interval_s)
        self._clients.discard(client)

    def _send_part(self, client: socket.socket) -> None:
        index = self._count
        self._count += 1
        body = self.frame(index)
        lines = [self.delimiter, b"Content-Type: image/jpeg"]
        if self.content_length:
            lines.append(b"Content-Length: %d" % len(body))
        if self.stamp is not None:
            lines.append(b"X-Timestamp: " + self.stamp(index).encode())
        head = self.newline.join([*lines, b"", b""])
        client.sendall(head + body + self.newline)


@pytest.fixture
def mjpeg_server() -> Iterator[Callable[..., MjpegServer]]:
    """Factory of running servers."""
    servers: list[MjpegServer] = []

    def make(**settings: object) -> MjpegServer:
        server = MjpegServer(**settings).start()
        servers.append(server)
        return server

    yield make
    for server in servers:
        server.stop()


@dataclass
class FakeCamera:
    """A UVC-like device that answers ioctls with bytes packed by hand.

    The offsets are gcc's for linux/videodev2.h on x86-64 and arm64, written here a second time, so
    that a wrong structure in the package shows.
    """

    formats: dict[str, dict[tuple[int, int], list[int]]] = field(
        default_factory=lambda: {
            "YUYV": {(64, 48): [30], (640, 480): [30]},
            "MJPG": {(64, 48): [30, 15], (640, 480): [30]},
        }
    )
    errors: dict[int, int] = field(default_factory=dict)
    open_error: int = 0
    device_caps: int = 0x04200001
    forced_size: tuple[int, int] | None = None
    forced_rate: int | None = None
    stepwise: tuple[int, int, int, int, int, int] | None = None
    stride_padding: int = 0
    quantization: int = 0
    frames: list[dict[str, object]] = field(default_factory=list)
    plugged: bool = True
    now_ns: int = 5_000_000_000

    def __post_init__(self) -> None:
        self.fourcc, self.size, self.rate = "YUYV", (640, 480), 30
        self.buffers = [bytearray(1 << 20) for _ in range(4)]
        self.queued: list[int] = []
        self.streaming = False
        self.opened = self.closed = 0

    def open(self, path: str) -> int:
        if self.open_error:
            raise OSError(self.open_error, os.strerror(self.open_error))
        if not self.plugged:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        self.opened += 1
        return 7

    def close(self, fd: int) -> None:
        assert fd == 7
        self.closed += 1

    def monotonic_ns(self) -> int:
        return self.now_ns

    def wait(self, fd: int, timeout_s: float) -> bool:
        return not self.plugged or bool(self.frames)

    def mmap(self, fd: int, length: int, offset: int) -> FakeMapping:
        assert length == 1 << 20
        return FakeMapping(self.buffers[offset >> 20])

    def ioctl(self, fd: int, request: int, argument: object) -> None:
        if not self.plugged:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        if request in self.errors:
            code = self.errors[request]
            raise OSError(code, os.strerror(code))
        raw = memoryview(argument).cast("B")
        handler = {
            0x80685600: self._querycap,
            0xC0405602: self._enum_fmt,
            0xC02C564A: self._enum_sizes,
            0xC034564B: self._enum_intervals,
            0xC0D05605: self._s_fmt,
            0xC0CC5615: self._g_parm,
            0xC0CC5616: self._s_parm,
            0xC0145608: self._reqbufs,
            0xC0585609: self._querybuf,
            0xC058560F: self._qbuf,
            0xC0585611: self._dqbuf,
            0x40045612: self._streamon,
            0x40045613: self._streamoff,
        }[request]
        assert len(raw) == request >> 16 & 0x3FFF, "the request's size field is the structure's"
        handler(raw)

    def _querycap(self, raw: memoryview) -> None:
        struct.pack_into("16s32s32s", raw, 0, b"uvcvideo", b"Fake Cam", b"usb-0000:00:14.0-1")
        struct.pack_into("III", raw, 80, 0x060800, 0x84A00001, self.device_caps)

    def _enum_fmt(self, raw: memoryview) -> None:
        (index, kind) = struct.unpack_from("II", raw, 0)
        assert kind == 1
        if index >= len(self.formats):
            raise OSError(errno.EINVAL, "end")
        struct.pack_into("4s", raw, 44, list(self.formats)[index].encode())

    def _enum_sizes(self, raw: memoryview) -> None:
        index, fourcc = struct.unpack_from("I4s", raw, 0)
        if self.stepwise is not None and index == 0:
            struct.pack_into("I6I", raw, 8, 3, *self.stepwise)
            return
        sizes = list(self.formats[fourcc.decode()])
        if self.stepwise is not None or index >= len(sizes):
            raise OSError(errno.EINVAL, "end")
        struct.pack_into("III", raw, 8, 1, *sizes[index])

    def _enum_intervals(self, raw: memoryview) -> None:
        index, fourcc, width, height = struct.unpack_from("I4sII", raw, 0)
        rates = self.formats[fourcc.decode()].get((width, height), [30])
        if index >= len(rates):
            raise OSError(errno.EINVAL, "end")
        struct.pack_into("III", raw, 16, 1, 1, rates[index])

    def _s_fmt(self, raw: memoryview) -> None:
        kind, width, height, fourcc = struct.unpack_from("I4xII4s", raw, 0)
        assert kind == 1
        self.size = self.forced_size or (width, height)
        self.fourcc = fourcc.decode()
        struct.pack_into("II", raw, 8, *self.size)
        depth = {"YUYV": 2, "UYVY": 2, "RGB3": 3, "BGR3": 3, "GREY": 1, "NV12": 1}
        stride = self.size[0] * depth.get(self.fourcc, 0) + self.stride_padding
        struct.pack_into("I", raw, 24, 0 if self.fourcc == "MJPG" else stride)
        struct.pack_into("I", raw, 48, self.quantization)

    def _g_parm(self, raw: memoryview) -> None:
        struct.pack_into("IIII", raw, 4, 0x1000, 0, 1, self.forced_rate or self.rate)

    def _s_parm(self, raw: memoryview) -> None:
        numerator, denominator = struct.unpack_from("II", raw, 12)
        self.rate = denominator // numerator
        self._g_parm(raw)

    def _reqbufs(self, raw: memoryview) -> None:
        assert struct.unpack_from("III", raw, 0) == (4, 1, 1)

    def _querybuf(self, raw: memoryview) -> None:
        (index,) = struct.unpack_from("I", raw, 0)
        struct.pack_into("I", raw, 64, index << 20)
        struct.pack_into("I", raw, 72, 1 << 20)

    def _qbuf(self, raw: memoryview) -> None:
        self.queued.append(struct.unpack_from("I", raw, 0)[0])

    def _dqbuf(self, raw: memoryview) -> None:
        assert self.streaming
        frame = self.frames.pop(0)
        index = self.queued.pop(0)
        data = bytes(frame["data"])
        self.buffers[index][: len(data)] = data
        flags = 0x2000 | int(frame.get("flags", 0))
        struct.pack_into("II", raw, 0, index, 1)
        struct.pack_into("II", raw, 8, len(data), int(frame.get("raw_flags", flags)))
        seconds, nanos = divmod(int(frame["time_ns"]), 1_000_000_000)
        struct.pack_into("qq", raw, 24, seconds, nanos // 1000)
        struct.pack_into("I", raw, 56, int(frame["sequence"]))

    def _streamon(self, raw: memoryview) -> None:
        assert struct.unpack_from("i", raw, 0) == (1,)
        self.streaming = True

    def _streamoff(self, raw: memoryview) -> None:
        self.streaming = False


class FakeMapping:
    """A mapped buffer."""

    def __init__(self, memory: bytearray) -> None:
        self._memory: bytearray | None = memory

    def __getitem__(self, index: slice) -> bytes:
        assert self._memory is not None, "read after unmap"
        return bytes(self._memory[index])

    def close(self) -> None:
        self._memory = None


@pytest.fixture
def fake_camera() -> Callable[..., FakeCamera]:
    """Factory of fake devices."""
    return FakeCamera


@pytest.fixture
def rig_file(tmp_path: Path) -> Callable[..., Path]:
    """Write a rig with one camera "above"; settings replace its keys."""

    def write(source: str | int, **settings: object) -> Path:
        keys = {"source": source, "width": 64, "height": 48, "fps": 30, **settings}
        lines = "".join(f"    {key}: {value}\n" for key, value in keys.items())
        path = tmp_path / "rig.yaml"
        path.write_text(
            "rig: test\nfps: 30\narms:\n"
            "  follower: {role: follower, port: /dev/null, calibration: none.json}\n"
            f"cameras:\n  above:\n{lines}"
            "    mount: {parent: world, xyz: [0, 0, 1], rpy_deg: [180, 0, 0]}\n"
            "features:\n  observation.state: {stream: follower/joint_states}\n"
            "  observation.images.above: {stream: cameras/above}\n"
            "  action: {stream: follower/joint_command}\n"
        )
        return path

    return write


@pytest.fixture
def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
