# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Who may use the policy next: arms that wait at the same time are predicted together.

No one waits for company: a batch is what came while another prediction ran. An observation that
waited longer than its client does is not computed; the client has a newer one by then. Durations
are the server's own, so no clock is compared with another.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from koch_core.errors import KochError
from koch_policy.runtime.base import EnginePolicy


class TooLateError(KochError):
    """The policy was busy for longer than the client waits."""

    def __init__(self, waited_s: float, within_s: float) -> None:
        super().__init__(
            f"the observation waited {waited_s:.2f} s for its turn, its client {within_s:.2f} s: "
            "it was not computed. Fewer arms, or a faster server."
        )


@dataclass(eq=False)
class _Asked:
    observation: Mapping[str, Any]
    noise: Any
    within_s: float
    since_s: float = field(default_factory=time.monotonic)
    answer: Any = None


class Turns:
    """Lets many threads use one policy.

    Args:
        policy: What computes.

    Attributes:
        batches: Sizes of the batches so far: {how many together: how often}.
    """

    def __init__(self, policy: EnginePolicy) -> None:
        self._policy = policy
        self._turn = threading.Lock()
        self._door = threading.Lock()
        self._waiting: list[_Asked] = []
        self.batches: dict[int, int] = {}

    def predict(self, observation: Mapping[str, Any], noise: Any, within_s: float) -> Any:
        """Return a chunk (T, A).

        Raises:
            TooLateError: Its turn came too late.
            PolicyError: The policy cannot use this observation.
        """
        asked = _Asked(observation, noise, within_s)
        with self._door:
            self._waiting.append(asked)
        with self._turn:
            if asked.answer is None:  # else another thread computed it with its own
                self._compute(self._taken(asked))
        if isinstance(asked.answer, Exception):
            raise asked.answer
        return asked.answer

    def _taken(self, asked: _Asked) -> list[_Asked]:
        """Take those whose turn it is: all who wait where the runtime can, else the one alone."""
        with self._door:
            taken = list(self._waiting) if self._policy.computes_batches else [asked]
            self._waiting = [each for each in self._waiting if each not in taken]
        return taken

    def _compute(self, taken: Sequence[_Asked]) -> None:
        ready = []
        for each in taken:
            waited_s = time.monotonic() - each.since_s
            if waited_s > each.within_s:
                each.answer = TooLateError(waited_s, each.within_s)
            else:
                ready.append(each)
        if not ready:
            return
        self.batches[len(ready)] = self.batches.get(len(ready), 0) + 1
        answers: list[Any]
        try:
            if len(ready) == 1:
                answers = [self._policy.predict(ready[0].observation, noise=ready[0].noise)]
            else:
                answers = self._policy.predict_batch([each.observation for each in ready])
        except Exception as exc:  # whatever a policy or a lost GPU raises; each client is told
            answers = [exc] * len(ready)
        for each, answer in zip(ready, answers, strict=True):
            each.answer = answer
