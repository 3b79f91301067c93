# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`./koch test` without arguments: all tests, as two runs of pytest at once and a third behind.

The tests marked `timing` talk to servos on a pseudo-terminal and leave the processor idle half of
the time. Most others run in that time and only then: one worker for each core, in the scheduling
class that waits for an idle core. The tests marked `alone` watch a whole graph, which keeps two
cores busy; they come last. What failed is repeated once, alone on the machine. It passes when it
passes then; both results are printed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from repository import ROOT

MOST_WORKERS = 8  # more cost more start-up than they save
INTERRUPTED = 2  # pytest's exit code
FAILED = 1  # the same: all ran, some failed


def workers() -> int:
    """How many tests run at once beside those that keep time."""
    return min(len(os.sched_getaffinity(0)), MOST_WORKERS)


def step_aside() -> None:
    """Run from now on, with all children, only where a core is idle."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


class Run:
    """A run of pytest over some of the tests.

    Args:
        name: Of the run; its cache keeps what failed.
        domains: DDS domains "FIRST-LAST", of no other run.
        arguments: Which tests, and how.
    """

    def __init__(self, name: str, domains: str, *arguments: str) -> None:
        self.name = name
        cache = f"cache_dir={ROOT / '.pytest_cache' / name}"
        self._command = [sys.executable, "-m", "pytest", "-o", cache]
        self._arguments = arguments
        self._environment = {**os.environ, "KOCH_TEST_DOMAINS": domains}

    def start(self, output: Path | None = None) -> subprocess.Popen[bytes]:
        """Start it; with a file for its output it steps aside for whatever else runs."""
        command = [*self._command, *self._arguments]
        if output is None:
            return subprocess.Popen(command, cwd=ROOT, env=self._environment)
        with output.open("wb") as file:
            return subprocess.Popen(
                command, cwd=ROOT, env=self._environment, preexec_fn=step_aside,
                stdout=file, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def repeat_failed(self) -> int:
        """Run alone what failed; the exit code."""
        print(f"\n== {self.name}: what failed is repeated, alone ==", flush=True)
        chosen = self._arguments[:2]
        repeat = [*self._command, *chosen, "--last-failed", "--last-failed-no-failures", "none"]
        return subprocess.run(repeat, cwd=ROOT, env=self._environment).returncode


def main() -> int:
    """Run everything; 0 when all is well, else the exit code of the first run that is not."""
    # A shell lets what it starts in the background ignore Ctrl-C, and so would all nodes.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    timing = Run("timing", "1-30", "-m", "timing and not alone")
    others = Run(
        "others", "31-90", "-m", "not timing and not alone",
        "-n", str(workers()), "--dist", "worksteal",
    )  # fmt: skip
    alone = Run("alone", "91-101", "-m", "alone")
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "others.log"
        aside, first = others.start(output), timing.start()
        try:
            codes = {timing: first.wait(), others: aside.wait()}
        except KeyboardInterrupt:
            for process in (first, aside):
                process.wait()
            return 130
        print(f"\n== {others.name} ==\n{output.read_text(errors='replace')}", flush=True)
    print(f"\n== {alone.name} ==", flush=True)
    codes[alone] = alone.start().wait()
    for run, code in codes.items():
        if code == INTERRUPTED:
            return code
        if code == FAILED:
            codes[run] = run.repeat_failed()
    return next(filter(None, codes.values()), 0)


if __name__ == "__main__":
    sys.exit(main())
