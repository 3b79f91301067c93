# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Recoveries in the lockstep simulation: a policy tries, and the expert takes over from there.

Demonstrations from home never show the poses that a policy's own errors lead to. Here it gets
into them itself, and the expert shows the way out (Ross et al. 2011, DAgger, arXiv 1011.0686).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from koch_sim.errors import UnreachableError
from koch_sim.recording import LockstepRecorder, Recorded
from koch_sim.rollout import PolicyRollouts, PolicySettings

if TYPE_CHECKING:
    from koch_sim.settings import LockstepSettings

#: No one takes over earlier than this, [s]: the hand is at home still.
EARLIEST_S = 0.5


class Recoverer:
    """Records what the expert does after a policy, on one seed after another.

    A policy that lifts nothing is left alone for `longest_s`. Of one that does, the moment of the
    takeover is drawn between `EARLIEST_S` and the lift: what hangs in the hand is not taken over.
    """

    def __init__(
        self, settings: LockstepSettings, policy: PolicySettings, task: str, longest_s: float
    ) -> None:
        self._rollouts = PolicyRollouts(settings, replace(policy, task=task), longest_s)
        self._writer = LockstepRecorder(self._rollouts.lockstep.rig)
        self._task = task
        self._longest_s = longest_s

    def __call__(self, job: tuple[int, int, Path]) -> Recorded:
        """Record a seed as the episode of a number; failures leave nothing behind."""
        seed, index, folder = job
        lockstep, writer = self._rollouts.lockstep, self._writer
        self._try(seed)
        writer.forget()
        lockstep.take_over()
        begin_s = lockstep.world.time_s
        lockstep.listen(writer.hear)
        try:
            succeeded = lockstep.demonstrate()
        except UnreachableError:
            succeeded = False
        finally:
            lockstep.hush()
        duration_s = lockstep.world.time_s - begin_s
        if not succeeded:
            return Recorded(seed, None, duration_s)
        task = self._task or lockstep.world.setup.goal.sentence
        path = writer.write(folder, task, index, "success", intervention=True)
        return Recorded(seed, path, duration_s)

    def _try(self, seed: int) -> None:
        """Let the policy try, to the moment at which it is taken over."""
        rng = np.random.default_rng([seed, 4])
        trial = self._rollouts.attempt(seed, self._longest_s)
        moment_s = self._longest_s
        while trial.lifted and moment_s > EARLIEST_S:
            moment_s = float(rng.uniform(EARLIEST_S, min(moment_s, trial.duration_s)))
            trial = self._rollouts.attempt(seed, moment_s)
