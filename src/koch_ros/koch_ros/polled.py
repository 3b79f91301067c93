# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Subscriptions that are looked into when it suits the node, instead of waking it.

An executor of rclpy needs some 300 us to find out which entity is ready, for each message again. A
node that hears 100 messages/s and needs the newest one 30 times, or all of them 50 times a second,
spends most of its time on that. It puts such subscriptions into a `PolledGroup` and takes
from them. Needs no import of rclpy: what has these methods is a callback group to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


class PolledGroup:
    """A callback group that an executor never waits for; `take_all` reads its subscriptions."""

    def add_entity(self, entity: Any) -> None:
        """Take in a subscription; rclpy calls this."""

    def has_entity(self, entity: Any) -> bool:
        """Whether it belongs here; rclpy asks when it looks for an entity's group."""
        return bool(entity.callback_group is self)

    def can_execute(self, entity: Any) -> bool:
        """Never: keeps the subscription out of the wait set."""
        return False

    def beginning_execution(self, entity: Any) -> bool:
        """Never either."""
        return False

    def ending_execution(self, entity: Any) -> None:
        """Nothing has begun that could end."""


def take_all(subscription: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yield message and message info of all that has come to a subscription, oldest first.

    A raw subscription gives bytes.
    """
    while True:
        with subscription.handle:
            taken = subscription.handle.take_message(subscription.msg_type, subscription.raw)
        if taken is None:
            return
        yield taken


def take_newest(subscription: Any) -> Any | None:
    """Return the newest message and drop the older ones; None when nothing has come."""
    newest = None
    for newest, _ in take_all(subscription):  # noqa: B007  # the last one is the result
        pass
    return newest


def ignore(_message: Any) -> None:
    """The callback of a polled subscription, which is never called."""
