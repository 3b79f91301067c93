# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`./koch test` without arguments: all tests, in two runs of pytest, one after the other.

First what does not keep time, one worker for each core. Then, with nothing beside it, what does:
the tests marked `timing` talk to servos on a pseudo-terminal, or watch a whole graph.
"""

from __future__ import annotations

import os
import subprocess
import sys

from repository import ROOT

MOST_WORKERS = 8  # more cost more start-up than they save
INTERRUPTED = 2  # pytest's exit code


def workers() -> int:
    """How many tests run at once in the first run."""
    return min(len(os.sched_getaffinity(0)), MOST_WORKERS)


def run(*arguments: str) -> int:
    """Run pytest; its exit code."""
    return subprocess.run([sys.executable, "-m", "pytest", *arguments], cwd=ROOT).returncode


def main() -> int:
    """Run everything; 0 when all is well, else the exit code of the first run that is not."""
    try:
        first = run("-m", "not timing", "-n", str(workers()), "--dist", "worksteal")
        if first == INTERRUPTED:
            return first
        second = run("-m", "timing")
    except KeyboardInterrupt:
        return 130
    return first or second


if __name__ == "__main__":
    sys.exit(main())
