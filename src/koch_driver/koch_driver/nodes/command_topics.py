# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Topics that a control loop obeys, with the identity of who sends on them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

from rclpy.node import Node
from rclpy.qos import QoSProfile

from koch_ros.polled import PolledGroup, ignore, take_all
from koch_ros.senders import SoleSender, publishers, sender_of

M = TypeVar("M")
# Several messages wait, because a reader of depth 1 would keep the newest of whichever sender.
_DEPTH = 10


class Heard(NamedTuple, Generic[M]):
    """A message and whether its sender was the only one."""

    message: M
    sender: Any
    obeyed: bool


class Senders:
    """Who sends on a topic, by what comes and by what the graph knows.

    `hears` may be called in another thread than `look` and `learn`, which ask the graph and are
    for the executor's thread.

    Args:
        node: Where the topic is read.
        topic: Its full name.
    """

    def __init__(self, node: Node, topic: str) -> None:
        self._node = node
        self.topic = topic
        self._sole = SoleSender()
        self._names: dict[Any, str] = {}

    @property
    def rivals(self) -> tuple[Any, ...]:
        """Those that send at once, by `sender_of`; empty when there is one or none."""
        return self._sole.rivals

    def hears(self, info: Mapping[str, Any]) -> bool:
        """Note a message by its info; whether it may be obeyed."""
        return self._sole.hears(sender_of(info), time.monotonic())

    def look(self) -> tuple[str, ...]:
        """Ask the graph which rivals are still there; their names."""
        if not self._sole.rivals:
            return ()
        present = publishers(self._node, self.topic)
        self._names |= present
        self._sole.look(present, time.monotonic())
        return self.names(self._sole.rivals)

    def learn(self, senders: Iterable[Any]) -> None:
        """Ask the graph for names that are not known yet."""
        if any(sender not in self._names for sender in senders):
            self._names |= publishers(self._node, self.topic)

    def names(self, senders: Iterable[Any]) -> tuple[str, ...]:
        """Full names of the nodes behind senders, sorted, as far as they are known."""
        return tuple(sorted(self._names[s] for s in senders if s in self._names))


class ControlTopic(Senders, Generic[M]):
    """A polled subscription that knows its senders.

    Args:
        node: Where the subscription lives.
        kind: Message type.
        topic: Name, relative to the node's namespace.
        qos: Its reliability and durability; the depth is our own.
    """

    def __init__(self, node: Node, kind: type[M], topic: str, qos: QoSProfile) -> None:
        deep = QoSProfile(depth=_DEPTH, reliability=qos.reliability, durability=qos.durability)
        self._subscription = node.create_subscription(
            kind, topic, ignore, deep, callback_group=PolledGroup()
        )
        super().__init__(node, str(self._subscription.topic_name))

    def take(self) -> Heard[M] | None:
        """The newest message since the last call; None when nothing came."""
        newest = None
        for message, info in take_all(self._subscription):
            newest = Heard(message, sender_of(info), self.hears(info))
        return newest
