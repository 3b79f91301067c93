# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Tells /diagnostics which processes of the graph run, and why one does not.

A node that was killed cannot say so itself.
"""

from __future__ import annotations

import threading
import time
from types import TracebackType

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.signals import SignalHandlerOptions

from koch_driver.nodes.qos import DIAGNOSTICS
from koch_vla.node_spec import NodeSpec

_PERIOD_S = 1.0
_RECENT_S = 60.0  # a node that came back is marked for so long


class _Process:
    """What is known of one node's process."""

    def __init__(self) -> None:
        self.starts = 0
        self.down = False
        self.cause = ""
        self.ended_s = 0.0

    def status(self, name: str, now_s: float) -> DiagnosticStatus:
        level, message = DiagnosticStatus.OK, "running"
        if self.down:
            level, message = DiagnosticStatus.ERROR, self.cause
        elif self.cause and now_s - self.ended_s < _RECENT_S:
            level, message = DiagnosticStatus.WARN, f"runs again; it {self.cause}"
        values = [KeyValue(key="starts", value=str(self.starts))]
        return DiagnosticStatus(
            level=level, name=f"koch up: {name}", message=message, values=values
        )


class ProcessReport:
    """Publishes a status per node once a second, and at once when a process ends.

    A context manager. It has a thread of its own: the supervisor never waits for DDS, and its
    nodes start before this one is there.
    """

    def __init__(self) -> None:
        self._processes: dict[str, _Process] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="diagnostics", daemon=True)

    def __enter__(self) -> ProcessReport:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing = True
        self._wake.set()
        self._thread.join(5.0)

    def changed(self, spec: NodeSpec, cause: str) -> None:
        """Note that a process started (no cause) or ended; any thread."""
        with self._lock:
            process = self._processes.setdefault(spec.label, _Process())
            process.down = bool(cause)
            if cause:
                process.cause, process.ended_s = cause, time.monotonic()
                self._wake.set()
            else:
                process.starts += 1

    def _run(self) -> None:
        context = rclpy.Context()
        rclpy.init(args=[], context=context, signal_handler_options=SignalHandlerOptions.NO)
        node = rclpy.create_node("koch_up", context=context, start_parameter_services=False)
        publisher = node.create_publisher(DiagnosticArray, "/diagnostics", DIAGNOSTICS)
        while not self._closing:
            message = DiagnosticArray(status=self._statuses())
            message.header.stamp = node.get_clock().now().to_msg()
            publisher.publish(message)
            self._wake.wait(_PERIOD_S)
            self._wake.clear()
        node.destroy_node()
        context.try_shutdown()

    def _statuses(self) -> list[DiagnosticStatus]:
        now_s = time.monotonic()
        with self._lock:
            return [item.status(name, now_s) for name, item in self._processes.items()]
