# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Connecting an arm: turns, drift, configuration."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from koch_driver.arm.connect import (
    check_drift,
    configure,
    connect_arm,
    repair_registers,
    torque_off_quietly,
    turn_offsets,
)
from koch_driver.bus.dynamixel import DynamixelBus
from koch_driver.bus.motors import LEADER_MOTORS
from koch_driver.bus.sdk import SdkBus
from koch_driver.emulator import build_chain
from koch_driver.errors import CalibrationDrift
from koch_rig.arm_model import KOCH_V1_1
from koch_rig.calibration import Calibration, load_calibration, save_calibration
from koch_rig.errors import RigError
from koch_rig.load import load_rig
from koch_rig.units import JointUnits

if TYPE_CHECKING:
    from koch_driver.emulator import EmulatedChain
    from koch_rig.rig import Arm, Rig

J = len(KOCH_V1_1.joints)
REPO = Path(__file__).resolve().parents[3]
PATIENT_S = 0.3  # where an answer must come, however busy the machine is


@pytest.mark.parametrize(
    ("position", "center", "offset"),
    [
        (2047, 2047, 0), (2047 + 2047, 2047, 0), (0, 2047, 0),
        (2047 + 2049, 2047, -4096), (-2, 2047, 4096), (5000, 1800, -4096), (-9000, 2047, 12288),
    ],
)  # fmt: skip
def test_turn_offsets(position: int, center: int, offset: int) -> None:
    got = turn_offsets(np.array([position]), np.array([center]))
    assert got.tolist() == [offset]
    assert abs(position + offset - center) <= 2048


def with_joint(calibration: Calibration, joint: str, **changes: int) -> Calibration:
    """The calibration with one joint changed."""
    motors = {**calibration, joint: dataclasses.replace(calibration[joint], **changes)}
    return Calibration(motors, calibration.path)


def test_the_rig_chooses_the_bus(chain: EmulatedChain, rig: Rig, calibration: Calibration) -> None:
    arm = dataclasses.replace(rig.arms["follower"], bus="sdk")
    with connect_arm(arm, calibration, rig=rig) as bus:
        assert type(bus) is SdkBus
        assert bus.sync_read_state(PATIENT_S).ok


def test_a_rig_names_a_bus_that_is_registered(tmp_path: Path) -> None:
    text = (REPO / "config" / "rig.emulated.yaml").read_text()
    path = tmp_path / "rig.yaml"
    for name in ("sdk", "sdkk"):
        path.write_text(text.replace("role: follower", f"role: follower\n    bus: {name}", 1))
        if name == "sdk":
            assert load_rig(path).arms["follower"].bus == "sdk"
    with pytest.raises(RigError, match=r"bus: got 'sdkk', .*Did you mean 'sdk'"):
        load_rig(path)


def test_wrapped_joint_is_read_right_after_power_up(rig: Rig, tmp_path: Path) -> None:
    """Middle pose near raw 0: the servo comes back one turn off; the driver sees through it."""
    arm = rig.arms["follower"]
    path = tmp_path / "wrapped.json"
    wrapped = with_joint(load_calibration(arm.calibration_path), "elbow_flex", homing_offset=2047)
    save_calibration(wrapped, path)
    arm = dataclasses.replace(arm, calibration_path=path)
    rig = dataclasses.replace(rig, arms={**rig.arms, "follower": arm})
    wanted = np.array([0.1, -0.2, -0.3, 0.2, 0.1, -0.4])  # elbow below the middle: raw < 0
    with build_chain(rig, "follower", initial_rad=wanted) as chain:
        assert chain.read("elbow_flex", "Present_Position") > 4000  # negative control
        with connect_arm(arm, wrapped) as bus:
            state = bus.sync_read_state(PATIENT_S)
            angles = JointUnits(arm, wrapped).ticks_to_rad(state.position_ticks)
            np.testing.assert_allclose(angles, wanted, atol=2e-3)
            bus.write_all("Torque_Enable", 1)
            bus.sync_write_goal(state.position_ticks)
            chain.refresh()
            np.testing.assert_allclose(
                bus.sync_read_state(PATIENT_S).position_ticks, state.position_ticks, atol=2
            )


def test_healthy_arm_connects(chain: EmulatedChain, follower: Arm, calibration: Calibration):
    with connect_arm(follower, calibration) as bus:
        assert check_drift(bus, calibration).clean


@pytest.mark.parametrize(
    ("register", "joint", "value"),
    [
        ("Homing_Offset", "shoulder_lift", 1000),
        ("Drive_Mode", "elbow_flex", 1),
        ("Min_Position_Limit", "wrist_flex", 1),
        ("Max_Position_Limit", "gripper", 4000),
    ],
)
def test_drift_stops_the_connection_and_is_mended(
    chain: EmulatedChain,
    follower: Arm,
    calibration: Calibration,
    register: str,
    joint: str,
    value: int,
) -> None:
    chain.servo(joint).set(register, value)
    with pytest.raises(CalibrationDrift, match=f"{joint} .*{register} {value}") as caught:
        connect_arm(follower, calibration)
    assert "koch calibrate follower" in str(caught.value)
    with connect_arm(follower, calibration, allow_drift=True) as bus:
        repair_registers(bus, calibration)
        assert check_drift(bus, calibration).clean


def test_calibration_of_another_arm(chain: EmulatedChain, rig: Rig, follower: Arm) -> None:
    other = load_calibration(rig.arms["leader"].calibration_path)
    with pytest.raises(CalibrationDrift) as caught:
        connect_arm(follower, other)
    assert len(caught.value.differences) >= 6


def test_implausible_pose(chain: EmulatedChain, follower: Arm, calibration: Calibration) -> None:
    # registers agree, but the joint stands where it never can: the horn slipped on its shaft
    chain.physics._position[5] += 2.0
    with pytest.raises(CalibrationDrift, match=r"gripper .*outside its calibrated range"):
        connect_arm(follower, calibration)


def test_configure_follower_is_lerobots(bus: DynamixelBus, calibration: Calibration) -> None:
    bus.write_all("Operating_Mode", 3)
    bus.write_all("Return_Delay_Time", 250)
    bus.write_all("Torque_Enable", 1)
    configure(bus, calibration)
    assert bus.read_all("Operating_Mode").tolist() == [4, 4, 4, 4, 4, 5]
    assert bus.read_all("Return_Delay_Time").tolist() == [0] * J
    assert bus.read_all("Torque_Enable").tolist() == [0] * J
    gains = [bus.read(f"Position_{g}_Gain", "elbow_flex") for g in "PID"]
    assert gains == [1500, 0, 600]
    assert bus.read("Position_P_Gain", "wrist_flex") == 400


def test_configuring_again_writes_no_eeprom(
    bus: DynamixelBus, calibration: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(bus, calibration)
    written: list[str] = []
    real = DynamixelBus.write

    def spy(self: DynamixelBus, register: str, motor: str | int, value: int) -> None:
        written.append(register)
        real(self, register, motor, value)

    monkeypatch.setattr(DynamixelBus, "write", spy)
    configure(bus, calibration)
    assert set(written) == {"Torque_Enable"}


def test_configure(leader_chain: EmulatedChain, rig: Rig) -> None:
    arm = rig.arms["leader"]
    calibration = load_calibration(arm.calibration_path)
    with connect_arm(arm, calibration) as bus:
        configure(bus, calibration)
        assert bus.read_all("Operating_Mode").tolist() == [4, 4, 4, 4, 4, 5]
        assert [m.model.name for m in bus.motors] == ["xl330-m077"] * len(LEADER_MOTORS)


def test_torque_off_quietly_reports_a_dead_motor(bus: DynamixelBus, chain: EmulatedChain) -> None:
    bus.write_all("Torque_Enable", 1)
    assert torque_off_quietly(bus)
    assert bus.read_all("Torque_Enable").tolist() == [0] * J
    chain.faults.silence(5)
    assert not torque_off_quietly(bus, attempts=1)
