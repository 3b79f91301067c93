# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""LeRobot calibration files: exact bytes, and errors that name the fault."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from koch_rig.arm_model import KOCH_V1_1
from koch_rig.calibration import (
    Calibration,
    MotorCalibration,
    calibration_text,
    lerobot_calibration_path,
    load_calibration,
    save_calibration,
)
from koch_rig.errors import CalibrationError
from koch_rig.rig import Role

CONFIG = Path(__file__).resolve().parents[3] / "config" / "calibration"

# What LeRobot 0.4.4 writes (draccus JSON, indent 4, no newline at the end), cut to one motor.
LEROBOT_TEXT = """{
    "shoulder_pan": {
        "id": 1,
        "drive_mode": 0,
        "homing_offset": -1143,
        "range_min": 0,
        "range_max": 4095
    }
}"""


def entries() -> dict[str, dict[str, int]]:
    """A whole calibration as JSON values."""
    return {
        name: {
            "id": i + 1,
            "drive_mode": 0,
            "homing_offset": -i,
            "range_min": 0,
            "range_max": 4095,
        }
        for i, name in enumerate(KOCH_V1_1.joints)
    }


def write(path: Path, data: object) -> Path:
    """Write JSON."""
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def test_text_is_lerobots_byte_for_byte() -> None:
    motor = MotorCalibration(1, 0, -1143, 0, 4095)
    assert calibration_text({"shoulder_pan": motor}) == LEROBOT_TEXT


@pytest.mark.parametrize("name", ["sim_follower.json", "sim_leader.json"])
def test_load_and_save_keep_every_byte(name: str, tmp_path: Path) -> None:
    save_calibration(load_calibration(CONFIG / name), tmp_path / "new" / name)
    assert (tmp_path / "new" / name).read_bytes() == (CONFIG / name).read_bytes()
    assert [path.name for path in (tmp_path / "new").iterdir()] == [name]


def test_order_of_the_file_is_kept(tmp_path: Path) -> None:
    reverse = dict(reversed(entries().items()))
    calibration = load_calibration(write(tmp_path / "c.json", reverse))
    assert list(calibration) == list(reversed(KOCH_V1_1.joints))
    assert calibration["gripper"] == MotorCalibration(6, 0, -5, 0, 4095)


def test_calibrations_compare_by_content(tmp_path: Path) -> None:
    first = load_calibration(write(tmp_path / "a.json", entries()))
    second = load_calibration(write(tmp_path / "b.json", entries()))
    assert first == second
    changed = {**second, "gripper": MotorCalibration(6, 0, 0, 1, 2)}
    assert first != Calibration(changed)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"got no JSON \(.*line 1.*\), expected a LeRobot calibration file.*koch calibrate"),
        ("[]", "got list, expected an object"),
        ("{}", "got the motors none, expected exactly shoulder_pan"),
    ],
)
def test_broken_files_are_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CalibrationError, match=message):
        load_calibration(path)


def test_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"no such file.*koch calibrate"):
        load_calibration(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("joint", "key", "value", "message"),
    [
        (
            "gripper",
            "range_max",
            0,
            "gripper: got range_min 0, range_max 0, expected range_min below",
        ),
        ("gripper", "range_max", -1, "expected range_min below range_max"),
        (
            "elbow_flex",
            "homing_offset",
            1.5,
            r"elbow_flex.homing_offset: got 1.5, expected a whole",
        ),
        ("elbow_flex", "drive_mode", True, "elbow_flex.drive_mode: got True"),
        ("wrist_flex", "id", 1, "6 different ids"),
        ("wrist_flex", "extra", 1, "wrist_flex: got .*extra, expected id, drive_mode"),
    ],
)
def test_wrong_values_are_named(
    joint: str, key: str, value: object, message: str, tmp_path: Path
) -> None:
    data: dict[str, dict[str, object]] = {name: dict(entry) for name, entry in entries().items()}
    data[joint][key] = value
    with pytest.raises(CalibrationError, match=message):
        load_calibration(write(tmp_path / "c.json", data))


def test_calibration_of_another_arm_is_refused(tmp_path: Path) -> None:
    data = entries()
    data["wrist_yaw"] = data.pop("wrist_roll")
    with pytest.raises(CalibrationError, match=r"wrist_yaw.*expected exactly.*wrist_roll"):
        load_calibration(write(tmp_path / "c.json", data))


def test_lerobot_path_follows_its_environment_variables() -> None:
    def path(role: Role, **env: str) -> str:
        return str(lerobot_calibration_path(role, "my_arm", env))

    default = "/home/u/.cache/huggingface/lerobot/calibration/robots/koch_follower/my_arm.json"
    assert path(Role.FOLLOWER, HOME="/home/u") == default
    assert path(Role.LEADER, HF_LEROBOT_HOME="/l").startswith("/l/calibration/teleoperators/")
    assert path(Role.LEADER, HF_LEROBOT_CALIBRATION="/c") == (
        "/c/teleoperators/koch_leader/my_arm.json"
    )
    assert path(Role.FOLLOWER, HF_HOME="/h").startswith("/h/lerobot/calibration/robots/")
