# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A node of a command-line verb: its own context, so that verbs leave global state alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions


@dataclass(frozen=True)
class Session:
    """A node with the executor that spins it."""

    node: Node
    executor: SingleThreadedExecutor

    def spin_until(self, done: Callable[[], bool], timeout_s: float) -> bool:
        """Spin until something holds; False when the time is over first."""
        deadline = time.monotonic() + timeout_s
        while not done():
            left = deadline - time.monotonic()
            if left <= 0.0:
                return False
            self.executor.spin_once(timeout_sec=min(left, 0.2))
        return True


@contextmanager
def session(name: str) -> Iterator[Session]:
    """Open a node for as long as the block lasts; Ctrl-C raises KeyboardInterrupt as usual."""
    context = rclpy.Context()
    rclpy.init(context=context, signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node(name, context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    try:
        yield Session(node, executor)
    finally:
        executor.shutdown()
        node.destroy_node()
        context.try_shutdown()
