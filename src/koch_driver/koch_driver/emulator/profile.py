# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The servo's trajectory: profile velocity and acceleration towards the goal position.

Source: ROBOTIS e-Manual, X series, "Profile Velocity(112)": rectangular and trapezoidal profiles,
velocity- or time-based (Drive_Mode bit 2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass
class Profile:
    """State of one trajectory, in ticks and ticks/s."""

    position: float = 0.0
    velocity: float = 0.0
    speed_limit: float = math.inf
    acceleration: float = math.inf
    goal: float = 0.0

    @property
    def running(self) -> bool:
        """Whether the set point is still on its way."""
        return self.position != self.goal

    def rest_at(self, position: float) -> None:
        """Forget the goal; the set point is at `position`."""
        self.position = self.goal = position
        self.velocity = 0.0

    def aim(
        self, goal: float, speed: float, acceleration: float, times_s: tuple[float, float] | None
    ) -> None:
        """Take a new goal.

        Args:
            goal: Ticks.
            speed: Ticks/s, 0 for unlimited; not used with `times_s`.
            acceleration: Ticks/s^2, 0 for unlimited; not used with `times_s`.
            times_s: Whole time and acceleration time of a time-based profile.
        """
        self.goal = goal
        if times_s is not None and times_s[0] > 0.0:
            total, rise = times_s[0], min(times_s[1], times_s[0] / 2.0)
            distance = abs(goal - self.position)
            speed = distance / (total - rise)
            acceleration = speed / rise if rise > 0.0 else 0.0
        self.speed_limit = speed if speed > 0.0 else math.inf
        self.acceleration = acceleration if acceleration > 0.0 else math.inf

    def step(self, dt_s: float) -> None:
        """Move the set point on by `dt_s` [s]; 0 leaves it where limits hold it back."""
        error = self.goal - self.position
        if error == 0.0 and self.velocity == 0.0:
            return
        if math.isinf(self.speed_limit) and math.isinf(self.acceleration):
            self.rest_at(self.goal)
            return
        if dt_s <= 0.0:
            return
        top = self.speed_limit
        if not math.isinf(self.acceleration):
            # the fastest speed from which the next step can still brake into the goal
            half = self.acceleration * dt_s / 2.0
            brake = math.sqrt(half * half + 2.0 * self.acceleration * abs(error)) - half
            top = min(top, max(0.0, brake))
        wanted = math.copysign(min(top, abs(error) / dt_s), error)
        change = self.acceleration * dt_s
        self.velocity += min(change, max(-change, wanted - self.velocity))
        move = self.velocity * dt_s
        if abs(error) <= max(abs(move), 0.5) and abs(self.velocity) <= change + abs(error) / dt_s:
            self.rest_at(self.goal)
        else:
            self.position += move
