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
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from koch_rig.geometry import constant, rotation_vector

Array = NDArray[np.float64]
PoseAndJacobian = Callable[[Array], tuple[Array, Array]]

_ARM = slice(None, -1)  # the joints that move the hand; the gripper is the last one
_WEIGHTS_M_PER_RAD = (0.1, 0.01, 0.001)
_MAX_STEP_RAD = 0.5
_LEAST_DAMPING, _MOST_DAMPING = 1e-9, 1e3
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
        rotation_weights: Of the rotation error, one after the other until the position holds
            [m/rad].
        first_damping: Of each descent; less goes faster from a start that is near already.
    """

    position_tolerance_m: float = 1e-4
    rotation_tolerance_rad: float = 5e-3
    max_iterations: int = 80
    starts: int = 10
    random_seed: int = 0
    rotation_weights: tuple[float, ...] = _WEIGHTS_M_PER_RAD
    first_damping: float = 1e-4


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


def _cross(a: Array, b: Array) -> Array:
    """As np.cross to the bit, in an eighth of the time: a plan takes a thousand of them."""
    (ax, ay, az), (bx, by, bz) = a.tolist(), b.tolist()
    return np.array([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx])


def _norm(vector: Array) -> float:
    """As np.linalg.norm to the bit, in a quarter of the time."""
    return math.sqrt(float(vector @ vector))


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


@dataclass(frozen=True, eq=False)
class Search:
    """A search for joint angles; see `Kinematics.inverse`."""

    pose_and_jacobian: PoseAndJacobian
    target: Array
    lower: Array
    upper: Array
    orientation: Orientation
    settings: IkSettings

    def solve(self, q_seed: Array) -> IkResult:
        """Descend from one start after the other until both tolerances are met."""
        best: IkResult | None = None
        iterations = 0
        for start in self._starts(q_seed):
            q, steps = self._descend(start)
            iterations += steps
            position_error, rotation_error = self._distances(q)
            converged = (
                position_error <= self.settings.position_tolerance_m
                and rotation_error <= self.settings.rotation_tolerance_rad
            )
            result = IkResult(q, converged, position_error, rotation_error, iterations)
            if best is None or self._cost(result) < self._cost(best):
                best = result
            if converged:
                break
        assert best is not None  # there is always the seed
        return replace(best, q=constant(best.q), iterations=iterations)

    def _cost(self, result: IkResult) -> tuple[float, float]:
        """Orders results: first by the position beyond its tolerance, then by the rotation."""
        excess = max(0.0, result.position_error_m - self.settings.position_tolerance_m)
        return (round(excess, 6), result.rotation_error_rad)

    def _starts(self, q_seed: Array) -> Iterator[Array]:
        """Joint vectors to start at; all keep the seed's gripper."""
        low, high = self.lower[_ARM], self.upper[_ARM]
        # shoulder_pan turns about -z, and the arm reaches along +x at zero.
        pan = -math.atan2(self.target[1, 3], self.target[0, 3])
        postures = ((-0.4, -0.3, 0.0), (-0.4, 0.2, 1.3), (0.2, -0.8, 1.3), (-1.0, 0.6, 1.2))
        arms = [q_seed[_ARM]]
        for posture in postures:  # of the first joints; what follows them stays as it is
            start = q_seed[_ARM].copy()
            start[:4] = (pan, *posture)[: start.size]
            arms.append(start)
        for arm in arms[: self.settings.starts]:
            yield np.append(np.clip(arm, low, high), q_seed[-1])
        rest = self.settings.starts - len(arms)
        if rest <= 0:
            return
        rng = np.random.default_rng(self.settings.random_seed)
        samples = [np.append(q, q_seed[-1]) for q in rng.uniform(low, high, (_SAMPLES, low.size))]

        def distance(q: Array) -> float:
            position_m, rotation_rad = self._distances(q)
            return position_m + _WEIGHTS_M_PER_RAD[0] * rotation_rad

        yield from sorted(samples, key=distance)[:rest]

    def _distances(self, q: Array) -> tuple[float, float]:
        """How far the hand is from the target: [m], and [rad] of the part that counts."""
        pose = self.pose_and_jacobian(q)[0]
        position = self.target[:3, 3] - pose[:3, 3]
        return _norm(position), _norm(self._rotation_error(pose))

    def _rotation_error(self, pose: Array) -> Array:
        """Rotation vector in base axes [rad], (3,), that the counting part still lacks."""
        if self.orientation is Orientation.NONE:
            return np.zeros(3)
        if self.orientation is Orientation.FULL:
            return rotation_vector(self.target[:3, :3] @ pose[:3, :3].T)
        now, wanted = pose[:3, 2], self.target[:3, 2]
        axis = _cross(now, wanted)
        sine, cosine = _norm(axis), float(now @ wanted)
        if sine < 1e-9:
            # Same direction, or the opposite one: then any axis across will do.
            return np.zeros(3) if cosine > 0.0 else math.pi * pose[:3, 0]
        result: Array = axis * (math.atan2(sine, cosine) / sine)
        return result

    def _residual(self, q: Array, weight_m_per_rad: float) -> _Residual:
        """Evaluate the errors; the gradient J^T e is exact, whatever the size of the rotation."""
        pose, jacobian = self.pose_and_jacobian(q)
        position = self.target[:3, 3] - pose[:3, 3]
        rotation = self._rotation_error(pose)
        linear, angular = jacobian[:3, _ARM], jacobian[3:, _ARM]
        if self.orientation is Orientation.NONE:
            angular = np.zeros_like(angular)
        elif self.orientation is Orientation.APPROACH:
            approach = pose[:3, 2]
            angular = angular - np.outer(approach, approach @ angular)
        return _Residual(
            error=np.concatenate([position, weight_m_per_rad * rotation]),
            jacobian=np.concatenate([linear, weight_m_per_rad * angular]),
            position_m=_norm(position),
            rotation_rad=_norm(rotation),
        )

    def _descend(self, start: Array) -> tuple[Array, int]:
        """Iterate from one start; returns the joint vector and the number of steps."""
        low, high = self.lower[_ARM], self.upper[_ARM]
        q = start.copy()
        steps = 0
        for weight in self.settings.rotation_weights:
            damping = self.settings.first_damping
            now = self._residual(q, weight)
            for _ in range(self.settings.max_iterations):
                if self._is_near(now) or damping > _MOST_DAMPING:
                    break
                steps += 1
                trial = q.copy()
                trial[_ARM] = np.clip(q[_ARM] + self._step(now, q, damping), low, high)
                then = self._residual(trial, weight)
                if then.cost < now.cost:
                    flat = now.cost - then.cost < _FLAT * now.cost
                    q, now, damping = trial, then, max(damping / 5.0, _LEAST_DAMPING)
                    if flat:
                        break
                else:
                    damping *= 5.0
            if now.position_m <= self.settings.position_tolerance_m:
                break
        return q, steps

    def _is_near(self, residual: _Residual) -> bool:
        """Well inside both tolerances: further steps are not worth it."""
        return (
            residual.position_m <= 0.1 * self.settings.position_tolerance_m
            and residual.rotation_rad <= 0.1 * self.settings.rotation_tolerance_rad
        )

    def _step(self, residual: _Residual, q: Array, damping: float) -> Array:
        """One joint step, (J - 1,); joints pressed outwards at a limit are held."""
        jacobian = residual.jacobian
        downhill = jacobian.T @ residual.error  # the direction that lowers the cost
        at_low = q[_ARM] <= self.lower[_ARM] + _AT_LIMIT_RAD
        at_high = q[_ARM] >= self.upper[_ARM] - _AT_LIMIT_RAD
        free = ~((at_low & (downhill < 0.0)) | (at_high & (downhill > 0.0)))
        jacobian = jacobian * free
        gram = jacobian.T @ jacobian
        gram.flat[:: len(gram) + 1] += damping * _LENGTH_SQUARED  # its diagonal
        dq: Array = np.linalg.solve(gram, downhill * free)
        largest = float(np.abs(dq).max())
        return dq if largest <= _MAX_STEP_RAD else dq * (_MAX_STEP_RAD / largest)
