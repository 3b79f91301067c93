# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Recoveries and corrections in the lockstep simulation: a policy tries, the expert takes over.

Demonstrations from home never show the poses that a policy's own errors lead to. Here it gets
into them itself, and the expert shows the way out (Ross et al. 2011, DAgger, arXiv 1011.0686).

A recovery holds what the expert did, from a moment that is drawn. A correction is a whole run: the
policy's part, and the expert's from where the policy erred, as a person would watch and take over
(Kelly et al. 2019, HG-DAgger, arXiv 1810.02890).
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
    from koch_sim.world import World

#: What was lifted and lies again for so long is lost, [s].
LOST_S = 1.5
#: A run that is not corrected ends after this, [s].
LONGEST_RUN_S = 30.0
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
        begin_s, begin_ns = lockstep.world.time_s, lockstep.time_ns
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
        path = writer.write(folder, task, index, "success", takeover_ns=begin_ns)
        return Recorded(seed, path, duration_s)

    def _try(self, seed: int) -> None:
        """Let the policy try, to the moment at which it is taken over."""
        rng = np.random.default_rng([seed, 4])
        trial = self._rollouts.attempt(seed, self._longest_s)
        moment_s = self._longest_s
        while trial.lifted and moment_s > EARLIEST_S:
            moment_s = float(rng.uniform(EARLIEST_S, min(moment_s, trial.duration_s)))
            trial = self._rollouts.attempt(seed, moment_s)


class Mistake:
    """Watches one try for the moment at which a person would take over.

    That is where nothing was lifted in time, or what was lifted lies on the table again. A thing
    that hangs in the hand is not taken over, however long it hangs there.

    Args:
        world: The world of the try.
        patience_s: So long may pass until something is lifted, or pushed to its place, [s].
    """

    def __init__(self, world: World, patience_s: float) -> None:
        self._world, self._patience_s = world, patience_s
        self._begin_s: float | None = None
        self._held_s: float | None = None  # when it was last in the air, or where it belongs
        self.reason = ""

    def made(self) -> bool:
        """Whether the policy has erred; asked again and again from the beginning of the try."""
        world = self._world
        now_s = world.time_s
        if self._begin_s is None:
            self._begin_s = now_s
        goal = world.setup.goal
        if world.task.done(world.truth(), goal) or goal.thing in world.lifted():
            self._held_s = now_s
        elif self._held_s is not None and now_s - self._held_s > LOST_S:
            self.reason = f"lost the {world.task.word(goal.thing)}"
        elif self._held_s is None and now_s - self._begin_s > self._patience_s:
            done = "lifted" if world.task.is_lifted else "done"
            self.reason = f"nothing {done} after {self._patience_s:g} s"
        return bool(self.reason)


class Corrector:
    """Records whole runs of a policy; where it errs, the expert goes on in the same episode.

    The column `intervention` of a dataset made of them is true where the expert drove.
    """

    def __init__(
        self, settings: LockstepSettings, policy: PolicySettings, task: str, patience_s: float
    ) -> None:
        self._rollouts = PolicyRollouts(settings, replace(policy, task=task), LONGEST_RUN_S)
        self._writer = LockstepRecorder(self._rollouts.lockstep.rig)
        self._task = task
        self._patience_s = patience_s

    def __call__(self, job: tuple[int, int, Path]) -> Recorded:
        """Record a seed as the episode of a number, however it ends."""
        seed, index, folder = job
        lockstep, writer = self._rollouts.lockstep, self._writer
        mistake = Mistake(lockstep.world, self._patience_s)
        writer.forget()
        trial = self._rollouts.attempt(seed, LONGEST_RUN_S, mistake.made, writer.hear)
        succeeded, takeover_ns, remark = trial.success, None, "by itself"
        if mistake.reason:
            begin_ns = lockstep.time_ns
            lockstep.listen(writer.hear)
            lockstep.take_over()
            try:
                succeeded = lockstep.demonstrate(at_once=True)
                takeover_ns, remark = begin_ns, f"corrected, {mistake.reason}"
            except UnreachableError as error:
                remark = f"not corrected: {error}"
            finally:
                lockstep.teleop = False
                lockstep.hush()
        outcome = "success" if succeeded else "failure"
        task = self._task or lockstep.world.setup.goal.sentence
        path = writer.write(folder, task, index, outcome, takeover_ns=takeover_ns)
        duration_s = lockstep.world.time_s
        return Recorded(seed, path, duration_s, f"{outcome} {remark}")
