# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The sequence of goals: each within the bounds of the last, all with room to brake."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from koch_driver.guard import rules
from koch_driver.guard.limits import GuardLimits
from koch_driver.guard.motion import JointMotion, brake, reach, stopping_distance, velocity_for
from koch_driver.guard.rules import Intervention, Rule
from koch_driver.guard.slide import Face, nearest_inside
from koch_driver.guard.workspace import Workspace

# Targets outside the room are moved this far inside, which leaves the joints' own (not straight)
# way there some air.
_SPARE_M = 0.001
# A way that slides is planned this far from a face, so that the exact test after it passes.
_MARGIN_M = 1e-4
# Faces are curved in joint angles: plans along the plane that touches one, each from the last.
_PLANS = 4
# A joint whose turn by one radian moves the TCP less towards a face leaves it where it is.
_UNMOVED_M = 1e-6
_RESTING = 0.0


class GoalProfile:
    """Pose and velocity of the goals, and the step from one to the next.

    The invariant that carries the guard's promises: from the current pose and velocity, braking
    every joint as hard as allowed stays inside limits and workspace. A step is taken only if this
    holds after it; otherwise the goal brakes, which is the motion proven one cycle earlier.

    Attributes:
        pose: Goals in [rad], length J.
        velocity: Their last change in [rad/s], length J.
        lower: Limits in force: the configured ones, wider where the arm woke up outside.
        upper: Likewise.
    """

    def __init__(self, limits: GuardLimits, period_s: float, workspace: Workspace | None) -> None:
        self._limits = limits
        self._period_s = period_s
        self._workspace = workspace
        self._step = limits.max_acceleration * period_s
        self._motion = JointMotion(limits.max_speed, self._step, period_s)
        self.pose: list[float] = []
        self.velocity: list[float] = []
        self.lower: list[float] = []
        self.upper: list[float] = []
        self._depth_m = 0.0
        self._last_target: list[float] | None = None

    @property
    def at_rest(self) -> bool:
        """True when the goals did not move in the last cycle."""
        return not any(self.velocity)

    def begin(self, measured: Sequence[float]) -> list[tuple[int, float]]:
        """Start at rest at a measured pose.

        Excursions beyond the limits within one cycle's motion are noise and are clipped.

        Returns:
            The joints (index, angle) that are too far outside their limits to start; empty when
            the sequence has started.
        """
        limits = self._limits
        far = [
            (index, value)
            for index, value in enumerate(measured)
            if not limits.lower[index] - limits.recover_rad
            <= value
            <= limits.upper[index] + limits.recover_rad
        ]
        if far:
            return far
        reach = limits.max_speed * self._period_s
        self.pose = [
            low if low - reach <= value < low else high if high < value <= high + reach else value
            for value, low, high in zip(measured, limits.lower, limits.upper, strict=True)
        ]
        self.velocity = [0.0] * len(limits.joints)
        self.lower = [min(a, b) for a, b in zip(limits.lower, self.pose, strict=True)]
        self.upper = [max(a, b) for a, b in zip(limits.upper, self.pose, strict=True)]
        self._last_target = None
        self._depth_m = 0.0
        if self._workspace is not None:
            self._depth_m = max(0.0, -self._workspace.room(self.pose))
        return []

    def brake(self) -> None:
        """Take one cycle of the braking that was proven safe."""
        self._last_target = None
        velocity = [brake(value, self._step) for value in self.velocity]
        self._accept(self._advance(velocity), velocity)

    def follow(self, target: list[float], report: list[Intervention], *, commanded: bool) -> None:
        """Move one cycle towards a target inside the joint limits.

        Args:
            target: Angles in [rad], length J; changed in place where the workspace demands it.
            report: Receives what was changed.
            commanded: Whether someone wants this motion: only then may an arm that woke up
                outside the workspace be moved inside.
        """
        workspace = self._workspace
        if workspace is not None and (commanded or self._depth_m == 0.0):
            rules.limit_workspace(target, workspace, _SPARE_M, self._limits.joints, report)
        speeds = self._target_velocity(target)
        velocity = self._towards(target, speeds, report)
        pose = self._advance(velocity)
        if workspace is not None and not self._stops_inside(workspace, pose, velocity):
            pose, velocity = self._slide(workspace, velocity, target, report)
        self._accept(pose, velocity)

    def _target_velocity(self, target: list[float]) -> list[float]:
        """Velocity of a moving target in [rad/s]; zero for one that jumped."""
        last, self._last_target = self._last_target, list(target)
        if last is None:
            return [_RESTING] * len(self._limits.joints)
        rate, bound = 1.0 / self._period_s, self._limits.max_speed
        speeds = [(a - b) * rate for a, b in zip(target, last, strict=True)]
        return [value if -bound <= value <= bound else _RESTING for value in speeds]

    def _towards(
        self,
        target: Sequence[float],
        speeds: Sequence[float],
        report: list[Intervention],
    ) -> list[float]:
        """Velocity of each joint towards the target under its own bounds."""
        choose = self._motion.velocity_towards
        result = []
        for index, position in enumerate(self.pose):
            velocity, fast, hasty = choose(
                position,
                self.velocity[index],
                target[index],
                speeds[index],
                self.lower[index],
                self.upper[index],
            )
            result.append(velocity)
            if fast or hasty:
                rule = Rule.SPEED if fast else Rule.ACCELERATION
                goal = position + velocity * self._period_s
                report.append(Intervention(rule, self._limits.joints[index], target[index], goal))
        return result

    def _advance(self, velocity: Sequence[float]) -> list[float]:
        period = self._period_s
        return [a + b * period for a, b in zip(self.pose, velocity, strict=True)]

    def _slide(
        self,
        workspace: Workspace,
        wanted: Sequence[float],
        target: list[float],
        report: list[Intervention],
    ) -> tuple[list[float], list[float]]:
        """The wanted velocities lead outside: take away only what would cross a face.

        Whole ways until rest are planned, not velocities: a joint may still go as fast as it can
        brake before the face. The plan is exact for a flat face and repeated where it turns out
        curved; what it proposes is taken only if it is proven to stop inside. Otherwise the joints
        that move the TCP towards the face brake, and at last all: that was proven a cycle ago.
        """
        step, period = self._step, self._period_s
        bounds = [
            self._motion.velocity_range(*state)
            for state in zip(self.pose, self.velocity, self.lower, self.upper, strict=True)
        ]
        low = [reach(value, step, period) for value, _ in bounds]
        high = [reach(value, step, period) for _, value in bounds]
        asked = [reach(value, step, period) for value in wanted]
        faces: dict[int, Face] = {}
        velocity = list(wanted)
        for _ in range(_PLANS):
            self._add_faces(workspace, velocity, faces)
            ways = nearest_inside(asked, low, high, list(faces.values()))
            velocity = [velocity_for(way, step, period) for way in ways]
            if self._stops_inside(workspace, self._advance(velocity), velocity):
                break
        else:
            velocity = self._brake_towards(workspace, wanted, faces)
        pose = self._advance(velocity)
        for index, joint in enumerate(self._limits.joints):
            if abs(velocity[index] - wanted[index]) > 1e-6:
                report.append(Intervention(Rule.WORKSPACE, joint, target[index], pose[index]))
        return pose, velocity

    def _add_faces(
        self, workspace: Workspace, velocity: Sequence[float], faces: dict[int, Face]
    ) -> None:
        """Note each face that a way crosses as the plane that touches it where it is crossed most.

        A face once noted stays. On the way to that point a joint has gone a certain share of its
        whole way; the slopes are weighted with it, so that they speak of whole ways.
        """
        whole = [reach(value, self._step, self._period_s) for value in velocity]
        deepest: dict[int, tuple[float, list[float]]] = {}
        for pose in self._way(self._advance(velocity), velocity):
            distances = workspace.distances(workspace.tcp_position(pose))
            for face, distance in enumerate(distances):
                if face not in deepest or distance < deepest[face][0]:
                    deepest[face] = (distance, pose)
        for face, (distance, pose) in deepest.items():
            room = distance + self._depth_m - _MARGIN_M
            if room >= 0.0 and face not in faces:
                continue
            row = workspace.slopes(pose)[face // 2]
            sign = 1.0 if face % 2 == 0 else -1.0
            slope, gone = [], 0.0
            for way, here, begin, value in zip(whole, pose, self.pose, row, strict=True):
                share = (here - begin) / way if abs(way) > 1e-9 else 1.0
                slope.append(sign * value * share)
                gone += slope[-1] * way
            faces[face] = Face(slope, gone - room)

    def _brake_towards(
        self, workspace: Workspace, wanted: Sequence[float], faces: dict[int, Face]
    ) -> list[float]:
        """Brake the joints that move the TCP towards a face; all where that does not suffice."""
        braking = [brake(value, self._step) for value in self.velocity]
        moves = [
            any(abs(face.slope[index]) > _UNMOVED_M for face in faces.values())
            for index in range(len(self.pose))
        ]
        some = [a if moved else b for a, b, moved in zip(braking, wanted, moves, strict=True)]
        if self._stops_inside(workspace, self._advance(some), some):
            return some
        return braking

    def _way(self, pose: list[float], velocity: Sequence[float]) -> Iterator[list[float]]:
        """This pose and those of braking from it until rest."""
        yield pose
        while any(velocity):
            velocity = [brake(value, self._step) for value in velocity]
            pose = [a + b * self._period_s for a, b in zip(pose, velocity, strict=True)]
            yield pose

    def _stops_inside(
        self, workspace: Workspace, pose: Sequence[float], velocity: Sequence[float]
    ) -> bool:
        """True when this pose and the whole way of braking from it are inside the workspace.

        The TCP moves at most lever arm times joint motion, so poses along the way are tested only
        where the room found at the last tested one is used up.
        """
        if self._depth_m > 0.0:
            return self._worst_room(workspace, pose, velocity) >= -self._depth_m
        step, period = self._step, self._period_s
        room = workspace.room(pose)
        if room < 0.0:
            return False
        ways = [stopping_distance(abs(value), step, period) for value in velocity]
        if workspace.travel(ways) <= room:
            return True
        pose, velocity = list(pose), list(velocity)
        while any(velocity):
            velocity = [brake(value, step) for value in velocity]
            ways = [abs(value) * period for value in velocity]
            pose = [a + b * period for a, b in zip(pose, velocity, strict=True)]
            room -= workspace.travel(ways)
            if room < 0.0:
                room = workspace.room(pose)
                if room < 0.0:
                    return False
        return True

    def _worst_room(
        self, workspace: Workspace, pose: Sequence[float], velocity: Sequence[float]
    ) -> float:
        """Smallest room at this pose and anywhere on the way of braking from it in [m]."""
        return min(workspace.room(at) for at in self._way(list(pose), velocity))

    def _accept(self, pose: list[float], velocity: list[float]) -> None:
        self.velocity = velocity
        limits = self._limits
        for index, value in enumerate(pose):
            low, high = self.lower[index], self.upper[index]
            # Rounding of the last digit only: the velocity keeps the joint inside.
            pose[index] = value = min(high, max(low, value))
            if low < limits.lower[index]:
                self.lower[index] = min(limits.lower[index], value)
            if high > limits.upper[index]:
                self.upper[index] = max(limits.upper[index], value)
        self.pose = pose
        if self._depth_m > 0.0 and self._workspace is not None:
            worst = self._worst_room(self._workspace, pose, velocity)
            self._depth_m = min(self._depth_m, max(0.0, -worst))
