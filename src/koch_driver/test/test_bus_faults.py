# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The bus on a bad wire."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from koch_driver.bus.dynamixel import BusConfig, DynamixelBus
from koch_driver.bus.motors import FOLLOWER_MOTORS
from koch_driver.bus.sdk import SdkBus
from koch_driver.errors import BusTimeout
from koch_rig.arm_model import KOCH_V1_1

if TYPE_CHECKING:
    from collections.abc import Iterator

    from koch_driver.emulator import EmulatedChain

J = len(KOCH_V1_1.joints)
PATIENT_S = 0.3  # where an answer must come, however busy the machine is
CYCLES_OF_A_MINUTE = 6000  # 60 s at 100 Hz; the test does not wait for the clock


@pytest.fixture(params=["dynamixel", "sdk"])
def bus_kind(request: pytest.FixtureRequest) -> type[DynamixelBus]:
    """Every bus that a rig can choose."""
    return {"dynamixel": DynamixelBus, "sdk": SdkBus}[request.param]


@pytest.fixture
def classic(bus_kind: type[DynamixelBus], chain: EmulatedChain) -> Iterator[DynamixelBus]:
    """A bus with the classic sync read: six packets to spoil in each cycle."""
    with bus_kind(chain.path, FOLLOWER_MOTORS, BusConfig(fast_read=False)) as bus:
        yield bus


@pytest.mark.slow
def test_a_minute_of_one_percent_loss_has_no_visible_effect(
    classic: DynamixelBus, chain: EmulatedChain
) -> None:
    chain.faults.drop(0.01)
    classic.write_all("Torque_Enable", 1)
    start = classic.sync_read_state().position_ticks
    failed = 0
    for _ in range(CYCLES_OF_A_MINUTE // 4):  # six packets per cycle: as many losses as in 60 s
        state = classic.sync_read_state(PATIENT_S)
        failed += not state.ok
        assert np.abs(state.position_ticks - start).max() <= 2
        classic.sync_write_goal(start)
    assert failed == 0
    assert classic.statistics.retries > 30
    assert classic.statistics.timeouts == pytest.approx(classic.statistics.retries, abs=5)


def test_total_loss_is_flagged_and_recovers(classic: DynamixelBus, chain: EmulatedChain) -> None:
    good = classic.sync_read_state()
    chain.faults.drop(1.0)
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        state = classic.sync_read_state()
        assert not state.ok
        assert state.missing == (1, 2, 3, 4, 5, 6)
        np.testing.assert_array_equal(state.position_ticks, good.position_ticks)
    with pytest.raises(BusTimeout, match="id 3"):
        classic.read("LED", 3)
    chain.faults.clear()
    assert classic.sync_read_state(PATIENT_S).ok
    assert classic.statistics.failed_cycles > 5
    assert classic.statistics.per_motor_missing[6] > 5


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("fault", ["corrupt_crc", "truncate", "noise", "duplicate", "drop"])
def test_no_fault_ever_gives_a_wrong_value(
    bus_kind: type[DynamixelBus], chain: EmulatedChain, fault: str, fast: bool
) -> None:
    with bus_kind(chain.path, FOLLOWER_MOTORS, BusConfig(fast_read=fast)) as bus:
        truth = bus.sync_read_state().position_ticks
        getattr(chain.faults, fault)(0.3)
        good = 0
        for _ in range(40):
            state = bus.sync_read_state(PATIENT_S)
            good += state.ok
            np.testing.assert_array_equal(state.position_ticks, truth)
        assert good >= 36
        chain.faults.clear()
        time.sleep(0.01)
        assert bus.sync_read_state(PATIENT_S).ok


def test_crc_errors_are_counted(classic: DynamixelBus, chain: EmulatedChain) -> None:
    chain.faults.corrupt_crc(1.0)
    classic.sync_read_state()
    chain.faults.clear()
    assert classic.statistics.crc_errors + classic.statistics.bad_packets >= 5


@pytest.mark.parametrize("fast", [True, False])
def test_late_answers_are_thrown_away_and_the_time_out_grows(
    bus_kind: type[DynamixelBus], chain: EmulatedChain, fast: bool
) -> None:
    with bus_kind(chain.path, FOLLOWER_MOTORS, BusConfig(fast_read=fast)) as bus:
        chain.faults.delay(1.0, 0.009)
        states = [bus.sync_read_state(PATIENT_S) for _ in range(15)]
        assert all(s.ok for s in states)
        assert bus.statistics.late_packets >= 1
        assert states[0].retries >= 1
        assert min(s.retries for s in states[-5:]) == 0


def test_a_retry_fits_into_a_cycle_of_the_control_loop(
    bus: DynamixelBus, chain: EmulatedChain
) -> None:
    chain.faults.drop(0.1)
    # The SDK takes packets apart byte by byte: it needs the whole budget of a 100 Hz cycle.
    budget_s = BusConfig().cycle_budget_s if isinstance(bus, SdkBus) else 0.006
    states = [bus.sync_read_state(budget_s) for _ in range(150)]
    retried = [s for s in states if s.retries]
    assert len(retried) >= 5
    assert sum(s.ok for s in retried) >= 0.3 * len(retried)  # a busy machine is late as well


def test_fast_read_names_the_one_motor_that_is_gone(
    bus: DynamixelBus, chain: EmulatedChain
) -> None:
    assert bus.fast_read is not isinstance(bus, SdkBus)
    chain.faults.silence(4)
    for _ in range(3):
        state = bus.sync_read_state(PATIENT_S)
    assert state.missing == (4,)


def test_a_late_answer_never_passes_for_a_fresh_one(
    classic: DynamixelBus, chain: EmulatedChain
) -> None:
    """The joint moves while answers are late: each value must be as young as its stamp."""
    chain.faults.delay(0.5, 0.008)
    servo = chain.servo("gripper")
    for k in range(30):
        servo.set("Homing_Offset", k * 10)
        time.sleep(0.002)
        chain.refresh()
        before = chain.read("gripper", "Present_Position")
        state = classic.sync_read_state(PATIENT_S)
        if state.ok:
            assert state.position_ticks[5] == before, k
        time.sleep(0.001)


def test_one_silent_motor_does_not_hide_the_others(
    classic: DynamixelBus, chain: EmulatedChain
) -> None:
    chain.faults.silence(2)
    state = classic.sync_read_state(PATIENT_S)
    assert state.missing == (2,)
    assert classic.statistics.per_motor_missing == {2: 1}


def test_power_cut_and_return(bus: DynamixelBus, chain: EmulatedChain) -> None:
    bus.write_all("Torque_Enable", 1)
    chain.faults.power_cut()
    assert bus.sync_read_state().missing == (1, 2, 3, 4, 5, 6)
    chain.faults.power_return()
    assert bus.sync_read_state(PATIENT_S).ok
    assert bus.read_all("Torque_Enable").tolist() == [0] * J


def test_writes_are_retried_until_acknowledged(
    classic: DynamixelBus, chain: EmulatedChain
) -> None:
    chain.faults.drop(0.5)
    for value in range(10):
        classic.write("Goal_Velocity", "gripper", value)
    chain.faults.clear()
    assert classic.read("Goal_Velocity", "gripper") == 9
    assert classic.statistics.retries >= 2
