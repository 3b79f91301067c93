# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The follower's gripper presses no harder than it is told, whatever happens to its servo."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from koch_driver.arm.connect import connect_arm
from koch_driver.arm.control_loop import ControlLoop, LoopConfig, LoopPhase
from koch_driver.arm.follower_controller import GRIP_CURRENT_A, FollowerConfig, FollowerController
from koch_driver.arm.grip import NM_PER_A
from koch_driver.arm.gripper_motion import GripperMotion
from koch_driver.emulator import EmulatedChain, FirstOrderPhysics, build_chain
from koch_driver.guard import Guard, GuardLimits
from koch_driver.trajectory.moves import DRIVER_SOURCES
from koch_rig.arm_model import KOCH_V1_1
from koch_rig.calibration import load_calibration
from koch_rig.units import JointUnits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from koch_rig.rig import Rig

GRIPPER = 5
DEFAULT_MA = round(1e3 * GRIP_CURRENT_A)
FAST = 4.0  # the servos' seconds per second
OPEN, OBJECT, CLOSED = -1.0, -0.6, 0.0


@contextmanager
def follower(rig: Rig, config: FollowerConfig) -> Iterator[tuple[FollowerController, ControlLoop]]:
    """A running follower without ROS."""
    arm = rig.arms["follower"]
    calibration = load_calibration(arm.calibration_path)
    guard = Guard(GuardLimits.from_rig(rig.limits), period_s=0.01, sources=DRIVER_SOURCES)
    controller = FollowerController(
        JointUnits(arm, calibration), calibration, guard, config,
        publish=lambda snapshot: None, ros_now_s=time.time,
    )  # fmt: skip
    loop = ControlLoop(
        "follower", lambda: connect_arm(arm, calibration), controller, LoopConfig(rate_hz=100.0),
        report=lambda phase, reason: None,
    )  # fmt: skip
    loop.start()
    try:
        yield controller, loop
    finally:
        loop.close()


def goal_current(chain: EmulatedChain) -> int:
    return chain.read("gripper", "Goal_Current")


def ready(controller: FollowerController) -> bool:
    return controller.torque_on and controller.reading is not None


def drive(controller: FollowerController, gripper_rad: float, source: str = "teleop") -> None:
    pose = [*(0.0,) * 5, gripper_rad]
    controller.guard.submit(source, KOCH_V1_1.joints, pose, age_s=0.0, now_s=time.monotonic())


@pytest.mark.parametrize(
    ("current_a", "eeprom_ma", "expected_ma"),
    [(GRIP_CURRENT_A, 1750, 450), (0.9, 1750, 900), (0.45, 300, 300), (0.0, 1750, 1750)],
)
def test_the_register_holds_the_limit_and_the_eeprom_is_left_alone(
    rig: Rig, chain: EmulatedChain, wait_until: Callable[..., bool],
    current_a: float, eeprom_ma: int, expected_ma: int,
) -> None:  # fmt: skip
    servo = chain.servo("gripper")
    servo.set("Current_Limit", eeprom_ma)
    servo.set("Goal_Current", eeprom_ma)
    with follower(rig, FollowerConfig(gripper_current_a=current_a)) as (controller, _):
        assert wait_until(lambda: ready(controller))
        assert goal_current(chain) == expected_ma
        assert servo.get("Operating_Mode") == 5  # as LeRobot has it
        assert servo.get("Current_Limit") == eeprom_ma


def test_it_comes_back_after_power_loss_reboot_and_reconnection(
    rig: Rig, chain: EmulatedChain, wait_until: Callable[..., bool]
) -> None:
    """Goal_Current is RAM: a servo that boots presses with all it has."""
    with follower(rig, FollowerConfig()) as (controller, loop):
        assert wait_until(lambda: ready(controller))
        chain.faults.power_cut()
        assert wait_until(lambda: loop.status().phase is LoopPhase.FAULT)
        chain.faults.power_return()
        assert goal_current(chain) == 1750
        assert wait_until(lambda: loop.status().phase is LoopPhase.RUNNING, 6.0)
        assert not controller.torque_on, "power that returns is no wish to hold"
        loop.call(lambda bus: controller.set_torque(bus, True), timeout_s=5.0)
        assert ready(controller)
        assert goal_current(chain) == DEFAULT_MA
        chain.faults.trip("gripper", "overload")
        assert wait_until(lambda: "gripper" in controller.errors)
        loop.call(lambda bus: controller.set_torque(bus, True), timeout_s=5.0)
        assert goal_current(chain) == DEFAULT_MA
    chain.servo("gripper").set("Goal_Current", 1750)  # as LeRobot may have left it, still held
    with follower(rig, FollowerConfig()) as (controller, _):
        assert wait_until(lambda: ready(controller))
        assert goal_current(chain) == DEFAULT_MA


@pytest.mark.parametrize(("current_a", "trips"), [(GRIP_CURRENT_A, False), (0.0, True)])
def test_on_an_object_it_presses_gently_and_for_as_long_as_it_likes(
    rig: Rig, wait_until: Callable[..., bool], current_a: float, trips: bool
) -> None:
    """The second row is the control: with the servo's own limit overload trips it.

    (In real time its back-off would come first, and loosen the grip.)
    """
    pose = [*(0.0,) * 5, OPEN]
    with build_chain(rig, "follower", initial_rad=pose, clock=fast_clock()) as chain:
        _put_an_object(rig, chain)
        with follower(rig, FollowerConfig(gripper_current_a=current_a)) as (controller, _):
            assert wait_until(lambda: ready(controller))
            end_s = time.monotonic() + 5.0 / FAST + 1.0  # the way there, and five seconds there
            currents = []
            while time.monotonic() < end_s and not controller.errors:
                drive(controller, CLOSED)
                currents.append(abs(chain.read("gripper", "Present_Current")))
                time.sleep(0.02)
            assert bool(controller.errors) is trips
            assert max(currents) > (1300 if trips else 400)
            if not trips:
                assert max(currents) <= DEFAULT_MA + 5
                assert controller.reading is not None
                assert controller.reading.positions[GRIPPER] == pytest.approx(OBJECT, abs=0.05)
                assert chain.servo("gripper").temperature_c < 35.0


def fast_clock() -> Callable[[], float]:
    """Seconds for the servos, faster than ours."""
    begin_s = time.monotonic()
    return lambda: begin_s + FAST * (time.monotonic() - begin_s)


def _put_an_object(rig: Rig, chain: EmulatedChain) -> None:
    """Something hard between the fingers, at OBJECT."""
    assert isinstance(chain.physics, FirstOrderPhysics)
    shafts = sorted(chain._to_shaft(GRIPPER, angle) for angle in (OPEN - 0.5, OBJECT))
    chain.physics.set_stop(GRIPPER, shafts[0], shafts[1])


def test_gripper_cmd_may_press_more_gently_until_somebody_else_drives(
    rig: Rig, chain: EmulatedChain, wait_until: Callable[..., bool]
) -> None:
    with follower(rig, FollowerConfig()) as (controller, loop):
        assert wait_until(lambda: ready(controller))
        motion = GripperMotion(controller, (-1.6, 0.03))
        for effort_nm, expected_ma in (
            (0.05, round(50.0 / NM_PER_A)), (5.0, DEFAULT_MA), (float("inf"), DEFAULT_MA),
            (0.0, DEFAULT_MA), (0.1, round(100.0 / NM_PER_A)),
        ):  # fmt: skip
            loop.call(lambda bus, effort=effort_nm: motion.limit_effort(bus, effort))
            assert goal_current(chain) == expected_ma
        time.sleep(0.1)
        assert goal_current(chain) < DEFAULT_MA, "holding ends nothing"
        drive(controller, -0.2)
        assert wait_until(lambda: goal_current(chain) == DEFAULT_MA)
