# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The arms as the browser draws them: links, joints and primitives of the URDF, as plain data."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from typing import Any

from koch_rig.model import robot_urdf
from koch_rig.rig import Rig, Role

_GREY = (0.6, 0.6, 0.6, 1.0)
_USUAL_FOVY_DEG = 48.0  # of a USB camera; only the drawing of its view depends on it


def describe_scene(rig: Rig) -> Mapping[str, Any]:
    """Arms with their links and joints [m, rad], cameras and workspace."""
    limits = rig.limits
    return {
        "arms": [
            {"name": arm.name, "follower": arm.role is Role.FOLLOWER, **_arm(rig, arm.name)}
            for arm in rig.arms.values()
        ],
        "cameras": [
            {
                "frame": f"{camera.name}_optical_frame",
                "fovy_deg": camera.fovy_deg or _USUAL_FOVY_DEG,
                "aspect": camera.width / camera.height,
            }
            for camera in rig.cameras.values()
        ],
        "workspace": limits.workspace and [limits.workspace.min, limits.workspace.max],
    }


def _arm(rig: Rig, name: str) -> Mapping[str, Any]:
    robot = ElementTree.fromstring(robot_urdf(rig, name))
    colours = {
        item.get("name"): _numbers(item.find("color"), "rgba", _GREY)
        for item in robot.findall("material")
    }
    return {
        "tip": f"{name}/tcp",
        "joints": [_joint(item) for item in robot.findall("joint")],
        "shapes": {
            str(link.get("name")): [_shape(item, colours) for item in link.findall("visual")]
            for link in robot.findall("link")
            if link.find("visual") is not None
        },
    }


def _joint(item: ElementTree.Element) -> Mapping[str, Any]:
    parent, child = item.find("parent"), item.find("child")
    assert parent is not None
    assert child is not None
    return {
        "name": item.get("name"),
        "parent": parent.get("link"),
        "child": child.get("link"),
        "moves": item.get("type") in ("revolute", "continuous"),
        "axis": _numbers(item.find("axis"), "xyz", (1.0, 0.0, 0.0)),
        **_origin(item),
    }


def _shape(item: ElementTree.Element, colours: Mapping[Any, Any]) -> Mapping[str, Any]:
    geometry, material = item.find("geometry"), item.find("material")
    found: dict[str, Any] = {"colour": _GREY, **_origin(item)}
    if material is not None:
        found["colour"] = colours.get(material.get("name"), _GREY)
    for kind in () if geometry is None else geometry:
        sizes = ("size", "radius", "length")
        found[kind.tag] = {key: _numbers(kind, key, ()) for key in sizes if kind.get(key)}
    return found


def _origin(item: ElementTree.Element) -> Mapping[str, Any]:
    origin = item.find("origin")
    zero = (0.0, 0.0, 0.0)
    return {"xyz": _numbers(origin, "xyz", zero), "rpy": _numbers(origin, "rpy", zero)}


def _numbers(
    item: ElementTree.Element | None, key: str, default: tuple[float, ...]
) -> tuple[float, ...]:
    text = None if item is None else item.get(key)
    return default if text is None else tuple(float(word) for word in text.split())
