# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The inference thread: loading, warm-up, errors, policies that hang."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

from koch_policy.chunks import Request
from koch_policy.execution import InferenceWorker, LockstepWorker
from koch_policy.execution.inference import ChunkError, plain_predict
from koch_policy.execution.synthetic import FunctionPolicy
from koch_rig.arm_model import KOCH_V1_1

J = len(KOCH_V1_1.joints)


def still(call: int, observation: Any) -> np.ndarray:
    return np.zeros((30, J), np.float32)


def answer_of(worker: InferenceWorker) -> Any:
    end = time.monotonic() + 20.0
    while (answer := worker.poll()) is None:
        assert time.monotonic() < end
        time.sleep(0.002)
    return answer


def worker_for(function: Any = still, **options: Any) -> tuple[InferenceWorker, FunctionPolicy]:
    policy = FunctionPolicy(function, **options)
    worker = InferenceWorker(lambda: policy, time.time_ns, "task")
    worker.start()
    return worker, policy


def test_it_warms_up_measures_and_resets() -> None:
    threads = []

    def function(call: int, observation: Any) -> np.ndarray:
        threads.append(threading.current_thread().name)
        assert observation["task"] == "task"
        return still(call, observation)

    worker, policy = worker_for(function, delay_s=0.03)
    assert threads == ["inference"] * 3
    assert worker.warm_up_s >= 0.03
    assert policy.calls == 0
    worker.close()


def test_an_answer_tells_when_it_was_there() -> None:
    worker, _ = worker_for(delay_s=0.02)
    before = time.time_ns()
    request = Request(1, 0, 1, None)
    worker.submit(request, {}, plain_predict)
    assert worker.busy_s >= 0.0
    answer = answer_of(worker)
    assert answer.request is request
    assert answer.error is None
    assert answer.finished_ns - before >= 19_000_000
    assert answer.duration_s >= 0.02
    assert worker.busy_s == 0.0
    worker.close()


def test_what_loading_raises_reaches_the_caller() -> None:
    def load() -> Any:
        raise FileNotFoundError("no such checkpoint")

    worker = InferenceWorker(load, time.time_ns, "task")
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        worker.start()


def test_a_policy_of_the_wrong_size_is_refused_before_it_ever_drives() -> None:
    policy = FunctionPolicy(lambda call, observation: np.zeros((30, 7), np.float32))
    worker = InferenceWorker(lambda: policy, time.time_ns, "task")
    with pytest.raises(ChunkError, match=r"shape \(30, 7\); expected .*\(steps, 6\)"):
        worker.start()


def test_the_thread_survives_exceptions() -> None:
    def function(call: int, observation: Any) -> np.ndarray:
        if call == 0 and observation:
            raise RuntimeError("CUDA error: unspecified launch failure")
        return still(call, observation)

    worker, _ = worker_for(lambda call, observation: still(call, observation))
    worker.submit(Request(1, 0, 1, None), {"x": 1}, lambda *_: function(0, {"x": 1}))
    assert "CUDA error" in str(answer_of(worker).error)
    worker.submit(Request(2, 1, 1, None), {}, plain_predict)
    assert answer_of(worker).raw.shape == (30, J)
    worker.close()


def test_a_policy_that_hangs_does_not_keep_the_process_from_ending() -> None:
    release = threading.Event()
    worker, _ = worker_for()
    worker.submit(Request(1, 0, 1, None), {}, lambda *_: release.wait(30.0))
    time.sleep(0.05)
    assert worker.busy_s >= 0.05
    begin = time.monotonic()
    worker.close(timeout_s=0.1)
    assert time.monotonic() - begin < 5.0
    release.set()


def test_in_lockstep_an_inference_may_take_as_long_as_it_took_here() -> None:
    now_ns = [0]
    worker = LockstepWorker(FunctionPolicy(still, delay_s=0.05), lambda: now_ns[0], None)
    worker.submit(Request(1, 0, 1, None), {"task": "task"}, plain_predict)
    now_ns[0] = 45_000_000
    assert worker.poll() is None
    assert worker.busy_s == pytest.approx(0.045)
    now_ns[0] = 2_000_000_000
    answer = worker.poll()
    assert answer is not None
    assert answer.finished_ns == round(answer.duration_s * 1e9)
    assert worker.busy_s == 0.0
