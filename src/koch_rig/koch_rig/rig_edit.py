# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Writes what was measured into a rig file and leaves every other character as it was."""

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
    return _with(text, path, ("cameras", camera), f"mount: {_flow(mount)}")


def with_arm_delay(text: str, path: Path, arm: str, delay_ms: float) -> str:
    """The text of a rig file with the measured delay of an arm of it.

    Raises:
        ModelError: The file does not have that arm where it could be edited.
    """
    return _with(text, path, ("arms", arm), f"delay_ms: {delay_ms:g}")


def with_stream_offset(text: str, path: Path, stream: str, offset_ms: float) -> str:
    """The text of a rig file with the offset of a stream's stamps.

    Raises:
        ModelError: The file's `streams` cannot be edited.
    """
    line = f"offset_ms: {offset_ms:g}"
    root = yaml.compose(text)
    streams = _entry(root, "streams")
    if isinstance(_entry(streams, stream), yaml.MappingNode):
        return _with(text, path, ("streams", stream), line)
    if streams is None and isinstance(root, yaml.MappingNode) and not root.flow_style:
        end = "" if text.endswith("\n") else "\n"
        return f"{text}{end}\nstreams:\n  {stream}: {{{line}}}\n"
    return _with(text, path, ("streams",), f"{stream}: {{{line}}}")


def _with(text: str, path: Path, where: tuple[str, ...], line: str) -> str:
    """A text with a line `key: value` in a mapping of it, in place of what that key had."""
    entry: yaml.Node | None = yaml.compose(text)
    for key in where:
        entry = _entry(entry, key)
    if not isinstance(entry, yaml.MappingNode) or not entry.value:
        raise ModelError(
            f"{path}: {'.'.join(where)}",
            got="no mapping in this file",
            expected="keys and values",
            hint=f"Write it by hand: {line}",
        )
    key, _, value = line.partition(": ")
    known = _entry(entry, key)
    if known is not None:
        return text[: known.start_mark.index] + value + text[_end(known) :]
    first = entry.value[0][0].start_mark
    between = ", " if entry.flow_style else "\n" + " " * first.column
    return f"{text[: first.index]}{line}{between}{text[first.index :]}"


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
