# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What the policy node listens to: its streams, other commanders, the driver's guard."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from koch_interfaces.msg import GuardRefusal, GuardStatus, NamedVector, StreamState
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, JointState

from koch_core.stream import StreamBuffer
from koch_policy.execution.guard_watch import GuardWatch, GuardWord
from koch_policy.execution.observation import CAMERAS, ObservationBuilder, Vector
from koch_policy.execution.takeover import HUMAN, OTHERS, POLICY, Takeover
from koch_policy.nodes.command_publisher import stamp_ns
from koch_rig.rig import Rig
from koch_ros.qos import COMMAND, LATCHED, NEWEST
from koch_ros.senders import SoleSender, publishers, sender_of

# Refusals that are a fault of the sender; the others say who drives, or that the arm is stopped.
_FAULTS = (GuardRefusal.NAMES, GuardRefusal.FINITE, GuardRefusal.AGE, GuardRefusal.SENDER)
_LOOK_S = 0.2


def stream_topic(rig: Rig, stream: str) -> str:
    """The relative topic of a stream, so that a namespace moves it along."""
    return rig.streams[stream].topic.lstrip("/")


class Subscriptions:
    """Subscriptions; callbacks only store.

    Args:
        node: Where they live.
        rig: Gives topics.
        arm: The follower's name.
        builder: Takes the observations.
        takeover: Takes other commanders.
        actions: Takes what is really commanded, for shadow mode; None otherwise.
        on_guard: Called with the reason when the guard ends a run.
    """

    def __init__(
        self,
        node: Node,
        rig: Rig,
        arm: str,
        builder: ObservationBuilder,
        takeover: Takeover,
        actions: StreamBuffer | None,
        on_guard: Callable[[str], None],
    ) -> None:
        self._node = node
        self._takeover = takeover
        self._on_end = on_guard
        self._senders: dict[str, SoleSender] = {}
        #: Which streams have two publishers; empty when none has.
        self.rivals = ""
        self.guard = GuardWatch(arm, on_guard)
        for stream in builder.streams:
            push = partial(builder.push, stream)
            self._subscribe(node, rig, stream, push)
            if stream.startswith(CAMERAS):
                node.create_subscription(
                    StreamState, f"{stream}/state", _told(builder, stream), LATCHED
                )
        if actions is not None and actions.name not in builder.streams:
            self._subscribe(node, rig, actions.name, actions.push)
        for source in (HUMAN, *OTHERS):
            node.create_subscription(
                JointState, f"{arm}/command/{source}", _heard(takeover, source), COMMAND
            )
        node.create_subscription(GuardStatus, f"{arm}/guard_status", self._on_guard, LATCHED)
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # a simulated clock may stand still
        node.create_timer(_LOOK_S, self._look, clock=steady)

    def _subscribe(
        self, node: Node, rig: Rig, stream: str, push: Callable[[int, Any], None]
    ) -> None:
        kind, value = _kind_of(rig, stream)
        sole = SoleSender()

        def receive(message: Any, info: Mapping[str, Any]) -> None:
            if sole.hears(sender_of(info), time.monotonic()):
                push(stamp_ns(message.header.stamp), value(message))

        subscription = node.create_subscription(kind, stream_topic(rig, stream), receive, NEWEST)
        self._senders[subscription.topic_name] = sole

    def _look(self) -> None:
        """See whether a stream comes from two publishers, which are not obeyed, and name them."""
        found = []
        for topic, sole in self._senders.items():
            if sole.rivals:
                known = publishers(self._node, topic)
                sole.look(known, time.monotonic())
                names = ", ".join(sorted(known.get(rival, "?") for rival in sole.rivals))
                if names:
                    found.append(f"{topic} is sent by {names}: stop all but one")
        self.rivals = "; ".join(found)
        if found:
            self._on_end(self.rivals)

    def _on_guard(self, message: GuardStatus) -> None:
        drives = message.mode in (GuardStatus.BLENDING, GuardStatus.DRIVING)
        self._takeover.guard_says(message.source if drives else "", stamp_ns(message.header.stamp))
        refused = tuple(
            (f"{item.text} (from {', '.join(item.senders) or 'unknown sender'})", item.count)
            for item in message.refusals
            if item.source == POLICY and item.reason in _FAULTS
        )
        still = message.mode in (GuardStatus.OFF, GuardStatus.STOPPED)
        word = GuardWord(message.reason if still else "", int(message.stop_count), refused)
        self.guard.take(word)


def _kind_of(rig: Rig, stream: str) -> tuple[type[Any], Callable[[Any], Any]]:
    """Message type of a stream, and how its value is taken out."""
    if stream.startswith(CAMERAS):
        return CompressedImage, lambda message: message.data
    if stream.partition("/")[0] in rig.arms:
        return JointState, lambda message: Vector(message.name, message.position)
    return NamedVector, lambda message: Vector(message.name, message.value)


def _heard(takeover: Takeover, source: str) -> Callable[[JointState], None]:
    return lambda message: takeover.heard(source, stamp_ns(message.header.stamp))


def _told(builder: ObservationBuilder, stream: str) -> Callable[[StreamState], None]:
    """Hand on what a camera says of its images."""
    return lambda message: builder.mark(
        stream, stamp_ns(message.since), "" if message.usable else message.reason
    )
