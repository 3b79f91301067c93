# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Life of the node's process: build, spin, end on SIGINT or SIGTERM with exit code 0."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future

from koch_rig.errors import KochError

EXIT_CONFIGURATION = 2


def run_node(build: Callable[[], Node]) -> int:
    """Run one node with a `close` method until a signal ends it.

    A signal may hit any thread (numerical libraries have their own), and Python's handlers run
    in the main thread only, which waits in the middleware; the wake-up pipe is written at once.

    Returns:
        0 after a signal; 2 when the configuration is wrong (the message is on stderr).
    """
    ended: Future = Future()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)

    def wait() -> None:
        os.read(reader, 1)
        ended.set_result(None)

    threading.Thread(target=wait, name="signals", daemon=True).start()
    rclpy.init(args=sys.argv, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = build()
    except KochError as exc:
        sys.stderr.write(f"{exc}\n")
        rclpy.try_shutdown()
        return EXIT_CONFIGURATION
    executor = SingleThreadedExecutor()
    try:
        executor.add_node(node)
        executor.spin_until_future_complete(ended)
    finally:
        # A second Ctrl-C (launch and terminal both send one) must not interrupt the clean-up.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        node.close()
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
    return 0
