# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The room the tool centre point may use: above the table plane and inside a box."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf, sqrt
from operator import mul

from koch_driver.guard.errors import GuardConfigError

TcpPosition = Callable[[Sequence[float]], Sequence[float]]

_DIFFERENCE_RAD = 1e-4
_NEWTON_STEPS = 4
_NEWTON_RAD = 0.3  # longest step of a joint
# A target this near to a face is on it.
_ON_FACE_M = 3e-4


@dataclass(frozen=True)
class Workspace:
    """A convex room for the tool centre point (TCP) and the forward kinematics that tests it.

    Attributes:
        tcp_position: Forward kinematics: joint angles in [rad], length J -> TCP x, y, z in [m],
            in the frame in which the room is given (world).
        lever_arms: Upper bound per joint on the distance from joint axis to TCP in [m], so that
            turning joint i by d moves the TCP by at most lever_arms[i] * d. Length J.
        lower: Smallest x, y, z in [m]; -inf where open.
        upper: Greatest x, y, z in [m]; inf where open.
        table_z: Height of the table plane in [m]; None without a table. It raises lower[2].
        clearance_m: The room is enforced this much smaller on every side, so that a goal which
            restarts from a measured pose (noise, sag) is still inside the room as given.
    """

    tcp_position: TcpPosition
    lever_arms: tuple[float, ...]
    lower: tuple[float, float, float] = (-inf, -inf, -inf)
    upper: tuple[float, float, float] = (inf, inf, inf)
    table_z: float | None = None
    clearance_m: float = 0.002
    _low: tuple[float, float, float] = field(init=False, repr=False)
    _high: tuple[float, float, float] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        low = [value + self.clearance_m for value in self.lower]
        if self.table_z is not None:
            low[2] = max(low[2], self.table_z + self.clearance_m)
        high = [value - self.clearance_m for value in self.upper]
        if any(not a < b for a, b in zip(low, high, strict=True)):
            raise GuardConfigError(
                "workspace", f"lower {low}, upper {high}", "lower < upper on x, y and z"
            )
        object.__setattr__(self, "_low", (low[0], low[1], low[2]))
        object.__setattr__(self, "_high", (high[0], high[1], high[2]))

    def room(self, joints: Sequence[float]) -> float:
        """Distance of the TCP to the nearest enforced face in [m]; negative outside."""
        return float(min(self.distances(self.tcp_position(joints))))

    def distances(self, point: Sequence[float]) -> tuple[float, ...]:
        """Distances of a point to the six enforced faces in [m], negative outside.

        Face 2 * axis bounds that axis from below, face 2 * axis + 1 from above.
        """
        x, y, z = point
        low, high = self._low, self._high
        return (x - low[0], high[0] - x, y - low[1], high[1] - y, z - low[2], high[2] - z)

    def slopes(self, joints: Sequence[float]) -> tuple[list[float], list[float], list[float]]:
        """Jacobian of the TCP's x, y and z in [m/rad], each of length J, by differences."""
        pose = [float(value) for value in joints]
        x, y, z = self.tcp_position(pose)
        rows: tuple[list[float], list[float], list[float]] = ([], [], [])
        for index, arm in enumerate(self.lever_arms):
            slope = (0.0, 0.0, 0.0)
            if arm > 0.0:
                kept = pose[index]
                pose[index] = kept + _DIFFERENCE_RAD
                a, b, c = self.tcp_position(pose)
                pose[index] = kept
                rate = 1.0 / _DIFFERENCE_RAD
                slope = ((a - x) * rate, (b - y) * rate, (c - z) * rate)
            for row, value in zip(rows, slope, strict=True):
                row.append(value)
        return rows

    def travel(self, distances: Sequence[float]) -> float:
        """Upper bound on the way of the TCP in [m] when joint i turns by distances[i] in [rad]."""
        total = 0.0
        for arm, distance in zip(self.lever_arms, distances, strict=True):
            total += arm * distance
        return total

    def project(self, joints: Sequence[float], spare_m: float = 0.0) -> list[float]:
        """Move joints as little as possible so that the TCP is inside the room.

        Newton steps along the gradient of the violated faces, weighted equally for all joints; the
        gripper's lever arm is zero, so it never moves. A pose that is inside is returned as it is.
        The result is a proposal: the caller checks it.

        Args:
            joints: Joint angles in [rad], length J.
            spare_m: Extra distance to the face to reach.

        Returns:
            Joint angles in [rad], length J.
        """
        pose = [float(value) for value in joints]
        faces: dict[int, float] = {}
        for _ in range(_NEWTON_STEPS):
            point = self.tcp_position(pose)
            self._add_violated(point, spare_m, faces)
            push = [0.0, 0.0, 0.0]
            for axis, face in faces.items():
                push[axis] = face - point[axis]
            length = sqrt(sum(value * value for value in push))
            if length < _ON_FACE_M:
                return pose
            slopes = self.slopes(pose)
            gradient = [
                sum(map(mul, column, push)) / length for column in zip(*slopes, strict=True)
            ]
            norm = sum(value * value for value in gradient)
            if norm < 1e-6:
                return pose
            scale = length / norm
            for index, slope in enumerate(gradient):
                pose[index] += min(_NEWTON_RAD, max(-_NEWTON_RAD, scale * slope))
        return pose

    def _add_violated(
        self, point: Sequence[float], spare_m: float, faces: dict[int, float]
    ) -> None:
        """Note per axis the face that the point is beyond; once noted, a face is to be met."""
        for axis in range(3):
            low, high = self._low[axis] + spare_m, self._high[axis] - spare_m
            if point[axis] < low:
                faces[axis] = low
            elif point[axis] > high:
                faces[axis] = high
