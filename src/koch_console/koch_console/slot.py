# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The newest image of one camera, for any number of readers that may each miss images."""

from __future__ import annotations

import asyncio
import time
from collections import deque

_RATE_IMAGES = 31  # a second of a usual camera


class LatestImage:
    """One slot: a new image replaces the old one. Nothing is queued for a slow reader.

    Used from one event loop only.
    """

    def __init__(self) -> None:
        self.number = 0
        self.jpeg = b""
        self.readers = 0
        self._changed = asyncio.Event()
        self._arrivals_s: deque[float] = deque(maxlen=_RATE_IMAGES)

    def put(self, jpeg: bytes) -> None:
        """Show an image."""
        self.number += 1
        self.jpeg = jpeg
        self._arrivals_s.append(time.monotonic())
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def after(self, number: int, timeout_s: float) -> tuple[int, bytes] | None:
        """The newest image if it is newer than a number, waiting for one; None after the time."""
        if self.number <= number:
            try:
                await asyncio.wait_for(self._changed.wait(), timeout_s)
            except asyncio.TimeoutError:
                return None
        return self.number, self.jpeg

    @property
    def rate_hz(self) -> float:
        """Images per second of late; 0 before the second."""
        if len(self._arrivals_s) < 2:
            return 0.0
        until_s = max(self._arrivals_s[-1], time.monotonic() - 1.0)
        return (len(self._arrivals_s) - 1) / max(1e-3, until_s - self._arrivals_s[0])

    @property
    def age_s(self) -> float | None:
        """Time since the newest came [s]; None before the first."""
        return time.monotonic() - self._arrivals_s[-1] if self._arrivals_s else None
