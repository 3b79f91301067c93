# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Several arms on one policy: what waits is computed together, and nothing that is too old."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from koch_policy.errors import NotFiniteError, ObservationError
from koch_policy.runtime import load_policy
from koch_policy.server.turns import TooLateError, Turns

CAMERA = "observation.images.above"


def observation(policy: Any, seed: int) -> dict[str, Any]:
    draw = np.random.default_rng(seed)
    seen: dict[str, Any] = {"task": "reach left"}
    for key, feature in policy.config.input_features.items():
        if key == CAMERA:
            seen[key] = draw.integers(0, 255, (48, 64, 3), dtype=np.uint8)
        else:
            seen[key] = draw.normal(size=feature.shape).astype(np.float32)
    return seen


@pytest.fixture
def policy(make: Any, tmp_path: Path) -> Any:
    checkpoint = make.checkpoint("act", tmp_path, images=True)
    return load_policy(checkpoint, "torch", full_horizon=True)


def test_a_batch_gives_each_arm_its_own_chunk(policy: Any) -> None:
    seen = [observation(policy, seed) for seed in range(5)]
    alone = [policy.predict(each) for each in seen]
    together = policy.predict_batch(seen)
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5)
    assert np.abs(alone[0] - alone[1]).max() > 1e-3, "else an exchange would not be seen"


def test_one_bad_observation_spoils_no_other(policy: Any) -> None:
    good, bad = observation(policy, 1), observation(policy, 2)
    bad["observation.state"] = np.full_like(bad["observation.state"], np.nan)
    first, wrong, last = policy.predict_batch([good, bad, good])
    assert isinstance(wrong, ObservationError)
    expected = policy.predict(good)
    for each in (first, last):
        np.testing.assert_allclose(each, expected, rtol=1e-4, atol=1e-5)


def test_a_chunk_that_is_not_finite_is_refused_alone(policy: Any) -> None:
    good, bad = observation(policy, 1), observation(policy, 2)
    bad["observation.state"] = np.full_like(bad["observation.state"], 1e38)
    first, wrong = policy.predict_batch([good, bad])
    assert isinstance(wrong, NotFiniteError)
    assert np.isfinite(first).all()


class Slow:
    """A policy that takes its time, around a real one."""

    def __init__(self, policy: Any) -> None:
        self._policy = policy
        self.begun = threading.Event()
        self.goes_on = threading.Event()
        self.computes_batches = policy.computes_batches
        self.predict_batch = policy.predict_batch

    def predict(self, seen: Any, noise: Any) -> Any:
        self.begun.set()
        self.goes_on.wait(20.0)
        return self._policy.predict(seen, noise=noise)


def ask(turns: Turns, seen: Any, within_s: float, answers: dict[int, Any], number: int) -> None:
    try:
        answers[number] = turns.predict(seen, None, within_s)
    except Exception as exc:
        answers[number] = exc


def test_who_waits_is_computed_together_and_what_is_old_not_at_all(policy: Any) -> None:
    slow = Slow(policy)
    turns: Any = Turns(slow)  # type: ignore[arg-type]
    seen = [observation(policy, seed) for seed in range(5)]
    patience_s = [60.0, 60.0, 60.0, 60.0, 0.05]
    answers: dict[int, Any] = {}
    threads = [
        threading.Thread(target=ask, args=(turns, seen[i], patience_s[i], answers, i))
        for i in range(5)
    ]
    threads[0].start()
    assert slow.begun.wait(20.0)
    for thread in threads[1:]:
        thread.start()
    end = time.monotonic() + 20.0
    while len(turns._waiting) < 4:
        assert time.monotonic() < end
        time.sleep(0.01)
    time.sleep(0.1)
    slow.goes_on.set()
    for thread in threads:
        thread.join(20.0)
    assert turns.batches == {1: 1, 3: 1}
    assert isinstance(answers[4], TooLateError)
    for number in range(4):
        expected = policy.predict(seen[number])
        np.testing.assert_allclose(answers[number], expected, rtol=1e-4, atol=1e-5)


def test_a_policy_that_cannot_batch_takes_one_after_the_other(make: Any, tmp_path: Path) -> None:
    checkpoint = make.checkpoint("flow", tmp_path, images=True)
    policy: Any = load_policy(checkpoint, "torch", full_horizon=True)
    assert not policy.computes_batches
    turns = Turns(policy)
    seen = [observation(policy, seed) for seed in range(4)]
    noise = np.zeros((policy.config.horizon_steps, policy.config.action_dim), np.float32)
    answers: dict[int, Any] = {}

    def run(number: int) -> None:
        answers[number] = turns.predict(seen[number], noise, 60.0)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20.0)
    assert turns.batches == {1: 4}
    for number in range(4):
        expected = policy.predict(seen[number], noise=noise)
        np.testing.assert_allclose(answers[number], expected, rtol=1e-4, atol=1e-5)
