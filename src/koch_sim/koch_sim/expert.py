# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A scripted hand: moves the leader through a demonstration as a person would."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from koch_rig.joints import JOINT_COUNT
from koch_sim.grasp import HOME_RAD, Waypoint

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from koch_sim.grasp import GraspPlanner
    from koch_sim.task import TaskTruth

#: The hand watches the follower and leans against its sag with this gain, [1/s] ...
FOLLOW_GAIN = 1.5
#: ... by at most this much, [rad].
FOLLOW_LIMIT_RAD = 0.15
#: A block that is lower than this after the lift was not gripped, [m].
LIFTED_HEIGHT_M = 0.035
MAX_ATTEMPTS = 3


class ExpertPhase(enum.Enum):
    """What the hand is doing."""

    IDLE = "idle"
    MOVING = "moving"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True)
class HumanStyle:
    """How unlike a machine the hand moves.

    Attributes:
        pace: Range of the factor on all durations.
        tremor_rad: Amplitude of the slow wander around the planned path, [rad].
        pause_s: Longest extra rest at a waypoint, [s].
        correction_fraction: Share of demonstrations that first aim beside the block, 0..1.
        correction_rad: How far beside, [rad].
    """

    pace: tuple[float, float] = (0.9, 1.15)
    tremor_rad: float = 0.006
    pause_s: float = 0.2
    correction_fraction: float = 0.2
    correction_rad: float = 0.08


class Expert:
    """Plans from ground truth and gives the reference pose of the hand at each instant.

    All poses are follower joints in JOINT_NAMES order, [rad]; the world maps them to the leader.
    """

    def __init__(self, planner: GraspPlanner, style: HumanStyle | None = None) -> None:
        self.planner = planner
        self._style = style or HumanStyle()
        self._rng = np.random.default_rng(0)
        self._path: list[Waypoint] = []
        self._start = HOME_RAD.copy()
        self._lean = np.zeros(JOINT_COUNT)
        self._clock_s = 0.0
        self._segment_s = 0.0
        self._attempts = 0
        self._tremor_phase = np.zeros((2, JOINT_COUNT))
        self._tremor_hz = np.zeros((2, JOINT_COUNT))
        self.phase = ExpertPhase.IDLE
        self.reason = ""

    @property
    def step(self) -> str:
        """Name of the waypoint that the hand is on its way to."""
        return self._path[0].name if self._path else self.phase.value

    def start(self, path: list[Waypoint], q_now: NDArray[np.float64], seed: int) -> None:
        """Begin a demonstration along a planned path.

        Args:
            path: From the planner; planning takes time, so the caller does it beforehand.
            q_now: The pose that the hand is in.
            seed: Draws pace, tremor, rests and corrections.
        """
        self._rng = np.random.default_rng([seed, 2])
        self._attempts = 1
        self._start = np.array(q_now)
        self._lean = np.zeros(JOINT_COUNT)
        self._clock_s = self._segment_s = 0.0
        self._tremor_phase = self._rng.uniform(0.0, 2.0 * np.pi, (2, JOINT_COUNT))
        self._tremor_hz = self._rng.uniform(0.2, 0.9, (2, JOINT_COUNT))
        self._path = self._humanised(path)
        self.phase, self.reason = ExpertPhase.MOVING, ""

    def stop(self) -> None:
        """Let the hand rest where it is."""
        self._path = []
        self.phase = ExpertPhase.IDLE

    def update(
        self, dt_s: float, truth: TaskTruth, q_follower: NDArray[np.float64]
    ) -> NDArray[np.float64] | None:
        """Advance by dt and return the reference pose, or None when the hand rests."""
        if self.phase is not ExpertPhase.MOVING:
            return None
        self._clock_s += dt_s
        self._segment_s += dt_s
        target = self._path[0]
        fraction = min(1.0, self._segment_s / target.duration_s)
        planned = self._start + (target.q_rad - self._start) * minimum_jerk(fraction)
        self._watch(dt_s, planned, q_follower)
        if self._segment_s >= target.duration_s + target.settle_s:
            self._arrive(target, truth)
        reference: NDArray[np.float64] = planned + self._lean
        reference[:-1] += self._tremor()[:-1]
        return reference

    def _arrive(self, reached: Waypoint, truth: TaskTruth) -> None:
        """Go on to the next waypoint; a lost block is gripped again, as a person would."""
        self._start = reached.q_rad
        self._segment_s = 0.0
        self._path = self._path[1:]
        lost = reached.name == "lift" and truth.block_xyz_m[2] < LIFTED_HEIGHT_M
        if lost and self._attempts < MAX_ATTEMPTS:
            self._attempts += 1
            self._path = self._humanised(self.planner.plan(truth))
        elif lost:
            self.phase, self.reason = ExpertPhase.FAILED, "the block slipped three times"
        elif not self._path:
            self.phase = ExpertPhase.DONE

    def _watch(
        self, dt_s: float, planned: NDArray[np.float64], q_follower: NDArray[np.float64]
    ) -> None:
        """Lean against what the follower lacks; not with the trigger, which squeezes anyway."""
        lack = planned - q_follower
        lack[-1] = 0.0
        self._lean += FOLLOW_GAIN * dt_s * lack
        np.clip(self._lean, -FOLLOW_LIMIT_RAD, FOLLOW_LIMIT_RAD, out=self._lean)

    def _tremor(self) -> NDArray[np.float64]:
        angle = 2.0 * np.pi * self._tremor_hz * self._clock_s + self._tremor_phase
        # Starts and ends in nothing, so that the hand does not jump.
        window = min(1.0, self._clock_s)
        wander: NDArray[np.float64] = np.sin(angle).sum(axis=0)
        return wander * (0.5 * self._style.tremor_rad * window)

    def _humanised(self, path: list[Waypoint]) -> list[Waypoint]:
        """Vary pace and rests; sometimes aim beside the block first and correct."""
        style, rng = self._style, self._rng
        pace = rng.uniform(*style.pace)
        varied = [
            Waypoint(
                w.name,
                w.q_rad,
                w.duration_s * pace * rng.uniform(0.92, 1.08),
                w.settle_s + rng.uniform(0.0, style.pause_s),
            )
            for w in path
        ]
        if rng.uniform() < style.correction_fraction:
            first = varied[0]
            beside = first.q_rad.copy()
            beside[:4] += rng.uniform(-1.0, 1.0, 4) * style.correction_rad
            varied.insert(0, Waypoint("aim", beside, first.duration_s, 0.1))
            varied[1] = Waypoint(first.name, first.q_rad, 0.5 * first.duration_s, first.settle_s)
        return varied


def minimum_jerk(fraction: float) -> float:
    """Return the way done after a fraction of the time, both 0..1.

    Source: Flash and Hogan (1985), The coordination of arm movements, eq. 3.
    """
    return fraction**3 * (10.0 - 15.0 * fraction + 6.0 * fraction**2)
