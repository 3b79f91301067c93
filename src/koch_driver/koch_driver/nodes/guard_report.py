# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What a follower's guard does, said to nodes (`guard_status`) and to people (the log)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from koch_interfaces.msg import GuardChange, GuardRefusal, GuardStatus, GuardStop
from rclpy.node import Node

from koch_core.wording import fixed
from koch_driver.arm.control_loop import LoopPhase
from koch_driver.guard import GuardResult, GuardState, Refusal, Rule
from koch_ros.qos import LATCHED
from koch_ros.stamps import ros_time

if TYPE_CHECKING:
    from koch_driver.arm.control_loop import ControlLoop
    from koch_driver.arm.follower_controller import FollowerController
    from koch_driver.nodes.command_topics import Senders

LOOK_S = 0.2
_REPEAT_S = 1.0  # a reader may take a status older than some seconds for a dead driver's
_WARN_EVERY_S = 10.0
# Beyond a limit by less a command is clipped in silence: a leader rests against its own stop.
_CLIPPED_RAD = 0.05
_MODES = {
    GuardState.WAITING: GuardStatus.WAITING,
    GuardState.HOLDING: GuardStatus.HOLDING,
    GuardState.BLENDING: GuardStatus.BLENDING,
    GuardState.DRIVING: GuardStatus.DRIVING,
    GuardState.STOPPED: GuardStatus.STOPPED,
}
REASONS = {
    Rule.NAMES: GuardRefusal.NAMES,
    Rule.FINITE: GuardRefusal.FINITE,
    Rule.AGE: GuardRefusal.AGE,
    Rule.SENDER: GuardRefusal.SENDER,
    Rule.SOURCE: GuardRefusal.SOURCE,
    Rule.STOP: GuardRefusal.STOPPED,
    Rule.PRIORITY: GuardRefusal.PRIORITY,
}


class GuardReport:
    """Publishes `guard_status`: from the bus thread at each change, else from the executor.

    Args:
        node: Where the publisher lives.
        controller: What the guard belongs to.
        topics: Who sends on the command topics, by source.
        urgent: Called in the executor when something begins that people must know within a
            second; the diagnostics come once a second only.
    """

    def __init__(
        self,
        node: Node,
        controller: FollowerController,
        topics: Mapping[str, Senders],
        urgent: Callable[[], None],
    ) -> None:
        self._node = node
        self._controller = controller
        self._topics = topics
        self._urgent = urgent
        self._publisher = node.create_publisher(GuardStatus, "guard_status", LATCHED)
        self._lock = threading.Lock()
        self._loop: ControlLoop | None = None
        self._result: GuardResult | None = None
        self._shown: tuple[Any, ...] = ()
        self._content: tuple[Any, ...] = ()
        self._published_s = 0.0
        self._warned: dict[tuple[str, str], float] = {}
        self._rivals: tuple[str, ...] = ()
        self._clipped: dict[tuple[str, str], tuple[float, float]] = {}

    def watch(self, loop: ControlLoop) -> None:
        """Take the control loop whose phase counts; from here on `tick` publishes."""
        self._loop = loop

    # -- from the bus thread --------------------------------------------------------------------

    def cycle(self, result: GuardResult | None) -> None:
        """Take what the guard said in a cycle; None while the torque is off."""
        self._result = result
        if result is not None and result.source is not None:
            for item in result.interventions:
                if item.rule is Rule.POSITION and item.granted is not None:
                    beyond = abs(item.requested - item.granted)
                    if beyond > _CLIPPED_RAD:
                        key = result.source, item.joint
                        self._clipped[key] = item.requested, item.granted
        self.changed()

    def changed(self) -> None:
        """Publish if mode, source, torque or stops are not what was published; any thread."""
        if self._loop is not None and self._state() != self._shown:
            self._publish()

    # -- from the executor ----------------------------------------------------------------------

    def tick(self) -> None:
        """Look at the senders, warn, and publish what has changed or was not said for a second."""
        rivals = tuple(name for topic in self._topics.values() for name in topic.look())
        new = self._warn()
        if new or rivals != self._rivals:
            self._rivals = rivals
            self._urgent()
        refusals = self._controller.guard.refusals.all()
        content = tuple((r.source, r.rule, r.count) for r in refusals), self._changes()
        if content != self._content or time.monotonic() - self._published_s >= _REPEAT_S:
            self._content = content
            self._publish()

    def _warn(self) -> bool:
        """Log one line per source and reason, at most every ten seconds; whether one is new."""
        new, now_s = False, time.monotonic()
        for refusal in self._controller.guard.refusals.all():
            if refusal.rule is Rule.PRIORITY or now_s - refusal.time_s > 2.0 * LOOK_S:
                continue
            if self._due((refusal.source, refusal.rule.value), now_s):
                new = True
                if refusal.source in self._topics:
                    self._topics[refusal.source].learn(refusal.senders)
                who = ", ".join(self.senders(refusal)) or "unknown sender"
                self._node.get_logger().warning(
                    f"commands of {refusal.source} are refused ({refusal.count} so far, from "
                    f"{who}): {refusal.text}"
                )
        clipped, self._clipped = self._clipped, {}
        lower, upper = self._controller.guard.limits.lower, self._controller.guard.limits.upper
        for (source, joint), (asked, granted) in clipped.items():
            if self._due((source, joint), now_s):
                index = self._controller.model.joints.index(joint)
                self._node.get_logger().warning(
                    f"{source} asks {joint} for {fixed(asked)} rad, outside {lower[index]:.3f} to "
                    f"{upper[index]:.3f} rad: it goes to {granted:.3f} rad"
                )
        return new

    def _due(self, key: tuple[str, str], now_s: float) -> bool:
        due = now_s - self._warned.get(key, float("-inf")) >= _WARN_EVERY_S
        if due:
            self._warned[key] = now_s
        return due

    def senders(self, refusal: Refusal) -> tuple[str, ...]:
        """Full names of the nodes whose commands were refused."""
        topic = self._topics.get(refusal.source)
        return () if topic is None else topic.names(refusal.senders)

    # -- the message ----------------------------------------------------------------------------

    def _state(self) -> tuple[Any, ...]:
        """What is published at once when it changes: mode, source, torque, latch."""
        controller, result = self._controller, self._result
        mode, source = GuardStatus.WAITING, ""
        if self._loop is None or self._loop.phase is not LoopPhase.RUNNING:
            mode = GuardStatus.DISCONNECTED
        elif not controller.torque_on:
            mode = GuardStatus.OFF
        elif controller.guard.stopped:
            mode = GuardStatus.STOPPED
        elif result is not None:
            mode, source = _MODES[result.state], result.source or ""
            if source == "trajectory" and controller.trajectories.holds:
                # The end of a motion is held, for anyone who comes next: no one drives.
                mode, source = GuardStatus.HOLDING, ""
        return mode, source, controller.torque_on, controller.latch.state

    def _publish(self) -> None:
        with self._lock:  # in the order of the states, whichever thread comes first
            self._shown = state = self._state()
            self._published_s = time.monotonic()
            self._publisher.publish(self._message(*state))

    def _message(self, mode: int, source: str, torque: bool, latch: Any) -> GuardStatus:
        message = GuardStatus(mode=mode, source=source, torque=torque)
        message.header.stamp = self._node.get_clock().now().to_msg()
        message.stop_count = latch.count % 2**32
        message.stops = [
            GuardStop(cause=int(s.cause), joint=s.joint, text=s.text, stamp=ros_time(s.time_ns))
            for s in latch.stops
        ]
        if mode == GuardStatus.DISCONNECTED:
            message.reason = "the arm is not connected"
        else:
            message.reason = self._controller.why_still
        message.refusals = [self._refusal(r) for r in self._controller.guard.refusals.all()]
        message.changes = [GuardChange(rule=r, joint=j, count=n) for r, j, n in self._changes()]
        return message

    def _refusal(self, refusal: Refusal) -> GuardRefusal:
        age_ns = int(1e9 * (time.monotonic() - refusal.time_s))
        return GuardRefusal(
            source=refusal.source,
            reason=REASONS[refusal.rule],
            count=refusal.count,
            text=refusal.text,
            senders=list(self.senders(refusal)),
            stamp=ros_time(time.time_ns() - age_ns),
        )

    def _changes(self) -> tuple[tuple[str, str, int], ...]:
        counts: Iterable[Any] = self._controller.guard.counts().items()
        return tuple((r.value, joint, n) for (r, joint), n in counts if r not in REASONS)
