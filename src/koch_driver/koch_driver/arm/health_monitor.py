# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Watches heat and load of the motors and lets a joint give way before its servo shuts down."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from koch_driver.arm.motor_health import MotorHealth


@dataclass(frozen=True)
class HealthConfig:
    """When a joint backs off.

    Attributes:
        warm_below_limit_c: So far below the servo's temperature limit a warning begins.
        hot_below_limit_c: So far below it the joint backs off.
        high_load_fraction: Mean share of the stall current at which the joint backs off.
        low_load_fraction: Mean share at which it may press again.
        load_time_s: Time constant of that mean; a servo's own overload trip takes longer.
        shortest_s: A back-off lasts at least so long.
    """

    warm_below_limit_c: float = 10.0
    hot_below_limit_c: float = 5.0
    high_load_fraction: float = 0.8
    low_load_fraction: float = 0.5
    load_time_s: float = 1.0
    shortest_s: float = 2.0


class HealthMonitor:
    """Decides per joint whether it must back off. Used by the bus thread.

    Readers in other threads take `motors`, `reasons`, `unanswered` and `silent`, which are
    replaced, never changed.

    Attributes:
        motors: Newest slow registers by joint.
        reasons: Why joints back off.
        load_means: Mean share of the stall current, in the order of `joints`.
        unanswered: Looks at a motor's slow registers that it did not answer, since the start.
        silent: The same, since it last answered.
        incidents: What befell a motor last and is over, by joint, and when.
    """

    def __init__(self, joints: Sequence[str], config: HealthConfig | None = None) -> None:
        self.config = config or HealthConfig()
        self.joints = tuple(joints)
        self.motors: dict[str, MotorHealth] = {}
        self.reasons: dict[str, str] = {}
        self.unanswered: dict[str, int] = {}
        self.silent: dict[str, int] = {}
        self.incidents: dict[str, tuple[str, float]] = {}
        self.load_means = [0.0] * len(self.joints)
        self._since_s: dict[str, float] = {}
        self._last_s: float | None = None

    def add_motor(self, motor: MotorHealth) -> None:
        """Take one motor's slow registers."""
        self.motors = {**self.motors, motor.joint: motor}
        if motor.joint in self.silent:
            self.silent = {j: n for j, n in self.silent.items() if j != motor.joint}

    def add_silence(self, joint: str) -> None:
        """Note that a motor did not answer."""
        self.unanswered = {**self.unanswered, joint: self.unanswered.get(joint, 0) + 1}
        self.silent = {**self.silent, joint: self.silent.get(joint, 0) + 1}

    def note(self, joint: str, what: str) -> None:
        """Note what befell a motor and is over."""
        self.incidents = {**self.incidents, joint: (what, time.monotonic())}

    def add_loads(self, loads: Sequence[float], now_s: float) -> dict[str, str | None]:
        """Take one cycle's loads (share of the stall current) and judge.

        Returns:
            The joints whose back-off begins (reason) or ends (None) with this cycle.
        """
        elapsed = 0.0 if self._last_s is None else max(0.0, now_s - self._last_s)
        self._last_s = now_s
        weight = min(1.0, elapsed / self.config.load_time_s)
        changes: dict[str, str | None] = {}
        for index, joint in enumerate(self.joints):
            mean = self.load_means[index]
            self.load_means[index] = mean = mean + weight * (loads[index] - mean)
            reason = self._reason(joint, mean)
            held = joint in self.reasons
            if reason and not held:
                changes[joint] = reason
                self._since_s[joint] = now_s
            elif held and not reason and now_s - self._since_s[joint] >= self.config.shortest_s:
                changes[joint] = None
        if changes:
            merged = {**self.reasons, **{j: r for j, r in changes.items() if r is not None}}
            self.reasons = {j: r for j, r in merged.items() if changes.get(j, "") is not None}
        return changes

    def _reason(self, joint: str, mean: float) -> str:
        """Why this joint must back off now; empty when it need not."""
        config = self.config
        motor = self.motors.get(joint)
        if motor is not None:
            limit = motor.temperature_limit_c - config.hot_below_limit_c
            if motor.temperature_c >= limit:
                return f"{motor.temperature_c:.0f} °C, limit {motor.temperature_limit_c:.0f} °C"
        threshold = config.high_load_fraction
        if "load" in self.reasons.get(joint, ""):
            threshold = config.low_load_fraction
        if mean >= threshold:
            return f"mean load {100 * mean:.0f} % of the stall current"
        return ""

    def warm(self) -> list[str]:
        """Joints that are near their temperature limit, as sentences."""
        return [
            f"{motor.joint} {motor.temperature_c:.0f} °C (limit {motor.temperature_limit_c:.0f})"
            for motor in self.motors.values()
            if motor.temperature_c >= motor.temperature_limit_c - self.config.warm_below_limit_c
        ]
