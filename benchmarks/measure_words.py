# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Which thing a policy's first chunk goes to, for each of the things that a sentence may name.

    python benchmarks/measure_words.py outputs/act -n 20 --scene colour_in_cup

One observation from home per scene, and one chunk for each thing and wording. A chunk goes to the
thing over which the first joint (the pan) has to turn the least further at the chunk's end. It
takes a tenth of a rollout, and tells a policy that does not hear from one that does not grip.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from koch_core.trials import wilson_interval
from koch_policy.execution.compatibility import action_layout, policy_units
from koch_policy.runtime import load_policy
from koch_sim.rollout import PolicyRollouts
from koch_sim.settings import LockstepSettings
from koch_sim.tasks import Goal, Task, Wording, find_task

_LOOK_S = 0.3  # of a run: long enough for its first observation


class FirstObservation:
    """A policy that remembers what it was shown first."""

    def __init__(self, policy: Any) -> None:
        self._policy = policy
        self.seen: Mapping[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._policy, name)

    def reset(self) -> None:
        """Forget it."""
        self.seen = {}
        self._policy.reset()

    def predict(
        self, observation: Mapping[str, Any], *, noise: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Predict as the policy does."""
        self.seen = self.seen or observation
        chunk: NDArray[np.float32] = self._policy.predict(observation, noise=noise)
        return chunk


def sentences(task: Task, goal: Goal, wording: Wording) -> str:
    """Word a goal; each thing of a scene is asked for in the same words."""
    kinds = {Wording.TRAIN: task.sentences, Wording.HELD_OUT: task.held_out}
    text = kinds[wording][len(goal.sentence) % len(kinds[wording])]
    return text.format(thing=task.word(goal.thing), place=task.word(goal.place))


class Listening:
    """What one policy makes of the sentences about each scene."""

    def __init__(self, path: Path, scene: str) -> None:
        self.task = find_task(scene)
        self.policy = FirstObservation(load_policy(path, "torch"))
        settings = LockstepSettings(task=scene, wording=Wording.TRAIN)
        self.rollouts = PolicyRollouts(settings, self.policy, _LOOK_S)  # type: ignore[arg-type]
        lockstep = self.rollouts.lockstep
        layout = action_layout(self.policy, lockstep.rig)  # type: ignore[arg-type]
        units = {name: body.units for name, body in lockstep.world.arms.items()}
        kind = policy_units(self.policy)  # type: ignore[arg-type]
        self.to_rad = lambda rows: layout.to_rad(units, kind, rows)

    def scene(self, seed: int) -> dict[str, list[tuple[str, str, float]]]:
        """Return {wording: (asked thing, thing gone to, pan at the end [deg]) per thing}."""
        lockstep = self.rollouts.lockstep
        lockstep.restart(seed)
        world, goals = lockstep.world, [Goal(*pair, "") for pair in self.task.goals]
        pans = [float(self._plan(world, goal)[0].q_rad[0]) for goal in goals]
        self.rollouts(seed)
        said = world.setup.goal
        answers: dict[str, list[tuple[str, str, float]]] = {}
        for wording in (Wording.TRAIN, Wording.HELD_OUT):
            for goal in goals:
                asked = Goal(goal.thing, goal.place, said.sentence)
                text = sentences(self.task, asked, wording)
                noise = np.random.default_rng(seed).standard_normal(
                    (self.policy.config.horizon_steps, self.policy.config.action_dim)
                )
                seen = {**self.policy.seen, "task": text}
                chunk = self.policy.predict(seen, noise=noise.astype(np.float32))
                pan = float(self.to_rad(chunk)[-1, 0])
                nearest = goals[int(np.argmin(np.abs(np.array(pans) - pan)))]
                answer = (goal.thing, nearest.thing, float(np.rad2deg(pan)))
                answers.setdefault(wording.value, []).append(answer)
        return answers

    def _plan(self, world: Any, goal: Goal) -> Any:
        return self.task.plan(world.planner, world.truth(), goal)


def main() -> None:
    """Print one line per wording, and the same as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("policy", type=Path)
    parser.add_argument("-n", type=int, default=20, help="scenes")
    parser.add_argument("--seed", type=int, default=100_000, help="of the first scene")
    parser.add_argument("--scene", default="colour_in_cup")
    options = parser.parse_args()
    listening = Listening(options.policy, options.scene)
    found = [listening.scene(options.seed + index) for index in range(options.n)]
    report = {}
    for wording in found[0]:
        answers = [answer for scene in found for answer in scene[wording]]
        right = sum(asked == gone for asked, gone, _ in answers)
        moved = np.mean([np.ptp([pan for *_, pan in scene[wording]]) for scene in found])
        low, high = wilson_interval(right, len(answers))
        print(
            f"{wording}: {right} of {len(answers)} to the named thing ({low:.0%} to {high:.0%}), "
            f"{moved:.1f} degrees between the sentences"
        )
        report[wording] = {"right": right, "of": len(answers), "moved_deg": float(moved)}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
