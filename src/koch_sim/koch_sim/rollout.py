# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Rollouts in the lockstep simulation: the expert's, or a policy's with the node's own parts.

Observations come from `ObservationBuilder`, decisions from `PolicyRun`, chunks from its scheduler
and strategy, as on the graph. An inference takes a set time in the world, however long it takes
here, so that a result does not depend on the machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from koch_episodes.clip import FPS, write_clip
from koch_policy.chunks import (
    DelayQuantile,
    Grid,
    StrategyKind,
    chosen_execution,
    make_strategy,
)
from koch_policy.chunks.guided import EnergyMeter, predict_continuing
from koch_policy.execution import (
    LockstepWorker,
    ObservationBuilder,
    PolicyRun,
    RunSettings,
    Takeover,
    check_policy,
)
from koch_policy.execution.compatibility import (
    action_layout,
    executed_actions,
    policy_actions,
)
from koch_policy.execution.inference import Predict
from koch_policy.runtime import load_policy, seed_draws
from koch_rig.stream import camera_stream
from koch_sim.errors import SimulationError, UnreachableError
from koch_sim.evaluation import Success, Trial
from koch_sim.lockstep import CameraImage, Lockstep
from koch_sim.settings import LockstepSettings
from koch_sim.tasks import MILESTONES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from koch_policy.chunks.chunk import RawRows, Request, Rows
    from koch_policy.policy import Observation, Policy
    from koch_policy.runtime.base import EnginePolicy
    from koch_sim.lockstep import Listener

#: Success is asked for as often as the world node tells it, in ticks of 30 Hz.
_ASK_EVERY = 3
_DONE = len(MILESTONES) - 1
#: After the end of a run the world gets this long to come to rest, [s].
REST_S = 0.5
#: How long an inference takes, before one was measured, [s].
_GUESS_S = 0.05


@dataclass(frozen=True)
class PolicySettings:
    """How a policy is loaded and executed; names and defaults are the policy node's.

    Attributes:
        checkpoint: Its folder, or a training output.
        runtime: What computes.
        strategy: Chunk execution; empty takes what suits the policy.
        execution_steps: Steps of a chunk to execute before the next; 0 takes the policy's.
        denoising_steps: Of iterative policies; 0 takes the checkpoint's.
        draws: Of which an iterative policy executes the mean; 0 takes the checkpoint's.
        delay_s: How long an inference takes in the world, [s]; None: as long as it takes here.
        task: Task text; empty takes the goal's.
        overrun_abort_s: The policy may leave the arm without an action for so long, [s].
        energy: Trials tell how well the policy knew what was executed; see
            `koch_policy.chunks.guided`.
    """

    checkpoint: Path
    runtime: str = "torch"
    strategy: str = ""
    execution_steps: int = 0
    denoising_steps: int = 0
    draws: int = 0
    delay_s: float | None = 0.05
    task: str = ""
    overrun_abort_s: float = 1.0
    energy: bool = False


class ExpertRollouts:
    """Lets the expert show the task, seed by seed."""

    def __init__(self, settings: LockstepSettings, timeout_s: float) -> None:
        self.lockstep = Lockstep.of(settings)
        self._timeout_s = timeout_s

    def __call__(self, seed: int) -> Trial:
        """Demonstrate once."""
        lockstep = self.lockstep
        lockstep.restart(seed)
        begin_s = lockstep.world.time_s
        try:
            success = lockstep.demonstrate(self._timeout_s)
        except UnreachableError as exc:
            return Trial(seed, False, 0.0, str(exc))
        expert = lockstep.world.expert
        reason = expert.reason or f"{expert.phase.value} after {expert.attempts} grip(s)"
        return Trial(seed, success, lockstep.world.time_s - begin_s, reason)


class FilmedRollouts:
    """Films the rollouts of some seeds; being filmed changes nothing about them.

    Args:
        make: Makes what does the rollouts.
        seeds: Whose rollouts are filmed.
        camera: Of the rig.
        folder: Gets `rollout_SEED.mp4`.
    """

    def __init__(
        self,
        make: Callable[[], ExpertRollouts | PolicyRollouts],
        seeds: Collection[int],
        camera: str,
        folder: Path,
    ) -> None:
        self._rollouts, self._seeds, self._folder = make(), seeds, folder
        self._stream = camera_stream(camera)

    def __call__(self, seed: int) -> Trial:
        """Do one rollout."""
        if seed not in self._seeds:
            return self._rollouts(seed)
        images: list[bytes] = []
        due_ns = 0

        def hear(_: str, stamp_ns: int, image: CameraImage) -> None:
            nonlocal due_ns
            if stamp_ns >= due_ns:
                due_ns = stamp_ns + round(1e9 / FPS) - 1
                images.append(bytes(image))

        self._rollouts.lockstep.listen(hear, [self._stream])
        try:
            trial = self._rollouts(seed)
        finally:
            self._rollouts.lockstep.hush()
        write_clip(self._folder / f"rollout_{seed}.mp4", images)
        return trial


class PolicyRollouts:
    """Lets a policy try the task, seed by seed.

    Attributes:
        stalled_s: In the newest try, how long the policy left the arm without an action, [s].
    """

    def __init__(
        self, settings: LockstepSettings, policy: PolicySettings | Policy, timeout_s: float
    ) -> None:
        """Open the simulation and load the policy.

        Args:
            settings: Which simulation.
            policy: A checkpoint and how to run it, or a policy that is in memory already.
            timeout_s: A trial ends after so much time of the world, [s].

        Raises:
            KochError: The policy cannot be loaded, or does not fit the rig.
        """
        self.lockstep = Lockstep.of(settings)
        self._timeout_s = timeout_s
        if isinstance(policy, PolicySettings):
            self.settings, self._policy = policy, _load(policy)
        else:
            self.settings, self._policy = PolicySettings(Path(type(policy).__name__)), policy
        self.stalled_s = 0.0
        if self.settings.energy and not EnergyMeter.can_measure(self._policy):
            raise SimulationError(
                f"--energy: {self.settings.checkpoint} is {self._policy.config.type!r} on "
                f"{self._policy.runtime}, which finds no noise in actions; expected flow or "
                "diffusion."
            )
        rig = self.lockstep.rig
        check_policy(self._policy, rig, str(self.settings.checkpoint))
        units = {name: body.units for name, body in self.lockstep.world.arms.items()}
        self._builder = ObservationBuilder(self._policy, rig, units)
        self._layout = action_layout(self._policy, rig)
        self._actions = policy_actions(self._policy, rig, units, self._layout)
        self._encode = executed_actions(self._policy, units, self._layout, self._actions)
        self._energies: list[tuple[float, float]] = []
        self._kind, self._steps = chosen_execution(
            self.settings.strategy,
            self.settings.execution_steps,
            self._policy.config,
            self._policy.extras,
        )

    def __call__(self, seed: int) -> Trial:
        """Try once, from the home pose."""
        return self.attempt(seed, self._timeout_s)

    def attempt(
        self,
        seed: int,
        timeout_s: float,
        errs: Callable[[], bool] = lambda: False,
        hear: Listener | None = None,
    ) -> Trial:
        """Try once; the arm then holds its pose.

        Args:
            seed: Of the set-up.
            timeout_s: Longest try, [s] of the world.
            errs: Asked now and then whether the policy has erred: the try ends there at once.
            hear: Hears all streams from the beginning to the end.
        """
        lockstep = self.lockstep
        lockstep.restart(seed)
        for buffer in self._builder.buffers.values():
            buffer.clear()
        self._policy.reset()
        seed_draws(seed)  # of what a policy draws beyond its first noise
        lockstep.listen(self._hear, self._builder.streams)
        if hear is not None:
            lockstep.listen(hear)
        run = self._begin(seed, timeout_s)
        begin_s, tick, furthest, lifted = lockstep.world.time_s, 0, 0, ""
        success, lasts, erred, stalled = Success(), False, False, 0
        while run.end is None and not lasts and not erred:
            tick += 1
            lockstep.run_until(run.grid.time_ns(tick))
            before = run.steps
            run.step(tick)
            if run.first_command_ns is not None and run.steps == before:
                stalled += 1
            if tick % _ASK_EVERY == 0:
                reached = lockstep.world.milestone()
                furthest = max(furthest, reached)
                lifted = lifted or min(lockstep.world.lifted(), default="")
                lasts = success.lasts(reached == _DONE, lockstep.world.time_s)
                erred = errs()
        self.stalled_s = stalled * run.grid.step_s
        duration_s = success.time_s(lockstep.world.time_s) - begin_s
        lockstep.hush()
        if not lasts and not erred:
            lockstep.run(REST_S)
        reason = "the task is done" if lasts else "the policy erred"
        if run.end is not None:
            reason = run.end.reason
        asked = lockstep.world.setup.goal.thing
        return Trial(
            seed, lasts or lockstep.world.succeeded(), duration_s, reason,
            milestone=MILESTONES[furthest], asked=asked, lifted=lifted, sentence=run.task,
            energy=tuple(self._energies),
        )  # fmt: skip

    def _begin(self, seed: int, timeout_s: float) -> PolicyRun:
        """Begin a run as the policy node does."""
        settings, lockstep = self.settings, self.lockstep
        grid = Grid(lockstep.time_ns, float(lockstep.rig.fps))
        meter = self._meter_of(grid)
        return PolicyRun(
            RunSettings(
                task=settings.task or lockstep.world.setup.goal.sentence,
                max_duration_s=timeout_s,
                overrun_abort_s=settings.overrun_abort_s,
                quiet_s=lockstep.rig.limits.command_timeout_s + 0.1,
            ),
            grid=grid,
            strategy=make_strategy(
                self._kind,
                self._policy.config,
                execution_steps=self._steps,
                grippers=self._layout.grippers,
            ),
            delay=DelayQuantile(
                initial_s=_GUESS_S if settings.delay_s is None else settings.delay_s
            ),
            clock=lambda: lockstep.time_ns,
            worker=LockstepWorker(self._policy, lambda: lockstep.time_ns, settings.delay_s),
            builder=self._builder,
            actions=self._actions,
            predict=self._predict(seed, meter),
            takeover=Takeover(monotonic=lambda: lockstep.world.time_s),
            sink=_Commands(lockstep),
            energy=meter,
        )

    def _meter_of(self, grid: Grid) -> EnergyMeter | None:
        """What tells of each executed chunk's time when it ended [s] and its energy."""
        self._energies.clear()
        if not self.settings.energy:
            return None

        def tell(tick: int, energy: float) -> None:
            self._energies.append(((tick + 1) * grid.step_s, energy))

        return EnergyMeter(cast("EnginePolicy", self._policy), self._encode, tell)

    def _predict(self, seed: int, meter: EnergyMeter | None) -> Predict:
        """How to call the policy; what it draws follows from the seed."""
        rng = np.random.default_rng([seed, 3])
        config = self._policy.config
        steps = self.settings.denoising_steps or None

        def predict(policy: Policy, observation: Observation, request: Request) -> RawRows:
            shape = (config.horizon_steps, config.action_dim)
            noise = rng.standard_normal(shape, dtype=np.float32)
            if meter is not None:
                meter.measure()
            if self._kind is StrategyKind.RTC:
                return predict_continuing(policy, observation, request, steps=steps, noise=noise)
            return policy.predict(observation, noise=noise)

        return predict

    def _hear(self, stream: str, stamp_ns: int, value: Any) -> None:
        self._builder.push(stream, stamp_ns, value)


class _Commands:
    """The sink of a run: commands go to the guard, all else is for people to see."""

    def __init__(self, lockstep: Lockstep) -> None:
        self._lockstep = lockstep

    def command(self, time_ns: int, action: Rows) -> None:
        """Command the arm."""
        self._lockstep.command("policy", action.tolist(), time_ns)

    def chunk(self, request: Request, rows: Rows, entry: int, observed_ns: int) -> None:
        """No one looks."""

    def predicted(self, tick: int, action: Rows, preview: Rows | None) -> None:
        """No one looks."""

    def intervention(self, stamp_ns: int, source: str, *, begins: bool) -> None:
        """No one takes over."""


def _load(settings: PolicySettings) -> Policy:
    policy = load_policy(settings.checkpoint, settings.runtime, full_horizon=True, threads=1)
    steps = getattr(policy, "set_steps", None)
    if settings.denoising_steps and steps is not None:
        steps(settings.denoising_steps)
    if settings.draws and hasattr(policy, "draws"):
        policy.draws = settings.draws
    return policy
