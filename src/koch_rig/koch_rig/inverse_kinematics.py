# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Numerical inverse kinematics with joint limits: position first, orientation in what is left.

Levenberg-Marquardt on position and weighted rotation error. Every step lowers the cost, so that
targets out of reach end at a nearest pose instead of swinging. Where the wanted rotation cannot be
had at the wanted position, its weight is lowered until the position holds. Joints that press
against a limit are held. Several starts guard against local minima.

Tried before: task priority (orientation in the null space of the position). It swings near its
algorithmic singularities, which five joints meet at every target that is not exactly feasible.

Source: T. Sugihara, "Solvability-Unconcerned Inverse Kinematics by the Levenberg-Marquardt
Method", IEEE Trans. Robotics 27 (2011).
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from koch_rig.geometry import rotation_vector

Array = NDArray[np.float64]
PoseAndJacobian = Callable[[Array], tuple[Array, Array]]

_ARM = slice(None, -1)  # the joints that move the hand; the gripper is the last one
_WEIGHTS_M_PER_RAD = (0.1, 0.01, 0.001)  # of the rotation error, one after the other
_MAX_STEP_RAD = 0.5
_LEAST_DAMPING, _FIRST_DAMPING, _MOST_DAMPING = 1e-9, 1e-4, 1e3
_AT_LIMIT_RAD = 1e-9
_LENGTH_SQUARED = 0.01  # m^2; makes the damping a pure number
_FLAT = 1e-7  # a smaller share of the cost gained by a step ends the descent
_SAMPLES = 200  # random joint vectors of which the best become starts


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
        q: Joint angles [rad], float64 (J,), within the limits; the best found, converged or not.
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
    low, high = lower[_ARM], upper[_ARM]
    # shoulder_pan turns about -z, and the arm reaches along +x at zero.
    pan = -math.atan2(target[1, 3], target[0, 3])
    postures = ((-0.4, -0.3, 0.0), (-0.4, 0.2, 1.3), (0.2, -0.8, 1.3), (-1.0, 0.6, 1.2))
    arms = [q_seed[_ARM]]
    for posture in postures:  # of the first joints; what follows them stays as it is
        start = q_seed[_ARM].copy()
        start[:4] = (pan, *posture)[: start.size]
        arms.append(start)
    for arm in arms[: settings.starts]:
        yield np.append(np.clip(arm, low, high), q_seed[-1])
    rest = settings.starts - len(arms)
    if rest <= 0:
        return
    rng = np.random.default_rng(settings.random_seed)
    samples = [np.append(q, q_seed[-1]) for q in rng.uniform(low, high, (_SAMPLES, low.size))]

    def distance(q: Array) -> float:
        pose = pose_and_jacobian(q)[0]
        turn = float(np.linalg.norm(_rotation_error(target, pose, orientation)))
        return float(np.linalg.norm(target[:3, 3] - pose[:3, 3])) + _WEIGHTS_M_PER_RAD[0] * turn

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


@dataclass(frozen=True, eq=False)
class _Residual:
    """Errors at a joint vector, and the Jacobian that lowers them."""

    error: Array  # (6,) position error [m], weighted rotation error
    jacobian: Array  # (6, J - 1)
    position_m: float
    rotation_rad: float

    @property
    def cost(self) -> float:
        return float(self.error @ self.error)


def _residual(
    pose_and_jacobian: PoseAndJacobian,
    target: Array,
    q: Array,
    orientation: Orientation,
    weight_m_per_rad: float,
) -> _Residual:
    """Evaluate the errors; the gradient J^T e is exact, whatever the size of the rotation."""
    pose, jacobian = pose_and_jacobian(q)
    position = target[:3, 3] - pose[:3, 3]
    rotation = _rotation_error(target, pose, orientation)
    linear, angular = jacobian[:3, _ARM], jacobian[3:, _ARM]
    if orientation is Orientation.NONE:
        angular = np.zeros_like(angular)
    elif orientation is Orientation.APPROACH:
        approach = pose[:3, 2]
        angular = angular - np.outer(approach, approach @ angular)
    return _Residual(
        error=np.concatenate([position, weight_m_per_rad * rotation]),
        jacobian=np.concatenate([linear, weight_m_per_rad * angular]),
        position_m=float(np.linalg.norm(position)),
        rotation_rad=float(np.linalg.norm(rotation)),
    )


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
    steps = 0
    for weight in _WEIGHTS_M_PER_RAD:
        damping = _FIRST_DAMPING
        now = _residual(pose_and_jacobian, target, q, orientation, weight)
        for _ in range(settings.max_iterations):
            if _is_near(now, settings) or damping > _MOST_DAMPING:
                break
            steps += 1
            trial = q.copy()
            trial[_ARM] = np.clip(
                q[_ARM] + _step(now, q, lower, upper, damping), lower[_ARM], upper[_ARM]
            )
            then = _residual(pose_and_jacobian, target, trial, orientation, weight)
            if then.cost < now.cost:
                flat = now.cost - then.cost < _FLAT * now.cost
                q, now, damping = trial, then, max(damping / 5.0, _LEAST_DAMPING)
                if flat:
                    break
            else:
                damping *= 5.0
        if now.position_m <= settings.position_tolerance_m:
            break
    return q, steps


def _is_near(residual: _Residual, settings: IkSettings) -> bool:
    """Well inside both tolerances: further steps are not worth it."""
    return (
        residual.position_m <= 0.1 * settings.position_tolerance_m
        and residual.rotation_rad <= 0.1 * settings.rotation_tolerance_rad
    )


def _step(residual: _Residual, q: Array, lower: Array, upper: Array, damping: float) -> Array:
    """One joint step, (J - 1,); joints at a limit that the gradient presses outwards are held."""
    jacobian = residual.jacobian
    downhill = jacobian.T @ residual.error  # the direction that lowers the cost
    at_low = q[_ARM] <= lower[_ARM] + _AT_LIMIT_RAD
    at_high = q[_ARM] >= upper[_ARM] - _AT_LIMIT_RAD
    free = ~((at_low & (downhill < 0.0)) | (at_high & (downhill > 0.0)))
    jacobian = jacobian * free
    gram = jacobian.T @ jacobian
    gram[np.diag_indices_from(gram)] += damping * _LENGTH_SQUARED
    dq: Array = np.linalg.solve(gram, downhill * free)
    largest = float(np.abs(dq).max())
    return dq if largest <= _MAX_STEP_RAD else dq * (_MAX_STEP_RAD / largest)
