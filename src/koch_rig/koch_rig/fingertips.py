# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Positions of the hand's points in plain Python floats: the guard's fast path, no Pinocchio.

A point costs some 5 us, because it is carried backwards through the joints as three floats;
numpy's overhead for 3x3 arrays is several times that. Tests hold it equal to Pinocchio's.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass

from koch_rig.arm_model import KOCH_V1_1, ArmModel
from koch_rig.errors import ModelError
from koch_rig.geometry import rpy_to_matrix
from koch_rig.model import arm_urdf
from koch_rig.rig import Arm, Mount, Role

Point = tuple[float, float, float]
_Rotation = tuple[float, ...]  # nine numbers, row by row

TOOL_FRAMES = ("tcp", "finger_tip", "jaw_tip", "gripper_link", "wrist_link")
"""The points of the hand that can come near the table, the TCP first."""


@dataclass(frozen=True)
class _ChainJoint:
    """One joint of a chain: child point -> rotation about an axis -> origin in the parent."""

    joint: int  # index among the arm's joints, -1 for a fixed joint
    axis: int  # 0, 1, 2 for x, y, z
    sign: float
    origin: Point
    rotation: _Rotation | None  # None where it is the identity


class FingertipKinematics:
    """Positions of the hand's points in the world frame.

    Immutable, so that threads may share it.
    """

    def __init__(
        self, urdf: str, base: Mount, prefix: str = "", model: ArmModel = KOCH_V1_1
    ) -> None:
        """Read the chains from a URDF whose base_link is in "world"; `base` replaces it.

        Raises:
            ModelError: A frame is missing, or a joint axis is not along x, y or z.
        """
        joints = {
            joint.find("child").attrib["link"]: joint  # type: ignore[union-attr]  # URDF has it
            for joint in ElementTree.fromstring(urdf).iter("joint")
        }
        self._base = _fixed_step(base.xyz, base.rpy_rad)
        self._joints = model.joints
        self._chains = tuple(
            self._chain(joints, f"{prefix}{name}", prefix) for name in TOOL_FRAMES
        )

    @classmethod
    def for_arm(cls, arm: Arm) -> FingertipKinematics:
        """The model of an arm of a rig, where the rig says its base is."""
        return cls(arm_urdf(arm.role, model=arm.model), arm.base, model=arm.model)

    @classmethod
    def for_role(cls, role: Role, model: ArmModel = KOCH_V1_1) -> FingertipKinematics:
        """The model in base_link's own frame."""
        return cls(arm_urdf(role, model=model), Mount(), model=model)

    def _chain(
        self, joints: dict[str, ElementTree.Element], frame: str, prefix: str
    ) -> tuple[_ChainJoint, ...]:
        """Steps from a frame back to the world, in the order of evaluation."""
        steps = []
        link = frame
        while link != f"{prefix}base_link":
            if link not in joints:
                raise ModelError("URDF", got=f"no joint above {link}", expected="one")
            element = joints[link]
            steps.append(_step(element, self._joints))
            link = element.find("parent").attrib["link"]  # type: ignore[union-attr]
        return (*steps, self._base)

    def tcp(self, q: Sequence[float]) -> Point:
        """Position of the TCP [m] for the arm's joint angles [rad]."""
        return _evaluate(self._chains[0], q)

    def lever_arms(self) -> tuple[float, ...]:
        """Upper bounds in every pose on the distance from each joint's axis to the TCP [m], (J,).

        The way along the links bounds the distance; a joint that does not move the TCP has 0.
        """
        arms = [0.0] * len(self._joints)
        way = 0.0
        for step in self._chains[0]:
            if step.joint >= 0:
                arms[step.joint] = way
            way += math.hypot(*step.origin)
        return tuple(arms)

    def positions(self, q: Sequence[float]) -> tuple[Point, ...]:
        """Positions [m] of TOOL_FRAMES, in that order, for the arm's joint angles [rad]."""
        return tuple(_evaluate(chain, q) for chain in self._chains)

    def opening(self, q_gripper: float) -> float:
        """Gap between the two finger tips [m] at a gripper angle [rad]; below 0 they cross."""
        q = (*(0.0,) * (len(self._joints) - 1), q_gripper)
        fixed, moving = self._across(self._chains[1], q), self._across(self._chains[2], q)
        return moving - fixed

    def _across(self, chain: tuple[_ChainJoint, ...], q: Sequence[float]) -> float:
        """Coordinate along the opening: the TCP's x axis, -y of gripper_link."""
        inside = chain[: -(len(self._chains[3]))]
        return -_evaluate(inside, q)[1]


def _evaluate(chain: tuple[_ChainJoint, ...], q: Sequence[float]) -> Point:
    """Carry the frame's origin through the chain."""
    x = y = z = 0.0
    for step in chain:
        if step.joint >= 0:
            angle = step.sign * q[step.joint]
            c, s = math.cos(angle), math.sin(angle)
            if step.axis == 2:
                x, y = c * x - s * y, s * x + c * y
            elif step.axis == 1:
                x, z = c * x + s * z, c * z - s * x
            else:
                y, z = c * y - s * z, s * y + c * z
        m = step.rotation
        if m is not None:
            x, y, z = (
                m[0] * x + m[1] * y + m[2] * z,
                m[3] * x + m[4] * y + m[5] * z,
                m[6] * x + m[7] * y + m[8] * z,
            )
        ox, oy, oz = step.origin
        x += ox
        y += oy
        z += oz
    return x, y, z


def _numbers(text: str | None) -> Point:
    """Three numbers of a URDF attribute, zeros where it is absent."""
    x, y, z = (float(word) for word in (text or "0 0 0").split())
    return x, y, z


def _fixed_step(xyz: Point, rpy: Point) -> _ChainJoint:
    """A step without a joint."""
    matrix = None if rpy == (0.0, 0.0, 0.0) else tuple(rpy_to_matrix(*rpy).ravel().tolist())
    return _ChainJoint(joint=-1, axis=0, sign=1.0, origin=xyz, rotation=matrix)


def _step(element: ElementTree.Element, joints: Sequence[str]) -> _ChainJoint:
    """A step from a URDF joint."""
    origin = element.find("origin")
    attributes = {} if origin is None else origin.attrib
    fixed = _fixed_step(_numbers(attributes.get("xyz")), _numbers(attributes.get("rpy")))
    name = element.attrib["name"]
    if element.attrib["type"] == "fixed":
        return fixed
    axis_element = element.find("axis")
    axis = (1.0, 0.0, 0.0) if axis_element is None else _numbers(axis_element.get("xyz"))
    ones = [i for i, value in enumerate(axis) if abs(value) == 1.0]
    if name not in joints or len(ones) != 1 or sum(map(abs, axis)) != 1.0:
        raise ModelError(
            f"URDF joint {name}", got=f"axis {axis}", expected="a joint of the arm along x, y or z"
        )
    return _ChainJoint(joints.index(name), ones[0], axis[ones[0]], fixed.origin, fixed.rotation)
