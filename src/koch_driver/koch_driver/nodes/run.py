# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Life of a node process: start, spin, end on SIGINT or SIGTERM with exit code 0."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future

from koch_driver.realtime import OFF, request_realtime
from koch_rig.errors import KochError

EXIT_CONFIGURATION = 2


def _on_signals(act: Callable[[], None]) -> None:
    """Call `act` once, in a thread of its own, at the first SIGINT or SIGTERM.

    A Python handler runs in the main thread only between two instructions, and that thread waits
    in the middleware; the interpreter's wake-up pipe is written at once.
    """
    reader, writer = os.pipe()  # open as long as the process: a second signal writes as well
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)

    def wait() -> None:
        os.read(reader, 1)
        act()

    threading.Thread(target=wait, name="signals", daemon=True).start()


def run_node(
    build: Callable[[], Node], argv: Sequence[str] | None = None, *, realtime: bool = True
) -> int:
    """Run one node until a signal ends it.

    rclpy's own signal handlers would invalidate the context at once; the node could then not
    publish what it does while it leaves the arm. So signals only wake a thread of ours.

    Args:
        build: Makes the node; it may have a `close` method.
        argv: Command line, `sys.argv` where absent.
        realtime: Ask for real-time scheduling; for nodes on the way from hand to motor.

    Returns:
        0 after a signal; 2 when the configuration is wrong (the message is on stderr).
    """
    scheduling = request_realtime() if realtime else OFF  # before the middleware's threads
    ended: Future[None] = Future()
    _on_signals(lambda: ended.set_result(None))
    rclpy.init(
        args=list(sys.argv if argv is None else argv),
        signal_handler_options=SignalHandlerOptions.NO,
    )
    # Measured: rclpy's EventsExecutor (9.1) needs three times the CPU of this one here.
    executor = SingleThreadedExecutor()
    try:
        node = build()
    except KochError as exc:
        sys.stderr.write(f"{exc}\n")
        rclpy.try_shutdown()
        return EXIT_CONFIGURATION
    if scheduling.refused:
        node.get_logger().warning(f"no real-time scheduling: {scheduling.text}")
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
        # Ctrl-C under launch comes twice, from the terminal and from launch. The interpreter
        # gives Python's handlers up before its end; an ignored signal stays ignored.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
    return 0
