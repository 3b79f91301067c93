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
    """Return the distribution of a sourced ROS that brings rclpy; None when there is none.

    The wheels of a virtual environment, this checkout's or another's, are no ROS: `koch env` sets
    ROS_DISTRO as a sourced ROS does.
    """
    distro = os.environ.get("ROS_DISTRO")
    found = importlib.util.find_spec("rclpy") if distro else None
    if found is None or found.origin is None or in_virtual_environment(Path(found.origin)):
        return None
    return distro


def in_virtual_environment(path: Path) -> bool:
    """Whether a file or folder is inside an environment that `python -m venv` made."""
    return any((folder / "pyvenv.cfg").is_file() for folder in (path, *path.parents))


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
    # Another environment that is active comes last: its colcon and Python are not ours.
    folders = result.get("PATH", os.defpath).split(os.pathsep)
    folders.sort(key=lambda folder: in_virtual_environment(Path(folder)))
    result["PATH"] = os.pathsep.join([str(venv / "bin"), *folders])
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
