# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Parameters of move_group, from the rig and the YAML files of this package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import xacro
import yaml

from koch_rig.arm_model import KOCH_V1_1
from koch_rig.errors import ModelError
from koch_rig.load import load_rig
from koch_rig.model import published_urdf, share_folder


def _config_folder() -> Path:
    """Return the folder of the YAML files: in the source tree, else in the install."""
    source = Path(__file__).resolve().parents[1] / "config"
    if source.is_dir():
        return source
    from ament_index_python.packages import get_package_share_directory

    return Path(get_package_share_directory("koch_moveit_config")) / "config"


CONFIG = _config_folder()
PIPELINES = ("ompl", "pilz_industrial_motion_planner")


def read_yaml(name: str) -> dict[str, Any]:
    """Read a file of this package's config folder."""
    content: dict[str, Any] = yaml.safe_load((CONFIG / name).read_text(encoding="utf-8"))
    return content


def semantic_description(arm: str, joint_prefix: str = "") -> str:
    """Return the SRDF of an arm."""
    arguments = {"prefix": f"{arm}/", "joint_prefix": joint_prefix}
    document = xacro.process_file(str(CONFIG / "koch.srdf.xacro"), mappings=arguments)
    text: str = document.toxml()
    return text


#: The joints that this package's files name.
_JOINTS = KOCH_V1_1.joints


def _joints_prefixed(content: Any, prefix: str) -> Any:
    """Parameters with the prefix before each joint's name, be it key or item of a list."""
    if isinstance(content, dict):
        named = ((f"{prefix}{k}" if k in _JOINTS else k, v) for k, v in content.items())
        return {key: _joints_prefixed(value, prefix) for key, value in named}
    if isinstance(content, list):
        return [f"{prefix}{item}" if item in _JOINTS else item for item in content]
    return content


def move_group_parameters(rig_path: str = "", arm: str = "") -> tuple[str, dict[str, Any]]:
    """Return the arm's name, which is move_group's namespace, and move_group's parameters.

    Args:
        rig_path: Rig file; empty for the one that the project ships.
        arm: A follower of the rig; empty for its only one.

    Raises:
        KochError: The rig is wrong, has no such arm, or one whose joints are not a Koch's.
    """
    rig = load_rig(rig_path or share_folder() / "config" / "rig.yaml")
    name = rig.arm(arm).name if arm else rig.follower.name
    joints = rig.arm(name).model.joints
    if joints != _JOINTS:
        raise ModelError(
            f"MoveIt for {name}",
            got=f"an arm with the joints {', '.join(joints)}",
            expected=f"a Koch's: {', '.join(_JOINTS)}",
            hint="koch_moveit_config/config describes groups, limits and controllers of a Koch.",
        )
    prefix = rig.arm(name).joint_prefix
    pipelines = {pipeline: read_yaml(f"{pipeline}_planning.yaml") for pipeline in PIPELINES}
    capabilities = pipelines["pilz_industrial_motion_planner"].pop("capabilities")
    return name, {
        "robot_description": published_urdf(rig, name),
        "robot_description_semantic": semantic_description(name, prefix),
        "robot_description_kinematics": read_yaml("kinematics.yaml"),
        "robot_description_planning": {
            **_joints_prefixed(read_yaml("joint_limits.yaml"), prefix),
            **read_yaml("pilz_cartesian_limits.yaml"),
        },
        "planning_pipelines": list(PIPELINES),
        "default_planning_pipeline": PIPELINES[0],
        **pipelines,
        "capabilities": capabilities,
        **_joints_prefixed(read_yaml("moveit_controllers.yaml"), prefix),
        "publish_robot_description_semantic": True,
        "publish_planning_scene": True,
        "publish_geometry_updates": True,
        "publish_state_updates": True,
    }
