# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Life of a node process: start, spin, end on SIGINT or SIGTERM with exit code 0."""

from __future__ import annotations

import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from koch_rig.errors import KochError

_CONFIGURATION = 2


class Stop:
    """Waits for SIGINT or SIGTERM in the main thread, whichever thread the kernel gives it to."""

    def __init__(self) -> None:
        self._reading, writing = socket.socketpair()
        writing.setblocking(False)
        self._writing = writing
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _nothing)
        signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)

    def wait(self) -> None:
        """Return at the first signal, or when `now` is called."""
        self._reading.recv(1)

    def now(self) -> None:
        """Let `wait` return."""
        self._writing.send(b"\0")

    def close(self) -> None:
        """Give the signals' wake-up back."""
        signal.set_wakeup_fd(-1)
        self._reading.close()
        self._writing.close()


def _nothing(number: int, frame: FrameType | None) -> None:
    """Let the wake-up descriptor do the work."""


def run_node(build: Callable[[], Any], argv: Sequence[str] | None = None) -> int:
    """Run a node with `close()` until a signal ends it.

    Returns:
        0 after a signal, 2 when the configuration is wrong, 1 when the executor died.
    """
    stop = Stop()
    rclpy.init(
        args=list(sys.argv if argv is None else argv),
        signal_handler_options=SignalHandlerOptions.NO,
    )
    try:
        node = build()
    except KochError as exc:
        sys.stderr.write(f"{exc}\n")
        rclpy.try_shutdown()
        stop.close()
        return _CONFIGURATION
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    died: list[BaseException] = []

    def spin() -> None:
        try:
            executor.spin()
        except ExternalShutdownException:
            return
        except BaseException as exc:
            died.append(exc)
        finally:
            stop.now()

    spinner = threading.Thread(target=spin, name="executor", daemon=True)
    spinner.start()
    stop.wait()
    executor.shutdown(timeout_sec=1.0)
    spinner.join(timeout=2.0)
    node.close()
    node.destroy_node()
    rclpy.try_shutdown()
    stop.close()
    if died:
        raise died[0]
    return 0
