# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Discrete-time motion of one joint that can always come to rest in time.

A goal is written once per cycle, so everything here is exact for sampled motion: speed is change
of goal per cycle, and braking removes one `step` (acceleration times cycle time) per cycle.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import copysign, sqrt


def stopping_distance(speed: float, step: float, period_s: float) -> float:
    """Distance still travelled after this cycle when every later cycle brakes by one step.

    Args:
        speed: Speed of the cycle just commanded in [rad/s], not negative.
        step: Speed lost per braking cycle in [rad/s], positive.
        period_s: Cycle time.

    Returns:
        Distance in [rad]: period times the sum of (speed - i * step) over all positive terms.
    """
    cycles = int(speed / step)
    return period_s * (cycles * speed - step * cycles * (cycles + 1) / 2.0)


def stopping_speed(distance: float, step: float, period_s: float) -> float:
    """Greatest speed of the next cycle from which braking ends within a distance.

    It is the exact inverse of "one cycle at this speed, then `stopping_distance`".

    Args:
        distance: Room that is left in [rad]; zero or negative leaves no speed.
        step: Speed lost per braking cycle in [rad/s], positive.
        period_s: Cycle time.

    Returns:
        Speed in [rad/s], not negative.
    """
    if distance <= 0.0:
        return 0.0
    room = distance / (period_s * step)
    cycles = int((sqrt(1.0 + 8.0 * room) - 1.0) * 0.5)
    return step * (room + 0.5 * cycles * (cycles + 1)) / (cycles + 1)


def reach(velocity: float, step: float, period_s: float) -> float:
    """Way of a joint from this cycle on until it has braked to rest, signed, in [rad]."""
    speed = abs(velocity)
    return copysign(speed * period_s + stopping_distance(speed, step, period_s), velocity)


def velocity_for(way: float, step: float, period_s: float) -> float:
    """Velocity of this cycle in [rad/s] of which `way` is the `reach`."""
    return copysign(stopping_speed(abs(way), step, period_s), way)


def brake(velocity: float, step: float) -> float:
    """Velocity of the next cycle when braking as hard as allowed; ends at exactly zero."""
    if abs(velocity) <= step:
        return 0.0
    return velocity - copysign(step, velocity)


@dataclass(frozen=True)
class JointMotion:
    """The rule that moves a joint's goal within its speed and acceleration bounds.

    Attributes:
        max_speed: Greatest change of the goal per second in [rad/s].
        step: Greatest change of the speed per cycle in [rad/s].
        period_s: Cycle time.
    """

    max_speed: float
    step: float
    period_s: float

    def velocity_range(
        self, position: float, velocity: float, lower: float, upper: float
    ) -> tuple[float, float]:
        """Velocities of the next cycle that all bounds allow, in [rad/s].

        Args:
            position: Goal of the last cycle in [rad].
            velocity: Velocity of the last cycle in [rad/s].
            lower: Smallest goal in [rad].
            upper: Greatest goal in [rad].
        """
        step, period = self.step, self.period_s
        down = -stopping_speed(position - lower, step, period)
        up = stopping_speed(upper - position, step, period)
        return (
            min(up, max(down, velocity - step, -self.max_speed)),
            max(down, min(up, velocity + step, self.max_speed)),
        )

    def velocity_towards(
        self,
        position: float,
        velocity: float,
        target: float,
        target_velocity: float,
        lower: float,
        upper: float,
    ) -> tuple[float, bool, bool]:
        """Choose the velocity of the next cycle that follows a moving target.

        The joint meets the target with the target's own velocity: it runs towards it as fast as
        still allows to brake down to that velocity. When `position` and `velocity` came from this
        rule, so that stopping inside [lower, upper] is possible, it stays possible. Outside the
        limits (an arm that woke up there) only motion back is allowed.

        Args:
            position: Goal of the last cycle in [rad].
            velocity: Velocity of the last cycle in [rad/s].
            target: Where the goal should be in this cycle in [rad].
            target_velocity: How fast the target moves in [rad/s]; zero for a resting one.
            lower: Smallest goal in [rad].
            upper: Greatest goal in [rad].

        Returns:
            Velocity in [rad/s]; whether the speed bound cut it; whether the acceleration did.
        """
        period, step = self.period_s, self.step
        error = target - position - target_velocity * period
        wanted = target_velocity + copysign(stopping_speed(abs(error), step, period), error)
        fast = wanted > self.max_speed or wanted < -self.max_speed
        if fast:
            wanted = copysign(self.max_speed, wanted)
        hasty = True
        if wanted > velocity + step:
            wanted = velocity + step
        elif wanted < velocity - step:
            wanted = velocity - step
        else:
            # A target ahead that braking room alone keeps out of reach counts as "acceleration".
            hasty = not fast and abs(position + wanted * period - target) > 1e-9
        up = stopping_speed(upper - position, step, period)
        if wanted > up:
            wanted = up
        down = -stopping_speed(position - lower, step, period)
        if wanted < down:
            wanted = down
        return wanted, fast, hasty
