# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The robot description that controller_manager reads, and its controllers' file and names."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import yaml

from koch_rig.arm_model import KOCH_V1_1
from koch_rig.errors import ModelError
from koch_rig.model import process_xacro, published_urdf

if TYPE_CHECKING:
    from koch_rig.rig import Rig

ACTIVE_CONTROLLERS = ("joint_trajectory_controller",)
"""Controllers that drive from the start; they hold the measured pose until told otherwise."""
LOADED_CONTROLLERS = ("forward_position_controller",)
"""Controllers to switch to; they claim the same joints."""


def config_folder() -> Path:
    """Return the folder of xacro and YAML: in the source tree, else in the install."""
    source = Path(__file__).resolve().parents[1] / "config"
    if source.is_dir():
        return source
    from ament_index_python.packages import get_package_share_directory

    return Path(get_package_share_directory("koch_ros2_control")) / "config"


@functools.lru_cache
def controllers_file(joint_prefix: str = "") -> Path:
    """Return the parameters of controller_manager and of its controllers.

    Args:
        joint_prefix: The arm's. With one it is a file of its own, which lives as long as this
            process, and that is as long as the nodes that it starts.
    """
    path = config_folder() / "controllers.yaml"
    if not joint_prefix:
        return path
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    for section in content.values():
        parameters = section["ros__parameters"]
        if "joints" in parameters:
            parameters["joints"] = [f"{joint_prefix}{joint}" for joint in parameters["joints"]]
    own = Path(_folder().name) / f"controllers_{joint_prefix.replace('/', '_')}.yaml"
    own.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return own


@functools.lru_cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """A folder that goes with this process."""
    return tempfile.TemporaryDirectory(prefix="koch_ros2_control_")


def robot_description(rig: Rig, arm: str, namespace: str = "/") -> str:
    """Return the URDF of an arm of the rig, with the ros2_control tag.

    Args:
        rig: The rig.
        arm: Name of a follower.
        namespace: In which the rig's nodes run, absolute; the arm's topics are below it.

    Raises:
        ModelError: The arm's joints are not a Koch's.
    """
    model = rig.arm(arm).model
    if model.joints != KOCH_V1_1.joints:
        raise ModelError(
            f"ros2_control for {arm}",
            got=f"an arm with the joints {', '.join(model.joints)}",
            expected=f"a Koch's: {', '.join(KOCH_V1_1.joints)}",
            hint="koch_ros2_control/config describes the joints and controllers of a Koch.",
        )
    tag = process_xacro(
        config_folder() / "koch.ros2_control.xacro",
        {
            "arm": arm,
            "namespace": f"{namespace.rstrip('/')}/{arm}",
            "joint_prefix": rig.arm(arm).joint_prefix,
        },
    )
    robot = ElementTree.fromstring(published_urdf(rig, arm))
    robot.extend(ElementTree.fromstring(tag))
    return ElementTree.tostring(robot, encoding="unicode", xml_declaration=True)
