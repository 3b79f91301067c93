# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`./koch test` without arguments: all tests, in two runs of pytest side by side.

In front, one by one, the tests marked `timing`: they keep time with servos, buses and whole
graphs. Behind them all others, one worker for each core, in the scheduling class that runs only
while nothing else wants to: what keeps time has the machine to itself, and mostly it sleeps.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO

from repository import ROOT

MOST_WORKERS = 8  # more cost more start-up than they save
PYTEST = [sys.executable, "-m", "pytest"]


def workers() -> int:
    """How many of the other tests run at once."""
    return min(len(os.sched_getaffinity(0)), MOST_WORKERS)


def environment(lane: int, domain: int) -> dict[str, str]:
    """Variables that give a run DDS domains of its own; see conftest.py."""
    return {**os.environ, "KOCH_TEST_LANE": str(lane), "KOCH_TEST_DOMAIN": str(domain)}


def yield_to_all() -> None:
    """Let this process and its children run only while the machine is idle."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def start_others(domain: int, output: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start what does not keep time, its output into a file."""
    command = [*PYTEST, "-m", "not timing", "-n", str(workers()), "--dist", "worksteal"]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment(1, domain),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        preexec_fn=yield_to_all,
    )


def show(process: subprocess.Popen[bytes], path: Path) -> int:
    """Show what a process wrote and goes on to write; its exit code at the end."""
    with path.open("rb") as written:
        while True:
            try:
                code = process.wait(timeout=0.5)
            except subprocess.TimeoutExpired:
                code = None
            sys.stdout.buffer.write(written.read())
            sys.stdout.flush()
            if code is not None:
                return code


def main() -> int:
    """Run everything; 0 when all is well, else the first run's that is not."""
    domain = random.SystemRandom().randrange(50)
    with tempfile.TemporaryDirectory(prefix="koch_test_") as folder:
        path = Path(folder) / "others.log"
        with path.open("wb") as output:
            others = start_others(domain, output)
        try:
            command = [*PYTEST, "-m", "timing"]
            first = subprocess.run(command, cwd=ROOT, env=environment(0, domain)).returncode
            print(f"\n{'=' * 20} what does not keep time, {workers()} at once {'=' * 20}")
            second = show(others, path)
        except KeyboardInterrupt:
            return 130
        finally:
            if others.poll() is None:
                others.terminate()
                others.wait()
    return first or second


if __name__ == "__main__":
    sys.exit(main())
