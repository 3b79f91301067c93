# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Asks the kernel to run us before others, as ros2_control does, and Python not to stop us.

A bus cycle takes 2 ms of 10 and must not wait behind a browser. Every process on the way from
hand to motor (driver, teleop, emulated servos) runs as SCHED_RR with one priority, DDS threads
included; the thread that owns a bus runs one above, so that its own process does not delay it.
The kernel keeps 5 % of each core for others: a loop gone wild cannot lock the computer.
"""

from __future__ import annotations

import gc
import os
from dataclasses import dataclass

#: Below the kernel's own threads (50) and above everything else on the computer.
PRIORITY = 20
#: Environment variable that sets another priority, 1 (lowest) to 98; 0 asks for nothing.
VARIABLE = "KOCH_REALTIME_PRIORITY"
BUS_THREAD = 1  # above the rest of its process


@dataclass(frozen=True)
class Realtime:
    """The kernel's answer.

    Attributes:
        granted: Whether the caller runs with real-time priority.
        refused: It was asked for, and is not given.
        text: What was granted, or why nothing was and what to do; for log and diagnostics.
    """

    granted: bool
    refused: bool
    text: str


OFF = Realtime(False, False, "not asked for")


def request_realtime(above: int = 0) -> Realtime:
    """Schedule the calling thread, and all threads that it starts from now on, as SCHED_RR.

    At the beginning of a process that is the whole process. Refused, it runs as any other.

    Args:
        above: Steps above the common priority.
    """
    asked = os.environ.get(VARIABLE, str(PRIORITY))
    if not asked.isdecimal() or int(asked) > 98:
        return Realtime(False, True, f"{VARIABLE} is {asked!r}, expected 0 (off) to 98")
    if int(asked) == 0:
        return Realtime(False, False, f"switched off by {VARIABLE}")
    priority = min(99, int(asked) + above)
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(priority))
    except AttributeError:
        return Realtime(False, True, "this system has no real-time scheduler")
    except OSError as exc:
        return Realtime(
            False,
            True,
            f"{exc.strerror or exc}: expect more jitter on a busy computer; to allow it, put "
            f"'@dialout - rtprio 60' into /etc/security/limits.d/koch.conf and log in again, "
            f"or set {VARIABLE}=0 to do without",
        )
    return Realtime(True, False, f"SCHED_RR, priority {priority}")


def spare_from_collection() -> None:
    """Leave all present objects out of the garbage collector's rounds, for good.

    A full round stops every thread. Over the 45 000 objects that a driver makes as it starts it
    takes 50 to 200 ms, which is five to twenty bus cycles; over the 500 000 of a test run, a
    second. Call it when a process has started and before it has to keep time.
    """
    gc.collect()  # what is garbage by now would stay
    gc.freeze()
