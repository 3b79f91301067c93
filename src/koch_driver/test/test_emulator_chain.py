# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The emulator as a program: ports, faults, scripts, timing, plug-in physics."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from koch_driver.bus.dynamixel import DynamixelBus
from koch_driver.bus.motors import FOLLOWER_MOTORS, LEADER_MOTORS
from koch_driver.emulator import (
    EmulatedChain,
    ExternalPhysics,
    FirstOrderPhysics,
    PhysicsState,
    WireTiming,
    build_chain,
)
from koch_driver.emulator.__main__ import main, parse
from koch_driver.emulator.script import load_script, run_event
from koch_driver.errors import EmulatorError
from koch_rig.arm_model import KOCH_V1_1
from koch_rig.calibration import Calibration, load_calibration
from koch_rig.units import JointUnits

if TYPE_CHECKING:
    from collections.abc import Callable

    from koch_rig.rig import Arm, Rig

J = len(KOCH_V1_1.joints)
PATIENT_S = 0.3  # where an answer must come, however busy the machine is
REPO = Path(__file__).resolve().parents[3]


def test_link_comes_and_goes(rig: Rig) -> None:
    link = Path(rig.arms["follower"].port)
    chain = build_chain(rig, "follower")
    assert chain.open() == str(link)
    assert link.resolve().parts[1:3] == ("dev", "pts")
    chain.faults.unplug()
    assert not link.is_symlink()
    chain.faults.replug()
    assert link.is_symlink()
    chain.close()
    chain.close()
    assert not link.is_symlink()


def test_a_stale_link_is_replaced_but_a_file_is_not(rig: Rig) -> None:
    link = Path(rig.arms["follower"].port)
    link.symlink_to("/dev/pts/99999")
    with build_chain(rig, "follower"):
        pass
    link.write_text("precious")
    with pytest.raises(EmulatorError, match="free path"):
        build_chain(rig, "follower").open()
    assert link.read_text() == "precious"


@pytest.mark.parametrize("arm_name", ["follower", "leader"])
def test_the_registers_show_the_initial_pose(rig: Rig, arm_name: str) -> None:
    arm = rig.arms[arm_name]
    calibration = load_calibration(arm.calibration_path)
    pose = np.array([0.3, -0.4, 0.5, -0.6, 0.7, -0.8])
    with build_chain(rig, arm_name, initial_rad=pose) as chain:
        angles = JointUnits(arm, calibration).ticks_to_rad(chain.positions_ticks())
        np.testing.assert_allclose(np.cos(angles - pose), 1.0, atol=1e-5)


def test_a_hand_and_a_push_act_on_the_named_joint(
    chain: EmulatedChain, follower: Arm, calibration: Calibration, wait_until: Callable[..., bool]
) -> None:
    units = JointUnits(follower, calibration)
    chain.faults.hold("elbow_flex", 0.6)
    assert wait_until(lambda: abs(units.ticks_to_rad(chain.positions_ticks())[2] - 0.6) < 2e-3)
    time.sleep(0.05)  # let it come to rest in the hand
    chain.faults.hold("elbow_flex")
    before = chain.positions_ticks()
    chain.faults.push("gripper", 0.1)
    assert wait_until(lambda: abs(chain.positions_ticks()[5] - before[5]) > 30)
    assert np.abs(chain.positions_ticks() - before)[:5].max() <= 1
    with pytest.raises(EmulatorError, match="shoulder_pan"):
        chain.faults.push("thumb", 0.1)


def test_gripper_meets_an_object(bus: DynamixelBus, chain: EmulatedChain) -> None:
    physics = chain.physics
    assert isinstance(physics, FirstOrderPhysics)
    here = physics.state().position_rad[5]
    physics.set_stop(5, here - 0.2, here + 9.0)
    bus.write_all("Torque_Enable", 1)
    bus.write("Goal_Current", "gripper", 150)
    goal = bus.sync_read_state(PATIENT_S).position_ticks
    goal = goal - np.array([0, 0, 0, 0, 0, 400])
    bus.sync_write_goal(goal)
    time.sleep(0.7)
    state = bus.sync_read_state(PATIENT_S)
    assert state.position_ticks[5] > goal[5] + 200
    assert state.current_ma[5] == pytest.approx(-150, abs=10)


def test_external_physics_owns_the_state(rig: Rig, wait_until: Callable[..., bool]) -> None:
    world = ExternalPhysics([1.0] * J)
    with build_chain(rig, "follower", world) as chain:
        with DynamixelBus(chain.path, FOLLOWER_MOTORS) as bus:
            start = bus.sync_read_state(PATIENT_S).position_ticks
            bus.write_all("Torque_Enable", 1)
            bus.sync_write_goal(start + 100)
            goal_rad = 1.0 + 100 * 2 * np.pi / 4096
            assert wait_until(lambda: abs(world.drives()[0].goal_position_rad - goal_rad) < 1e-3)
            drive = world.drives()[0]
            assert drive.torque_enabled
            assert drive.torque(1.0, 0.0) > 0.1
            world.publish(PhysicsState([1.5] * J, [0.0] * J, [0.1] * J))
            expected = start + round(0.5 / (2 * np.pi) * 4096)
            assert wait_until(
                lambda: np.abs(bus.sync_read_state(PATIENT_S).position_ticks - expected).max() <= 1
            )
        with pytest.raises(EmulatorError, match="first-order"):
            chain.faults.push("gripper", 1.0)


def test_wire_timing_takes_its_time(rig: Rig) -> None:
    wire = WireTiming.real(usb_latency_s=0.001)
    with (
        build_chain(rig, "follower", wire=wire) as chain,
        DynamixelBus(chain.path, FOLLOWER_MOTORS) as bus,
    ):
        times = sorted(bus.sync_read_state(PATIENT_S).duration_s for _ in range(20))
        # 20 bytes out, 8 + 6 * 14 back at 10 us each, and the latency timer
        assert 0.0020 < times[0] < 0.0050


def test_reading_never_disturbs_two_chains_at_once(rig: Rig) -> None:
    with (
        build_chain(rig, "follower") as one,
        build_chain(rig, "leader") as two,
        DynamixelBus(one.path, FOLLOWER_MOTORS) as a,
        DynamixelBus(two.path, LEADER_MOTORS) as b,
    ):
        assert all(
            a.sync_read_state(PATIENT_S).ok and b.sync_read_state(PATIENT_S).ok for _ in range(50)
        )


# -- scripts and the program -------------------------------------------------------------------


def test_script_is_sorted_and_runs(chain: EmulatedChain, tmp_path: Path) -> None:
    path = tmp_path / "faults.yaml"
    path.write_text(
        "- {at_s: 2, arm: follower, do: unplug}\n"
        "- {at_s: 1, arm: follower, do: silence, with: [3]}\n"
    )
    arms = {"follower": chain.faults}
    events = load_script(path, arms)
    assert [e.action for e in events] == ["silence", "unplug"]
    run_event(events[0], arms)
    assert chain.faults.is_silent(3)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("a: 1", "a list"),
        ("[", "readable"),
        ("- {arm: follower, do: drop}", "at_s"),
        ("- {at_s: 1, arm: elbow, do: drop}", "one of follower"),
        ("- {at_s: 1, arm: follower, do: explode}", "unplug"),
        ("- {at_s: soon, arm: follower, do: drop}", "seconds"),
        ("- {at_s: 1, arm: follower, do: drop, with: 3}", "list of arguments"),
    ],
)
def test_bad_scripts(chain: EmulatedChain, tmp_path: Path, text: str, match: str) -> None:
    path = tmp_path / "faults.yaml"
    path.write_text(text)
    with pytest.raises(EmulatorError, match=match):
        load_script(path, {"follower": chain.faults})


def test_bad_arguments_of_faults(chain: EmulatedChain) -> None:
    with pytest.raises(EmulatorError, match=r"0 \.\. 1"):
        chain.faults.drop(1.5)
    with pytest.raises(EmulatorError, match="overheating"):
        chain.faults.trip("gripper", "boredom")


def test_command_line_takes_both_ways_of_naming_the_rig() -> None:
    assert parse(["--rig", "a.yaml"]).rig == "a.yaml"
    assert parse(["--ros-args", "-r", "__ns:=/x", "-p", "rig:=b.yaml"]).rig == "b.yaml"


def test_the_program_serves_both_arms_and_ends_cleanly(tmp_path: Path) -> None:
    script = tmp_path / "faults.yaml"
    script.write_text("- {at_s: 0.0, arm: leader, do: silence, with: [2]}")
    rig = str(REPO / "config" / "rig.emulated.yaml")
    env = {
        **os.environ, "KOCH_RUN_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)
    }  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "-m", "koch_driver.emulator", "--rig", rig, "--faults", str(script)],
        env=env, stderr=subprocess.PIPE, text=True,
    ) as program:  # fmt: skip
        lines = [program.stderr.readline() for _ in range(3)]
        assert "6 servos" in lines[0]
        assert "silence" in lines[2]
        with DynamixelBus(str(tmp_path / "follower"), FOLLOWER_MOTORS) as bus:
            assert bus.sync_read_state(PATIENT_S).ok
        program.send_signal(signal.SIGTERM)
        assert program.wait(5) == 0
    assert not (tmp_path / "follower").is_symlink()


def test_a_bad_rig_ends_with_code_two(tmp_path: Path) -> None:
    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    scheduler = os.sched_getscheduler(0)
    try:
        assert main(["--rig", str(tmp_path / "none.yaml")]) == 2
        assert os.sched_getscheduler(0) == scheduler, "the test's own process changed"
    finally:
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
            signal.signal(number, handler)
