# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The robot description: finds and processes urdf/*.xacro, and reads the joint limits from it."""

from __future__ import annotations

import functools
import math
import os
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import yaml

from koch_rig.arm_model import KOCH_V1_1, ArmModel
from koch_rig.errors import ModelError
from koch_rig.rig import Role

if TYPE_CHECKING:
    from koch_rig.rig import Mount, Rig

    JOINT_LIMITS: Mapping[str, JointLimit]

SHARE_VARIABLE = "KOCH_VLA_SHARE"


@dataclass(frozen=True)
class JointLimit:
    """A joint's limits in the URDF.

    Attributes:
        lower: Lowest angle [rad].
        upper: Highest angle [rad].
        velocity: No-load speed of its servo [rad/s].
        effort: Stall torque of its servo [N m].
    """

    lower: float
    upper: float
    velocity: float
    effort: float


def named_rig(named: Path | None = None) -> Path | None:
    """The rig file that a person named: on the command line, else in KOCH_RIG; None if nowhere."""
    chosen = named or os.environ.get("KOCH_RIG")
    return Path(chosen).expanduser().resolve() if chosen else None


def default_rig(named: Path | None = None, *, sim: bool = False) -> Path:
    """The rig file that a subcommand uses: the named one, else KOCH_RIG, else the shipped one.

    Args:
        named: On the command line.
        sim: The shipped one is the simulated rig, and KOCH_RIG is not asked.

    Raises:
        ModelError: None is named, and the suite's own files are not found.
    """
    if named or not sim:
        chosen = named_rig(named)
        if chosen is not None:
            return chosen
    relative = "config/rig.sim.yaml" if sim else "config/rig.yaml"
    here = Path.cwd()
    for folder in (here, *here.parents):
        # The checkout that a person stands in: an edited rig is used without another build.
        if (folder / "src/koch_vla/package.xml").is_file() and (folder / relative).is_file():
            return folder / relative
    return (share_folder() / relative).resolve()


def share_folder() -> Path:
    """The folder that holds urdf/ and config/: KOCH_VLA_SHARE, the install, or the source tree.

    Raises:
        ModelError: None of them holds urdf/koch_common.xacro.
    """
    candidates = []
    named = os.environ.get(SHARE_VARIABLE)
    if named:
        candidates.append(Path(named))
    else:
        # The source tree first: who runs from it means its files, whatever else is installed.
        candidates.append(Path(__file__).resolve().parents[3])
        prefixes = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
        candidates += [Path(prefix) / "share" / "koch_vla" for prefix in prefixes if prefix]
        candidates.append(Path(__file__).resolve().parents[4] / "share" / "koch_vla")
        candidates.append(Path(sys.prefix) / "share" / "koch_vla")
    for folder in candidates:
        if (folder / "urdf" / "koch_common.xacro").is_file():
            return folder
    raise ModelError(
        "robot description",
        got="no urdf/koch_common.xacro in " + ", ".join(map(str, candidates)),
        expected="the files of the koch_vla package",
        hint=f"Source the workspace's setup file, or set {SHARE_VARIABLE} to the folder "
        "that holds urdf/.",
    )


def process_xacro(path: Path, arguments: Mapping[str, str]) -> str:
    """Run xacro on a file and return URDF text.

    Raises:
        ModelError: xacro refuses the file.
    """
    import xacro

    try:
        document: Any = xacro.process_file(str(path), mappings=dict(arguments))
    except Exception as exc:  # xacro raises its own classes, xml errors and bare Exceptions
        raise ModelError(
            str(path), got=f"{type(exc).__name__}: {exc}", expected="a xacro file that processes"
        ) from exc
    # xacro's comments name folders of this machine, and bags carry the description elsewhere.
    for comment in [n for n in document.childNodes if n.nodeType == n.COMMENT_NODE]:
        document.removeChild(comment)
    return str(document.toprettyxml(indent="  "))


@functools.lru_cache(maxsize=16)
def arm_urdf(role: Role, prefix: str = "", model: ArmModel = KOCH_V1_1) -> str:
    """URDF of one arm alone, base_link in "world"; link names carry the prefix, joints do not."""
    path = share_folder() / "urdf" / model.urdf[role]
    return _without_other_joints(process_xacro(path, {"prefix": prefix}), model.joints)


def _without_other_joints(urdf: str, joints: Sequence[str]) -> str:
    """Fix at zero what the description can move and the arm cannot; usually there is nothing."""
    root = ElementTree.fromstring(urdf)
    others = [
        joint
        for joint in root.iter("joint")
        if joint.get("type") not in (None, "fixed") and joint.get("name") not in joints
    ]
    if not others:
        return urdf
    for joint in others:
        joint.set("type", "fixed")
        for name in ("axis", "limit", "dynamics", "mimic"):
            for element in joint.findall(name):
                joint.remove(element)
    return ElementTree.tostring(root, encoding="unicode")


def published_urdf(rig: Rig, arm: str) -> str:
    """The description of an arm for other programs: joints are named as in its joint_states."""
    return robot_urdf(rig, arm, joint_prefix=rig.arm(arm).joint_prefix)


def robot_urdf(rig: Rig, arm: str | None = None, *, joint_prefix: str = "") -> str:
    """URDF of one arm of a rig with its cameras.

    Joint names are plain, or with a prefix; link names are "<arm>/...". Cameras that
    hang on the arm are in its description; those that stand in the world are in the one of the
    first follower (of the first arm where there is no follower).

    Args:
        rig: The rig.
        arm: Name of the arm; the one that carries the world's cameras where None.
        joint_prefix: Is before the name of each of the arm's joints.
    """
    name = world_camera_arm(rig) if arm is None else rig.arm(arm).name
    content = {
        "arms": {
            item.name: {
                "role": item.role.value,
                "base": _mount_yaml(item.base),
                "urdf": str(item.model.urdf[item.role]),
            }
            for item in rig.arms.values()
        },
        "cameras": {
            camera.name: {"mount": _mount_yaml(camera.mount)}
            for camera in rig.cameras.values()
            if camera.mount is not None
        },
    }
    with tempfile.TemporaryDirectory(prefix="koch_urdf_") as folder:
        path = Path(folder) / "rig.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        arguments = {
            "rig": str(path),
            "arm": name,
            "joint_prefix": joint_prefix,
            "world_cameras": "true" if name == world_camera_arm(rig) else "false",
        }
        urdf = process_xacro(share_folder() / "urdf" / "koch_rig.urdf.xacro", arguments)
    joints = [f"{joint_prefix}{joint}" for joint in rig.arms[name].model.joints]
    return _without_other_joints(urdf, joints)


def world_camera_arm(rig: Rig) -> str:
    """The arm whose description holds the cameras that stand in the world."""
    for arm in rig.arms.values():
        if arm.role is Role.FOLLOWER:
            return arm.name
    return next(iter(rig.arms))


def _mount_yaml(mount: Mount) -> dict[str, Any]:
    """A mount as the rig file writes it."""
    return {
        "parent": mount.parent,
        "xyz": list(mount.xyz),
        "rpy_deg": [math.degrees(angle) for angle in mount.rpy_rad],
    }


@functools.lru_cache(maxsize=16)
def urdf_limits(role: Role, model: ArmModel = KOCH_V1_1) -> Mapping[str, JointLimit]:
    """Limits of an arm's joints, in their order, as the URDF has them."""
    root = ElementTree.fromstring(arm_urdf(role, model=model))
    limits = {}
    for name in model.joints:
        element = root.find(f"joint[@name='{name}']/limit")
        if element is None:
            raise ModelError(
                f"URDF of {model.name} as {role.value}", got=f"no limit of {name}", expected="one"
            )
        limits[name] = JointLimit(
            **{key: float(element.attrib[key]) for key in ("lower", "upper", "velocity", "effort")}
        )
    return MappingProxyType(limits)


@functools.lru_cache(maxsize=16)
def frame_names(role: Role, model: ArmModel = KOCH_V1_1) -> tuple[str, ...]:
    """Names of an arm's links without prefix, base to tip."""
    root = ElementTree.fromstring(arm_urdf(role, model=model))
    return tuple(link.attrib["name"] for link in root.iter("link") if link.get("name") != "world")


def __getattr__(name: str) -> Any:
    """JOINT_LIMITS, the follower's, read from the URDF on first use and not at import."""
    if name == "JOINT_LIMITS":
        return urdf_limits(Role.FOLLOWER)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
