# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A joint gives way before its servo shuts down, and presses again when it has recovered."""

from __future__ import annotations

import pytest

from koch_driver.arm.health_monitor import HealthMonitor
from koch_driver.arm.motor_health import MotorHealth
from koch_driver.bus.control_table import HardwareError
from koch_rig.arm_model import KOCH_V1_1


@pytest.fixture
def monitor() -> HealthMonitor:
    return HealthMonitor(KOCH_V1_1.joints)


def warm_motor(joint: str, celsius: float) -> MotorHealth:
    return MotorHealth(joint, 3, 5.0, celsius, HardwareError(0), 70.0)


def load(monitor: HealthMonitor, fraction: float, begin_s: float, seconds: float) -> dict:
    changes: dict[str, str | None] = {}
    for cycle in range(round(seconds * 100)):
        loads = [0.0] * 5 + [fraction]
        changes |= monitor.add_loads(loads, begin_s + 0.01 * cycle)
    return changes


def test_a_short_peak_is_no_reason(monitor: HealthMonitor) -> None:
    assert load(monitor, 1.0, 0.0, 0.5) == {}
    assert monitor.reasons == {}


def test_a_lasting_load_backs_off_and_ends_with_hysteresis(monitor: HealthMonitor) -> None:
    changes = load(monitor, 1.0, 0.0, 3.0)
    assert list(changes) == ["gripper"]
    assert "mean load" in str(changes["gripper"])
    assert load(monitor, 0.6, 3.0, 4.0) == {}  # still above the lower threshold
    assert load(monitor, 0.1, 7.0, 4.0) == {"gripper": None}
    assert monitor.reasons == {}


def test_heat_backs_off_before_the_limit_and_warns_earlier(monitor: HealthMonitor) -> None:
    monitor.add_motor(warm_motor("elbow_flex", 61.0))
    assert load(monitor, 0.0, 0.0, 0.1) == {}
    assert monitor.warm() == ["elbow_flex 61 °C (limit 70)"]
    monitor.add_motor(warm_motor("elbow_flex", 66.0))
    assert "66 °C" in str(load(monitor, 0.0, 0.1, 0.1)["elbow_flex"])
    monitor.add_motor(warm_motor("elbow_flex", 60.0))
    assert load(monitor, 0.0, 5.0, 0.1) == {"elbow_flex": None}
