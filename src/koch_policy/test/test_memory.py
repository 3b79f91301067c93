# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Freed tensors' memory is kept: taking it again costs no page faults."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import resource, threading, torch
from koch_policy.memory import keep_freed_memory
if {keep}:
    assert keep_freed_memory()
def work():
    for turn in range(40):
        if turn == 25:  # the heap has found its shape
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.zeros(70 << 18)  # 70 MiB, above what another thread's arena could hold
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
thread = threading.Thread(target=lambda: print(work()))
thread.start()
thread.join()
"""


def _faults(*, keep: bool) -> int:
    """Page faults of taking 70 MiB fifteen times in a thread; a page is 4 KiB."""
    command = [sys.executable, "-c", SCRIPT.format(keep=keep)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    return int(done.stdout)


@pytest.mark.slow
def test_freed_memory_is_kept() -> None:
    assert _faults(keep=True) < 1000
    assert _faults(keep=False) > 10_000  # how it is otherwise
