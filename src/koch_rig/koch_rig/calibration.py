# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""LeRobot's calibration JSON, read and written byte for byte as LeRobot does.

Source: LeRobot 0.4.4, `robots/robot.py` (`_save_calibration`: draccus JSON, indent 4) and
`utils/constants.py` (directories).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from koch_core.files import write_atomically
from koch_rig.arm_model import KOCH_V1_1
from koch_rig.errors import CalibrationError
from koch_rig.rig import Role

TICKS_PER_TURN = 4096
MIDDLE_TICKS = 2047
"""What Present_Position reads in the middle pose once LeRobot's homing offset is written."""


@dataclass(frozen=True)
class MotorCalibration:
    """One motor of a calibration file; names and order of the fields are LeRobot's.

    Attributes:
        id: Dynamixel id.
        drive_mode: Drive_Mode register; bit 0 reverses the servo.
        homing_offset: Homing_Offset register [ticks]; present = actual + offset.
        range_min: Lowest Present_Position of the range of motion [ticks].
        range_max: Highest Present_Position of the range of motion [ticks].
    """

    id: int
    drive_mode: int
    homing_offset: int
    range_min: int
    range_max: int


@dataclass(frozen=True, eq=False)  # Mapping's comparison: by content, whatever the path
class Calibration(Mapping[str, MotorCalibration]):
    """A calibration of an arm's joints, by joint name.

    Attributes:
        motors: The joints' motors.
        path: Where it comes from, for messages.
        joints: The joints that the arm's model has.

    Raises:
        CalibrationError: A joint is missing or unknown, an id is used twice, or a range is empty.
    """

    motors: Mapping[str, MotorCalibration]
    path: Path = Path("<calibration>")
    joints: tuple[str, ...] = KOCH_V1_1.joints

    def __post_init__(self) -> None:
        object.__setattr__(self, "motors", dict(self.motors))
        missing = [name for name in self.joints if name not in self.motors]
        unknown = [name for name in self.motors if name not in self.joints]
        if missing or unknown:
            raise CalibrationError(
                self.path,
                got=f"the motors {', '.join(self.motors) or 'none'}",
                expected=f"exactly {', '.join(self.joints)}",
                hint="Is this the calibration of such an arm? `koch calibrate ARM` makes one.",
            )
        ids = [motor.id for motor in self.motors.values()]
        if len(set(ids)) != len(ids):
            raise CalibrationError(
                self.path, key="id", got=str(ids), expected=f"{len(ids)} different ids"
            )
        for name, motor in self.motors.items():
            if motor.range_min >= motor.range_max:
                raise CalibrationError(
                    self.path,
                    key=name,
                    got=f"range_min {motor.range_min}, range_max {motor.range_max}",
                    expected="range_min below range_max",
                    hint="The joint was not moved while its range was recorded: calibrate again.",
                )

    def __getitem__(self, joint: str) -> MotorCalibration:
        return self.motors[joint]

    def __iter__(self) -> Iterator[str]:
        return iter(self.motors)

    def __len__(self) -> int:
        return len(self.motors)


def load_calibration(path: Path | str, joints: Sequence[str] = KOCH_V1_1.joints) -> Calibration:
    """Read a LeRobot calibration file.

    Args:
        path: The file.
        joints: The joints of the arm's model.

    Raises:
        CalibrationError: The file is missing, not JSON, or not a calibration of these joints.
    """
    path = Path(path)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        raise CalibrationError(
            path,
            got="no such file",
            expected="a LeRobot calibration file",
            hint="Run `koch calibrate ARM`, or copy the file that LeRobot wrote.",
        ) from exc
    except OSError as exc:
        raise CalibrationError(
            path, got=exc.strerror or str(exc), expected="a readable file"
        ) from exc
    except ValueError as exc:  # no UTF-8, or no JSON
        raise CalibrationError(
            path,
            got=f"no JSON ({exc})",
            expected="a LeRobot calibration file",
            hint="`koch calibrate ARM --new` makes one.",
        ) from exc
    if not isinstance(data, dict):
        raise CalibrationError(path, got=type(data).__name__, expected="an object, motor by motor")
    motors = {name: _motor(path, name, entry) for name, entry in data.items()}
    return Calibration(motors, path, tuple(joints))


def _motor(path: Path, name: str, entry: object) -> MotorCalibration:
    """Check one motor's entry."""
    keys = [field.name for field in fields(MotorCalibration)]
    if not isinstance(entry, dict) or set(entry) != set(keys):
        got = ", ".join(map(str, entry)) if isinstance(entry, dict) else repr(entry)
        raise CalibrationError(path, key=name, got=got or "nothing", expected=", ".join(keys))
    for key in keys:
        value = entry[key]
        if isinstance(value, bool) or not isinstance(value, int):
            raise CalibrationError(
                path, key=f"{name}.{key}", got=repr(value), expected="a whole number"
            )
    return MotorCalibration(**entry)


def calibration_text(calibration: Mapping[str, MotorCalibration]) -> str:
    """The file's text exactly as LeRobot writes it: indent 4, no newline at the end."""
    return json.dumps({name: asdict(motor) for name, motor in calibration.items()}, indent=4)


def save_calibration(calibration: Mapping[str, MotorCalibration], path: Path | str) -> None:
    """Write a calibration file, whole or not at all."""
    write_atomically(Path(path), calibration_text(calibration))


def lerobot_calibration_path(
    role: Role, arm_id: str, environment: Mapping[str, str] | None = None
) -> Path:
    """Where LeRobot keeps the calibration of an arm with this id.

    Args:
        role: Followers are robots of type koch_follower, leaders teleoperators of koch_leader.
        arm_id: LeRobot's `--robot.id` or `--teleop.id`.
        environment: Environment variables; the process's where None. HF_LEROBOT_CALIBRATION,
            else HF_LEROBOT_HOME/calibration, else HF_HOME/lerobot/calibration decide.
    """
    env = os.environ if environment is None else environment
    hf_home = env.get("HF_HOME") or str(Path(env.get("HOME", "~")) / ".cache" / "huggingface")
    home = env.get("HF_LEROBOT_HOME") or str(Path(hf_home) / "lerobot")
    root = Path(env.get("HF_LEROBOT_CALIBRATION") or str(Path(home) / "calibration"))
    folder = {
        Role.FOLLOWER: Path("robots") / "koch_follower",
        Role.LEADER: Path("teleoperators") / "koch_leader",
    }[role]
    return root.expanduser() / folder / f"{arm_id}.json"
