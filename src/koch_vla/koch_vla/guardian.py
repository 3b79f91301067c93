# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Ends the processes of a supervisor that died without ending them itself, as by SIGKILL.

Runs as a process of its own and leads the process group which all nodes join. Its standard input
is a pipe from the supervisor; the end of that pipe is the end of the supervisor. The group then
gets SIGTERM, so that drivers can switch their motors off, and SIGKILL after a grace time.
Standard library only: it is started with `python -I`, by path.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path


def members(group: int) -> list[int]:
    """List the live processes of a process group, this one left out."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # "pid (name) state ppid pgrp ...", and the name may hold spaces and brackets.
            state, _, pgrp = stat.read_text().rpartition(")")[2].split()[:3]
        except (OSError, ValueError):
            continue  # the process ended between listing and reading
        if int(pgrp) == group and state != "Z" and int(stat.parent.name) != os.getpid():
            found.append(int(stat.parent.name))
    return found


def end_group(group: int, grace_s: float) -> None:
    """Send SIGTERM to a group that this process leads, and SIGKILL to what is left later."""
    if not members(group):
        return
    os.killpg(group, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while time.monotonic() < deadline:
        if not members(group):
            return
        time.sleep(0.05)
    for pid in members(group):
        os.kill(pid, signal.SIGKILL)


def main(grace_s: float) -> None:
    """Lead a group, say so with one byte, wait for the supervisor's end, then clean up."""
    os.setpgid(0, 0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.write(1, b"+")
    os.close(1)
    while os.read(0, 1024):
        continue
    end_group(os.getpid(), grace_s)


if __name__ == "__main__":
    main(float(sys.argv[1]))
