# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Follower and leader on emulated servos, without ROS."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from koch_driver.arm.connect import connect_arm
from koch_driver.arm.control_loop import ControlLoop, LoopConfig, LoopPhase
from koch_driver.arm.follower_controller import (
    FollowerConfig,
    FollowerController,
    FollowerSnapshot,
    OnExit,
)
from koch_driver.arm.leader_controller import (
    BACK_DRIVE,
    LEADER_SOURCES,
    LeaderConfig,
    LeaderController,
)
from koch_driver.emulator import EmulatedChain, build_chain
from koch_driver.guard import Guard, GuardLimits
from koch_driver.trajectory.moves import DRIVER_SOURCES
from koch_rig.arm_model import KOCH_V1_1
from koch_rig.calibration import load_calibration
from koch_rig.units import JointUnits, Units

if TYPE_CHECKING:
    from collections.abc import Callable

    from koch_rig.rig import Rig

J = len(KOCH_V1_1.joints)


def start(rig: Rig, name: str, make: Callable) -> ControlLoop:
    """A loop at 200 Hz around the controller that `make(units, calibration, limits)` builds."""
    arm = rig.arms[name]
    calibration = load_calibration(arm.calibration_path)
    limits = GuardLimits.from_rig(rig.limits)
    controller = make(JointUnits(arm, calibration), calibration, limits)
    loop = ControlLoop(
        name,
        lambda: connect_arm(arm, calibration),
        controller,
        LoopConfig(rate_hz=200.0),
        report=lambda phase, reason: None,
    )
    loop.start()
    return loop


def follower_controller(config: FollowerConfig, snapshots: list[FollowerSnapshot]) -> Callable:
    def make(units, calibration, limits) -> FollowerController:
        guard = Guard(limits, period_s=0.005, sources=DRIVER_SOURCES)
        return FollowerController(
            units, calibration, guard, config, publish=snapshots.append, ros_now_s=time.time
        )

    return make


def leader_controller(
    made: list[LeaderController], readings: list, said: list[str] | None = None
) -> Callable:
    def make(units, calibration, limits) -> LeaderController:
        guard = Guard(limits, period_s=0.005, sources=LEADER_SOURCES)
        controller = LeaderController(
            units, calibration, guard, LeaderConfig(), publish=readings.append,
            say=([] if said is None else said).append,
        )  # fmt: skip
        made.append(controller)
        return controller

    return make


def torques(chain: EmulatedChain) -> list[int]:
    return [chain.servo(i).get("Torque_Enable") for i in range(1, 7)]


@pytest.mark.parametrize("on_exit", list(OnExit))
def test_a_follower_is_left_as_configured(
    rig: Rig, chain: EmulatedChain, wait_until: Callable[..., bool], on_exit: OnExit
) -> None:
    snapshots: list[FollowerSnapshot] = []
    rest = (0.2, 0.1, -0.1, 0.0, 0.0, -0.5)
    config = FollowerConfig(on_exit=on_exit, rest=rest)
    loop = start(rig, "follower", follower_controller(config, snapshots))
    assert wait_until(lambda: any(s.result is not None for s in snapshots))
    assert torques(chain) == [1] * J
    loop.close()
    assert torques(chain) == [int(on_exit is OnExit.HOLD)] * J
    assert snapshots[-1].reading is not None
    expected = rest if on_exit is OnExit.REST else (0.0,) * J
    assert snapshots[-1].reading.positions == pytest.approx(expected, abs=0.03)


def test_a_follower_that_is_still_held_is_not_dropped_at_connect(
    rig: Rig,
    chain: EmulatedChain,
    wait_until: Callable[..., bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    snapshots: list[FollowerSnapshot] = []
    make = follower_controller(FollowerConfig(), snapshots)
    loop = start(rig, "follower", make)
    assert wait_until(lambda: len(snapshots) > 5)
    loop.close()
    configured: list[object] = []
    monkeypatch.setattr(
        "koch_driver.arm.follower_controller.configure", lambda *args: configured.append(args)
    )
    count = len(snapshots)
    again = start(rig, "follower", make)
    assert wait_until(lambda: len(snapshots) > count + 5)
    again.close()
    assert configured == []
    assert torques(chain) == [1] * J


@pytest.mark.parametrize("silent_s", [0.5, 3.0, 15.0])
@pytest.mark.parametrize("cut", [False, True])
def test_an_arm_that_answers_late_is_held_and_one_that_had_no_power_is_not(
    rig: Rig, chain: EmulatedChain, wait_until: Callable[..., bool], silent_s: float, cut: bool
) -> None:
    if cut:
        chain.faults.power_cut()
        chain.faults.power_return()
    made: list[FollowerController] = []

    def make(units, calibration, limits) -> FollowerController:
        made.append(follower_controller(FollowerConfig(), [])(units, calibration, limits))
        made[0].silent_since_s = time.clock_gettime(time.CLOCK_BOOTTIME) - silent_s
        return made[0]

    loop = start(rig, "follower", make)
    assert wait_until(lambda: made[0].reading is not None)
    stays_limp = cut and silent_s > 1.0  # in half a second a busy computer is as likely
    assert torques(chain) == [int(not stays_limp)] * J
    assert bool(made[0].faults) is stays_limp
    loop.close()


def test_hot_motors_back_off(
    rig: Rig, chain: EmulatedChain, wait_until: Callable[..., bool]
) -> None:
    snapshots: list[FollowerSnapshot] = []
    made: list[FollowerController] = []

    def make(units, calibration, limits) -> FollowerController:
        made.append(follower_controller(FollowerConfig(), snapshots)(units, calibration, limits))
        return made[0]

    loop = start(rig, "follower", make)
    chain.faults.temperature("wrist_flex", 68.0)
    assert wait_until(lambda: bool(made) and "wrist_flex" in made[0].monitor.reasons)
    loop.close()


def test_a_leader_is_free_but_for_its_trigger(
    rig: Rig, leader_chain: EmulatedChain, wait_until: Callable[..., bool]
) -> None:
    readings: list = []
    made: list[LeaderController] = []

    def make(units, calibration, limits) -> LeaderController:
        guard = Guard(limits, period_s=0.005, sources=LEADER_SOURCES)
        made.append(
            LeaderController(units, calibration, guard, LeaderConfig(), publish=readings.append)
        )
        return made[0]

    loop = start(rig, "leader", make)
    assert wait_until(lambda: len(readings) > 100)
    assert torques(leader_chain) == [0, 0, 0, 0, 0, 1]
    arm = rig.arms["leader"]
    units = JointUnits(arm, load_calibration(arm.calibration_path))
    numbers = units.rad_to(Units.LEROBOT, np.array(readings[-1].positions))
    assert numbers[5] == pytest.approx(50.0, abs=2.0)

    loop.call(lambda bus: made[0].drive_back(bus, True))
    target = (0.4, 0.2, -0.3, 0.1, 0.2, 0.0)
    for _ in range(120):
        made[0].guard.submit(
            BACK_DRIVE, KOCH_V1_1.joints, target, age_s=0.0, now_s=time.monotonic()
        )
        time.sleep(0.01)
    assert readings[-1].positions[:5] == pytest.approx(target[:5], abs=0.03)
    loop.call(lambda bus: made[0].drive_back(bus, False))
    assert torques(leader_chain) == [0, 0, 0, 0, 0, 1]
    loop.close()
    assert torques(leader_chain) == [0] * J


def test_a_trigger_held_closed_does_not_shut_its_servo_down(
    rig: Rig, wait_until: Callable[..., bool]
) -> None:
    """Without a limit of the spring's current the servo's overload trips after three seconds."""
    readings: list = []
    begin_s, fast = time.monotonic(), 6.0  # the servos' seconds per second

    def clock() -> float:
        return begin_s + fast * (time.monotonic() - begin_s)

    with build_chain(rig, "leader", clock=clock) as leader_chain:
        loop = start(rig, "leader", leader_controller([], readings))
        assert wait_until(lambda: len(readings) > 10)
        open_rad = readings[-1].positions[5]
        leader_chain.faults.hold("gripper", open_rad + 0.6)
        time.sleep(4.0 / fast)
        assert leader_chain.read("gripper", "Hardware_Error_Status") == 0
        assert 100 < abs(leader_chain.read("gripper", "Present_Current")) <= 200
        loop.close()


def test_a_leader_reboots_a_trigger_that_has_shut_down(
    rig: Rig,
    leader_chain: EmulatedChain,
    wait_until: Callable[..., bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("koch_driver.arm.leader_controller._RECOVERY_PAUSE_S", 0.5)
    made: list[LeaderController] = []
    said: list[str] = []
    loop = start(rig, "leader", leader_controller(made, [], said))
    assert wait_until(lambda: torques(leader_chain)[5] == 1)
    leader_chain.faults.trip("gripper", "overload")
    assert wait_until(lambda: made[0].errors == {"gripper": "overload"})
    assert loop.status().phase is LoopPhase.RUNNING
    assert torques(leader_chain)[5] == 0, "it is given a pause"
    assert wait_until(lambda: torques(leader_chain)[5] == 1, 6.0)
    assert made[0].errors == {}
    assert leader_chain.servo(6).get("Goal_Current") == 200
    assert len(said) == 1, "a shutdown is said once"
    loop.close()


def test_a_leader_connects_with_a_trigger_that_has_shut_down(
    rig: Rig, leader_chain: EmulatedChain, wait_until: Callable[..., bool]
) -> None:
    leader_chain.faults.trip("gripper", "overload")
    loop = start(rig, "leader", leader_controller([], []))
    assert wait_until(lambda: torques(leader_chain)[5] == 1)
    loop.close()


def test_a_follower_connects_with_a_servo_that_has_shut_down(
    rig: Rig, chain: EmulatedChain, wait_until: Callable[..., bool]
) -> None:
    """The others keep their torque; the torque service brings the tripped one back."""
    snapshots: list[FollowerSnapshot] = []
    made: list[FollowerController] = []

    def make(units, calibration, limits) -> FollowerController:
        made.append(follower_controller(FollowerConfig(), snapshots)(units, calibration, limits))
        return made[-1]

    first = start(rig, "follower", make)
    assert wait_until(lambda: torques(chain) == [1] * J)
    first.close()
    chain.faults.trip("wrist_flex", "overload")
    loop = start(rig, "follower", make)
    assert wait_until(lambda: loop.status().phase is LoopPhase.RUNNING)
    assert made[1].errors == {"wrist_flex": "overload"}
    assert torques(chain) == [1, 1, 1, 0, 1, 1]
    loop.call(lambda bus: made[1].set_torque(bus, True), timeout_s=5.0)
    assert torques(chain) == [1] * J
    assert made[1].errors == {}
    made[1].resume()
    loop.close()
