# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Runs another subcommand of koch as a step of the demo, its output in a log."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from koch_vla.errors import DemoError
from koch_vla.executables import environment

SHOWN_EVERY_S = 10.0
KEPT_LINES = 8
LINE_ENDS = re.compile(rb"[\r\n]+")
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def run_verb(
    words: Sequence[str],
    log: Path,
    say: Callable[[str], None],
    good: Sequence[int] = (0,),
) -> None:
    """Run `koch WORDS`, showing its newest line from time to time.

    Args:
        words: The command.
        log: Gets all of its output.
        say: Is shown a line.
        good: Exit codes that are no failure.

    Raises:
        DemoError: It ended with an error; the message holds its last lines.
    """
    command = [sys.executable, "-m", "koch_vla", *words]
    log.parent.mkdir(parents=True, exist_ok=True)
    last: deque[str] = deque(maxlen=KEPT_LINES)
    with log.open("ab") as file:
        file.write(f"koch {' '.join(words)}\n".encode())
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment(command),
        )
        try:
            _follow(process, file.write, last, say)
        finally:
            if process.poll() is None:
                process.terminate()
            code = process.wait()
    if code not in good:
        raise DemoError(
            f"`koch {words[0]}` ended with exit code {code}. All of its output is in {log}; "
            "the end:\n" + "\n".join(f"  {line}" for line in last)
        )


def _follow(
    process: subprocess.Popen[bytes],
    write: Callable[[bytes], int],
    last: deque[str],
    say: Callable[[str], None],
) -> None:
    """Copy output to the log; keep the last lines and show one now and then."""
    assert process.stdout is not None
    shown_s = time.monotonic()
    rest = b""
    while data := os.read(process.stdout.fileno(), 65536):
        write(data)
        *lines, rest = LINE_ENDS.split(rest + data)
        texts = [ESCAPES.sub("", line.decode("utf-8", "replace")).rstrip() for line in lines]
        last.extend(text for text in texts if text)
        if last and time.monotonic() - shown_s >= SHOWN_EVERY_S:
            shown_s = time.monotonic()
            say(f"      {last[-1].strip()[:110]}")
