# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Real-time scheduling is asked for, and its refusal is no error."""

import os
import subprocess
import sys

import pytest

from koch_core.realtime import PRIORITY, VARIABLE, request_realtime

# A process of its own: the test's must stay as it is. A thread asks for one step more.
_REPORT = """
import os, threading
from koch_core.realtime import BUS_THREAD, request_realtime
def show(got):
    print(got.granted, os.sched_getscheduler(0) == os.SCHED_RR,
          os.sched_getparam(0).sched_priority)
show(request_realtime())
thread = threading.Thread(target=lambda: show(request_realtime(above=BUS_THREAD)))
thread.start(); thread.join()
"""
_INHERITS = """
import os, threading
from koch_core.realtime import request_realtime
request_realtime()
thread = threading.Thread(target=lambda: print(os.sched_getparam(0).sched_priority))
thread.start(); thread.join()
"""

# What a node holds from its start, and how long a full round of the collector over it takes.
_SPARED = """
import gc, time
from koch_core.realtime import spare_from_collection
held = [[number] for number in range(200_000)]
def round_s():
    begin = time.perf_counter(); gc.collect(); return time.perf_counter() - begin
before = min(round_s() for _ in range(3))
spare_from_collection()
after = min(round_s() for _ in range(3))
made = []; made.append(made); del made  # garbage of later is still found
print(before > 10 * after, gc.collect() > 0)
"""


def run(code: str, **variables: str) -> list[str]:
    env = {**os.environ, **variables, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    return done.stdout.splitlines()


def test_the_answer_is_what_the_kernel_did() -> None:
    process, thread = (line.split() for line in run(_REPORT))
    assert process[0] == process[1]
    assert thread[0] == thread[1]
    granted = process[0] == "True"
    assert int(process[2]) == (PRIORITY if granted else 0)
    assert int(thread[2]) == (PRIORITY + 1 if granted else 0)


def test_what_is_there_at_the_start_costs_no_round_of_the_collector() -> None:
    assert run(_SPARED) == ["True True"]


def test_threads_inherit_the_priority_of_their_process() -> None:
    granted = run(_REPORT)[0].startswith("True")
    assert run(_INHERITS) == [str(PRIORITY if granted else 0)]


def test_one_variable_sets_or_switches_off_both() -> None:
    process, thread = (line.split() for line in run(_REPORT, **{VARIABLE: "0"}))
    assert process == thread == ["False", "False", "0"]
    process, thread = (line.split() for line in run(_REPORT, **{VARIABLE: "30"}))
    if process[0] == "True":
        assert (process[2], thread[2]) == ("30", "31")


def test_refusal_is_an_answer_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    answer = request_realtime()
    assert (answer.granted, answer.refused) == (False, True)
    assert "Operation not permitted" in answer.text
    assert "rtprio" in answer.text


@pytest.mark.parametrize("text", ["high", "-1", "99", ""])
def test_a_priority_that_is_none_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv(VARIABLE, text)
    answer = request_realtime()
    assert answer.refused
    assert VARIABLE in answer.text
