# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Success at the task while a policy trains: who can measure it registers how.

A simulation depends on this package, not the other way round. A package above names its
evaluation in its metadata:

    @EVALUATIONS.register("lockstep")
    def evaluate(checkpoint: Path, out: Path, rollouts: int, rig: Path | None) -> float: ...

    [options.entry_points]
    koch_vla.evaluations =
        lockstep = my_package.my_evaluation
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from koch_core.registry import Registry
from koch_policy.errors import ConfigError, PolicyError


class EvaluationError(PolicyError):
    """An evaluation ended without a result."""

    def __init__(self, checkpoint: Path, why: str, log: Path) -> None:
        super().__init__(
            f"koch eval of {checkpoint} {why}; its output is in {log}. Correct "
            "it or train with train.evaluate_every=0."
        )


class Evaluate(Protocol):
    """Lets a checkpoint try the task."""

    def __call__(self, checkpoint: Path, out: Path, rollouts: int, rig: Path | None) -> float:
        """Return the part of rollouts that succeeded.

        What it draws and how many threads it has must not touch the training run.

        Args:
            checkpoint: Folder of the policy.
            out: Folder for its report.
            rollouts: How many, under conditions that are the same at every step.
            rig: Rig file; None for the simulated rig that is shipped.

        Raises:
            EvaluationError: It failed.
        """


EVALUATIONS: Registry[Evaluate] = Registry("evaluation", "koch_vla.evaluations")


def find_evaluation() -> Evaluate:
    """Return the evaluation that is installed, the first by name of several.

    Raises:
        ConfigError: There is none.
    """
    for name in EVALUATIONS.names():
        found = EVALUATIONS.find(name)
        if found is not None:
            return found
    raise ConfigError(
        "train", "evaluate_every", "a number of steps", "0, as koch_sim is not installed",
        "Add it with `./koch setup`.",
    )  # fmt: skip
