# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""How old a command is when its goal is written: leader's stamp to follower's motors."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from koch_driver.arm.schedule import quantile

if TYPE_CHECKING:
    from koch_driver.guard import GuardResult

_KEPT = 1000


class CommandLatency:
    """Latencies per source, of the first goal that each command takes part in."""

    def __init__(self) -> None:
        self._values: dict[str, deque[float]] = {}
        self._last: object = None

    def add(self, result: GuardResult, written_ns: int) -> bool:
        """Note the write of a goal at `written_ns` of `time.monotonic_ns`.

        Returns:
            Whether the goal is the first that answers its command.
        """
        command = result.command
        if command is None or result.source is None or command is self._last:
            return False
        self._last = command
        values = self._values.get(result.source)
        if values is None:
            values = deque(maxlen=_KEPT)
            self._values = {**self._values, result.source: values}
        values.append(written_ns * 1e-9 - command.stamp_s)
        return True

    def quantiles(self) -> dict[str, tuple[float, float]]:
        """Median and 99th percentile in [s] per source, over the last thousand commands."""
        return {
            source: (quantile(list(values), 0.5), quantile(list(values), 0.99))
            for source, values in self._values.items()
        }
