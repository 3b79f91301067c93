# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Environment variables of the two homes."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path

# What a sourced ROS or colcon prefix leaves behind.
_ROS_VARIABLES = (
    "AMENT_PREFIX_PATH",
    "CMAKE_PREFIX_PATH",
    "COLCON_PREFIX_PATH",
    "LD_LIBRARY_PATH",
    "PYTHONHOME",
    "PYTHONPATH",
    "ROS_DISTRO",
    "ROS_PYTHON_VERSION",
    "ROS_VERSION",
)


def sourced_ros() -> str | None:
    """Return the distribution of a sourced ROS that brings rclpy; None when there is none."""
    distro = os.environ.get("ROS_DISTRO")
    if distro and importlib.util.find_spec("rclpy") is not None:
        return distro
    return None


def build_environment(root: Path, home: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment in which colcon builds.

    Args:
        root: Of the repository.
        home: "bare" or "ros".
        environment: The caller's.
    """
    result = dict(environment)
    venv = root / ".venv"
    # setuptools announces the end of "setup.py develop" for every package and file.
    result["PYTHONWARNINGS"] = "ignore"
    result["PATH"] = os.pathsep.join([str(venv / "bin"), result.get("PATH", os.defpath)])
    result["VIRTUAL_ENV"] = str(venv)
    if home == "ros":
        return result
    for name in _ROS_VARIABLES:
        result.pop(name, None)
    libraries = sorted(venv.glob("lib/python3.*/site-packages/ros_*.libs"))
    result["AMENT_PREFIX_PATH"] = result["CMAKE_PREFIX_PATH"] = str(venv)
    result["LD_LIBRARY_PATH"] = os.pathsep.join(str(path) for path in [venv / "lib", *libraries])
    # The wheels restart Python once to set LD_LIBRARY_PATH; it is set already.
    result["_ROS_WHEELS_BOOTSTRAP_COMPLETE"] = "1"
    return result
