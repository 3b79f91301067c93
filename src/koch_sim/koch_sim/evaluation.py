# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What an evaluation counts: success with its interval, durations."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import numpy as np

from koch_core.busy import busy_words
from koch_core.trials import auroc, wilson_interval

REPEATS = 3  # of a rollout that was void
#: A success counts when it has lasted so long, [s] of the world.
LASTING_S = 0.5


class Success:
    """Watches whether a task stays done while the policy goes on.

    Nothing shows at the first instant whether a block that was let go rests, and a policy that is
    stopped then is judged by where its fingers stood, not by what it does next.
    """

    def __init__(self) -> None:
        self._since_s: float | None = None

    def lasts(self, is_done: bool, now_s: float) -> bool:
        """Take in whether the task is done now, [s] of the world; say whether it has lasted."""
        if not is_done:
            self._since_s = None
        elif self._since_s is None:
            self._since_s = now_s
        return self._since_s is not None and now_s - self._since_s >= LASTING_S

    def time_s(self, now_s: float) -> float:
        """When it began to last; now, where it does not."""
        return now_s if self._since_s is None else self._since_s


@dataclass(frozen=True)
class Trial:
    """One rollout.

    Attributes:
        seed: Of the world's set-up.
        success: The block rested in the cup in time.
        duration_s: From the start until success or the end, [s] of the world.
        reason: Why it ended.
        void: It says nothing about the policy: a stream was late or died, as on a machine that
            has too much to do.
        milestone: The furthest that was reached, where someone looked.
        asked: The thing that was to be moved, where someone looked.
        lifted: The thing that was lifted first; empty where nothing was.
        sentence: What the policy was told.
        energy: Pairs of a time since the start [s] and the energy of what was executed until
            then; empty where it was not asked for.
    """

    seed: int
    success: bool
    duration_s: float
    reason: str
    void: bool = False
    milestone: str = ""
    asked: str = ""
    lifted: str = ""
    sentence: str = ""
    energy: tuple[tuple[float, float], ...] = ()


@dataclass
class Evaluation:
    """Results of all rollouts of one policy or the expert.

    Attributes:
        subject: What was evaluated.
        trials: In order; void ones are kept apart.
        void: Rollouts that were repeated, or given up.
        guard: Interventions of the guard by rule and joint, over all trials.
        policy: Last status of the policy node (rates, delays), empty for the expert.
    """

    subject: str
    trials: list[Trial] = field(default_factory=list)
    void: list[Trial] = field(default_factory=list)
    guard: dict[str, int] = field(default_factory=dict)
    policy: dict[str, float | str] = field(default_factory=dict)

    @property
    def successes(self) -> int:
        """Number of successful trials."""
        return sum(trial.success for trial in self.trials)

    def attempt(
        self, run: Callable[[], Trial], head: str, say: Callable[[str], object]
    ) -> Trial | None:
        """Run a rollout, again where it was void; the one that counts, None when all were void.

        Args:
            run: Runs it once.
            head: Begins each line.
            say: Told of each void one.
        """
        for repeat in range(REPEATS + 1):
            trial = run()
            if not trial.void:
                return trial
            self.void.append(trial)
            again = "once more" if repeat < REPEATS else "given up"
            say(f"{head}void, {again}: {trial.reason}. {busy_words()}".rstrip())
        return None

    def to_json(self) -> str:
        """Return everything as JSON."""
        durations = [trial.duration_s for trial in self.trials if trial.success]
        return json.dumps(
            {
                "subject": self.subject,
                "rollouts": len(self.trials),
                "successes": self.successes,
                "success_interval": wilson_interval(self.successes, len(self.trials)),
                "median_success_s": float(np.median(durations)) if durations else None,
                "trials": [asdict(trial) for trial in self.trials],
                "void": [asdict(trial) for trial in self.void],
                "guard": self.guard,
                "policy": self.policy,
                "energy_auroc": self.energy_auroc(),
            },
            indent=2,
        )

    def energy_auroc(self) -> dict[str, float]:
        """How well the mean energy at the beginning tells failures from successes.

        The beginning ends where the first success ended: until then all rollouts are alike in
        length. Empty where no energies were noted, or all rollouts ended alike.
        """
        until_s = min((t.duration_s for t in self.trials if t.success), default=0.0)
        early = [
            (float(np.mean(known)), not t.success)
            for t in self.trials
            if (known := [energy for time_s, energy in t.energy if time_s <= until_s])
        ]
        if len({failed for _, failed in early}) < 2:
            return {}
        area, low, high = auroc(*zip(*early, strict=True))
        return {"until_s": until_s, "auroc": area, "low": low, "high": high}

    def failures_by_milestone(self) -> str:
        """How far the failures came, for people; empty where no one looked or nothing failed."""
        ends = Counter(t.milestone for t in self.trials if t.milestone and not t.success)
        return ", ".join(f"{name} {count}" for name, count in ends.most_common())

    def table(self) -> str:
        """Return a table for a terminal."""
        lines = [f"{'seed':>6}  {'result':8}  {'time':>7}  reason"]
        for trial in self.trials:
            result = "success" if trial.success else "failure"
            lines.append(f"{trial.seed:6}  {result:8}  {trial.duration_s:5.1f} s  {trial.reason}")
        low, high = wilson_interval(self.successes, len(self.trials))
        lines.append(
            f"{self.subject}: {self.successes} of {len(self.trials)} succeeded "
            f"(95 % interval {100 * low:.0f} to {100 * high:.0f} %)"
        )
        if self.void:
            lines.append(
                f"{len(self.void)} void rollouts, not counted: {self.void[-1].reason}. "
                f"{busy_words()}".rstrip()
            )
        if far := self.failures_by_milestone():
            lines.append(f"failures by the furthest milestone: {far}")
        lifted = [t.lifted == t.asked for t in self.trials if t.lifted]
        if lifted and len({t.asked for t in self.trials}) > 1:
            low, high = wilson_interval(sum(lifted), len(lifted))
            lines.append(
                f"lifted first what was named: {sum(lifted)} of the {len(lifted)} that lifted "
                f"something (95 % interval {100 * low:.0f} to {100 * high:.0f} %)"
            )
        if told := self.energy_auroc():
            lines.append(
                f"energy of the first {told['until_s']:.1f} s tells failures: AUROC "
                f"{told['auroc']:.2f} (95 % interval {told['low']:.2f} to {told['high']:.2f})"
            )
        if self.guard:
            total = sum(self.guard.values())
            most = sorted(self.guard.items(), key=lambda item: -item[1])[:4]
            named = ", ".join(f"{name} {count}" for name, count in most)
            lines.append(f"guard interventions (bus cycles): {total} ({named})")
        for name, value in self.policy.items():
            shown = f"{value:.4g}" if isinstance(value, float) else value
            lines.append(f"policy {name}: {shown}")
        return "\n".join(lines)
