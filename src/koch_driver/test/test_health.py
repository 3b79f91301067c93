# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Slow registers: read one motor at a time, and never at the cost of a cycle."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from koch_driver.arm.connect import connect_arm
from koch_driver.arm.control_loop import ControlLoop, LoopConfig, LoopPhase
from koch_driver.arm.health import HealthReader, HealthWatch
from koch_driver.arm.health_monitor import HealthMonitor
from koch_driver.arm.motor_health import MotorHealth
from koch_driver.bus.control_table import HardwareError
from koch_driver.bus.packet import Instruction
from koch_driver.emulator.protocol import BusProtocol
from koch_driver.errors import BusTimeout
from koch_rig.arm_model import KOCH_V1_1

if TYPE_CHECKING:
    from collections.abc import Callable

    from koch_driver.bus.dynamixel import DynamixelBus, MotorState
    from koch_driver.emulator import EmulatedChain, EmulatedServo
    from koch_rig.calibration import Calibration
    from koch_rig.rig import Arm

BUDGET_S = 0.004


class WatchingController:
    """Looks at a motor in every cycle."""

    def __init__(self) -> None:
        self.monitor = HealthMonitor(KOCH_V1_1.joints)
        self.watch: HealthWatch | None = None
        self.cycles = 0

    def connected(self, bus: DynamixelBus) -> None:
        self.watch = HealthWatch(bus, self.monitor, every_s=0.0, period_s=0.01)

    def cycle(self, bus: DynamixelBus, state: MotorState) -> None:
        assert self.watch is not None
        self.watch.step(state)
        self.cycles += 1

    def disconnected(self, reason: str) -> None:
        self.watch = None

    def leave(self, bus: DynamixelBus) -> bool:
        return True


@pytest.fixture
def mute(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """A function (id): that motor answers the state question, but no question of its own."""
    answer = BusProtocol._single

    def silence(motor_id: int) -> None:
        def single(self: BusProtocol, servo: EmulatedServo, instruction: int, p: bytes) -> list:
            replies = answer(self, servo, instruction, p)
            return [] if servo.id == motor_id and instruction == Instruction.READ else replies

        monkeypatch.setattr(BusProtocol, "_single", single)

    return silence


def test_it_goes_round(bus: DynamixelBus, chain: EmulatedChain) -> None:
    chain.faults.temperature("elbow_flex", 55.0)
    chain.faults.trip("gripper", "electrical_shock")
    chain.refresh()
    reader = HealthReader(bus)
    looks = [reader.step(0.2) for _ in range(6)]
    rows = {spec.joint: health for spec, health in looks if health is not None}
    assert set(rows) == set(KOCH_V1_1.joints)
    assert rows["elbow_flex"].temperature_c == 55.0
    assert rows["shoulder_pan"].voltage_v == 12.0
    assert rows["gripper"].voltage_v == 5.0
    assert not rows["gripper"].ok
    assert rows["gripper"].hardware_error.name == "ELECTRICAL_SHOCK"
    assert rows["shoulder_lift"].temperature_limit_c == 72.0


def test_a_motor_that_reports_an_error_is_looked_at_first(
    bus: DynamixelBus, chain: EmulatedChain
) -> None:
    reader = HealthReader(bus)
    reader.next_is(5)
    assert [reader.step(0.2)[0].id for _ in range(3)] == [5, 6, 1]


def test_a_silent_motor_costs_its_budget_and_is_passed_over(
    bus: DynamixelBus, chain: EmulatedChain
) -> None:
    """Negative control beside it: a register read of the same motor waits for 300 ms."""
    reader = HealthReader(bus)
    for _ in range(6):
        reader.step(0.2)  # everything is known
    chain.faults.silence(4)
    chain.faults.trip("wrist_roll", "overload")
    costs, answered = [], set()
    for _ in range(30):
        begin_s = time.monotonic()
        spec, health = reader.step(BUDGET_S)
        costs.append(time.monotonic() - begin_s)
        answered |= {spec.id} if health is not None else set()
    assert answered == {1, 2, 3, 5, 6}
    assert sorted(costs)[len(costs) // 2] < BUDGET_S
    assert sorted(costs)[-4] < 4.0 * BUDGET_S  # poll() counts whole milliseconds; a busy machine
    begin_s = time.monotonic()
    with pytest.raises(BusTimeout):
        bus.read("Present_Temperature", 4)
    assert time.monotonic() - begin_s > 0.25


def test_the_loop_misses_no_cycle_for_a_motor_without_answers(
    chain: EmulatedChain,
    follower: Arm,
    calibration: Calibration,
    mute: Callable[[int], None],
    wait_until: Callable[..., bool],
) -> None:
    controller = WatchingController()
    loop = ControlLoop(
        "follower",
        lambda: connect_arm(follower, calibration),
        controller,
        LoopConfig(rate_hz=100.0, bad_cycles=50),
        report=lambda phase, reason: None,
    )
    loop.start()
    assert wait_until(lambda: len(controller.monitor.motors) == 6)
    mute(4)
    before, cycles = loop.status().schedule.missed, controller.cycles
    assert wait_until(lambda: controller.monitor.silent.get("wrist_flex", 0) >= 12)
    status = loop.status()
    assert status.phase is LoopPhase.RUNNING
    # Some sixty looks, twelve in vain: at 300 ms each they had cost 360 cycles.
    assert controller.cycles - cycles >= 60
    assert status.schedule.missed - before <= 20  # none but those of a busy machine
    others = [n for joint, n in controller.monitor.unanswered.items() if joint != "wrist_flex"]
    assert sum(others) <= 4  # a busy machine
    loop.close()


def test_a_cycle_without_time_left_asks_nothing(bus: DynamixelBus, chain: EmulatedChain) -> None:
    monitor = HealthMonitor(KOCH_V1_1.joints)
    state = bus.sync_read_state(0.3)
    late = HealthWatch(bus, monitor, every_s=0.0, period_s=1e-3)
    time.sleep(0.002)
    packets = chain.packets
    assert late.step(state) is None
    assert chain.packets == packets
    assert not monitor.silent


def test_a_motor_that_answers_again_is_no_longer_silent() -> None:
    monitor = HealthMonitor(("a", "b"))
    for _ in range(3):
        monitor.add_silence("a")
    assert (monitor.silent, monitor.unanswered) == ({"a": 3}, {"a": 3})
    monitor.add_motor(MotorHealth("a", 1, 5.0, 30.0, HardwareError(0), 70.0))
    assert (monitor.silent, monitor.unanswered) == ({}, {"a": 3})
