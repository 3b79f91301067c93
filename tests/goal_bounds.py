# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The guard's promises, computed from published goals alone: position, speed, acceleration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from koch_driver.guard import workspace_from_rig
from koch_rig.arm_model import KOCH_V1_1
from koch_rig.rig import Rig

J = len(KOCH_V1_1.joints)

_EPS = 1e-6  # of what doubles lose on their way
_PAUSE_S = 0.03  # a new sequence begins after a fault only, which takes longer than this


@dataclass(frozen=True)
class Goals:
    """Goals of one arm, in the order of their arrival.

    Attributes:
        numbers: The publisher's count of its messages, shape (N,).
        stamps_s: Acquisition times, shape (N,).
        positions: Angles in [rad], shape (N, 6).
        velocities: What the publisher says that their change is, in [rad/s], shape (N, 6). Used
            only where it began again: the first goal of a sequence is one step from the measured
            pose, which no other goal tells.
    """

    numbers: np.ndarray
    stamps_s: np.ndarray
    positions: np.ndarray
    velocities: np.ndarray

    def __len__(self) -> int:
        return len(self.stamps_s)


def split_sequences(rig: Rig, goals: Goals) -> list[tuple[np.ndarray, bool]]:
    """Split where goals were not heard, and at pauses after which the guard began again.

    A late cycle steps no farther than a punctual one, so a goal that its own speed leads to from
    the one before goes on, however late it comes.

    Returns:
        Index arrays into the goals, and whether the sequence must have begun at rest.
    """
    period_s = 1.0 / rig.follower.rate_hz
    off = np.abs(np.diff(goals.positions, axis=0) - goals.velocities[1:] * period_s).max(axis=1)
    missed = np.diff(goals.numbers) != 1
    again = (np.diff(goals.stamps_s) > _PAUSE_S) & (off > _EPS)
    cuts = np.nonzero(missed | again)[0] + 1
    parts = np.split(np.arange(len(goals)), cuts)
    return [
        (part, bool(part[0] > 0 and not missed[part[0] - 1]) or goals.numbers[part[0]] == 1)
        for part in parts
    ]


def violations(rig: Rig, goals: Goals) -> list[str]:
    """Every promise that the goals break, one line each; empty when all are kept.

    Outside of limits or workspace is allowed as far as the first goal of its sequence: an arm
    that lost its power may have sunk there, and is not thrown back.
    """
    return [
        f"t={goals.stamps_s[part[0]]:.3f} +{len(part)}: {text}"
        for part, at_rest in split_sequences(rig, goals)
        if len(part) > 1
        for text in _sequence_violations(
            rig, goals.positions[part], goals.velocities[part[0]] if at_rest else None
        )
    ]


def _sequence_violations(
    rig: Rig, positions: np.ndarray, first_step: np.ndarray | None
) -> list[str]:
    """Judge goals that follow each other; `first_step` in [rad/s] led from rest to the first."""
    found = []
    if not np.isfinite(positions).all():
        return ["a goal is not finite"]
    period_s = 1.0 / rig.follower.rate_hz
    speeds = np.diff(positions, axis=0) / period_s
    if first_step is not None:
        speeds = np.concatenate([np.zeros((1, J)), first_step[np.newaxis], speeds])
    accelerations = np.diff(speeds, axis=0) / period_s
    found += _beyond("speed", np.abs(speeds), rig.limits.max_speed)
    if len(accelerations):
        found += _beyond("acceleration", np.abs(accelerations), rig.limits.max_acceleration)
    lower, upper = np.array([rig.limits.joints[joint] for joint in KOCH_V1_1.joints]).T
    found += _beyond("goal", positions, np.maximum(upper, positions[0]))
    found += _beyond("goal below", -positions, np.maximum(-lower, -positions[0]))
    workspace = workspace_from_rig(rig.limits, rig.follower)
    if workspace is not None:
        rooms = np.array([workspace.room(list(pose)) for pose in positions])
        if (rooms < min(0.0, rooms[0]) - 1e-5).any():
            found.append(f"the tcp is {-rooms.min():.4f} m outside the workspace")
    return found


def _beyond(what: str, values: np.ndarray, bound: float | np.ndarray) -> list[str]:
    excess = values - bound
    worst = np.unravel_index(int(excess.argmax()), excess.shape)
    if excess[worst] <= 1e-4 * max(1.0, float(np.max(np.abs(bound)))):
        return []
    joint = KOCH_V1_1.joints[int(worst[1])]
    around = values[max(0, worst[0] - 3) : worst[0] + 4, worst[1]].round(4).tolist()
    return [
        f"{what} of {joint} is {values[worst]:.4f} at {worst[0]}, {excess[worst]:.4f} beyond its "
        f"bound; around it {around}"
    ]
