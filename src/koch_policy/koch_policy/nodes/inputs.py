# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What the policy node listens to: its streams, other commanders, the driver's guard."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from koch_interfaces.msg import NamedVector
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, JointState

from koch_episodes.nodes.qos import COMMAND, DIAGNOSTICS, NEWEST
from koch_episodes.stream import StreamBuffer
from koch_policy.execution.observation import CAMERAS, ObservationBuilder, Vector
from koch_policy.execution.takeover import HUMAN, OTHERS, Takeover
from koch_policy.nodes.outputs import stamp_ns
from koch_rig.rig import Rig

_REFUSALS = ("age", "finite", "names", "source")


def stream_topic(rig: Rig, stream: str) -> str:
    """The relative topic of a stream, so that a namespace moves it along."""
    return rig.streams[stream].topic.lstrip("/")


class Inputs:
    """Subscriptions; callbacks only store.

    Args:
        node: Where they live.
        rig: Gives topics.
        arm: The follower's name.
        builder: Takes the observations.
        takeover: Takes other commanders.
        actions: Takes what is really commanded, for shadow mode; None otherwise.
    """

    def __init__(
        self,
        node: Node,
        rig: Rig,
        arm: str,
        builder: ObservationBuilder,
        takeover: Takeover,
        actions: StreamBuffer | None,
    ) -> None:
        self._arm = arm
        self._refused: dict[str, int] = {}
        self.on_guard: Callable[[str], None] = lambda reason: None
        for stream in builder.streams:
            push = partial(builder.push, stream)
            self._subscribe(node, rig, stream, push)
        if actions is not None and actions.name not in builder.streams:
            self._subscribe(node, rig, actions.name, actions.push)
        for source in (HUMAN, *OTHERS):
            node.create_subscription(
                JointState, f"{arm}/command/{source}", _heard(takeover, source), COMMAND
            )
        node.create_subscription(
            DiagnosticArray, "/diagnostics", self._on_diagnostics, DIAGNOSTICS
        )

    def _subscribe(
        self, node: Node, rig: Rig, stream: str, push: Callable[[int, Any], None]
    ) -> None:
        topic, folder = stream_topic(rig, stream), stream.partition("/")[0]
        if stream.startswith(CAMERAS):
            node.create_subscription(
                CompressedImage,
                topic,
                lambda message: push(stamp_ns(message.header.stamp), message.data),
                NEWEST,
            )
        elif folder in rig.arms:
            node.create_subscription(
                JointState,
                topic,
                lambda message: push(
                    stamp_ns(message.header.stamp), Vector(message.name, message.position)
                ),
                NEWEST,
            )
        else:
            node.create_subscription(
                NamedVector,
                topic,
                lambda message: push(
                    stamp_ns(message.header.stamp), Vector(message.name, message.value)
                ),
                NEWEST,
            )

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == f"{self._arm}: guard":
                self._on_guard_status(status)

    def _on_guard_status(self, status: DiagnosticStatus) -> None:
        """Report why the guard does not obey: stopped, torque off, or refusing our messages."""
        if status.level != DiagnosticStatus.OK and (
            "stopped" in status.message or "torque off" in status.message
        ):
            self.on_guard(f"{self._arm}: {status.message}")
        for pair in status.values:
            rule, _, subject = pair.key.partition("/")
            if rule not in _REFUSALS or (rule in ("age", "source") and subject != "policy"):
                continue
            count = int(pair.value)
            more = count - self._refused.get(pair.key, count)
            self._refused[pair.key] = count
            if more >= 15:  # half of a second's commands
                self.on_guard(
                    f"the guard refused {more} commands in a second by its rule {pair.key}"
                    + (": the clocks of the two computers differ" if rule == "age" else "")
                )


def _heard(takeover: Takeover, source: str) -> Callable[[JointState], None]:
    return lambda message: takeover.heard(source, stamp_ns(message.header.stamp))
