# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Asks the kernel to run this process before others, as ros2_control does for its loop."""

from __future__ import annotations

import os

#: Below the kernel's own threads (50) and above everything else on the computer.
PRIORITY = 20


def request_realtime(priority: int = PRIORITY) -> bool:
    """Schedule this process, and all threads that it starts from now on, as SCHED_RR.

    A bus cycle takes 2 ms of 10 and must not wait behind a browser. The kernel keeps 5 % of each
    core for others, so that a loop gone wild cannot lock the computer.

    Args:
        priority: 1 (lowest) to 99.

    Returns:
        False where the user may not: /etc/security/limits.d has no ``rtprio`` for them, or the
        system has no such scheduler. The process then runs as any other.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(priority))
    except (AttributeError, OSError):
        return False
    return True
