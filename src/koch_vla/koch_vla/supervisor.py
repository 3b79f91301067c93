# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Runs the processes of a node graph: output, new starts, and an end that leaves no one behind.

One thread sleeps in `select` until a process writes or ends, a signal comes, or a planned start
or escalation is due; it costs nothing while nodes are quiet.

End: SIGINT to the nodes that no running node needs, so that drivers stop before the hardware that
they talk to; anyone who does not end gets SIGTERM, then SIGKILL. Should the supervisor itself be
killed, its guardian ends the nodes.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from koch_core.closing import Opening
from koch_vla import executables, guardian
from koch_vla.child import Child, describe_end, exit_code
from koch_vla.log_line import last_message
from koch_vla.node_spec import NodeSpec

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
Report = Callable[[NodeSpec, str], None]


def _nobody(_spec: NodeSpec, _cause: str) -> None:
    """No one wants to know."""


@dataclass(frozen=True)
class StopTimes:
    """How long a node may take to end after each signal, and the user to repeat a request.

    Attributes:
        interrupt_s: From SIGINT to SIGTERM [s].
        terminate_s: From SIGTERM to SIGKILL [s].
        same_s: Requests within this time are one [s]: where a launch runs this process, Ctrl-C
            comes from the terminal and from the launch.
    """

    interrupt_s: float = 6.0
    terminate_s: float = 3.0
    same_s: float = 1.0


class Supervisor:
    """Runs a graph in this thread until every node ended.

    Args:
        specs: Nodes in start order.
        report: Receives each output line and each event with its node.
        stop_times: Patience at the end.
        changed: Told when a node's process starts (with "") and when it ends by itself (why, and
            what follows).
        command: Turns a node into a command line; gets a folder for its files.

    `run` may be called in any thread; `stop` from any other, or from a signal handler.
    """

    def __init__(
        self,
        specs: Sequence[NodeSpec],
        *,
        report: Report,
        stop_times: StopTimes | None = None,
        changed: Report = _nobody,
        command: Callable[[NodeSpec, Path], list[str]] = executables.command,
    ) -> None:
        self._specs = tuple(specs)
        self._report = report
        self._stop_times = stop_times or StopTimes()
        self._changed = changed
        self._command = command
        self._children: list[Child] = []
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        self._stopping = False
        self._requested_s = 0.0
        self._hurry = 0
        self._asked: dict[str, tuple[int, float]] = {}  # full name -> (signals sent, when)
        self._code = 0
        self._cause = ""
        self._said = {spec.full_name: deque[str](maxlen=_KEPT_LINES) for spec in self._specs}
        self._group = 0

    def stop(self) -> None:
        """Ask for the end; asked again later, the next stronger signal follows at once."""
        with contextlib.suppress(OSError):  # the graph has ended already, or is being told
            self._wake_write.send(b"s")

    def run(self) -> int:
        """Start all nodes and return when all have ended.

        Returns:
            0, or the exit code of the first node that failed for good.

        Raises:
            ExecutableNotFoundError: A node cannot be started at all; none has been then.
        """
        with tempfile.TemporaryDirectory(prefix="koch_up_") as folder, _Guardian() as group:
            self._group = group.pid
            self._children = [Child(s, self._command(s, Path(folder))) for s in self._specs]
            self._selector.register(self._wake_read, selectors.EVENT_READ, self._woken)
            try:
                for child in self._children:
                    self._start(child)
                while any(child.running or child.restart_s for child in self._children):
                    self._step()
            finally:
                self._selector.close()
                self._wake_read.close()
                self._wake_write.close()
        return self._code

    @property
    def cause(self) -> str:
        """Which node failed first for good, how, and what it said last; empty for none."""
        return self._cause

    def _step(self) -> None:
        for key, _ in self._selector.select(self._patience_s()):
            key.data()
        now_s = time.monotonic()
        for child in self._children:
            if child.restart_s is not None and now_s >= child.restart_s:
                self._start(child)
        if self._stopping:
            self._press(now_s)

    def _patience_s(self) -> float | None:
        """How long `select` may sleep: to the next planned start or escalation, [s]."""
        due = [child.restart_s for child in self._children if child.restart_s is not None]
        if self._stopping:
            due += [
                when + self._allowed_s(sent)
                for sent, when in self._asked.values()
                if sent < len(_LADDER)
            ]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _start(self, child: Child) -> None:
        now_s = time.monotonic()
        try:
            child.start(self._group, now_s, executables.environment(child.command))
        except OSError as error:
            self._report(child.spec, f"could not be started: {error}")
            child.restart_s = None
            self._fail(1, f"{child.spec.label} could not be started: {error}")
            return
        self._changed(child.spec, "")
        assert child.process is not None
        assert child.process.stdout is not None
        pid_fd = os.pidfd_open(child.process.pid)
        self._selector.register(
            child.process.stdout, selectors.EVENT_READ, lambda: self._output(child)
        )
        self._selector.register(pid_fd, selectors.EVENT_READ, lambda: self._ended(child, pid_fd))

    def _output(self, child: Child) -> bool:
        """Pass on what a process wrote; False when there was nothing, or nothing will follow."""
        assert child.process is not None
        assert child.process.stdout is not None
        lines = child.read_lines()
        if lines is None:
            self._selector.unregister(child.process.stdout)
            child.process.stdout.close()
            lines = child.last_words()
        self._said[child.spec.full_name].extend(lines)
        for line in lines:
            self._report(child.spec, line)
        return bool(lines)

    def _ended(self, child: Child, pid_fd: int) -> None:
        assert child.process is not None
        self._selector.unregister(pid_fd)
        os.close(pid_fd)
        returncode = child.process.wait()
        stdout = child.process.stdout
        while stdout is not None and not stdout.closed and self._output(child):
            continue
        if stdout is not None and not stdout.closed:  # a grandchild still holds the pipe
            self._selector.unregister(stdout)
            stdout.close()
        self._asked.pop(child.spec.full_name, None)
        if self._stopping:
            self._report_stop(child, returncode)
            return
        delay_s = child.plan_restart(exit_code(returncode), time.monotonic())
        follows = "it stays down" if delay_s is None else f"new start in {delay_s:.1f} s"
        cause = f"{describe_end(returncode)}; {follows}"
        self._report(child.spec, cause)
        self._changed(child.spec, cause)
        if delay_s is not None:
            return
        if returncode != 0:
            words = last_message(self._said[child.spec.full_name])
            how = f"{child.spec.label} {describe_end(returncode)}"
            self._fail(exit_code(returncode), f"{how}: {words}" if words else how)

    def _report_stop(self, child: Child, returncode: int) -> None:
        child.restart_s = None
        asked_to_end = returncode in (0, -signal.SIGINT, -signal.SIGTERM, 130, 143)
        if not asked_to_end:
            self._report(child.spec, describe_end(returncode))
            self._code = self._code or exit_code(returncode)

    def _fail(self, code: int, cause: str) -> None:
        """Remember the first failure and end the graph."""
        self._code = self._code or code
        self._cause = self._cause or cause
        self._begin_stop()

    def _woken(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._wake_read.recv(64):
                continue
        now_s = time.monotonic()
        if not self._stopping:
            self._requested_s = now_s
        elif now_s - self._requested_s >= self._stop_times.same_s:
            self._hurry += 1
            self._requested_s = now_s
        self._begin_stop()

    def _begin_stop(self) -> None:
        self._stopping = True
        for child in self._children:
            child.restart_s = None
        self._press(time.monotonic())

    def _press(self, now_s: float) -> None:
        """Send each node that is to end now its first, or its next stronger, signal."""
        running = [child for child in self._children if child.running]
        needed = {name for child in running for name in child.spec.needs}
        for child in running:
            name = child.spec.full_name
            sent, when = self._asked.get(name, (0, now_s))
            if sent == 0 and name in needed and not self._hurry:
                continue
            if sent >= len(_LADDER):
                continue
            if sent > self._hurry and now_s < when + self._allowed_s(sent):
                continue
            if sent > 0:
                self._report(child.spec, f"did not end; it gets {_LADDER[sent].name}")
            # While a Python program imports, SIGINT would end it with a traceback.
            child.send(signal.SIGTERM if sent == 0 and child.is_starting else _LADDER[sent])
            self._asked[name] = (sent + 1, now_s)

    def _allowed_s(self, sent: int) -> float:
        """Time between the last signal that was sent and the next one, [s]."""
        return (0.0, self._stop_times.interrupt_s, self._stop_times.terminate_s)[sent]


_KEPT_LINES = 40  # of each node, to tell what it said last
_LADDER = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)


class _Guardian(Opening):
    """The process that leads the nodes' group and outlives a killed supervisor."""

    def __init__(self, grace_s: float = 5.0) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", guardian.__file__, str(grace_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.pid = self._process.pid

    def open(self) -> None:
        """Wait until it leads its group."""
        assert self._process.stdout is not None
        self._process.stdout.read(1)

    def close(self) -> None:
        """Close its input, and wait until the group is empty."""
        self._process.communicate()


@contextlib.contextmanager
def stop_on_signals(supervisor: Supervisor) -> Iterator[None]:
    """Let SIGINT, SIGTERM and SIGHUP of this process end the graph; main thread only."""
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    for number in STOP_SIGNALS:
        signal.signal(number, lambda *_: supervisor.stop())
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
