# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""One node's process over its lives: start, output, end, and when to start it again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from koch_vla.node_spec import NodeSpec

# Exit codes after which a node is not started again. 0: someone asked it to end, with a signal of
# their own; a driver that came back would take the arm again. 2: its rig or parameters are wrong.
STAYS_DOWN = (0, 2)
STEADY_S = 20.0  # a process that lived longer than this failed again, not again
LONGEST_DELAY_S = 30.0
LONGEST_LINE_BYTES = 64 * 1024


@dataclass
class Child:
    """A node, its command and its present process.

    Attributes:
        spec: The node.
        command: Its whole command line.
        process: The running or last process; None before the first start.
        started_s: Monotonic time of the last start.
        restart_s: Monotonic time of the next start; None when none is planned.
        quick_failures: Ends in a row, each soon after its start.
    """

    spec: NodeSpec
    command: Sequence[str]
    process: subprocess.Popen[bytes] | None = None
    started_s: float = 0.0
    restart_s: float | None = None
    quick_failures: int = 0
    _partial: bytes = field(default=b"", repr=False)

    @property
    def running(self) -> bool:
        """The process was started and its end has not been seen."""
        return self.process is not None and self.process.returncode is None

    def start(self, group: int, now_s: float, environment: dict[str, str]) -> None:
        """Start the process as a member of a process group, output into a pipe."""
        self.process = subprocess.Popen(
            list(self.command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            bufsize=0,
            **_join_group(group),
        )
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)
        self.started_s = now_s
        self.restart_s = None

    def read_lines(self) -> list[str] | None:
        """Return the lines written since the last call; None at the end of the output."""
        assert self.process is not None
        assert self.process.stdout is not None
        try:
            data = os.read(self.process.stdout.fileno(), LONGEST_LINE_BYTES)
        except BlockingIOError:
            return []
        if not data:
            return None
        *whole, self._partial = (self._partial + data).split(b"\n")
        if len(self._partial) > LONGEST_LINE_BYTES:
            whole, self._partial = [*whole, self._partial], b""
        return [line.decode("utf-8", "replace").rstrip("\r") for line in whole]

    def last_words(self) -> list[str]:
        """Return an unfinished last line, once."""
        line, self._partial = self._partial.decode("utf-8", "replace"), b""
        return [line] if line else []

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process if it still runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    @property
    def is_starting(self) -> bool:
        """A node of ours that has not come to its signal handlers: nothing to put away yet."""
        if self.process is None or not self.spec.package.startswith("koch_"):
            return False
        return not _catches(self.process.pid, signal.SIGTERM)

    def plan_restart(self, code: int, now_s: float) -> float | None:
        """Decide on a new start after an end that no one asked for.

        Returns:
            The delay in [s], doubling with each quick failure; None when the node stays down:
            it is not to be respawned, or its exit code says so.
        """
        if not self.spec.respawn or code in STAYS_DOWN:
            return None
        quick = now_s - self.started_s < STEADY_S
        self.quick_failures = self.quick_failures + 1 if quick else 1
        delay_s = self.spec.respawn_delay_s * 2.0 ** (self.quick_failures - 1)
        delay_s = min(delay_s, LONGEST_DELAY_S)
        self.restart_s = now_s + delay_s
        return delay_s


def _catches(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler of its own for a signal; False when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
        mask = status.partition("SigCgt:")[2].split()[0]
    except (OSError, IndexError):
        return False
    return bool(int(mask, 16) >> (number - 1) & 1)


def exit_code(returncode: int) -> int:
    """Turn a process's return code into an exit code, as a shell does: 128 + signal."""
    return 128 - returncode if returncode < 0 else returncode


def describe_end(returncode: int) -> str:
    """Say in words how a process ended."""
    if returncode < 0:
        return f"was ended by {signal.Signals(-returncode).name}"
    return f"ended with exit code {returncode}"


def _join_group(group: int) -> dict[str, Any]:
    """Popen's argument that puts the new process into a group; its name depends on Python."""
    if sys.version_info >= (3, 11):
        return {"process_group": group}
    return {"preexec_fn": lambda: os.setpgid(0, group)}
