# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The rig file that LeRobot's `--robot.*` and `--teleop.*` describe.

Ports, calibrations and cameras come from the flags. What LeRobot does not know comes from the
rig that this computer has already (KOCH_RIG, else the shipped one): limits of the guard, how the
servos sit on their joints, where cameras hang.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import yaml

from koch_core.files import write_atomically
from koch_rig.calibration import lerobot_calibration_path
from koch_rig.load import load_rig
from koch_rig.model import default_rig
from koch_rig.rig import Role
from koch_rig.yaml_source import read_yaml
from koch_vla.lerobot.flags import FlagValueError, Given

_WINDOWS_PORT = re.compile(r"COM\d+", re.IGNORECASE)
_ROTATIONS = {"NO_ROTATION": 0, "ROTATE_90": 90, "ROTATE_180": 180, "ROTATE_270": -90}
_TYPES = {"robot": ("koch_follower", Role.FOLLOWER), "teleop": ("koch_leader", Role.LEADER)}
_CAMERA_KEYS = {
    "type", "index_or_path", "width", "height", "fps", "color_mode", "rotation", "fourcc",
}  # fmt: skip
_OPENCV_ONLY = ("warmup_s", "backend")  # of OpenCV's own capture, which is not used


def write_rig(given: Given) -> Path:
    """Write the rig file of a command line, and return where it is.

    The same arms give the same file, so that calibration and recording share it.

    Raises:
        FlagValueError: A flag is missing or means nothing.
        RigError: The arms and cameras make no rig.
    """
    base = read_yaml(default_rig()).root
    arms = {}
    for group in ("robot", "teleop"):
        if given.group(f"{group}."):
            arms[_TYPES[group][1].value] = _arm(given, group, base)
    if not arms:
        raise FlagValueError("robot.type", None, "koch_follower, or --teleop.type=koch_leader")
    if Role.FOLLOWER.value not in arms:
        arms[Role.LEADER.value].pop("drives", None)
    content: dict[str, Any] = {
        "rig": "_".join(given.text(f"{group}.id", "none") for group in _TYPES),
        "fps": int(given.number("dataset.fps", given.number("fps", base.get("fps", 30)))),
        "robot_type": base.get("robot_type", "koch_follower"),
        "arms": arms,
        "cameras": _cameras(given, base),
        **({"limits": base["limits"]} if "limits" in base else {}),
    }
    task = given.text("dataset.single_task") or given.text("task")
    if task or "task" in base:
        content["task"] = task or base["task"]
    if Role.FOLLOWER.value in arms:
        content["features"] = _features(content["cameras"])
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "koch_vla/rigs"
    path = folder / f"{content['rig'].replace(os.sep, '_')}_{given.command}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    load_rig(path)
    return path


def _features(cameras: dict[str, Any]) -> dict[str, Any]:
    images = {f"observation.images.{name}": {"stream": f"cameras/{name}"} for name in cameras}
    return {
        "observation.state": {"stream": "follower/joint_states"},
        **images,
        "action": {"stream": "follower/joint_command"},
    }


def _arm(given: Given, group: str, base: dict[str, Any]) -> dict[str, Any]:
    """One arm: as the known rig's of that role, on the port and with the calibration given."""
    kind, role = _TYPES[group]
    if given.needed(f"{group}.type") != kind:
        raise FlagValueError(f"{group}.type", given.text(f"{group}.type"), kind)
    port = given.needed(f"{group}.port")
    if _WINDOWS_PORT.fullmatch(port):
        expected = (
            "a Linux device such as /dev/ttyUSB0: COM ports are Windows', docs/install.md says "
            "how an arm gets into WSL 2; `koch motors list` shows which arm is on which port"
        )
        raise FlagValueError(f"{group}.port", port, expected)
    known = [arm for arm in base.get("arms", {}).values() if arm.get("role") == role.value]
    arm = dict(known[0]) if known else {"role": role.value}
    arm.pop("joint_prefix", None)
    if role is Role.LEADER:
        arm["drives"] = Role.FOLLOWER.value
    arm["port"] = str(Path(port).expanduser().absolute())
    arm["calibration"] = str(_calibration(given, group, role))
    return arm


def _calibration(given: Given, group: str, role: Role) -> Path:
    """The file that LeRobot would use; without an id that is None.json."""
    name = given.text(f"{group}.id") or "None"
    folder = given.text(f"{group}.calibration_dir")
    if folder:
        return Path(folder).expanduser().absolute() / f"{name}.json"
    return lerobot_calibration_path(role, name)


def _cameras(given: Given, base: dict[str, Any]) -> dict[str, Any]:
    cameras = {}
    for name, settings in given.mapping("robot.cameras").items():
        where = f"robot.cameras.{name}"
        if not isinstance(settings, dict):
            raise FlagValueError(where, settings, "{type: opencv, index_or_path: 0, ...}")
        known = base.get("cameras", {}).get(name, {})
        cameras[name] = _camera(where, settings, known)
        given.notes += [
            f"--{where}: {key} has no meaning here: images come from the device itself, not "
            "through OpenCV."
            for key in _OPENCV_ONLY
            if key in settings
        ]
    return cameras


def _camera(where: str, settings: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """One camera of LeRobot's dictionary as a rig writes it (no mount if the rig knows none)."""
    if settings.get("type") != "opencv":
        expected = "opencv; `koch cameras list` shows what else a rig can name"
        raise FlagValueError(f"{where}.type", settings.get("type"), expected)
    for key in settings:
        if key not in (*_CAMERA_KEYS, *_OPENCV_ONLY):
            raise FlagValueError(where, key, f"one of {', '.join(sorted(_CAMERA_KEYS))}")
    for key in ("index_or_path", "width", "height", "fps"):
        if settings.get(key) is None:
            raise FlagValueError(f"{where}.{key}", None, "a value: LeRobot asks for it as well")
    rotation = settings.get("rotation", 0)
    source = settings["index_or_path"]
    if isinstance(source, str) and Path(source).expanduser().exists():
        source = str(Path(source).expanduser().absolute())
    camera = {
        "source": source,
        "width": settings["width"],
        "height": settings["height"],
        "fps": settings["fps"],
        "rotation": _ROTATIONS.get(str(rotation), rotation),
        "color_mode": str(settings.get("color_mode", "rgb")).lower(),
        **({"mount": known["mount"]} if "mount" in known else {}),
    }
    if settings.get("fourcc"):
        camera["fourcc"] = settings["fourcc"]
    return camera
