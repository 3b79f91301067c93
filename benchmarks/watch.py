# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Memory and processor time of a benchmark's process and all that it starts."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path


class Watch(threading.Thread):
    """Largest memory (sum of proportional set sizes, [MB]) and CPU time [s] of this process and
    its descendants; workers are no direct children, so that getrusage does not see them."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak_mb = 0.0
        self._cpu_s: dict[int, tuple[float, float]] = {}
        self._over = threading.Event()

    def run(self) -> None:
        look_again = 0.0
        while not self._over.wait(0.05):
            family = _family(os.getpid())
            self._count_cpu(family)
            if (begin := time.perf_counter()) >= look_again:
                self._weigh(family)
                # The kernel walks all pages for it; the cores are the conversion's.
                look_again = begin + 100 * (time.perf_counter() - begin)

    def _weigh(self, family: list[int]) -> None:
        self.peak_mb = max(self.peak_mb, sum(_pss_mb(pid) for pid in family))

    def _count_cpu(self, family: list[int]) -> None:
        for pid in family:
            now = cpu_s(pid)
            first = self._cpu_s.get(pid, (now if pid == os.getpid() else 0.0, 0.0))[0]
            self._cpu_s[pid] = (first, max(now, self._cpu_s.get(pid, (0.0, 0.0))[1]))

    def stop(self) -> tuple[float, float]:
        """Return peak memory [MB] and CPU time [s]."""
        self._over.set()
        self.join()
        self._count_cpu(_family(os.getpid()))
        return self.peak_mb, sum(last - first for first, last in self._cpu_s.values())


def _family(pid: int) -> list[int]:
    found = [pid]
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += _family(int(child))
    except OSError:
        return found  # it has just ended
    return found


def cpu_s(pid: int) -> float:
    """User and system time of a process so far [s]; 0 for one that has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0  # it has just ended
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _pss_mb(pid: int) -> float:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    except OSError:
        return 0.0  # it has just ended
    return 0.0
