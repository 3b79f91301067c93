# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The inference thread: it alone loads, warms up and calls the policy."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from koch_policy.chunks.chunk import RawRows, Request
from koch_policy.configs import TASK, FeatureType
from koch_policy.errors import PolicyError, PolicyUnavailableError
from koch_policy.policy import Observation, Policy

Predict = Callable[[Policy, Observation, Request], RawRows]

_WARM_UPS = 3  # the first plain, the second guided for the first time; the last one counts
_LOGGER = logging.getLogger(__name__)


class ChunkError(PolicyError):
    """A policy returned something that is no chunk of actions."""

    def __init__(self, runtime: str, got: str, expected: str) -> None:
        super().__init__(
            f"the policy ({runtime}) returned {got}; expected {expected}. It is not executed."
        )


@dataclass(frozen=True, eq=False)
class Answer:
    """The outcome of one request: a chunk, or what went wrong.

    Attributes:
        request: The request.
        raw: Chunk in the policy's units, float32 (T, A), finite; None after an error.
        error: The exception.
        finished_ns: When it was there, in the clock given to the worker.
        duration_s: Time of the prediction alone [s].
        begun_ns: When the prediction began, in the same clock; 0 where no one noted it.
    """

    request: Request
    raw: RawRows | None
    error: Exception | None
    finished_ns: int
    duration_s: float
    begun_ns: int = 0


def plain_predict(policy: Policy, observation: Observation, request: Request) -> RawRows:
    """Predict without regard to the old chunk."""
    return policy.predict(observation)


def example(policy: Policy, task: str) -> dict[str, object]:
    """A made-up observation of the right shapes, to warm up with; never shown to an arm."""
    draw = np.random.default_rng(0)
    # The rig's task may be none of the policy's: then runs without a task text fail, not loading.
    made: dict[str, object] = {TASK: next(iter(policy.extras.tasks), task or "warm up")}
    for key, feature in policy.config.input_features.items():
        if feature.type is FeatureType.VISUAL:
            channels, height, width = feature.shape
            size = (height, width, channels)
            made[key] = draw.integers(0, 256, size, dtype=np.uint8)
        elif feature.type in (FeatureType.STATE, FeatureType.ENV):
            made[key] = np.zeros(feature.shape, np.float32)
    return made


class Worker(Protocol):
    """Computes one chunk at a time, beside the run that asks for it."""

    @property
    def busy_s(self) -> float:
        """How long the present inference has taken [s], 0 while idle."""
        ...

    def submit(self, request: Request, observation: Observation, predict: Predict) -> None:
        """Begin an inference; the caller waits for the answer before the next one."""

    def poll(self) -> Answer | None:
        """The answer, if there is one."""
        ...


class LockstepWorker:
    """A worker without a thread: it computes at once and answers when a set time has passed.

    Args:
        policy: Loaded.
        clock: Time in the world [ns].
        delay_s: How long an inference takes in the world [s]; None: as long as it took here.
    """

    def __init__(self, policy: Policy, clock: Callable[[], int], delay_s: float | None) -> None:
        self._policy = policy
        self._clock = clock
        self._delay_s = delay_s
        self._begun_ns = 0
        self._answer: Answer | None = None

    @property
    def busy_s(self) -> float:
        """How long the present inference has taken in the world [s], 0 while idle."""
        answer = self._answer
        if answer is None:
            return 0.0
        return max(1e-9, (self._clock() - self._begun_ns) * 1e-9)

    def submit(self, request: Request, observation: Observation, predict: Predict) -> None:
        """Compute; the answer is there after the delay."""
        begin = time.monotonic()
        raw, error = None, None
        try:
            raw = checked(self._policy, predict(self._policy, observation, request))
        except PolicyUnavailableError as exc:
            error = exc
        duration_s = time.monotonic() - begin
        self._begun_ns = self._clock()
        delay_s = duration_s if self._delay_s is None else self._delay_s
        self._answer = Answer(
            request, raw, error, self._begun_ns + round(delay_s * 1e9), duration_s
        )

    def poll(self) -> Answer | None:
        """The answer, once its time has come."""
        answer = self._answer
        if answer is None or self._clock() < answer.finished_ns:
            return None
        self._answer = None
        return answer


class InferenceWorker:
    """One thread around one policy.

    Args:
        load: Makes the policy; called in the thread.
        clock: Time now [ns], in the clock of the observation stamps.
        task: A task text for the warm-up.
        choose: How the policy will be called, so that the warm-up does the same.
        after: Called in the thread when an answer is out.
    """

    def __init__(
        self,
        load: Callable[[], Policy],
        clock: Callable[[], int],
        task: str,
        choose: Callable[[Policy], Predict] = lambda policy: plain_predict,
        after: Callable[[], None] = lambda: None,
    ) -> None:
        self._load = load
        self._clock = clock
        self._task = task
        self._choose = choose
        self._after = after
        self._jobs: queue.SimpleQueue[tuple[Request, Observation, Predict] | None] = (
            queue.SimpleQueue()
        )
        self._answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self._loaded: Future[Policy] = Future()
        self._busy_since: float | None = None
        self._thread = threading.Thread(target=self._work, name="inference", daemon=True)
        self.warm_up_s = 0.0

    def start(self) -> Policy:
        """Load and warm up; returns the policy (for its configuration only).

        Raises:
            KochError: Whatever loading or the first prediction raises.
        """
        self._thread.start()
        return self._loaded.result()

    @property
    def busy_s(self) -> float:
        """How long the present inference has taken [s], 0 while idle."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    def submit(self, request: Request, observation: Observation, predict: Predict) -> None:
        """Begin an inference; the caller waits for the answer before the next one."""
        self._busy_since = time.monotonic()
        self._jobs.put((request, observation, predict))

    def poll(self) -> Answer | None:
        """The answer, if there is one."""
        return self.wait(0.0)

    def wait(self, seconds: float) -> Answer | None:
        """The answer, if there is one or one comes within the time."""
        try:
            return self._answers.get(block=seconds > 0.0, timeout=seconds or None)
        except queue.Empty:
            return None

    def close(self, timeout_s: float = 2.0) -> None:
        """End the thread; one that hangs in a prediction is left behind (it is a daemon)."""
        self._jobs.put(None)
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _work(self) -> None:
        try:
            policy = self._load()
            self._warm_up(policy)
        except Exception as exc:  # whatever a checkpoint's libraries raise; `loaded` hands it on
            self._loaded.set_exception(exc)
            return
        self._loaded.set_result(policy)
        while (job := self._jobs.get()) is not None:
            self._answers.put(self._infer(policy, *job))
            try:
                self._after()
            except Exception:  # of what is beside the run: the arm goes on
                _LOGGER.exception("what follows an inference failed")

    def _warm_up(self, policy: Policy) -> None:
        """Predict a few times, each chunk continuing the one before."""
        made_up, predict = example(policy, self._task), self._choose(policy)
        leftover: RawRows | None = None
        for number in range(_WARM_UPS):
            begin = time.monotonic()
            leftover = checked(policy, predict(policy, made_up, Request(number, 0, 1, leftover)))
            self.warm_up_s = time.monotonic() - begin
        policy.reset()

    def _infer(
        self, policy: Policy, request: Request, observation: Observation, predict: Predict
    ) -> Answer:
        begin, begun_ns = time.monotonic(), self._clock()
        raw: RawRows | None = None
        error: Exception | None = None
        try:
            raw = checked(policy, predict(policy, observation, request))
        except PolicyUnavailableError as exc:  # asked for at every tick; who raises it has logged
            error = exc
        except Exception as exc:  # whatever a policy, a driver or a lost GPU raises
            _LOGGER.exception("inference failed")
            error = exc
        duration_s = time.monotonic() - begin
        self._busy_since = None
        return Answer(request, raw, error, self._clock(), duration_s, begun_ns)


def checked(policy: Policy, chunk: object) -> RawRows:
    """Return the chunk if it is one.

    Raises:
        ChunkError: Not an array (T, A) of at least one step, or not finite.
    """
    width = policy.config.action_dim
    expected = f"a finite float array of shape (steps, {width})"
    if not isinstance(chunk, np.ndarray) or chunk.dtype.kind != "f":
        raise ChunkError(policy.runtime, f"{getattr(chunk, 'dtype', type(chunk))}", expected)
    if chunk.ndim != 2 or chunk.shape[0] < 1 or chunk.shape[1] != width:
        raise ChunkError(policy.runtime, f"shape {chunk.shape}", expected)
    bad = ~np.isfinite(chunk)
    if bad.any():
        step, column = (int(index[0]) for index in np.nonzero(bad))
        raise ChunkError(
            policy.runtime,
            f"{int(bad.sum())} value(s) NaN or infinite, the first in step {step}, "
            f"element {column}",
            expected,
        )
    return chunk.astype(np.float32, copy=False)
