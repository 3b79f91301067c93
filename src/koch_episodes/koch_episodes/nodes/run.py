# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Life of a node process: start, spin, end on SIGINT or SIGTERM with exit code 0."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future

from koch_rig.errors import KochError
from koch_rig.stop_signal import on_stop

EXIT_CONFIGURATION = 2


def run_node(build: Callable[[], Any], argv: Sequence[str] | None = None) -> int:
    """Run a node with `close()` until a signal ends it.

    rclpy's own signal handlers would invalidate the context at once; the node could then not
    publish what it does while it ends.

    Returns:
        0 after a signal, 2 when the configuration is wrong (the message is on stderr).
    """
    ended: Future[None] = Future()
    with on_stop(lambda: ended.set_result(None)):
        rclpy.init(
            args=list(sys.argv if argv is None else argv),
            signal_handler_options=SignalHandlerOptions.NO,
        )
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
            node.close()
            executor.shutdown(timeout_sec=1.0)
            node.destroy_node()
            rclpy.try_shutdown()
    return 0
