# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Loads a rig file: strict, complete, and with errors that say what to change."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from koch_rig.arm_model import ARM_MODELS, DEFAULT_BUS, KOCH_V1_1, MOTOR_BUSES, ArmModel
from koch_rig.errors import RigError
from koch_rig.load_streams import read_features, read_streams
from koch_rig.model import frame_names, urdf_limits
from koch_rig.rig import (
    Arm,
    Camera,
    ColorMode,
    JointOffset,
    Limits,
    Mount,
    PhysicsKind,
    Rig,
    Role,
    SimulationSettings,
    WorkspaceBox,
)
from koch_rig.section import IN_METRES, Section, closest, vector3
from koch_rig.yaml_source import read_yaml

T = TypeVar("T")

WORLD = "world"
DEFAULT_TASK = "Pick up the rectangular block and put it into the cup."
_MAX_SPEED = 12.0  # rad/s; the fastest follower servo turns 10.8 rad/s without load
_MAX_ACCELERATION = 200.0  # rad/s^2
_ROTATIONS = {0: 0, 90: 90, 180: 180, 270: -90, -90: -90}


def load_rig(path: Path | str, environment: Mapping[str, str] | None = None) -> Rig:
    """Load and check a rig file.

    Args:
        path: YAML file. Relative paths inside it start at its folder.
        environment: Variables for `${VAR}`; the process's where None.

    Raises:
        RigError: With file, line, key, what was got and what is expected.
    """
    source = read_yaml(Path(path).absolute(), environment)
    root = Section(source, "", source.root if source.root is not None else {})
    folder = source.path.parent
    name = root.text("rig")
    fps = root.whole("fps", low=1, high=240, unit="Hz")
    simulation = _simulation(root, folder)
    arms = {
        arm: _arm(section, arm, folder)
        for arm, section in root.sections("arms", what="an arm").items()
    }
    if not arms:
        raise root.error("arms", {}, "at least one arm")
    _check_simulation(root, simulation, arms)
    _check_ports(root, arms, simulated=simulation is not None)
    _check_drives(root, arms)
    cameras = {
        camera: _camera(section, camera, folder, arms)
        for camera, section in root.sections("cameras", what="a camera", optional=True).items()
    }
    limits = _read_limits(root.section("limits", optional=True), arms)
    features = read_features(root, arms, cameras)
    streams = read_streams(root, arms, cameras, features, simulated=simulation is not None)
    task = root.text("task", default=DEFAULT_TASK)
    robot_type = root.text("robot_type", default="koch_follower")
    root.refuse_unknown()
    return Rig(
        name=name,
        fps=fps,
        task=task,
        robot_type=robot_type,
        arms=_frozen(arms),
        cameras=_frozen(cameras),
        limits=limits,
        streams=_frozen(streams),
        features=_frozen(features),
        simulation=simulation,
        path=source.path,
        text=source.text,
    )


def _frozen(mapping: Mapping[str, T]) -> Mapping[str, T]:
    """A copy that cannot be changed."""
    return MappingProxyType(dict(mapping))


def _simulation(root: Section, folder: Path) -> SimulationSettings | None:
    """The simulation section, where it is in the file."""
    section = root.section("simulation", optional=True)
    if not root.has("simulation"):
        return None
    simulation = SimulationSettings(
        physics=section.choice("physics", PhysicsKind),
        seed=section.whole("seed", low=0, high=2**31 - 1, unit="count", default=0),
        spread_fraction=section.number(
            "spread_fraction", low=0.0, high=1.0, unit="fraction", default=1.0
        ),
        arm_model_path=section.file("arm_model", folder) if section.has("arm_model") else None,
    )
    section.refuse_unknown()
    if simulation.arm_model_path and simulation.physics is not PhysicsKind.MUJOCO:
        raise root.error(
            "simulation.arm_model",
            simulation.arm_model_path,
            "no arm model beside physics: first_order, which has none",
        )
    return simulation


def _check_simulation(
    root: Section, simulation: SimulationSettings | None, arms: Mapping[str, Arm]
) -> None:
    """The simulated table has arms of the models that it knows."""
    if simulation is None or simulation.physics is not PhysicsKind.MUJOCO:
        return
    for arm in arms.values():
        if not arm.model.has_simulation:
            raise root.error(
                f"arms.{arm.name}.model",
                arm.model.name,
                f"a model that the simulated table knows, such as {KOCH_V1_1.name}",
                "`simulation: {physics: first_order}` emulates the servos of any model.",
            )


def _arm(section: Section, name: str, folder: Path) -> Arm:
    """One arm."""
    role = section.choice("role", Role)
    model = _model(section, role)
    arm = Arm(
        name=name,
        role=role,
        port=section.text("port"),
        calibration_path=section.file("calibration", folder),
        base=_mount(section, "base", optional=True),
        rate_hz=section.number("rate_hz", unit="Hz", low=1, high=400, default=100.0),
        joints=_joint_mounts(section.section("joints", optional=True), model),
        drives=section.text("drives", default=None),
        joint_prefix=_joint_prefix(section),
        model=model,
        bus=_bus(section),
        delay_s=section.number("delay_ms", unit="ms", low=0, high=500, default=0.0) / 1000,
    )
    section.refuse_unknown()
    return arm


def _model(section: Section, role: Role) -> ArmModel:
    """The arm model, which another package may have brought."""
    name = section.text("model", default=KOCH_V1_1.name)
    model = ARM_MODELS.find(name)
    if model is None:
        raise _unknown(section, "model", name, ARM_MODELS.names())
    if role not in model.motors:
        has = " or ".join(each.value for each in model.motors)
        raise section.error(section.path_of("role"), role.value, f"{has}, as {name} is built")
    return model


def _bus(section: Section) -> str:
    """The name of a motor bus, checked where a driver is installed that could use it."""
    name = section.text("bus", default=DEFAULT_BUS)
    if name != DEFAULT_BUS:
        known = MOTOR_BUSES.names()
        if known and name not in known:
            raise _unknown(section, "bus", name, known)
    return name


def _unknown(section: Section, key: str, name: str, known: list[str]) -> RigError:
    """The error for a kind that no installed package registers."""
    near = closest(name, known)
    hint = f"Did you mean {near!r}?" if near else "Is the package installed that brings it?"
    return section.error(section.path_of(key), name, f"one of {', '.join(known)}", hint)


def _joint_prefix(section: Section) -> str:
    """What is before the joints' names; text that URDF, SRDF and YAML take as it is."""
    prefix = section.text("joint_prefix", default="")
    if not re.fullmatch(r"([A-Za-z]\w*/?)?", prefix, re.ASCII):
        expected = "letters, digits and underscores, beginning with a letter, such as 'follower_'"
        raise section.error(section.path_of("joint_prefix"), prefix, expected)
    return prefix


def _joint_mounts(section: Section, model: ArmModel) -> Mapping[str, JointOffset]:
    """Sign and offset of all joints."""
    mounts = {}
    for joint in model.joints:
        entry = section.section(joint, optional=True)
        sign = entry.whole("sign", low=-1, high=1, unit="+1 or -1", default=1)
        if sign == 0:
            raise entry.error(entry.path_of("sign"), 0, "1 or -1")
        offset = entry.number(
            "offset_rad",
            unit="rad",
            low=-2 * math.pi,
            high=2 * math.pi,
            default=0.0,
            hint="That looks like degrees: write radians.",
        )
        mounts[joint] = JointOffset(sign=sign, offset_rad=offset)
        entry.refuse_unknown()
    section.refuse_unknown()
    return _frozen(mounts)


def _mount(section: Section, name: str, *, optional: bool = False) -> Mount:
    """A pose in a parent frame."""
    entry = section.section(name, optional=optional)
    xyz = entry.vector("xyz", unit="m", limit=10.0, hint=IN_METRES, default=(0.0, 0.0, 0.0))
    rpy_deg = entry.vector(
        "rpy_deg", unit="deg", limit=360.0, hint="Write degrees.", default=(0.0, 0.0, 0.0)
    )
    mount = Mount(
        parent=entry.text("parent", default=WORLD),
        xyz=vector3(xyz),
        rpy_rad=vector3(tuple(math.radians(angle) for angle in rpy_deg)),
    )
    entry.refuse_unknown()
    return mount


def _check_ports(root: Section, arms: Mapping[str, Arm], *, simulated: bool) -> None:
    """One port for one arm, also where two names lead to one device.

    Links of a simulated rig are made when it starts; old ones may lead anywhere until then.
    """
    owners: dict[str, str] = {}
    for arm in arms.values():
        device = arm.port if simulated else os.path.realpath(arm.port)
        if device == os.devnull:
            continue  # a rig without arms, such as that of a recording
        if device in owners:
            same = "" if device == arm.port else f" (both lead to {device})"
            raise root.error(
                f"arms.{arm.name}.port",
                arm.port,
                f"a port of its own; arm '{owners[device]}' has this one{same}",
                "`koch motors list` shows which arm answers on which port.",
            )
        owners[device] = arm.name


def _check_drives(root: Section, arms: Mapping[str, Arm]) -> None:
    """Leaders drive followers, one leader per follower; bases stand in the world."""
    driven: dict[str, str] = {}
    followers = [arm.name for arm in arms.values() if arm.role is Role.FOLLOWER]
    for arm in arms.values():
        key = f"arms.{arm.name}.drives"
        if arm.base.parent != WORLD:
            raise root.error(f"arms.{arm.name}.base.parent", arm.base.parent, f"{WORLD!r}")
        if arm.drives is None:
            continue
        expected = f"the name of a follower ({', '.join(followers) or 'there is none'})"
        if arm.role is not Role.LEADER:
            raise root.error(key, arm.drives, "no such key", "Only a leader drives an arm.")
        if arm.drives not in followers:
            near = closest(arm.drives, followers)
            hint = f"Did you mean {near!r}?" if near else ""
            raise root.error(key, arm.drives, expected, hint)
        joints, theirs = arm.model.joints, arms[arm.drives].model.joints
        if joints != theirs:
            expected = f"a follower with the leader's joints: {', '.join(joints)}"
            raise root.error(key, f"{arm.drives}, which has {', '.join(theirs)}", expected)
        if arm.drives in driven:
            other = driven[arm.drives]
            raise root.error(key, arm.drives, f"one leader per follower; {other} drives it too")
        driven[arm.drives] = arm.name


def _camera(section: Section, name: str, folder: Path, arms: Mapping[str, Arm]) -> Camera:
    """One camera."""
    has_intrinsics = "intrinsics" in section.names()
    fourcc = section.text("fourcc", default=None)
    if fourcc is not None and len(fourcc) != 4:
        raise section.error(section.path_of("fourcc"), fourcc, "four characters, such as MJPG")
    rotation = section.any_of("rotation", default=0)
    if isinstance(rotation, bool) or rotation not in _ROTATIONS:
        raise section.error(section.path_of("rotation"), rotation, "0, 90, 180 or -90 [deg]")
    camera = Camera(
        name=name,
        source=_camera_source(section),
        width=section.whole("width", low=16, high=7680, unit="px"),
        height=section.whole("height", low=16, high=4320, unit="px"),
        fps=section.number("fps", unit="Hz", low=1, high=240),
        rotation=_ROTATIONS[rotation],
        fourcc=fourcc,
        color_mode=section.choice("color_mode", ColorMode, default=ColorMode.RGB),
        mount=_mount(section, "mount") if "mount" in section.names() else None,
        intrinsics_path=section.file("intrinsics", folder) if has_intrinsics else None,
        fovy_deg=section.number("fovy_deg", unit="deg", low=1, high=170, default=None),
    )
    section.refuse_unknown()
    if camera.mount is not None:
        _check_parent(section, camera.mount.parent, arms)
    return camera


def _camera_source(section: Section) -> str | int:
    """A device, URL, file or index."""
    source = section.any_of("source")
    if isinstance(source, str) and source.isdigit():
        source = int(source)
    if isinstance(source, bool) or not isinstance(source, (str, int)) or source == "":
        raise section.error(
            section.path_of("source"), source, "a device path, a URL, a file or an index"
        )
    return source


def _check_parent(section: Section, parent: str, arms: Mapping[str, Arm]) -> None:
    """A camera hangs on the world or on a link of an arm."""
    frames = [WORLD]
    for arm in arms.values():
        frames += [f"{arm.name}/{frame}" for frame in frame_names(arm.role, arm.model)]
    if parent not in frames:
        near = closest(parent, frames)
        hint = f"Did you mean {near!r}?" if near else ""
        expected = f"one of {', '.join(frames)}"
        raise section.error(f"{section.key}.mount.parent", parent, expected, hint)


# -- limits: what the guard obeys --------------------------------------------------


def _read_limits(section: Section, arms: Mapping[str, Arm]) -> Limits:
    """What the guard lets through."""
    limits = Limits(
        max_speed=section.number(
            "max_speed",
            unit="rad/s",
            low=0.01,
            high=_MAX_SPEED,
            default=3.0,
            hint="That looks like degrees per second: multiply by pi/180 = 0.01745.",
        ),
        max_acceleration=section.number(
            "max_acceleration",
            unit="rad/s^2",
            low=0.1,
            high=_MAX_ACCELERATION,
            default=20.0,
            hint="That looks like degrees per second squared: multiply by 0.01745.",
        ),
        table_z=section.number("table_z", unit="m", low=-2, high=2, default=None, hint=IN_METRES),
        workspace=_workspace(section),
        joints=_joint_limits(section.section("joints", optional=True), _urdf_ranges(arms)),
        command_timeout_s=section.number(
            "command_timeout_s",
            unit="s",
            low=0.02,
            high=5,
            default=0.3,
            hint="That looks like milliseconds: write seconds.",
        ),
        max_command_age_s=section.number(
            "max_command_age_ms",
            unit="ms",
            low=1,
            high=5000,
            default=200.0,
            hint="Below 1 it looks like seconds: write milliseconds.",
        )
        / 1000.0,
    )
    section.refuse_unknown()
    return limits


def _workspace(section: Section) -> WorkspaceBox | None:
    """The box for the TCP, where it is in the file."""
    entry = section.section("workspace", optional=True)
    if not section.has("workspace"):
        return None
    low = entry.vector("min", unit="m", limit=5.0, hint=IN_METRES)
    high = entry.vector("max", unit="m", limit=5.0, hint=IN_METRES)
    entry.refuse_unknown()
    if any(a >= b for a, b in zip(low, high, strict=True)):
        expected = f"each above its min {list(low)} [m]"
        raise entry.error(entry.path_of("max"), list(high), expected)
    return WorkspaceBox(min=vector3(low), max=vector3(high))


def _urdf_ranges(arms: Mapping[str, Arm]) -> Mapping[str, tuple[float, float]]:
    """Ranges of the followers' joints; where two models share a name, what both can reach.

    A rig of leaders alone takes its arms' models as followers: no one moves, whatever they are.
    """
    followers = [arm for arm in arms.values() if arm.role is Role.FOLLOWER] or arms.values()
    ranges: dict[str, tuple[float, float]] = {}
    for model in dict.fromkeys(arm.model for arm in followers):
        role = Role.FOLLOWER if Role.FOLLOWER in model.motors else Role.LEADER
        for joint, limit in urdf_limits(role, model).items():
            low, high = ranges.get(joint, (-math.inf, math.inf))
            ranges[joint] = (max(low, limit.lower), min(high, limit.upper))
    return ranges


def _joint_limits(
    section: Section, ranges: Mapping[str, tuple[float, float]]
) -> Mapping[str, tuple[float, float]]:
    """The URDF's limits, narrowed where the file says so."""
    result: dict[str, tuple[float, float]] = {}
    for joint, (low, high) in ranges.items():
        if section.has(joint):
            key = section.path_of(joint)
            pair = section.vector(
                joint,
                unit="rad",
                length=2,
                limit=2 * math.pi,
                hint="That looks like degrees: multiply by pi/180 = 0.01745.",
            )
            if not low <= pair[0] < pair[1] <= high:
                expected = f"[low, high] within the URDF's [{low:g}, {high:g}] [rad]"
                raise section.error(key, list(pair), expected)
            low, high = pair
        else:
            section.any_of(joint, default=None)
        result[joint] = (low, high)
    section.refuse_unknown()
    return MappingProxyType(result)
