# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The process of one job: runs its command, and writes down how it ended. See `jobs`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from koch_console.jobs import ENDED, JOB, LOG, POLICY, PROCESS, begin_of
from koch_core.files import write_atomically

_NICE = 10  # whatever moves the arm comes first


def main(folder: Path) -> int:
    """Run the command of a job's folder until it ends."""
    job = json.loads((folder / JOB).read_text(encoding="utf-8"))
    if job["kind"] != POLICY:
        os.nice(_NICE)
    # A stop signals the command itself. This process stays, to tell how it ended.
    # A handler, since what is ignored would stay ignored in the command.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    with (folder / LOG).open("wb") as log:
        child = subprocess.Popen(
            job["command"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
    process = {"pid": child.pid, "began": begin_of(child.pid)}
    write_atomically(folder / PROCESS, json.dumps(process))
    code = child.wait()
    write_atomically(folder / ENDED, json.dumps({"code": code}))
    return code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
