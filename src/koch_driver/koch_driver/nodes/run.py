# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Life of a node process: start, spin, end on SIGINT or SIGTERM with exit code 0."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future

from koch_rig.errors import KochError

EXIT_CONFIGURATION = 2


class Closable(Protocol):
    """A node that leaves its hardware in a defined state."""

    def close(self) -> None:
        """Idempotent."""


def run_node(build: Callable[[], Node], argv: Sequence[str] | None = None) -> int:
    """Run one node until a signal ends it.

    rclpy's own signal handlers would invalidate the context at once; the node could then not
    publish what it does while it leaves the arm. So the signals are taken by a thread of ours.

    Args:
        build: Makes the node; it may have a `close` method.
        argv: Command line, `sys.argv` where absent.

    Returns:
        0 after a signal; 2 when the configuration is wrong (the message is on stderr).
    """
    signals = {signal.SIGINT, signal.SIGTERM}
    # Before any thread starts, so that all threads inherit it and only ours takes the signals.
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    rclpy.init(
        args=list(sys.argv if argv is None else argv),
        signal_handler_options=SignalHandlerOptions.NO,
    )
    executor = SingleThreadedExecutor()
    ended: Future[None] = Future()

    def wait_for_signal() -> None:
        signal.sigwait(signals)
        ended.set_result(None)

    try:
        node = build()
    except KochError as exc:
        sys.stderr.write(f"{exc}\n")
        rclpy.try_shutdown()
        return EXIT_CONFIGURATION
    threading.Thread(target=wait_for_signal, name="signals", daemon=True).start()
    try:
        executor.add_node(node)
        executor.spin_until_future_complete(ended)
    finally:
        close = getattr(node, "close", None)
        if close is not None:
            close()
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
    return 0
