# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Task texts as vectors: sentence embeddings, or one learned vector per known task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from koch_policy.errors import ObservationError
from koch_policy.models.minilm import load_minilm
from koch_policy.policy_configs import FlowConfig

MINILM_DIM = 384


class TaskEncoder(Protocol):
    """Text in, float32 vector out; results are remembered, so that the loop never waits."""

    def encode(self, text: str) -> NDArray[np.float32]:
        """Return the vector (E,) of a task text."""
        ...


class OneHotTasks:
    """One-hot vectors of the training tasks; the network's first layer learns the embedding."""

    def __init__(self, tasks: Sequence[str]) -> None:
        self.tasks = list(tasks)

    def encode(self, text: str) -> NDArray[np.float32]:
        """Return the one-hot vector of a known task.

        Raises:
            ObservationError: The task was not among the training data's.
        """
        if text not in self.tasks:
            raise ObservationError(
                "task", repr(text), f"one of {self.tasks}", "This policy knows its tasks by heart."
            )
        vector = np.zeros(len(self.tasks), dtype=np.float32)
        vector[self.tasks.index(text)] = 1.0
        return vector


class SentenceTasks:
    """Sentence embeddings by all-MiniLM-L6-v2, whose weights come with the Python package."""

    def __init__(self) -> None:
        self._model = load_minilm()
        self._known: dict[str, NDArray[np.float32]] = {}

    def encode(self, text: str) -> NDArray[np.float32]:
        """Return the unit vector (384,) of a text."""
        if text not in self._known:
            vector = np.asarray(self._model(text), dtype=np.float32).reshape(-1)
            self._known[text] = vector / np.linalg.norm(vector)
        return self._known[text]


def make_task_encoder(config: FlowConfig, tasks: Sequence[str]) -> TaskEncoder | None:
    """Return the encoder that a configuration asks for, None without language."""
    if config.task_encoder == "none":
        return None
    if config.task_encoder == "learned":
        return OneHotTasks(tasks)
    return SentenceTasks()
