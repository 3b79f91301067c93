# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Writes a camera's mount into a rig file and leaves every other character as it was."""

from __future__ import annotations

import math
from pathlib import Path

import yaml

from koch_rig.errors import ModelError
from koch_rig.rig import Mount


def with_mount(path: Path, camera: str, mount: Mount) -> str:
    """The text of a rig file with this mount for a camera of it.

    Raises:
        ModelError: The file does not have that camera where it could be edited.
    """
    text = path.read_text(encoding="utf-8")
    entry = _entry(_entry(yaml.compose(text), "cameras"), camera)
    if not isinstance(entry, yaml.MappingNode) or not entry.value:
        raise ModelError(
            f"{path}: cameras.{camera}",
            got="no mapping in this file",
            expected="source, width, height",
            hint=f"Write it by hand: mount: {_flow(mount)}",
        )
    known = _entry(entry, "mount")
    if known is not None:
        return text[: known.start_mark.index] + _flow(mount) + text[_end(known) :]
    first = entry.value[0][0].start_mark
    between = ", " if entry.flow_style else "\n" + " " * first.column
    return f"{text[: first.index]}mount: {_flow(mount)}{between}{text[first.index :]}"


def _flow(mount: Mount) -> str:
    xyz = ", ".join(f"{value:.5g}" for value in mount.xyz)
    rpy = ", ".join(f"{math.degrees(angle):.6g}" for angle in mount.rpy_rad)
    return f"{{parent: {mount.parent}, xyz: [{xyz}], rpy_deg: [{rpy}]}}"


def _end(node: yaml.Node) -> int:
    """Where a value ends; YAML lets one in block style end at the next key, behind comments."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last)
    return int(node.end_mark.index)


def _entry(node: yaml.Node | None, key: str) -> yaml.Node | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for name, value in node.value if name.value == key), None)
