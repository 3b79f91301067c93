# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Writing measured zero offsets into a rig file without touching anything else in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from koch_core.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Mapping

    from koch_rig.rig import JointOffset


def joints_block(offsets: Mapping[str, float], mounts: Mapping[str, JointOffset]) -> str:
    """The 'joints' part of an arm, to paste into a rig file."""
    lines = ["joints:"]
    for joint, mount in mounts.items():
        lines.append(f"  {joint}: {{sign: {mount.sign}, offset_rad: {offsets[joint]:.4f}}}")
    return "\n".join(lines)


def _child(node: yaml.Node | None, key: str) -> yaml.Node | None:
    """Value of a key in a mapping node."""
    if not isinstance(node, yaml.MappingNode):
        return None
    for name, value in node.value:
        if name.value == key:
            found: yaml.Node = value
            return found
    return None


def replace_offsets(text: str, arm: str, offsets: Mapping[str, float]) -> str | None:
    """Rig text with an arm's offsets replaced; comments and order stay.

    Returns:
        The new text; None where the arm does not write every offset down itself (it uses an
        alias, or leaves joints at their defaults), so that a person has to edit the file.
    """
    arm_node = _child(_child(yaml.compose(text, yaml.SafeLoader), "arms"), arm)
    joints = _child(arm_node, "joints")
    if arm_node is None or joints is None:
        return None
    shared = f"*{text[joints.start_mark.index :].split()[0].lstrip('&')}"
    if text[joints.start_mark.index] == "&" and shared in text:
        return None  # another arm uses these values through an alias
    spans = []
    for joint, offset in offsets.items():
        value = _child(_child(joints, joint), "offset_rad")
        if value is None or not (
            arm_node.start_mark.index <= value.start_mark.index < arm_node.end_mark.index
        ):
            return None
        spans.append((value.start_mark.index, value.end_mark.index, f"{offset:.4f}"))
    for start, end, number in sorted(spans, reverse=True):
        text = text[:start] + number + text[end:]
    return text


def write_offsets(path: Path, arm: str, offsets: Mapping[str, float]) -> bool:
    """Replace an arm's offsets in a rig file, whole or not at all; whether it was possible."""
    text = replace_offsets(path.read_text(encoding="utf-8"), arm, offsets)
    if text is None:
        return False
    write_atomically(path, text)
    return True
