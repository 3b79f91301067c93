# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Who sends on a topic: a control topic is obeyed while one publisher sends, and not while two do.

A topic's name says what is sent, not who sends it. A second student in the same domain, a bag that
is played into the live graph, a node that was started twice: their messages arrive interleaved,
and an arm that took the newest of both would swing between them.

A publisher that exists but is silent does no harm (a teleop whose enable switch is open), so only
those count that send. Needs no import of rclpy: it takes message infos and nodes as they come.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

# Two that both sent within this time send at once; longer is a hand-over. Not far above the source
# timeout of the guard (0.5 s), so that the second of two slow senders is noticed as well.
_OVERLAP_S = 1.0
# A rival that is silent for so long has given up, although its publisher is still there.
_GIVEN_UP_S = 2.0


class SoleSender:
    """Says whether a message comes from the only one who sends; any thread.

    Two that send are rivals, and neither is obeyed, until one has been silent for two seconds or
    its publisher has gone.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._heard: dict[Hashable, float] = {}
        self._rivals: tuple[Hashable, ...] = ()

    @property
    def rivals(self) -> tuple[Hashable, ...]:
        """Those that send at the same time; empty while all is well."""
        return self._rivals

    def hears(self, sender: Hashable, now_s: float) -> bool:
        """Note a message; whether it may be obeyed.

        Args:
            sender: The publisher, from `sender_of`.
            now_s: Monotonic time.
        """
        with self._lock:
            self._heard[sender] = now_s
            if len(self._heard) > 1:
                self._judge(now_s)
            return not self._rivals

    def look(self, present: Iterable[Hashable], now_s: float) -> None:
        """Forget senders that are gone; called now and then with the live publishers."""
        there = set(present)
        with self._lock:
            self._heard = {who: at for who, at in self._heard.items() if who in there}
            self._judge(now_s)

    def _judge(self, now_s: float) -> None:
        patience_s = _GIVEN_UP_S if self._rivals else _OVERLAP_S
        self._heard = {who: at for who, at in self._heard.items() if now_s - at <= patience_s}
        self._rivals = tuple(self._heard) if len(self._heard) > 1 else ()


def sender_of(info: Mapping[str, Any]) -> Hashable:
    """The publisher of a message, from its info; None where the middleware does not say."""
    gid = info.get("publisher_gid")
    return None if gid is None else bytes(gid["data"])


def publishers(node: Any, topic: str) -> dict[Hashable, str]:
    """Publishers of a topic as the graph knows them: full node name by `sender_of`."""
    return {
        bytes(end.endpoint_gid): f"{end.node_namespace.rstrip('/')}/{end.node_name}"
        for end in node.get_publishers_info_by_topic(topic)
    }
