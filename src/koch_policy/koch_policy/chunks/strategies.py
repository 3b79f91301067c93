# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""How overlapping chunks become one stream of actions.

queue              the newest chunk alone, from the row that is due (LeRobot's n_action_steps)
temporal_ensemble  mean of all predictions for a step, weight exp(-m i), i = 0 for the oldest
                   (Zhao et al. 2023, "ACT", section IV-B, figure 5)
blend              queue, with a cross-fade from the old plan over the first steps
rtc                queue, whose chunks were generated to continue the old plan (see chunks.rtc)
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from koch_policy.chunks.chunk import Chunk, RawRows, Rows
from koch_policy.configs import PolicyConfig
from koch_policy.errors import StrategyError

if TYPE_CHECKING:
    from koch_policy.metadata import CheckpointMetadata


class StrategyKind(enum.Enum):
    """The strategies by name."""

    QUEUE = "queue"
    TEMPORAL_ENSEMBLE = "temporal_ensemble"
    BLEND = "blend"
    RTC = "rtc"


class Strategy(Protocol):
    """Turns chunks into actions; ticks only ever grow between two calls of `clear`."""

    kind: StrategyKind

    def wants(self, tick: int, delay_steps: int) -> bool:
        """Whether an inference should begin with this tick's observation."""
        ...

    def accept(self, chunk: Chunk, tick: int) -> None:
        """Take a chunk that is usable from this tick on."""
        ...

    def action(self, tick: int) -> Rows | None:
        """The action of a tick (A,), None when no chunk reaches it."""
        ...

    def leftover(self, tick: int) -> RawRows | None:
        """What the next chunk should continue, from this tick on; None where nothing guides."""
        ...

    def preview(self, tick: int) -> Rows | None:
        """What will be executed from this tick on if nothing new comes, (N, A)."""
        ...

    def renew(self) -> None:
        """Something else is asked for: want a chunk now, and let it continue nothing."""
        ...

    def clear(self) -> None:
        """Forget every chunk."""
        ...


class Fading:
    """queue, blend and rtc: one plan, replaced (by fading) when a chunk arrives.

    Args:
        kind: QUEUE, BLEND or RTC.
        execution_steps: Steps of a chunk to execute before the next one is to be there.
        fade_steps: Length of the cross-fade; 0 switches at once.
    """

    def __init__(self, kind: StrategyKind, execution_steps: int, fade_steps: int = 0) -> None:
        if execution_steps < 1 or fade_steps < 0:
            raise StrategyError(
                kind.value,
                f"execution_steps {execution_steps}, fade_steps {fade_steps}",
                "execution_steps >= 1 and fade_steps >= 0",
            )
        self.kind = kind
        self.execution_steps = execution_steps
        self.fade_steps = fade_steps
        self._plan: Chunk | None = None
        self._until = 0
        self._is_old = False

    def wants(self, tick: int, delay_steps: int) -> bool:
        """Begin so early that the chunk is there when the planned steps are executed."""
        return self._plan is None or self._is_old or tick + delay_steps >= self._until

    def accept(self, chunk: Chunk, tick: int) -> None:
        """Replace the plan; a plan that has run out is faded from its last row."""
        entry = tick - chunk.tick
        old = self._plan
        if old is not None and self.fade_steps:
            rows = np.array(chunk.rows)
            for step in range(min(self.fade_steps, len(rows) - entry)):
                share = (step + 1) / (self.fade_steps + 1)
                before = old.rows[min(tick + step - old.tick, len(old.rows) - 1)]
                rows[entry + step] = (1.0 - share) * before + share * rows[entry + step]
            chunk = Chunk(chunk.tick, rows, chunk.raw)
        self._plan, self._is_old = chunk, False
        self._until = max(tick + 1, min(tick + self.execution_steps, chunk.end - self.fade_steps))

    def action(self, tick: int) -> Rows | None:
        """The plan's row of this tick."""
        plan = self._plan
        if plan is None or not plan.tick <= tick < plan.end:
            return None
        row: Rows = plan.rows[tick - plan.tick]
        return row

    def leftover(self, tick: int) -> RawRows | None:
        """For rtc: the plan's rows from this tick on."""
        plan = self._plan
        if self.kind is not StrategyKind.RTC or self._is_old or plan is None:
            return None
        if not plan.tick <= tick < plan.end:
            return None
        return plan.raw[tick - plan.tick :]

    def preview(self, tick: int) -> Rows | None:
        """The plan's rows from this tick on."""
        plan = self._plan
        if plan is None or not plan.tick <= tick < plan.end:
            return None
        return plan.rows[tick - plan.tick :]

    def renew(self) -> None:
        """The plan goes on until the next chunk, which fades in but is not guided by it."""
        self._is_old = True

    def clear(self) -> None:
        """Forget the plan."""
        self._plan, self._is_old = None, False


class Ensemble:
    """temporal_ensemble: the weighted mean of all chunks that reach a tick.

    Args:
        coefficient: m of exp(-m i); positive values favour older predictions, ALOHA has 0.01.
        interval_steps: Least number of ticks between two inferences.
        apart: Columns that are taken from the newest chunk instead: the mean of an open and a
            closed gripper is a gripper that drops things.
    """

    kind = StrategyKind.TEMPORAL_ENSEMBLE

    def __init__(
        self, coefficient: float, interval_steps: int = 1, apart: Sequence[int] = ()
    ) -> None:
        if not math.isfinite(coefficient) or interval_steps < 1:
            raise StrategyError(
                self.kind.value,
                f"coefficient {coefficient}, execution_steps {interval_steps}",
                "a finite coefficient and at least one step",
            )
        self._coefficient = coefficient
        self._interval = interval_steps
        self._apart = list(apart)
        self._chunks: list[Chunk] = []
        self._is_old = False

    def wants(self, tick: int, delay_steps: int) -> bool:
        """As often as the interval allows."""
        due = self._is_old or not self._chunks
        return due or tick >= self._chunks[-1].tick + self._interval

    def accept(self, chunk: Chunk, tick: int) -> None:
        """Add a chunk and drop those that have run out."""
        kept = [] if self._is_old else [old for old in self._chunks if old.end > tick]
        self._chunks, self._is_old = [*kept, chunk], False

    def action(self, tick: int) -> Rows | None:
        """The weighted mean for this tick."""
        rows = self._means(tick, tick + 1)
        row: Rows | None = rows[0] if len(rows) else None
        return row

    def _means(self, first: int, end: int) -> Rows:
        """The means of the ticks from `first` that a chunk reaches, before `end`, (N, A).

        All at once: a preview of fifty ticks is asked for at each of them.
        """
        ticks = np.arange(first, max(end, first))
        begins = np.array([[chunk.tick] for chunk in self._chunks])  # (C, 1)
        lengths = np.array([[len(chunk.rows)] for chunk in self._chunks])
        if not len(ticks) or not len(begins):
            return np.zeros((0, 0))
        places = ticks - begins  # (C, N)
        reaches = (places >= 0) & (places < lengths)
        ages = np.cumsum(reaches, axis=0) - 1  # 0 for the oldest that reaches a tick
        weights = np.where(reaches, np.exp(-self._coefficient * ages), 0.0)
        rows = np.stack([
            chunk.rows[np.clip(place, 0, len(chunk.rows) - 1)]
            for chunk, place in zip(self._chunks, places, strict=True)
        ])  # (C, N, A)  # fmt: skip
        known = reaches.any(axis=0)
        total = np.where(known, weights.sum(axis=0), 1.0)
        means: Rows = np.einsum("cn,cna->na", weights, rows) / total[:, None]
        newest = len(begins) - 1 - np.argmax(reaches[::-1], axis=0)
        for column in self._apart:
            means[:, column] = rows[newest, np.arange(len(ticks)), column]
        reached: Rows = means[known]
        return reached

    def leftover(self, tick: int) -> RawRows | None:
        """Nothing: ensembling does not guide."""
        return None

    def preview(self, tick: int) -> Rows | None:
        """The means from this tick on."""
        rows = self._means(tick, max((chunk.end for chunk in self._chunks), default=tick))
        return rows if len(rows) else None

    def renew(self) -> None:
        """The chunks go on until the next one, which takes no part in a mean with them."""
        self._is_old = True

    def clear(self) -> None:
        """Forget every chunk."""
        self._chunks, self._is_old = [], False


def strategy_kind(name: str, config: PolicyConfig) -> StrategyKind:
    """Parse a strategy's name; empty means the default for this policy.

    Raises:
        StrategyError: There is no such strategy, or the policy cannot be guided.
    """
    if not name:
        return StrategyKind(config.strategy)
    try:
        kind = StrategyKind(name)
    except ValueError as exc:
        known = ", ".join(each.value for each in StrategyKind)
        raise StrategyError(name, "no such strategy", f"one of {known}") from exc
    if kind is StrategyKind.RTC and config.is_single_shot:
        raise StrategyError(
            name,
            f"policy {config.type}, which predicts in one shot and has no sampling to guide",
            f"blend, temporal_ensemble or queue for {config.type}; rtc for flow and diffusion",
        )
    return kind


def chosen_execution(
    strategy: str, execution_steps: int, config: PolicyConfig, extras: CheckpointMetadata
) -> tuple[StrategyKind, int]:
    """Return what was asked for, else what the checkpoint's recipe says, else what suits.

    The recipe's steps count with the recipe's strategy only.

    Raises:
        StrategyError: See `strategy_kind`.
    """
    own = extras.execution
    kind = strategy_kind(strategy or str(own.get("strategy", "")), config)
    if not execution_steps and kind.value == own.get("strategy"):
        return kind, int(own.get("execution_steps", 0))
    return kind, execution_steps


def make_strategy(
    kind: StrategyKind,
    config: PolicyConfig,
    *,
    execution_steps: int = 0,
    fade_steps: int = 5,
    coefficient: float = 0.01,
    grippers: Sequence[int] = (),
) -> Strategy:
    """Build a strategy for a policy.

    Args:
        kind: Which.
        config: The policy's configuration: gives n_action_steps and the ensemble's coefficient.
        execution_steps: Steps between two inferences; 0 takes the policy's n_action_steps, half
            the chunk for rtc (which needs an overlap), every tick for the ensemble.
        fade_steps: Length of blend's cross-fade.
        coefficient: The ensemble's, where the checkpoint has none.
        grippers: Their columns, which the ensemble does not average: half open drops things.
    """
    if kind is StrategyKind.TEMPORAL_ENSEMBLE:
        own = getattr(config, "temporal_ensemble_coeff", None)
        return Ensemble(coefficient if own is None else own, execution_steps or 1, grippers)
    length = config.horizon_steps + config.first_action_offset
    steps = execution_steps or config.n_action_steps
    if kind is StrategyKind.RTC and not execution_steps:
        steps = min(steps, max(1, length // 2))
    return Fading(kind, steps, fade_steps if kind is StrategyKind.BLEND else 0)
