# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Trials on a real arm, judged by a person: their order, what is counted, the table. No ROS.

A set-up is the table as a person laid it out. Each policy tries every set-up once, in an order
that is drawn for each: a person who tires, or a battery that empties, favours no policy.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from koch_core.terminal import Column, table
from koch_core.trials import Pairs, rate_in_words
from koch_policy.watched_run import RunRecord

#: Keys and kinds of failure.
FAILURES = {
    "1": "not reached",
    "2": "not gripped",
    "3": "lost on the way",
    "4": "wrong place",
    "5": "wrong thing",
    "6": "stuck",
}
_COLUMNS = (
    Column("set-up", right=True),
    Column("policy"),
    Column("outcome"),
    Column("time", right=True),
    Column("guard", rank=1, right=True),
    Column("run", rank=2),
    Column("episode", rank=3),
)


@dataclass(frozen=True)
class ArmTrial:
    """One run on the arm.

    Attributes:
        setup: Number of the set-up, from 1.
        policy: Name of the policy in the tables.
        run: How the run ended, and what a person said of it.
        failure: Kind of failure; empty where no one named one.
        changes: Bus cycles in which the guard changed a command, by rule and joint.
    """

    setup: int
    policy: str
    run: RunRecord
    failure: str = ""
    changes: dict[str, int] = field(default_factory=dict)

    @property
    def success(self) -> bool | None:
        """What a person said; None where no one did."""
        return {"success": True, "failure": False}.get(self.run.outcome)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        run = self.run.to_json()
        mine = {"setup": self.setup, "policy": self.policy, "failure": self.failure}
        return {**mine, **run, "guard": self.changes}

    def cells(self) -> list[str]:
        """Row of the table."""
        outcome = self.run.outcome or "not judged"
        if self.failure:
            outcome += f": {self.failure}"
        end = "" if self.run.went_well else self.run.reason
        seconds, guard = f"{self.run.duration_s:.1f} s", str(sum(self.changes.values()))
        return [str(self.setup), self.policy, outcome, seconds, guard, end, self.run.episode]


@dataclass
class ArmEvaluation:
    """All trials so far.

    Attributes:
        policies: Checkpoints by their name in the tables.
        trials: In the order of their runs.
    """

    policies: Mapping[str, str]
    trials: list[ArmTrial] = field(default_factory=list)

    def judged(self, policy: str) -> list[bool]:
        """Success of a policy's trials, those that a person judged."""
        return [t.success for t in self.trials if t.policy == policy and t.success is not None]

    def pairs(self, first: str, second: str) -> Pairs:
        """Two policies in the set-ups in which both were judged."""
        by_setup = {(t.setup, t.policy): t.success for t in self.trials}
        found = []
        for setup in sorted({t.setup for t in self.trials}):
            one, other = by_setup.get((setup, first)), by_setup.get((setup, second))
            if one is not None and other is not None:
                found.append((one, other))
        return Pairs.of(found)

    def summary(self) -> list[str]:
        """A line for each policy, and one for each pair of policies."""
        lines = [f"{name} is {path}" for name, path in self.policies.items() if name != path]
        for policy in self.policies:
            judged = self.judged(policy)
            lines.append(f"{policy}: {rate_in_words(sum(judged), len(judged))} succeeded")
            times = [t.run.duration_s for t in self.trials if t.policy == policy and t.success]
            if times:
                lines[-1] += f", median {np.median(times):.1f} s"
            kinds = Counter(t.failure for t in self.trials if t.policy == policy and t.failure)
            if kinds:
                named = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())
                lines[-1] += f"; failures: {named}"
        lines += [
            self.pairs(*two).in_words(*two) for two in itertools.combinations(self.policies, 2)
        ]
        unknown = sum(t.success is None for t in self.trials)
        if unknown:
            lines.append(f"not judged, and not counted: {unknown} of {len(self.trials)} runs")
        return lines

    def table(self, width: int | None) -> list[str]:
        """All trials and the summary, for a terminal of so many columns."""
        rows = [trial.cells() for trial in self.trials]
        return [*table(_COLUMNS, rows, width), "", *self.summary()]

    def to_json(self) -> dict[str, Any]:
        """Everything, as a JSON object."""
        return {
            "policies": dict(self.policies),
            "trials": [trial.to_json() for trial in self.trials],
            "summary": self.summary(),
        }


def schedule(policies: Sequence[str], setups: int, seed: int) -> list[tuple[int, str]]:
    """Who tries when: each set-up by all policies before the next, each time in another order.

    Args:
        policies: Names.
        setups: How many set-ups.
        seed: Of the order.

    Returns:
        Number of the set-up, from 1, and policy.
    """
    draw = random.Random(seed)
    return [
        (setup, policy)
        for setup in range(1, setups + 1)
        for policy in draw.sample(list(policies), len(policies))
    ]
