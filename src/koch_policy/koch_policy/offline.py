# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Offline replay: a policy over a recorded episode, executed by the scheduler as it would be live.

The recording gives the observations; actions do not change them (open loop). Inference runs for
real and its measured time is the delay, so that chunks are entered where they would be live.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from koch_policy.chunks import ChunkScheduler, DelayQuantile, Grid, StrategyKind, make_strategy
from koch_policy.execution.compatibility import Actions
from koch_policy.execution.inference import Predict, plain_predict
from koch_policy.policy import Observation, Policy
from koch_policy.shadow import ErrorSummary, shown_unit, summarize
from koch_rig.arm_model import KOCH_V1_1
from koch_rig.joints import joint_of

_NS = 1_000_000_000
_SETTLE_NS = _NS // 5  # a tick is looked at when the bag is this much further


@dataclass(frozen=True, eq=False)
class Tick:
    """One tick of a recording.

    Attributes:
        observe: Makes the policy's input; called only when it is needed.
        action: What was really commanded, (A,) in the replay's unit; None where unknown.
        missing: Why there is no observation; empty when there is one.
    """

    observe: Callable[[], dict[str, Any]]
    action: NDArray[np.float64] | None
    missing: str = ""


@dataclass(frozen=True, eq=False)
class Replay:
    """What a policy would have done.

    Attributes:
        recorded: What was commanded, (N, A); NaN where unknown.
        executed: What the policy would have commanded, (N, A); NaN where it had no plan.
        seams: Ticks at which a new chunk took over.
        delays_s: Duration of each inference [s].
        refusals: Ticks without an observation.
        fps: Ticks per second.
        names: Of the action's elements.
        unit: Of `recorded` and `executed`.
    """

    recorded: NDArray[np.float64]
    executed: NDArray[np.float64]
    seams: list[int]
    delays_s: list[float]
    refusals: int
    fps: float
    names: tuple[str, ...] = KOCH_V1_1.joints
    unit: str = "rad"

    def errors(self) -> ErrorSummary:
        """Summary over the ticks at which both are known."""
        both = self.executed - self.recorded
        return summarize(both[np.isfinite(both).all(axis=1)], self.names, self.unit)


def replay(
    policy: Policy,
    ticks: Iterable[Tick],
    *,
    fps: float,
    actions: Actions,
    kind: StrategyKind,
    predict: Predict = plain_predict,
    delay_s: float | None = None,
    execution_steps: int = 0,
    names: tuple[str, ...] = KOCH_V1_1.joints,
    unit: str = "rad",
) -> Replay:
    """Run a policy over a recording.

    Args:
        policy: Loaded.
        ticks: The recording.
        fps: Ticks per second.
        actions: What its chunks mean in the replay's unit, usually [rad].
        kind: Strategy.
        predict: How to call the policy.
        delay_s: Fixed delay of every inference [s]; None: as long as it takes here.
        execution_steps: Steps between two inferences, 0 for the policy's; the ensemble infers
            as often as it can all the same.
        names: Of the action's elements.
        unit: What `actions` and the recording's actions are in.
    """
    now = [0]
    steps = 0 if kind is StrategyKind.TEMPORAL_ENSEMBLE else execution_steps
    joints = enumerate(map(joint_of, names))
    grippers = [index for index, found in joints if found and found[1] == found[0].gripper]
    scheduler = ChunkScheduler(
        make_strategy(kind, policy.config, execution_steps=steps, grippers=grippers),
        DelayQuantile(),
        Grid(0, fps),
        lambda: now[0],
    )
    running: tuple[Any, NDArray[np.float32], int] | None = None
    seen: Observation = {}
    recorded, executed = [], []
    seams, delays = [], []
    refusals = 0
    nothing = np.full(len(names), np.nan)
    for tick, each in enumerate(ticks):
        now[0] = scheduler.grid.time_ns(tick)
        if running is not None and running[2] <= now[0]:
            request, raw, done_ns = running
            running = None
            rows, _ = actions.decode(raw, seen)
            kept = actions.kept(raw, rows)
            if scheduler.arrive(request, rows, kept, tick, done_ns).usable:
                seams.append(tick)
        action = scheduler.action(tick)
        executed.append(nothing if action is None else action)
        recorded.append(nothing if each.action is None else each.action)
        refusals += bool(each.missing)
        if running is None and not each.missing and scheduler.wants(tick):
            begin = time.perf_counter()
            seen = each.observe()
            request = scheduler.begin(tick, partial(_continued, actions, seen))
            raw = predict(policy, seen, request)
            delays.append(time.perf_counter() - begin)
            taken_s = delays[-1] if delay_s is None else delay_s
            running = (request, raw, now[0] + round(taken_s * _NS))
    table = [np.array(rows).reshape(-1, len(names)) for rows in (recorded, executed)]
    return Replay(table[0], table[1], seams, delays, refusals, fps, names, unit)


def _continued(
    actions: Actions, seen: Observation, kept: NDArray[np.float32]
) -> NDArray[np.float32]:
    return actions.continued(kept, seen)


def plot(result: Replay, path: Path, title: str) -> None:
    """Draw recorded and predicted joint angles with the seams."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    times = np.arange(len(result.recorded)) / result.fps
    summary = result.errors()
    factor, unit = shown_unit(result.unit)
    rows = max(1, (len(result.names) + 1) // 2)
    figure, axes = pyplot.subplots(rows, 2, figsize=(14, 3 * rows), sharex=True, squeeze=False)
    for joint, (axis, name) in enumerate(zip(axes.T.flatten(), result.names, strict=False)):
        for seam in result.seams:
            axis.axvline(seam / result.fps, color="0.9", linewidth=0.8)
        axis.plot(times, factor * result.recorded[:, joint], "k", label="recorded")
        axis.plot(times, factor * result.executed[:, joint], "C1", label="policy")
        axis.set_title(f"{name}: mean error {factor * summary.mean[joint]:.2f}", fontsize=10)
        axis.set_ylabel(unit)
    axes[0, 0].legend(loc="best")
    for axis in axes[-1]:
        axis.set_xlabel("s")
    figure.suptitle(title)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)
    pyplot.close(figure)
