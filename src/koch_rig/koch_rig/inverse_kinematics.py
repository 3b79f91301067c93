# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Numerical inverse kinematics with joint limits: position first, orientation in what is left.

Damped least squares with two priorities: the orientation moves only the null space of the
position task. Joints that press against a limit are held and the step is solved again without
them. Several starts guard against local minima.

Source: Y. Nakamura, H. Hanafusa, T. Yoshikawa, "Task-Priority Based Redundancy Control of Robot
Manipulators", Int. J. Robotics Research 6 (1987); damping: C. W. Wampler, IEEE Trans. SMC 16
(1986).
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from koch_rig.geometry import rotation_vector
from koch_rig.joints import ARM_JOINT_NAMES

Array = NDArray[np.float64]
PoseAndJacobian = Callable[[Array], tuple[Array, Array]]

_ARM = len(ARM_JOINT_NAMES)
_MAX_STEP_RAD = 0.35
_AT_LIMIT_RAD = 1e-9
_SAMPLES = 200  # random joint vectors of which the best become starts
_METRES_PER_RAD = 0.1  # weighs turns against distances when starts are compared; the hand's length


class Orientation(enum.Enum):
    """How much of the wanted rotation counts."""

    NONE = "none"
    """Position only."""
    APPROACH = "approach"
    """The direction of the TCP's z axis; the turn about it is free."""
    FULL = "full"
    """All three angles; five joints reach it only for some, such as straight-down grasps."""


@dataclass(frozen=True)
class IkSettings:
    """Tolerances and effort.

    Attributes:
        position_tolerance_m: The TCP must come this near [m].
        rotation_tolerance_rad: The counting part of the rotation must come this near [rad].
        max_iterations: Steps per start.
        starts: Number of starts: the seed, then postures that face the target, then the nearest
            of many random ones.
        random_seed: Of the random starts; the same seed gives the same answer.
    """

    position_tolerance_m: float = 1e-4
    rotation_tolerance_rad: float = 5e-3
    max_iterations: int = 80
    starts: int = 10
    random_seed: int = 0


@dataclass(frozen=True, eq=False)
class IkResult:
    """What the search found.

    Attributes:
        q: Joint angles [rad], float64 (6,), within the limits; the best found, converged or not.
        converged: Both tolerances are met.
        position_error_m: Distance that is left [m].
        rotation_error_rad: Angle that is left of the part that counts [rad].
        iterations: Steps taken over all starts.
    """

    q: Array
    converged: bool
    position_error_m: float
    rotation_error_rad: float
    iterations: int


def solve(
    pose_and_jacobian: PoseAndJacobian,
    target: Array,
    q_seed: Array,
    lower: Array,
    upper: Array,
    *,
    orientation: Orientation,
    settings: IkSettings,
) -> IkResult:
    """Search for joint angles; see `Kinematics.inverse`."""
    best: IkResult | None = None
    iterations = 0
    starts = _starts(
        pose_and_jacobian, target, q_seed, lower, upper, orientation=orientation, settings=settings
    )
    for start in starts:
        q, steps = _descend(pose_and_jacobian, target, start, lower, upper, orientation, settings)
        iterations += steps
        pose = pose_and_jacobian(q)[0]
        position_error = float(np.linalg.norm(target[:3, 3] - pose[:3, 3]))
        rotation_error = float(np.linalg.norm(_rotation_error(target, pose, orientation)))
        converged = (
            position_error <= settings.position_tolerance_m
            and rotation_error <= settings.rotation_tolerance_rad
        )
        result = IkResult(q, converged, position_error, rotation_error, iterations)
        if best is None or _cost(result, settings) < _cost(best, settings):
            best = result
        if converged:
            break
    assert best is not None  # there is always the seed
    q = best.q.copy()
    q.setflags(write=False)
    return IkResult(q, best.converged, best.position_error_m, best.rotation_error_rad, iterations)


def _cost(result: IkResult, settings: IkSettings) -> tuple[float, float]:
    """Orders results: first by the position beyond its tolerance, then by the rotation."""
    excess = max(0.0, result.position_error_m - settings.position_tolerance_m)
    return (round(excess, 6), result.rotation_error_rad)


def _starts(
    pose_and_jacobian: PoseAndJacobian,
    target: Array,
    q_seed: Array,
    lower: Array,
    upper: Array,
    *,
    orientation: Orientation,
    settings: IkSettings,
) -> Iterator[Array]:
    """Joint vectors to start at; all keep the seed's gripper."""
    low, high = lower[:_ARM], upper[:_ARM]
    # shoulder_pan turns about -z, and the arm reaches along +x at zero.
    pan = -math.atan2(target[1, 3], target[0, 3])
    postures = ((-0.4, -0.3, 0.0), (-0.4, 0.2, 1.3), (0.2, -0.8, 1.3), (-1.0, 0.6, 1.2))
    arms = [q_seed[:_ARM], *((pan, *posture, q_seed[4]) for posture in postures)]
    for arm in arms[: settings.starts]:
        yield np.append(np.clip(arm, low, high), q_seed[_ARM:])
    rest = settings.starts - len(arms)
    if rest <= 0:
        return
    rng = np.random.default_rng(settings.random_seed)
    samples = [np.append(q, q_seed[_ARM:]) for q in rng.uniform(low, high, (_SAMPLES, _ARM))]

    def distance(q: Array) -> float:
        pose = pose_and_jacobian(q)[0]
        turn = float(np.linalg.norm(_rotation_error(target, pose, orientation)))
        return float(np.linalg.norm(target[:3, 3] - pose[:3, 3])) + _METRES_PER_RAD * turn

    yield from sorted(samples, key=distance)[:rest]


def _rotation_error(target: Array, pose: Array, orientation: Orientation) -> Array:
    """Rotation vector in base axes [rad], (3,), that the counting part still lacks."""
    if orientation is Orientation.NONE:
        return np.zeros(3)
    if orientation is Orientation.FULL:
        return rotation_vector(target[:3, :3] @ pose[:3, :3].T)
    now, wanted = pose[:3, 2], target[:3, 2]
    axis = np.cross(now, wanted)
    sine, cosine = float(np.linalg.norm(axis)), float(now @ wanted)
    if sine < 1e-9:
        # Same direction, or the opposite one: then any axis across will do.
        return np.zeros(3) if cosine > 0.0 else math.pi * pose[:3, 0]
    result: Array = axis * (math.atan2(sine, cosine) / sine)
    return result


def _descend(
    pose_and_jacobian: PoseAndJacobian,
    target: Array,
    start: Array,
    lower: Array,
    upper: Array,
    orientation: Orientation,
    settings: IkSettings,
) -> tuple[Array, int]:
    """Iterate from one start; returns the joint vector and the number of steps."""
    q = start.copy()
    for step in range(settings.max_iterations):
        pose, jacobian = pose_and_jacobian(q)
        position_error = target[:3, 3] - pose[:3, 3]
        rotation_error = _rotation_error(target, pose, orientation)
        near = (
            float(np.linalg.norm(position_error)) <= 0.1 * settings.position_tolerance_m
            and float(np.linalg.norm(rotation_error)) <= 0.1 * settings.rotation_tolerance_rad
        )
        if near:
            return q, step
        linear, angular = jacobian[:3, :_ARM], jacobian[3:, :_ARM]
        if orientation is Orientation.NONE:
            angular = angular[:0]  # no second task: the null space stays at rest
            rotation_error = rotation_error[:0]
        elif orientation is Orientation.APPROACH:
            approach = pose[:3, 2]
            angular = angular - np.outer(approach, approach @ angular)
        dq = _step(linear, position_error, angular, rotation_error, q, lower, upper)
        if float(np.abs(dq).max()) < 1e-7:
            return q, step + 1
        q[:_ARM] = np.clip(q[:_ARM] + dq, lower[:_ARM], upper[:_ARM])
    return q, settings.max_iterations


def _step(
    linear: Array,
    position_error: Array,
    angular: Array,
    rotation_error: Array,
    q: Array,
    lower: Array,
    upper: Array,
) -> Array:
    """One joint step, (5,): position first; joints at a limit that press outwards are held."""
    free = np.ones(_ARM, dtype=bool)
    at_low = q[:_ARM] <= lower[:_ARM] + _AT_LIMIT_RAD
    at_high = q[:_ARM] >= upper[:_ARM] - _AT_LIMIT_RAD
    dq = np.zeros(_ARM)
    for _ in range(_ARM):
        jp, jr = linear * free, angular * free
        inverse_p = _damped_inverse(jp, float(np.linalg.norm(position_error)))
        primary = inverse_p @ position_error
        null = np.diag(free.astype(np.float64)) - np.linalg.pinv(jp, rcond=1e-4) @ jp
        rest = rotation_error - jr @ primary
        jn = jr @ null
        dq = primary + null @ (_damped_inverse(jn, float(np.linalg.norm(rest))) @ rest)
        pressing = free & ((at_low & (dq < 0.0)) | (at_high & (dq > 0.0)))
        if not pressing.any():
            break
        free &= ~pressing
    largest = float(np.abs(dq).max())
    if largest > _MAX_STEP_RAD:
        dq = dq * (_MAX_STEP_RAD / largest)
    return dq * free


def _damped_inverse(matrix: Array, error: float) -> Array:
    """J^T (J J^T + lambda^2 I)^-1; the damping fades with the error and costs no accuracy."""
    damping = 1e-6 + 1e-3 * min(error, 1.0)
    gram = matrix @ matrix.T
    gram[np.diag_indices_from(gram)] += damping
    result: Array = np.linalg.solve(gram, matrix).T
    return result
