# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Signals as one event: in any thread, while a library waits, and never twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

import koch_rig

PROGRAM = """
import sys, threading, time
from koch_ros.node import on_stop
{before}
ended = threading.Event()
acts = []
def act():
    acts.append(threading.current_thread().name)
    ended.set()
with on_stop(act):
    print("up", flush=True)
    {wait}
    print("ends", flush=True)
    time.sleep(0.3)  # the clean-up, into which the second signal falls
print(acts, flush=True)
"""


@pytest.fixture
def start() -> Iterator[object]:
    """Return a function that starts a Python program; ended with the test."""
    running: list[subprocess.Popen[str]] = []

    def run(wait: str = "ended.wait()", before: str = "") -> subprocess.Popen[str]:
        paths = [os.path.dirname(os.path.dirname(koch_rig.__file__)), *sys.path]
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM.format(wait=wait, before=before)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        return process

    yield run
    for process in running:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_acts_once_in_a_thread_of_its_own(start, number):
    process = start()
    process.send_signal(number)
    output, errors = process.communicate(timeout=10)
    assert process.returncode == 0, errors
    assert output == "ends\n['signals']\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_interrupts_no_clean_up(start, number):
    process = start()
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "ends\n"
    process.send_signal(number)
    output, errors = process.communicate(timeout=10)
    assert process.returncode == 0
    assert errors == ""
    assert output == "['signals']\n"


def test_signals_behind_the_block_are_ignored(start):
    process = start(wait="pass", before="import atexit; atexit.register(time.sleep, 0.5)")
    assert process.stdout.readline() == "ends\n"
    assert process.stdout.readline() == "[]\n"
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=10)
    assert process.returncode == 0


def test_a_signal_that_another_thread_gets_counts(start):
    # The kernel gives it to any thread that does not block it: numerical libraries have some.
    wait = (
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT]); "
        "threading.Thread(target=lambda: signal.pthread_sigmask("
        "signal.SIG_UNBLOCK, [signal.SIGINT]) or time.sleep(9), daemon=True).start(); "
        "ended.wait()"
    )
    process = start(wait=wait, before="import signal")
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=10)
    assert process.returncode == 0, errors
    assert output == "ends\n['signals']\n"
