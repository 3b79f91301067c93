# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The scripted expert: moves the leader through a demonstration, in one of three styles.

A policy learns from what can be seen. A hand that rests shows the same image before and after the
end of its rest, and nothing tells the policy which of the two it is: loss falls and success does
not rise (docs/learning.md). The style `smooth` therefore never rests: each motion begins before
the one before has ended, and pace and path follow from where things are. The style `human` keeps
what people do: rests of up to half a second, a first aim beside the block, uneven pace.

A policy also learns what never happens: a hand that always comes with its wrist turned as the
block lies tells nothing of a wrist that is not. `correcting` aims beside the block and turned
away from it in most demonstrations, and puts that right in one motion with the way down.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from koch_rig.arm_model import KOCH_V1_1
from koch_sim.errors import UnreachableError
from koch_sim.grasp import HOME_RAD, Waypoint

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from koch_sim.truth import TableTruth

#: The hand watches the follower and leans against its sag with this gain, [1/s] ...
FOLLOW_GAIN = 1.5
#: ... by at most this much, [rad].
FOLLOW_LIMIT_RAD = 0.15
#: A joint that moves faster than this lags rather than sags, [rad/s].
FOLLOW_SPEED = 0.15
_JOINTS = KOCH_V1_1.joints  # the simulated table has no other arms
_SAGS = np.array([name in ("shoulder_lift", "elbow_flex", "wrist_flex") for name in _JOINTS])
MAX_ATTEMPTS = 3
Replan = Callable[["TableTruth"], "list[Waypoint] | None"]
"""Looks at the table behind a lift: a new plan where the block was lost, else None."""


class ExpertPhase(enum.Enum):
    """What the hand is doing."""

    IDLE = "idle"
    MOVING = "moving"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True)
class Style:
    """How the hand moves.

    Attributes:
        pace: Range of the factor on all durations of a demonstration.
        unevenness: Each duration varies by this fraction besides.
        tremor_rad: Amplitude of the slow wander around the planned path, [rad].
        blends: Each motion begins before the one before has ended; else the hand rests between.
        pause_s: Longest extra rest at a waypoint, [s].
        correction_fraction: Share of demonstrations that first aim beside the block, 0..1.
        correction_rad: How far beside, [rad].
        correction_roll_rad: How far turned away from it, [rad].
    """

    pace: tuple[float, float] = (1.0, 1.0)
    unevenness: float = 0.0
    tremor_rad: float = 0.006
    blends: bool = True
    pause_s: float = 0.0
    correction_fraction: float = 0.0
    correction_rad: float = 0.08
    correction_roll_rad: float = 0.0


SMOOTH = Style(pace=(0.95, 1.1))
HUMAN = Style(
    pace=(0.9, 1.15), unevenness=0.08, blends=False, pause_s=0.2, correction_fraction=0.2
)
CORRECTING = replace(SMOOTH, correction_fraction=0.6, correction_roll_rad=0.5)
STYLES = {"smooth": SMOOTH, "correcting": CORRECTING, "human": HUMAN}


@dataclass(frozen=True, eq=False)
class _Motion:
    """A motion of minimum jerk on its way; poses of motions that overlap add up."""

    waypoint: Waypoint
    change_rad: NDArray[np.float64]
    begin_s: float

    @property
    def over_s(self) -> float:
        """When the hand has arrived and rested."""
        return self.begin_s + self.waypoint.duration_s + self.waypoint.settle_s


class Expert:
    """Follows a plan and gives the reference pose of the hand at each instant.

    All poses are follower joints in a Koch's order, [rad]; the world maps them to the leader.
    """

    def __init__(self, style: Style | None = None) -> None:
        self.style = style or SMOOTH
        self.attempts = 0
        self.phase = ExpertPhase.IDLE
        self.reason = ""
        self._replan: Replan = lambda truth: None
        self._rng = np.random.default_rng(0)
        self._motions: list[_Motion] = []
        self._start = HOME_RAD.copy()
        self._lean = np.zeros(len(_JOINTS))
        self._planned = HOME_RAD.copy()
        self._clock_s = 0.0
        self._tremor_phase = np.zeros((2, len(_JOINTS)))
        self._tremor_hz = np.zeros((2, len(_JOINTS)))

    @property
    def step(self) -> str:
        """Name of the waypoint that the hand is on its way to."""
        return self._motions[0].waypoint.name if self._motions else self.phase.value

    def start(
        self, path: list[Waypoint], q_now: NDArray[np.float64], seed: int, replan: Replan
    ) -> None:
        """Begin a demonstration along a planned path.

        Args:
            path: From the planner; planning takes time, so the caller does it beforehand.
            q_now: The pose that the hand is in.
            seed: Draws pace, tremor, rests and corrections.
            replan: Asked behind each lift.
        """
        self._replan = replan
        self._rng = np.random.default_rng([seed, 2])
        self.attempts = 1
        self._start = np.array(q_now)
        self._planned = self._start
        self._lean = np.zeros(len(_JOINTS))
        self._clock_s = 0.0
        self._tremor_phase = self._rng.uniform(0.0, 2.0 * np.pi, (2, len(_JOINTS)))
        self._tremor_hz = self._rng.uniform(0.2, 0.9, (2, len(_JOINTS)))
        self._motions = []
        self._append(self._styled(path))
        self.phase, self.reason = ExpertPhase.MOVING, ""

    def stop(self) -> None:
        """Let the hand rest where it is."""
        self._motions = []
        self.phase = ExpertPhase.IDLE

    def update(
        self, dt_s: float, truth: Callable[[], TableTruth], q_follower: NDArray[np.float64]
    ) -> NDArray[np.float64] | None:
        """Advance by dt and return the reference pose, or None when the hand rests.

        Args:
            dt_s: Time since the last update, [s].
            truth: Looks at the table; asked only where the hand has to decide.
            q_follower: Where the follower is, [rad].
        """
        if self.phase is not ExpertPhase.MOVING:
            return None
        self._clock_s += dt_s
        planned = self._start.copy()
        for motion in self._motions:
            done = (self._clock_s - motion.begin_s) / motion.waypoint.duration_s
            if done > 0.0:
                planned += motion.change_rad * minimum_jerk(min(1.0, done))
        self._watch(dt_s, planned, q_follower)
        reference: NDArray[np.float64] = planned + self._lean
        reference[:-1] += self._tremor()[:-1]
        if self._clock_s >= self._motions[0].over_s:
            self._arrive(truth)
        return reference

    def _arrive(self, truth: Callable[[], TableTruth]) -> None:
        """Go on to the next waypoint; a lost block is gripped again, as a person would."""
        arrived = self._motions.pop(0)
        self._start = self._start + arrived.change_rad
        if arrived.waypoint.name == "lift":
            try:
                path = self._replan(truth())
            except UnreachableError:  # it slipped to where no one would have put it
                self.phase, self.reason = ExpertPhase.FAILED, "the block slipped out of reach"
                return
            if path is not None:
                self._retry(path)
                return
        if not self._motions:
            self.phase = ExpertPhase.DONE

    def _retry(self, path: list[Waypoint]) -> None:
        """Go another way from here; what has begun is finished, what has not is dropped."""
        if self.attempts >= MAX_ATTEMPTS:
            self.phase, self.reason = ExpertPhase.FAILED, "the block slipped three times"
            return
        self.attempts += 1
        self._motions = [m for m in self._motions if m.begin_s < self._clock_s]
        self._append(self._styled(path))

    def _append(self, path: list[Waypoint]) -> None:
        """Line up a path behind the motions that are under way."""
        pose = self._start + sum(m.change_rad for m in self._motions)
        begin_s = self._clock_s
        for waypoint in path:
            self._motions.append(_Motion(waypoint, waypoint.q_rad - pose, begin_s))
            pose = waypoint.q_rad
            begin_s = self._motions[-1].over_s - waypoint.blend_s

    def _watch(
        self, dt_s: float, planned: NDArray[np.float64], q_follower: NDArray[np.float64]
    ) -> None:
        """Lean against what the follower lacks, with the joints that gravity pulls at.

        A joint that is moved fast lacks something because it lags: leaning against that would
        carry it past its goal.
        """
        speed = (planned - self._planned) / dt_s
        self._planned = planned
        lack = np.where(_SAGS, planned - q_follower, 0.0)
        self._lean += FOLLOW_GAIN * dt_s * lack / (1.0 + (speed / FOLLOW_SPEED) ** 2)
        np.clip(self._lean, -FOLLOW_LIMIT_RAD, FOLLOW_LIMIT_RAD, out=self._lean)

    def _tremor(self) -> NDArray[np.float64]:
        angle = 2.0 * np.pi * self._tremor_hz * self._clock_s + self._tremor_phase
        # Starts and ends in nothing, so that the hand does not jump.
        window = min(1.0, self._clock_s)
        wander: NDArray[np.float64] = np.sin(angle).sum(axis=0)
        return wander * (0.5 * self.style.tremor_rad * window)

    def _styled(self, path: list[Waypoint]) -> list[Waypoint]:
        """Give a path the style's pace, its blends or rests, and now and then a correction."""
        style, rng = self.style, self._rng
        pace = rng.uniform(*style.pace)
        styled = []
        for w in path:
            factor = pace * (1.0 + style.unevenness * rng.uniform(-1.0, 1.0))
            rest_s = 0.0 if style.blends else w.settle_s + rng.uniform(0.0, style.pause_s)
            blend_s = w.blend_s * pace if style.blends else 0.0
            styled.append(Waypoint(w.name, w.q_rad, w.duration_s * factor, rest_s, blend_s))
        if rng.uniform() < style.correction_fraction:
            styled[:1] = self._corrected(styled[0])
        return styled

    def _corrected(self, first: Waypoint) -> list[Waypoint]:
        """Go to a waypoint by way of a pose beside it."""
        style, rng = self.style, self._rng
        beside = first.q_rad.copy()
        beside[:4] += rng.uniform(-1.0, 1.0, 4) * style.correction_rad
        if not style.blends:
            aim = Waypoint("aim", beside, first.duration_s, 0.1)
            return [aim, replace(first, duration_s=0.5 * first.duration_s)]
        beside[4] += rng.uniform(-1.0, 1.0) * style.correction_roll_rad
        aim = Waypoint("aim", beside, 0.8 * first.duration_s, blend_s=0.25 * first.duration_s)
        return [aim, replace(first, duration_s=0.7 * first.duration_s)]


def minimum_jerk(fraction: float) -> float:
    """Return the way done after a fraction of the time, both 0..1.

    Motions that overlap add up to one without a rest, as people's do: Flash and Henis (1991),
    Arm trajectory modifications during reaching towards visual targets.

    Source: Flash and Hogan (1985), The coordination of arm movements, eq. 3.
    """
    return fraction**3 * (10.0 - 15.0 * fraction + 6.0 * fraction**2)
