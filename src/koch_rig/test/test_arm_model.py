# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""An arm model is data that checks itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from koch_rig.arm_model import KOCH_V1_1, Motor, Role, register_arm_model
from koch_rig.joints import model_of, plain_joints
from koch_rig.load import load_rig

CONFIG = Path(__file__).resolve().parents[3] / "config"


def test_a_koch_is_lerobots() -> None:
    assert [motor.id for motor in KOCH_V1_1.motors[Role.FOLLOWER]] == [1, 2, 3, 4, 5, 6]
    assert KOCH_V1_1.joints[-1] == KOCH_V1_1.gripper == "gripper"
    mirrored = [motor.joint for motor in KOCH_V1_1.motors[Role.LEADER] if motor.drive_mode]
    assert mirrored == ["elbow_flex"]
    assert load_rig(CONFIG / "rig.yaml").follower.model is KOCH_V1_1


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"home_rad": (0.0,)}, "need 6 angles"),
        ({"full_turn": ("wrist_yaw",)}, "no such joints: wrist_yaw"),
        ({"urdf": {Role.LEADER: Path("arm.xacro")}}, "the same roles"),
        ({"motors": {**KOCH_V1_1.motors, Role.LEADER: ()}}, "the leader has other joints"),
        (
            {
                "motors": {
                    role: (*motors[:-1], Motor(1, "gripper", "xl330-m288"))
                    for role, motors in KOCH_V1_1.motors.items()
                }
            },
            "an id twice",
        ),
    ],
)
def test_parts_that_contradict_each_other_are_refused(changes, what) -> None:
    with pytest.raises(ValueError, match=what):
        replace(KOCH_V1_1, **changes)


def test_a_name_that_is_taken_is_refused() -> None:
    assert register_arm_model(KOCH_V1_1) is KOCH_V1_1
    with pytest.raises(ValueError, match="arm model 'koch_v1_1' is registered already"):
        register_arm_model(replace(KOCH_V1_1, title="another"))


def test_the_model_of_a_message_is_known_by_its_joints() -> None:
    assert model_of([f"left_{joint}" for joint in reversed(KOCH_V1_1.joints)]) is KOCH_V1_1
    assert model_of(KOCH_V1_1.arm_joints) is None
    assert model_of(["a", "b"]) is None


def test_joints_of_another_arm_lose_no_prefix() -> None:
    assert plain_joints(["left_knee", "left_hip"], joints=("hip", "knee")) == ("knee", "hip")
    assert plain_joints(["left_knee"], joints=KOCH_V1_1.joints) == ("left_knee",)
