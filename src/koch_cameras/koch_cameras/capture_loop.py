# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The thread that owns a camera: opens it, reads it, comes back after a loss."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from koch_cameras.errors import CameraError, CorruptFrameError, StreamEndedError
from koch_cameras.frame import CameraFrame
from koch_cameras.source import FrameSource, Mode

_STEADY_S = 5.0
"""A connection that lived so long was good: the next wait starts small again."""


@dataclass(frozen=True)
class Delivery:
    """An image in the slot.

    Attributes:
        frame: The image.
        arrival_ns: When it was handed over, CLOCK_MONOTONIC [ns].
        connection: Number of the connection it came by, from 1.
    """

    frame: CameraFrame
    arrival_ns: int
    connection: int


@dataclass(frozen=True)
class LinkState:
    """Snapshot of the connection.

    Attributes:
        connected: The source is open.
        mode: What it gives, while connected.
        error: Why it is not connected, or "".
        connections: How often it was opened.
        corrupt: Damaged images so far.
        overwritten: Images that a newer one replaced before anyone took them.
        ended: A file came to its end; nothing follows.
        fatal: The error that waiting cannot cure, if the source never opened.
    """

    connected: bool = False
    mode: Mode | None = None
    error: str = ""
    connections: int = 0
    corrupt: int = 0
    overwritten: int = 0
    ended: bool = False
    fatal: CameraError | None = None


@dataclass(frozen=True)
class Backoff:
    """Waiting times between attempts in [s]: first, doubled each time, up to longest."""

    first_s: float = 0.25
    longest_s: float = 4.0

    def wait_s(self, failures: int) -> float:
        """Time to wait after so many failures in a row, from 1."""
        return min(self.longest_s, self.first_s * 2.0 ** min(failures - 1, 30))


class CaptureLoop:
    """Owns a source in one thread and keeps its newest image (latest wins).

    A dead thread is not silent: ``take`` raises what killed it.
    """

    def __init__(
        self,
        opener: Callable[[], FrameSource],
        *,
        backoff: Backoff | None = None,
        on_change: Callable[[LinkState], None] | None = None,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Prepare; ``start`` begins.

        Args:
            opener: Opens the source; called in the thread.
            backoff: Waiting times between attempts.
            on_change: Told of each connection, loss and new reason of failure, in the thread.
            monotonic_ns: Clock of arrival times.
        """
        self._opener = opener
        self._backoff = backoff or Backoff()
        self._on_change = on_change
        self._now_ns = monotonic_ns
        self._stop = threading.Event()
        self._condition = threading.Condition()
        self._slot: Delivery | None = None
        self._crash: BaseException | None = None
        self._connected = False
        self._mode: Mode | None = None
        self._error = ""
        self._connections = self._corrupt = self._overwritten = 0
        self._ended = False
        self._fatal: CameraError | None = None
        self._thread = threading.Thread(target=self._run, name="camera capture", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def state(self) -> LinkState:
        """Snapshot of the connection."""
        with self._condition:
            return self._snapshot()

    def take(self, timeout_s: float) -> Delivery | None:
        """Wait for an image not taken before; None if none came in time.

        Raises:
            RuntimeError: The capture thread died of a bug.
        """
        with self._condition:
            if not (self._slot or self._crash or self._ended or self._fatal):
                self._condition.wait(timeout_s)
            if self._crash is not None:
                raise RuntimeError("camera capture thread died") from self._crash
            delivery, self._slot = self._slot, None
            return delivery

    def close(self) -> None:
        """Stop the thread and close the source; harmless when called twice."""
        self._stop.set()
        with self._condition:
            self._condition.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout=10.0)

    def _run(self) -> None:
        try:
            failures = 0
            while not self._stop.is_set():
                began = time.monotonic()
                self._session()
                if self._ended or self._fatal is not None:
                    return
                steady = time.monotonic() - began > _STEADY_S
                failures = 1 if steady else failures + 1
                self._stop.wait(self._backoff.wait_s(failures))
        except BaseException as exc:  # ``take`` raises it in the thread that can report it
            with self._condition:
                self._crash = exc
                self._slot = None
                self._condition.notify_all()

    def _session(self) -> None:
        """One connection, from opening to its end."""
        try:
            source = self._opener()
        except CameraError as exc:
            self._failed(exc)
            return
        try:
            self._opened(source.mode)
            while not self._stop.is_set():
                try:
                    frame = source.read()
                except CorruptFrameError as exc:
                    self._damaged(exc)
                    continue
                self._deliver(frame)
        except CameraError as exc:
            self._failed(exc)
        finally:
            source.close()

    def _opened(self, mode: Mode) -> None:
        with self._condition:
            self._connected, self._mode, self._error = True, mode, ""
            self._connections += 1
            state = self._snapshot()
        self._tell(state)

    def _failed(self, error: CameraError) -> None:
        with self._condition:
            changed = self._connected or str(error) != self._error
            self._connected, self._mode, self._error = False, None, str(error)
            self._ended = isinstance(error, StreamEndedError)
            if not self._ended:
                self._slot = None  # the end of a file is no loss: its last image is still good
            if not error.retry and not self._ended and self._connections == 0:
                self._fatal = error
            state = self._snapshot()
            self._condition.notify_all()
        if changed:
            self._tell(state)

    def _damaged(self, error: CorruptFrameError) -> None:
        with self._condition:
            self._corrupt += 1
            first = self._corrupt == 1
            state = self._snapshot()
        if first:
            self._tell(state, str(error))

    def _deliver(self, frame: CameraFrame) -> None:
        delivery = Delivery(frame, self._now_ns(), self._connections)
        with self._condition:
            if self._slot is not None:
                self._overwritten += 1
            self._slot = delivery
            self._condition.notify()

    def _tell(self, state: LinkState, error: str | None = None) -> None:
        if self._on_change is not None:
            self._on_change(state if error is None else replace(state, error=error))

    def _snapshot(self) -> LinkState:
        return LinkState(
            connected=self._connected,
            mode=self._mode,
            error=self._error,
            connections=self._connections,
            corrupt=self._corrupt,
            overwritten=self._overwritten,
            ended=self._ended,
            fatal=self._fatal,
        )
