# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Task texts as vectors: sentence embeddings, or one learned vector per known task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from koch_core.registry import Registry
from koch_policy.configs import LanguageInput
from koch_policy.errors import ConfigError, ObservationError
from koch_policy.models.minilm import load_minilm

MINILM_DIM = 384


class TaskEncoder(Protocol):
    """Text in, float32 vector out; results are remembered, so that the loop never waits.

    Args:
        tasks: The training data's.
    """

    def __init__(self, tasks: Sequence[str]) -> None: ...

    @staticmethod
    def width(tasks: Sequence[str]) -> int:
        """Return the length E of the vectors for these training tasks."""
        ...

    def encode(self, text: str) -> NDArray[np.float32]:
        """Return the vector (E,) of a task text."""
        ...


TASK_ENCODERS: Registry[type[TaskEncoder]] = Registry("task encoder", "koch_vla.task_encoders")


@TASK_ENCODERS.register("learned")
class OneHotTasks:
    """One-hot vectors of the training tasks; the network's first layer learns the embedding."""

    def __init__(self, tasks: Sequence[str]) -> None:
        self.tasks = list(tasks)

    @staticmethod
    def width(tasks: Sequence[str]) -> int:
        """One element per task."""
        return len(tasks)

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


@TASK_ENCODERS.register("minilm")
class SentenceTasks:
    """Sentence embeddings by all-MiniLM-L6-v2, whose weights come with the Python package."""

    def __init__(self, tasks: Sequence[str] = ()) -> None:
        self._model = load_minilm()
        self._known: dict[str, NDArray[np.float32]] = {}

    @staticmethod
    def width(tasks: Sequence[str]) -> int:
        """The sentence model's."""
        return MINILM_DIM

    def encode(self, text: str) -> NDArray[np.float32]:
        """Return the unit vector (384,) of a text."""
        if text not in self._known:
            vector = np.asarray(self._model(text), dtype=np.float32).reshape(-1)
            self._known[text] = vector / np.linalg.norm(vector)
        return self._known[text]


def make_task_encoder(language: LanguageInput, tasks: Sequence[str]) -> TaskEncoder:
    """Return the encoder that a configuration asks for.

    Raises:
        ConfigError: Nothing registers one of that name.
    """
    kind = TASK_ENCODERS.find(language.encoder)
    if kind is None:
        known = ", ".join(TASK_ENCODERS.names())
        raise ConfigError("policy", "task_encoder", language.encoder, f"one of {known}")
    return kind(tasks)
