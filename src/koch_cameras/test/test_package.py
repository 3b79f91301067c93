# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The package keeps its promises to the workspace: names, borders, docs."""

from __future__ import annotations

import ast
import re
from dataclasses import fields
from pathlib import Path

import pytest

import koch_cameras

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "koch_cameras").rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Top-level names that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


def test_public_names_resolve():
    for name in koch_cameras.__all__:
        assert getattr(koch_cameras, name) is not None


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_ros_and_opencv_stay_in_their_folders(path):
    ros = {"rclpy", "sensor_msgs", "std_msgs", "diagnostic_msgs", "builtin_interfaces"}
    if path.parent.name != "nodes":
        assert not imports(path) & ros
    draws_or_measures = path.parent.name == "calibration" or path.stem in ("sheet", "crop")
    if not draws_or_measures:
        assert "cv2" not in imports(path)


def test_version_is_the_same_everywhere():
    version = re.search(r"<version>(.+)</version>", (ROOT / "package.xml").read_text())[1]
    assert f'version="{version}"' in (ROOT / "setup.py").read_text()
    assert f"{version} (" in (ROOT / "CHANGELOG.rst").read_text()


@pytest.mark.ros
def test_readme_lists_every_parameter():
    from koch_cameras.nodes.parameters import CameraParameters

    text = (ROOT / "README.md").read_text()
    for item in fields(CameraParameters):
        assert f"`{item.name}`" in text
