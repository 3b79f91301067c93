# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A node of a subcommand: its own context, so that subcommands leave global state alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions

from koch_core.closing import Closing
from koch_ros.errors import ClockSilentError, NoAnswerError, RefusedError
from koch_ros.qos import DIAGNOSTICS
from koch_ros.shared_topics import chosen_namespace, namespace_arguments

ANSWER_TIMEOUT_S = 20.0
CLOCK = "/clock"
_CLOCK_TIMEOUT_S = 10.0
_PERIOD_S = 0.1
_SETTLE_S = 0.5
_FOLLOWERS_S = 3.0


def _nothing() -> None:
    """Nothing else ends the wait."""


class GraphSession(Closing):
    """A node and the executor that spins it, until `close`; also a context manager.

    It lives in the namespace of the rig that KOCH_NAMESPACE names. Ctrl-C raises KeyboardInterrupt
    as in any other program.

    Args:
        name: Of the node.
    """

    def __init__(self, name: str) -> None:
        self._context = rclpy.Context()
        words = namespace_arguments(chosen_namespace())
        rclpy.init(
            args=words, context=self._context, signal_handler_options=SignalHandlerOptions.NO
        )
        self.node = rclpy.create_node(name, context=self._context)
        self.executor = SingleThreadedExecutor(context=self._context)
        self.executor.add_node(self.node)

    def close(self) -> None:
        """Leave the graph."""
        self.executor.shutdown(timeout_sec=1.0)
        self.node.destroy_node()
        self._context.try_shutdown()

    def meet_graph(self, timeout_s: float) -> bool:
        """Wait until a node of a rig is heard on /diagnostics; False when none is even seen.

        To see a name is not enough: on a machine at load 10 a node's topics followed its name a
        second later.
        """
        heard: list[bytes] = []
        reports = self.node.create_subscription(
            DiagnosticArray, "/diagnostics", heard.append, DIAGNOSTICS, raw=True
        )
        self.spin_until(lambda: bool(heard), timeout_s)
        self.node.destroy_subscription(reports)
        return bool(heard) or len(self.node.get_node_names()) > 1

    @property
    def follows_clock(self) -> bool:
        """This node takes its time from /clock."""
        return bool(self.node.get_clock().ros_time_is_active)

    def follow_graph_clock(self) -> bool:
        """Take the time from /clock where the nodes of the graph do; say whether they do.

        To be called when some node of the graph was heard, since its subscriptions are known
        soon after. Not the publishers count but the subscribers: a bag that plays a /clock beside
        a real arm changes no one's time.

        Raises:
            ClockSilentError: They do, and no one publishes it.
        """
        if self.follows_clock:
            return True
        topic = self.node.resolve_topic_name(CLOCK)

        def is_followed() -> bool:
            return bool(self.node.count_subscribers(topic))

        if not self.spin_until(is_followed, _SETTLE_S):
            # Who publishes it is the simulation, whose followers are discovered later at times.
            if not self.node.count_publishers(topic):
                return False
            if not self.spin_until(is_followed, _FOLLOWERS_S):
                return False
        self.node.set_parameters([Parameter("use_sim_time", value=True)])
        if not self.spin_until(lambda: self.now_s() > 0.0, _CLOCK_TIMEOUT_S):
            raise ClockSilentError(_CLOCK_TIMEOUT_S)
        return True

    def now_s(self) -> float:
        """Time of the graph, [s]: since 1970, or as /clock has it. Only for differences."""
        return float(self.node.get_clock().now().nanoseconds) / 1e9

    def spin(self, seconds: float) -> None:
        """Handle what comes in for some time, at least what is there already."""
        end = time.monotonic() + seconds
        while True:
            left = end - time.monotonic()
            self.executor.spin_once(timeout_sec=max(0.0, left))
            if left <= 0.0:
                return

    def spin_until(
        self, done: Callable[[], bool], timeout_s: float, check: Callable[[], None] = _nothing
    ) -> bool:
        """Spin until something holds; False when the time is over first.

        Args:
            done: What is waited for; looked at after each message, and often enough.
            timeout_s: Longest wait [s].
            check: Called while waiting; raises when waiting makes no more sense.
        """
        deadline = time.monotonic() + timeout_s
        while not done():
            check()
            left = deadline - time.monotonic()
            if left <= 0.0:
                return False
            self.executor.spin_once(timeout_sec=min(left, _PERIOD_S))
        return True

    def result(
        self,
        future: Any,
        what: str,
        timeout_s: float = ANSWER_TIMEOUT_S,
        check: Callable[[], None] = _nothing,
    ) -> Any:
        """Spin until a future has its result, and return that.

        Raises:
            NoAnswerError: It has none in time; `what` is named.
        """
        if not self.spin_until(future.done, timeout_s, check):
            raise NoAnswerError(what, timeout_s)
        return future.result()

    def call(
        self,
        client: Any,
        request: Any,
        timeout_s: float = ANSWER_TIMEOUT_S,
        check: Callable[[], None] = _nothing,
        *,
        must_succeed: bool = False,
    ) -> Any:
        """Call a service and return its answer.

        Args:
            client: An rclpy client of this session's node.
            request: Its request.
            timeout_s: How long the service may take to be there and to answer [s].
            check: See `spin_until`.
            must_succeed: The answer has `success` and `message`, and only a success will do.

        Raises:
            NoAnswerError: The service is not there, or does not answer in time.
            RefusedError: It answered that it could not.
        """
        what = f"service {client.srv_name}"
        deadline = time.monotonic() + timeout_s
        if not self.spin_until(client.service_is_ready, timeout_s, check):
            raise NoAnswerError(what, timeout_s)
        future = client.call_async(request)
        if not self.spin_until(future.done, max(0.0, deadline - time.monotonic()), check):
            raise NoAnswerError(what, timeout_s)
        answer = future.result()
        if must_succeed and not answer.success:
            raise RefusedError(client.srv_name, answer.message)
        return answer
