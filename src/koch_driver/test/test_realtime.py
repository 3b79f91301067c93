# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Real-time scheduling is asked for, and its refusal is no error."""

import os
import subprocess
import sys

from koch_driver.realtime import request_realtime

_REPORT = (
    "import os; from koch_driver.realtime import request_realtime;"
    "got = request_realtime(); print(got, os.sched_getscheduler(0) == os.SCHED_RR)"
)


def test_the_answer_is_what_the_kernel_did():
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    answer = subprocess.run(
        [sys.executable, "-c", _REPORT], capture_output=True, text=True, check=True, env=env
    )
    got, is_realtime = answer.stdout.split()
    assert got == is_realtime


def test_refusal_is_an_answer(monkeypatch):
    def refuse(*_):
        raise PermissionError("Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    assert request_realtime() is False
