# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The state of the host's clock, kept with each episode: was it set, did it jump?"""

from __future__ import annotations

import ctypes
import json
import time

_STA_UNSYNC = 0x0040


class _Timex(ctypes.Structure):
    # struct timex of Linux; the rest of it is padding for our use.
    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_char * 256),
    )


def synchronised() -> bool | None:
    """Tell whether the kernel's clock follows a time server; None where no one knows."""
    try:
        adjtimex = ctypes.CDLL(None, use_errno=True).adjtimex
    except (OSError, AttributeError):
        return None
    state = _Timex(modes=0)  # modes 0: only read
    if adjtimex(ctypes.byref(state)) < 0:
        return None
    return not state.status & _STA_UNSYNC


class HostClock:
    """Compares wall clock and monotonic clock from its creation on."""

    def __init__(self) -> None:
        self._start_ns = time.time_ns()
        self._offset_ns = self._start_ns - time.monotonic_ns()

    def step_s(self) -> float:
        """How far the wall clock has been moved since the start, [s]."""
        return (time.time_ns() - time.monotonic_ns() - self._offset_ns) / 1e9

    def describe(self) -> str:
        """Start time, synchronisation and steps as JSON."""
        state = {
            "start_ns": self._start_ns,
            "synchronised": synchronised(),
            "step_s": round(self.step_s(), 6),
        }
        return json.dumps(state)
