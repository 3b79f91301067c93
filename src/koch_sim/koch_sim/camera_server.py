# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Serves the simulated cameras as MJPEG streams over HTTP on loopback.

Each part carries ``X-Timestamp``, the acquisition time of the image in seconds since the epoch
of the world's clock, as network cameras send it.
"""

from __future__ import annotations

import html
import threading
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from koch_sim.errors import SimulationError

if TYPE_CHECKING:
    from collections.abc import Iterable

INDEX = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Simulated cameras</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body {{ font: 16px system-ui, sans-serif; margin: 1em; display: flex; flex-wrap: wrap; gap: 1em }}
figure {{ margin: 0; flex: 1 1 320px; max-width: 640px }} img {{ width: 100% }}
</style>
{figures}
</html>
"""
BOUNDARY = "koch-frame"
#: A client that reads nothing for this long is dropped, [s].
SEND_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class EncodedFrame:
    """One JPEG image.

    Attributes:
        jpeg: The encoded bytes.
        stamp_ns: Acquisition time by the world's clock, [ns].
        sequence: Running number of the camera's images.
    """

    jpeg: bytes
    stamp_ns: int
    sequence: int


class FrameSlot:
    """Hands the newest image of one camera to any number of readers."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._frame: EncodedFrame | None = None
        self._closed = False
        self.readers = 0

    def put(self, frame: EncodedFrame) -> None:
        """Publish an image; readers that were slow skip what came between."""
        with self._condition:
            self._frame = frame
            self._condition.notify_all()

    def next_after(self, sequence: int, timeout_s: float) -> EncodedFrame | None:
        """Wait for an image newer than a sequence number; None when none came or on close."""
        with self._condition:
            self._condition.wait_for(
                lambda: (
                    self._closed or (self._frame is not None and self._frame.sequence > sequence)
                ),
                timeout_s,
            )
            frame = self._frame
        if self._closed or frame is None or frame.sequence <= sequence:
            return None
        return frame

    def close(self) -> None:
        """Wake all readers for good."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()

    @property
    def closed(self) -> bool:
        """Whether the slot is closed."""
        return self._closed


class CameraServer:
    """An HTTP server with one stream per camera at ``/<camera>.mjpeg``, and all of them at ``/``.

    A camera that is `stalled` keeps its connections and sends nothing, as a hung device does.
    """

    def __init__(self, cameras: Iterable[str], port: int, host: str = "127.0.0.1") -> None:
        """Bind the port.

        Args:
            cameras: Names; the streams are /<name>.mjpeg.
            port: TCP port, 0 = any free one.
            host: Address to bind; loopback unless the caller decides otherwise.

        Raises:
            SimulationError: The port cannot be bound.
        """
        self.slots = {name: FrameSlot() for name in cameras}
        self.stalled: set[str] = set()
        handler = type("Handler", (_StreamHandler,), {"owner": self})
        try:
            self._http = ThreadingHTTPServer((host, port), handler)
        except OSError as exc:
            raise SimulationError(
                f"Camera server: cannot listen on {host}:{port}: {exc.strerror}. Another "
                f"simulation may run; stop it or set KOCH_SIM_PORT to a free port."
            ) from exc
        self._http.daemon_threads = True
        self._thread = threading.Thread(
            target=self._http.serve_forever,
            kwargs={"poll_interval": 0.5},
            name="camera-server",
            daemon=True,
        )

    @property
    def port(self) -> int:
        """The TCP port in use."""
        return int(self._http.server_address[1])

    def start(self) -> None:
        """Begin to accept clients."""
        self._thread.start()

    def put(self, camera: str, frame: EncodedFrame) -> None:
        """Publish a camera's image."""
        if camera not in self.stalled:
            self.slots[camera].put(frame)

    def close(self) -> None:
        """End all streams and free the port; may be called twice."""
        for slot in self.slots.values():
            slot.close()
        if self._thread.is_alive():
            self._http.shutdown()
            self._thread.join()
        self._http.server_close()


class _StreamHandler(BaseHTTPRequestHandler):
    """Answers one client: an endless multipart stream, or the page that shows all of them."""

    owner: CameraServer
    protocol_version = "HTTP/1.1"
    timeout = SEND_TIMEOUT_S

    def do_GET(self) -> None:
        name = self.path.split("?")[0].strip("/").removesuffix(".mjpeg")
        if not name:
            self._index()
            return
        slot = self.owner.slots.get(name)
        if slot is None:
            known = ", ".join(f"/{camera}.mjpeg" for camera in self.owner.slots)
            self.send_error(HTTPStatus.NOT_FOUND, f"No camera {name!r}; there are {known}")
            return
        self.close_connection = True
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={BOUNDARY}")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        slot.readers += 1
        try:
            self._stream(slot)
        except (ConnectionError, TimeoutError):
            self.close_connection = True  # the client went away; its thread ends here
        finally:
            slot.readers -= 1

    def _index(self) -> None:
        """All streams on one page."""
        figures = "".join(
            f'<figure><img src="/{name}.mjpeg" alt="{name}">'
            f"<figcaption>{name}</figcaption></figure>"
            for name in map(html.escape, self.owner.slots)
        )
        page = INDEX.format(figures=figures).encode()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def _stream(self, slot: FrameSlot) -> None:
        sequence = -1
        while not slot.closed:
            frame = slot.next_after(sequence, timeout_s=1.0)
            if frame is None:
                continue
            sequence = frame.sequence
            seconds, nanoseconds = divmod(frame.stamp_ns, 1_000_000_000)
            head = (
                f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\n"
                f"Content-Length: {len(frame.jpeg)}\r\n"
                f"X-Timestamp: {seconds}.{nanoseconds:09d}\r\n\r\n"
            )
            self.wfile.write(head.encode() + frame.jpeg + b"\r\n")

    def log_message(self, format: str, *args: object) -> None:
        """Keep the terminal free: a stream's life is no news."""
