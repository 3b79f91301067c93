# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Runs the long commands of the set-up: whole log in a file, one short line of progress."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from .errors import CommandFailedError

_REPORT_PERIOD_S = 10.0
_TAIL_LINES = 30


def say(text: str) -> None:
    """Print one line at once, also into a pipe."""
    print(text, flush=True)


def run(
    what: str,
    command: Sequence[str],
    *,
    log: Path,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    show: Callable[[str], str | None] = lambda line: None,
) -> None:
    """Run a command, reporting progress.

    Args:
        what: Name of the command in messages.
        command: Program and arguments.
        log: File that gets the whole output.
        environment: The child's environment; None: ours.
        cwd: The child's folder; None: ours.
        show: Turns a line of output into a line for the person, or None. Lines that it drops
            still show as a sign of life every ten seconds.

    Raises:
        CommandFailedError: The exit code is not 0.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    spoke = time.monotonic()
    with (
        log.open("w", encoding="utf-8") as sink,
        subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=None if environment is None else dict(environment),
            cwd=cwd,
        ) as process,
    ):
        assert process.stdout is not None  # PIPE was asked for
        for line in process.stdout:
            sink.write(line)
            tail.append(line)
            message = show(line.rstrip())
            now = time.monotonic()
            noise = not line.strip() or line.startswith("WARNING")
            if message is None and now - spoke > _REPORT_PERIOD_S and not noise:
                message = line.strip()[:90]
            if message is not None:
                say(f"      {message}")
                spoke = now
    if process.returncode != 0:
        raise CommandFailedError(what, process.returncode, log, "".join(tail))


def quiet_output(command: Sequence[str]) -> str | None:
    """Return a short command's output; None when it fails or does not exist."""
    try:
        done = subprocess.run(
            list(command), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def fail(text: str) -> int:
    """Print an error and return the exit code for errors of the user's side."""
    print(f"koch setup: {text}", file=sys.stderr, flush=True)
    return 2
