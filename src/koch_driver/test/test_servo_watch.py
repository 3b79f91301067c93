# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What servos lose by themselves is noticed, stops the arm, and is restored on request only."""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from koch_driver.arm.control_loop import LoopPhase
from koch_driver.arm.follower_controller import (
    HardwareErrorPending,
)
from koch_driver.arm.latch import SafetyLatch, StopCause
from koch_driver.arm.motor_health import MotorHealth
from koch_driver.arm.register_profile import RegisterProfile
from koch_driver.arm.servo_watch import RestartWatch, ServoWatch, by_words, error_in_words
from koch_driver.arm.teleop_map import LEADER_LOST_S
from koch_driver.bus.control_table import HardwareError
from koch_driver.bus.motors import FOLLOWER_MOTORS
from koch_driver.emulator import EmulatedChain, build_chain
from koch_rig.arm_model import KOCH_V1_1
from koch_rig.calibration import Calibration, load_calibration, save_calibration
from koch_rig.units import JointUnits

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from koch_rig.rig import Rig

J = len(KOCH_V1_1.joints)
pytestmark = pytest.mark.usefixtures("prompt")
Running = Any  # the context of an `ArmBench`
BRISK_S = 0.01  # from one look at a motor to the next, where the usual 0.1 s is not the question


@pytest.fixture
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A motor is looked at in each cycle, and none needs long to restart."""
    monkeypatch.setattr("koch_driver.arm.servo_watch._REBOOT_S", 0.15)
    for controller in ("follower", "leader"):
        monkeypatch.setattr(f"koch_driver.arm.{controller}_controller._HEALTH_PERIOD_S", BRISK_S)


def dip(chain: EmulatedChain, joints: tuple[str, ...], seconds: float) -> None:
    """The servos lose their power for a moment; the others do not notice."""
    ids = [chain.servo(joint).id for joint in joints]
    for motor_id in ids:
        chain.faults.silence(motor_id)
    for joint in joints:
        chain.refresh()
        chain.servo(joint).power_up(chain.servo(joint).shaft_rad)
    time.sleep(seconds)
    for motor_id in ids:
        chain.faults.silence(motor_id, False)


def torques(chain: EmulatedChain) -> list[int]:
    return [servo.get("Torque_Enable") for servo in chain.servos]


@pytest.mark.parametrize(
    ("joints", "seconds"),
    [
        (("shoulder_lift",), 0.1),
        (("gripper",), 0.05),
        (("elbow_flex", "wrist_roll"), 0.2),
        (("wrist_flex",), 0.5),  # long enough for a fault of the bus
        (KOCH_V1_1.joints, 0.15),
    ],
)
def test_a_follower_whose_servos_restart_stops_names_them_and_is_restored_on_request(
    rig: Rig,
    wait_until: Callable[..., bool],
    joints: tuple[str, ...],
    seconds: float,
    running: Running,
    start_rad: tuple[float, ...],
) -> None:
    with (
        build_chain(rig, "follower", initial_rad=start_rad) as chain,
        running(rig, "follower") as bench,
    ):
        assert wait_until(lambda: bench.ready)
        bench.drive("shoulder_pan", 0.2)
        time.sleep(0.1)
        healthy = [k for k, joint in enumerate(KOCH_V1_1.joints) if joint not in joints]
        dip(chain, joints, seconds)
        assert wait_until(lambda: set(bench.controller.faults) == set(joints), 2.0), bench.phases
        assert wait_until(lambda: bench.loop.status().phase is LoopPhase.RUNNING)
        assert all("restarted by itself" in words for words in bench.controller.faults.values())
        assert all(joint in bench.said[-1] for joint in joints)
        assert [torques(chain)[k] for k in healthy] == [1] * len(healthy), "dropped"
        pose = bench.controller.reading.positions
        for _ in range(15):
            bench.drive("shoulder_pan", -0.4)
            time.sleep(0.01)
        assert bench.controller.reading.positions == pytest.approx(pose, abs=0.005), "moved"
        causes = {stop.cause for stop in bench.controller.latch.state.stops}
        assert causes == {StopCause.POWER if len(joints) == 6 else StopCause.RESTART}
        with pytest.raises(HardwareErrorPending, match=joints[0]):
            bench.controller.resume()
        answer = bench.torque(True)
        assert all(joint in answer for joint in joints), answer
        assert ("Goal_Current" in answer) is ("gripper" in joints), answer
        assert torques(chain) == [1] * J
        assert chain.read("elbow_flex", "Position_P_Gain") == 1500
        assert chain.read("gripper", "Goal_Current") == 450
        assert bench.controller.faults == {}
        bench.controller.resume()
        assert bench.drive_until("shoulder_pan", 0.3)


CHANGES = {  # behind the driver's back
    "Position_P_Gain": ("wrist_flex", 111),
    "Position_D_Gain": ("elbow_flex", 7),
    "Goal_Current": ("gripper", 1200),
    "Profile_Velocity": ("shoulder_pan", 30),
    "Status_Return_Level": ("wrist_roll", 1),
    "Goal_PWM": ("shoulder_lift", 100),
    "Operating_Mode": ("shoulder_lift", 3),
    "Torque_Enable": ("elbow_flex", 0),
}


@pytest.mark.parametrize("register", CHANGES)
@pytest.mark.usefixtures("brisk")
def test_what_was_written_is_verified_and_restored(
    rig: Rig,
    chain: EmulatedChain,
    wait_until: Callable[..., bool],
    register: str,
    running: Running,
) -> None:
    joint, value = CHANGES[register]
    with running(rig, "follower") as bench:
        assert wait_until(lambda: bench.ready)
        wanted = chain.read(joint, register)
        chain.servo(joint).set(register, value)
        assert wait_until(lambda: joint in bench.controller.faults, 2.0)
        expected = "restarted" if register == "Torque_Enable" else f"{register} {value}"
        assert expected in bench.controller.faults[joint]
        assert bench.controller.guard.stopped
        assert wait_until(lambda: bench.loop.status().phase is LoopPhase.RUNNING)
        assert joint in bench.torque(True)
        assert chain.read(joint, register) == wanted
        assert torques(chain) == [1] * J
        time.sleep(8 * BRISK_S)  # a look at each
        assert bench.controller.faults == {}


@pytest.mark.parametrize("register", ["Position_P_Gain", "Torque_Enable"])
def test_a_change_is_noticed_within_a_second(
    rig: Rig,
    chain: EmulatedChain,
    wait_until: Callable[..., bool],
    register: str,
    running: Running,
) -> None:
    joint, value = CHANGES[register]
    with running(rig, "follower") as bench:
        assert wait_until(lambda: bench.ready)
        chain.servo(joint).set(register, value)
        assert wait_until(lambda: joint in bench.controller.faults, 1.0)


@pytest.mark.usefixtures("brisk")
def test_what_cannot_be_restored_is_said(
    rig: Rig, chain: EmulatedChain, wait_until: Callable[..., bool], running: Running
) -> None:
    with running(rig, "follower") as bench:
        assert wait_until(lambda: bench.ready)
        chain.faults.voltage(5.0)
        chain.faults.trip("elbow_flex", "overload")
        assert wait_until(lambda: "5.0 V" in bench.controller.errors.get("shoulder_lift", ""), 3.0)
        with pytest.raises(Exception, match=r"shoulder_pan: input voltage 5.0 V, allowed 6.0 .. "):
            bench.torque(True)
        assert bench.controller.guard.stopped
        chain.faults.voltage(None)
        bench.torque(True)
        assert bench.controller.faults == {}


def wrapped(rig: Rig, name: str, joint: str) -> Calibration:
    """A calibration in which the joint's encoder wraps at an angle of 0.1 rad."""
    calibration = load_calibration(rig.arms[name].calibration_path)
    units = JointUnits(rig.arms[name], calibration)
    wrap = int(units.rad_to_ticks(np.full(J, 0.1))[KOCH_V1_1.joints.index(joint)])
    motors = {**calibration, joint: dataclasses.replace(calibration[joint], homing_offset=wrap)}
    return Calibration(motors, calibration.path)


@pytest.mark.parametrize("arm", ["follower", "leader"])
@pytest.mark.parametrize(("joint", "seconds"), [("shoulder_lift", 0.1), ("wrist_flex", 0.2)])
@pytest.mark.usefixtures("brisk")
def test_a_turn_lost_in_a_restart_is_never_published_and_moves_nothing(
    rig: Rig,
    tmp_path: Path,
    wait_until: Callable[..., bool],
    monkeypatch: pytest.MonkeyPatch,
    arm: str,
    joint: str,
    seconds: float,
    running: Running,
) -> None:
    path = tmp_path / "wrapped.json"
    save_calibration(wrapped(rig, arm, joint), path)
    arms = {**rig.arms, arm: dataclasses.replace(rig.arms[arm], calibration_path=path)}
    rig = dataclasses.replace(rig, arms=arms)
    k = KOCH_V1_1.joints.index(joint)
    monkeypatch.setattr(
        "koch_driver.arm.leader_controller._SILENT_S", 0.1
    )  # another test's question

    def stands(target: float) -> bool:
        reading = bench.controller.reading
        return reading is not None and abs(reading.positions[k] - target) < 0.02

    with build_chain(rig, arm) as chain, running(rig, arm) as bench:
        published = bench.snapshots if arm == "follower" else bench.readings
        assert wait_until(lambda: len(published) > 10)
        far = 0.0
        for target in (0.3, -0.1):  # to the other side of the wrap
            chain.faults.hold(joint, target)
            assert wait_until(lambda target=target: stands(target))
            before = chain.read(joint, "Present_Position")
            dip(chain, (joint,), seconds)
            far = max(far, abs(chain.read(joint, "Present_Position") - before))
            assert wait_until(lambda: bench.loop.status().phase is LoopPhase.FAULT, 1.0)
            assert wait_until(lambda: bench.loop.status().phase is LoopPhase.RUNNING, 3.0), (
                bench.phases
            )
            if arm == "follower":
                chain.faults.hold(joint, None)
                bench.torque(True)
                bench.controller.resume()
            count = len(published)
            assert wait_until(lambda n=count: len(published) > n + 10)
        assert far > 4000, "the encoder did not wrap: the test shows nothing"
        rows = [s.reading for s in bench.snapshots if s.reading] if arm == "follower" else [
            reading for _, reading in bench.readings
        ]  # fmt: skip
        assert max(abs(row.positions[k]) for row in rows) < 0.5
        assert rows[-1].positions[k] == pytest.approx(-0.1, abs=0.05)


@pytest.mark.usefixtures("brisk")
def test_a_leader_that_restarts_is_set_up_again_and_silent_for_so_long_that_teleop_opens(
    rig: Rig, wait_until: Callable[..., bool], running: Running
) -> None:
    with build_chain(rig, "leader") as chain, running(rig, "leader") as bench:
        assert wait_until(lambda: len(bench.readings) > 20, 5.0)  # the ticks are known by then
        dip(chain, ("wrist_roll", "gripper"), 0.1)
        assert wait_until(lambda: "gripper" in bench.controller.monitor.incidents, 2.0)
        assert wait_until(lambda: torques(chain) == [0, 0, 0, 0, 0, 1])
        assert chain.read("gripper", "Goal_Current") == 200
        count = len(bench.readings)
        assert wait_until(lambda: len(bench.readings) > count + 5, 3.0)
        stamps = [at_s for at_s, _ in bench.readings]
        assert max(b - a for a, b in itertools.pairwise(stamps)) > LEADER_LOST_S
        assert "engaged again" in bench.said[-1]


@pytest.mark.parametrize("seconds", [0.1, 0.5])
def test_power_that_returns_to_a_follower_moves_nothing(
    rig: Rig, wait_until: Callable[..., bool], seconds: float, running: Running
) -> None:
    with build_chain(rig, "follower") as chain, running(rig, "follower") as bench:
        assert wait_until(lambda: bench.ready)
        chain.faults.power_cut()
        chain.faults.hold("shoulder_pan", -0.3)
        time.sleep(seconds)
        chain.faults.hold("shoulder_pan", None)
        chain.faults.power_return()
        assert wait_until(lambda: len(bench.controller.faults) == 6, 4.0)
        for _ in range(20):
            bench.drive("shoulder_pan", 0.6)
            time.sleep(0.01)
        assert torques(chain) == [0] * J
        assert [stop.cause for stop in bench.controller.latch.state.stops] == [StopCause.POWER]


@pytest.mark.parametrize("killed", [True, False])
def test_a_driver_that_is_started_again_knows_that_the_arm_lost_its_power(
    rig: Rig, tmp_path: Path, wait_until: Callable[..., bool], killed: bool, running: Running
) -> None:
    """One that was ended as it should be is another matter: people switch their arms off."""
    path = tmp_path / "latch.json"
    with build_chain(rig, "follower") as chain:
        with running(rig, "follower", latch=SafetyLatch(path)) as bench:
            assert wait_until(lambda: bench.ready)
            kept = path.read_text()
        if killed:
            path.write_text(kept)
        chain.faults.power_cut()
        chain.faults.power_return()
        with running(rig, "follower", latch=SafetyLatch(path)) as again:
            assert wait_until(lambda: again.loop.status().phase is LoopPhase.RUNNING)
            assert torques(chain) == [0 if killed else 1] * J
            assert again.controller.guard.stopped is killed


def test_a_servo_without_torque_among_those_that_hold_stops_a_new_driver(
    rig: Rig, chain: EmulatedChain, wait_until: Callable[..., bool], running: Running
) -> None:
    with running(rig, "follower") as bench:
        assert wait_until(lambda: bench.ready)
    dip(chain, ("elbow_flex",), 0.05)
    with running(rig, "follower") as bench:
        assert wait_until(lambda: bench.loop.status().phase is LoopPhase.RUNNING)
        assert "no torque" in bench.controller.faults["elbow_flex"]
        assert torques(chain) == [1, 1, 0, 1, 1, 1]


def test_a_shutdown_is_said_with_joint_and_cause(
    rig: Rig, chain: EmulatedChain, wait_until: Callable[..., bool], running: Running
) -> None:
    with running(rig, "follower") as bench:
        assert wait_until(lambda: bench.ready)
        chain.faults.temperature("wrist_roll", 81.0)
        assert wait_until(lambda: "81 °C" in bench.controller.errors.get("wrist_roll", ""), 2.0)
        assert "wrist_roll (id 5)" in bench.said[-1]
        assert "allowed up to 70 °C" in bench.said[-1]


# -- without a bus --------------------------------------------------------------------------


def look(tick: int, at_s: float, error: int = 0, **fields: float) -> MotorHealth:
    return MotorHealth(
        "gripper", 6, fields.get("volts", 5.0), fields.get("celsius", 30.0), HardwareError(error),
        70.0, (3.5, 7.0), {"Realtime_Tick": tick}, at_s,
    )  # fmt: skip


def test_a_tick_that_keeps_time_is_no_restart_whatever_it_wraps() -> None:
    watch = RestartWatch()
    for step in range(200):
        assert not watch.restarted(look((32000 + 600 * step) % 32768, 0.6 * step)), step


@pytest.mark.parametrize("before", [600, 10_000, 20_000, 32_700])
def test_a_tick_that_begins_anew_is_a_restart(before: int) -> None:
    watch = RestartWatch()
    assert not watch.restarted(look(before - 600, 9.4))
    assert not watch.restarted(look(before, 10.0))
    assert watch.restarted(look(100 if before > 600 else 0, 10.9))
    assert not watch.restarted(look(700 if before > 600 else 600, 11.5))


def test_an_answer_that_lay_about_is_no_restart() -> None:
    watch = RestartWatch()
    for step in range(40):
        late_ms = 700 if step in (20, 30) else 0  # the computer had something else to do
        assert not watch.restarted(look(5000 + 600 * step - late_ms, 0.6 * step)), step


def test_a_tick_that_never_kept_time_proves_nothing() -> None:
    watch = RestartWatch()
    assert not any(watch.restarted(look(0, 0.6 * k)) for k in range(5))
    assert not any(watch.restarted(look(4 * 600 * k % 32768, 0.6 * k)) for k in range(9))


def test_errors_are_said_with_what_is_measured_and_allowed() -> None:
    assert error_in_words(look(0, 0.0, 32)) == "overload"
    both = error_in_words(look(0, 0.0, 1 | 4, volts=8.2, celsius=75.0))
    assert (
        both
        == "input voltage 8.2 V, allowed 3.5 .. 7.0 V and overheating 75 °C, allowed up to 70 °C"
    )
    assert by_words({"a": "x", "b": "y", "c": "x"}) == "a, c x; b y"
    assert math.isnan(look(0, 0.0).supply_v)


@pytest.mark.parametrize("joint", KOCH_V1_1.joints)
def test_a_shutdown_says_at_once_that_its_cause_is_being_read(joint: str) -> None:
    """A state answer carries one bit; which error it is takes a read more."""
    profile = RegisterProfile.of(FOLLOWER_MOTORS)
    servos = ServoWatch(profile, every_s=0.1, period_s=0.01, say=lambda text: None)
    motor_id = KOCH_V1_1.joints.index(joint) + 1
    assert servos.note_alerts([motor_id]) == [joint]
    assert servos.errors == {joint: "cause is being read"}
    assert servos.note_alerts([motor_id]) == []


@pytest.mark.parametrize("name", ["follower", "leader"])
@pytest.mark.parametrize(
    ("register", "found"), [("Return_Delay_Time", 250), ("Operating_Mode", 3)]
)
@pytest.mark.usefixtures("brisk")
def test_what_is_configured_at_the_first_connection_is_no_fault(
    rig: Rig,
    wait_until: Callable[..., bool],
    name: str,
    register: str,
    found: int,
    running: Running,
    start_rad: tuple[float, ...],
) -> None:
    """As it comes from the factory, a servo holds other values than the profile."""
    with build_chain(rig, name, initial_rad=start_rad) as chain:
        for servo in chain.servos:
            servo.set(register, found)
        with running(rig, name) as bench:
            assert wait_until(lambda: bench.loop.phase is LoopPhase.RUNNING)
            time.sleep(3 * 7 * BRISK_S)  # three looks at each motor
            assert bench.loop.phase is LoopPhase.RUNNING
            assert bench.loop.status().faults == 0, bench.phases
            assert not bench.said
            assert all(servo.get(register) != found for servo in chain.servos)
