# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A command's node takes its time from where the graph does, however slowly that is discovered."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock

from koch_ros.qos import DIAGNOSTICS, STATE
from koch_ros.session import GraphSession

pytestmark = pytest.mark.ros


@contextmanager
def simulation(*, followed_after_s: float | None) -> Iterator[None]:
    """Who publishes /clock and reports, and a node that follows it from some time on."""
    context = rclpy.Context()
    rclpy.init(context=context)
    world = rclpy.create_node("world", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(world)
    clock = world.create_publisher(Clock, "/clock", STATE)
    reports = world.create_publisher(DiagnosticArray, "/diagnostics", DIAGNOSTICS)
    ended = threading.Event()

    nodes = [world]

    def run() -> None:
        begin_s, ticks = time.monotonic(), 0
        while not ended.is_set():
            ticks += 1
            late_s = time.monotonic() - begin_s
            clock.publish(Clock(clock=Time(sec=5, nanosec=10_000_000 * (ticks % 100))))
            if ticks % 20 == 0:
                reports.publish(DiagnosticArray())
            if len(nodes) == 1 and followed_after_s is not None and late_s > followed_after_s:
                follow = [Parameter("use_sim_time", value=True)]
                nodes.append(
                    rclpy.create_node("driver", context=context, parameter_overrides=follow)
                )
                executor.add_node(nodes[-1])
            executor.spin_once(timeout_sec=0.01)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(5.0)
        executor.shutdown()
        for node in nodes:
            node.destroy_node()
        context.try_shutdown()


@pytest.mark.parametrize("after_s", [0.0, 1.0, 2.5])
def test_nodes_that_follow_the_clock_are_waited_for(after_s: float) -> None:
    with simulation(followed_after_s=after_s), GraphSession("command") as session:
        assert session.meet_graph(10.0)
        assert session.follow_graph_clock()
        assert 5.0 <= session.now_s() < 6.0


def test_a_clock_that_nobody_follows_changes_no_time() -> None:
    """A bag that is played beside real arms."""
    with simulation(followed_after_s=None), GraphSession("command") as session:
        assert session.meet_graph(10.0)
        assert not session.follow_graph_clock()
        assert session.now_s() == pytest.approx(time.time(), abs=1.0)


def test_without_a_graph_nothing_is_met() -> None:
    with GraphSession("command") as session:
        began_s = time.monotonic()
        assert not session.meet_graph(1.0)
        assert not session.follow_graph_clock()
        assert time.monotonic() - began_s < 5.0
