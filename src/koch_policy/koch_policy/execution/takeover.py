# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Who else commands the arm: everything with a topic has priority over the policy."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

HUMAN = "teleop"
OTHERS = ("trajectory", "replay")
LEASE_S = 0.5
"""The guard's: so long after its last command a source keeps the arm."""


class Takeover:
    """Remembers when each other source was last heard; safe between threads.

    Args:
        lease_s: How long a source counts after its last command [s].
        monotonic: Clock [s].
    """

    def __init__(
        self, lease_s: float = LEASE_S, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._lease_s = lease_s
        self._monotonic = monotonic
        self._heard: dict[str, tuple[float, int]] = {}
        self._lock = threading.Lock()

    def heard(self, source: str, stamp_ns: int) -> None:
        """A source commanded, with this stamp."""
        with self._lock:
            self._heard[source] = (self._monotonic(), stamp_ns)

    def driver(self) -> tuple[str, int] | None:
        """The source that drives now and its newest stamp [ns]; None: the arm is free."""
        now = self._monotonic()
        with self._lock:
            for source in (HUMAN, *OTHERS):
                at, stamp_ns = self._heard.get(source, (float("-inf"), 0))
                if now - at <= self._lease_s:
                    return source, stamp_ns
        return None
