# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Tells /diagnostics which processes of the graph run, and its user when all of it is ready.

A node that was killed cannot say so itself.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rosgraph_msgs.msg import Clock

from koch_core.closing import Opening
from koch_ros.polled import PolledGroup, ignore, take_newest
from koch_ros.qos import DIAGNOSTICS, NEWEST
from koch_ros.shared_topics import chosen_namespace, namespace_arguments
from koch_vla.node_spec import NodeSpec
from koch_vla.nodes.namesakes import GHOST_S, twins
from koch_vla.nodes.ready_watch import ReadyWatch

_PERIOD_S = 1.0
_LOOK_S = 0.25  # until all is ready
_REMIND_S = 15.0
_TWIN = "another node of this name runs in the domain: stop it, or use a namespace"
_RECENT_S = 60.0  # a node that came back is marked for so long


class _Process:
    """What is known of one node's process."""

    def __init__(self) -> None:
        self.starts = 0
        self.down = False
        self.cause = ""
        self.ended_s = 0.0
        self.has_twin = False

    def status(self, name: str, now_s: float) -> DiagnosticStatus:
        level, message = DiagnosticStatus.OK, "running"
        if self.down:
            level, message = DiagnosticStatus.ERROR, self.cause
        elif self.cause and now_s - self.ended_s < _RECENT_S:
            level, message = DiagnosticStatus.WARN, f"runs again; it {self.cause}"
        elif self.has_twin:
            level, message = DiagnosticStatus.ERROR, _TWIN
        values = [KeyValue(key="starts", value=str(self.starts))]
        return DiagnosticStatus(
            level=level, name=f"koch up: {name}", message=message, values=values
        )


class ProcessReport(Opening):
    """Publishes a status per node once a second, and at once when a process ends.

    A context manager. It has a thread of its own: the supervisor never waits for DDS, and its
    nodes start before this one is there.

    Args:
        specs: The nodes of the graph.
        say: Told when all of them work, and from time to time which do not yet.
        hint: What to say of a graph that is ready.
    """

    def __init__(
        self, specs: Sequence[NodeSpec], say: Callable[[str], None], hint: str = ""
    ) -> None:
        self._specs, self._say, self._hint = tuple(specs), say, hint
        self._processes: dict[str, _Process] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="diagnostics", daemon=True)

    def open(self) -> None:
        """Begin to report."""
        self._thread.start()

    def close(self) -> None:
        """End, behind the last report."""
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
        words = namespace_arguments(chosen_namespace())
        rclpy.init(args=words, context=context, signal_handler_options=SignalHandlerOptions.NO)
        node = rclpy.create_node("koch_up", context=context, start_parameter_services=False)
        publisher = node.create_publisher(DiagnosticArray, "/diagnostics", DIAGNOSTICS)
        now = self._clock(node)
        look = self._ready_look(node)
        told_s = 0.0
        while not self._closing:
            if time.monotonic() - told_s >= _PERIOD_S or self._wake.is_set():
                told_s = time.monotonic()
                self._wake.clear()
                self._look_for_twins(node)
                message = DiagnosticArray(status=self._statuses())
                message.header.stamp = now()
                publisher.publish(message)
            self._wake.wait(_PERIOD_S if look() else _LOOK_S)
        node.destroy_node()
        context.try_shutdown()

    def _clock(self, node: Node) -> Callable[[], Time]:
        """The time for stamps: the graph's /clock where its nodes live by it."""
        if not any(spec.parameters.get("use_sim_time") for spec in self._specs):
            return lambda: node.get_clock().now().to_msg()
        ticks = node.create_subscription(
            Clock, "/clock", ignore, NEWEST, callback_group=PolledGroup()
        )
        newest = Clock()

        def now() -> Time:
            nonlocal newest
            newest = take_newest(ticks) or newest
            return newest.clock

        return now

    def _ready_look(self, node: Node) -> Callable[[], bool]:
        """What looks whether all is ready, says so once, and knows it from then on."""
        watch = ReadyWatch(node, self._specs)
        begun_s = reminded_s = time.monotonic()
        ready = False

        def look() -> bool:
            nonlocal ready, reminded_s
            if ready:
                return True
            missing = watch.missing()
            now_s = time.monotonic()
            if not missing:
                ready = True
                took = f"{now_s - begun_s:.0f} s"
                self._say(f"all is ready after {took}{self._hint and f'; {self._hint}'}")
            elif now_s - reminded_s > _REMIND_S:
                reminded_s = now_s
                self._say(f"waiting for {', '.join(missing)}")
            return ready

        return look

    def _look_for_twins(self, node: Node) -> None:
        """Mark the nodes that someone else runs as well; one that was killed is no twin."""
        found, now_s = twins(node, self._specs), time.monotonic()
        with self._lock:
            for label, process in self._processes.items():
                recent = process.cause and now_s - process.ended_s < GHOST_S
                is_new = label in found and not recent and not process.has_twin
                process.has_twin = label in found and not recent
                if is_new:
                    self._say(f"{label}: {_TWIN}")

    def _statuses(self) -> list[DiagnosticStatus]:
        now_s = time.monotonic()
        with self._lock:
            return [item.status(name, now_s) for name, item in self._processes.items()]
