# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Transforms between the links of a robot description, by Pinocchio; no ROS."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import pinocchio


@dataclass(frozen=True)
class LinkPose:
    """Pose of a link in its parent link.

    Attributes:
        parent: Parent frame.
        child: Frame of the link.
        xyz: Origin of the child in the parent, in [m].
        xyzw: Rotation of the child in the parent as a unit quaternion.
    """

    parent: str
    child: str
    xyz: tuple[float, float, float]
    xyzw: tuple[float, float, float, float]


@dataclass(frozen=True)
class _Edge:
    """A link and its parent link: frame indices, and the joint between them, "" if fixed."""

    parent: int
    child: int
    joint: str


class LinkTree:
    """The links of one robot description and the poses between neighbours.

    Args:
        urdf: The description; revolute, prismatic and fixed joints.
    """

    def __init__(self, urdf: str) -> None:
        self._model = pinocchio.buildModelFromXML(urdf)
        self._data = self._model.createData()
        self._q = pinocchio.neutral(self._model)
        self._index = {
            name: self._model.joints[i].idx_q for i, name in enumerate(self._model.names) if i > 0
        }
        self._edges = self._find_edges()

    @property
    def joint_names(self) -> tuple[str, ...]:
        """Names of the moving joints, in the order of the description."""
        return tuple(self._index)

    @property
    def links(self) -> tuple[str, ...]:
        """All frames, parents before children."""
        frames = self._model.frames
        root = [f.name for f in frames if f.type == pinocchio.FrameType.BODY][:1]
        return (*root, *(frames[edge.child].name for edge in self._edges))

    def parents(self) -> dict[str, str]:
        """Parent link of every link but the root."""
        frames = self._model.frames
        return {frames[e.child].name: frames[e.parent].name for e in self._edges}

    def static_poses(self) -> list[LinkPose]:
        """Poses that no joint changes."""
        return self._poses([edge for edge in self._edges if not edge.joint], {})

    def moving_poses(self, positions: Mapping[str, float]) -> list[LinkPose]:
        """Poses that the given joints decide.

        Args:
            positions: Joint positions by name in [rad] or [m]. Names of other robots are left
                alone; a joint that is missing or not finite yields no pose, rather than one at
                an invented angle.
        """
        known = {
            name: value
            for name, value in positions.items()
            if name in self._index and math.isfinite(value)
        }
        return self._poses([edge for edge in self._edges if edge.joint in known], known)

    def _place(self, positions: Mapping[str, float]) -> None:
        for name, value in positions.items():
            self._q[self._index[name]] = value
        pinocchio.framesForwardKinematics(self._model, self._data, self._q)

    def _poses(self, edges: list[_Edge], positions: Mapping[str, float]) -> list[LinkPose]:
        self._place(positions)
        frames, placed = self._model.frames, self._data.oMf
        poses = []
        for edge in edges:
            x, y, z, qx, qy, qz, qw = pinocchio.SE3ToXYZQUAT(
                placed[edge.parent].actInv(placed[edge.child])
            ).tolist()
            parent, child = frames[edge.parent].name, frames[edge.child].name
            poses.append(LinkPose(parent, child, (x, y, z), (qx, qy, qz, qw)))
        return poses

    def _find_edges(self) -> list[_Edge]:
        """Walk from each link through joint frames up to the next link."""
        frames = self._model.frames
        edges = []
        for index, frame in enumerate(frames):
            if frame.type != pinocchio.FrameType.BODY:
                continue
            above, joint = frame.parentFrame, ""
            while above > 0 and frames[above].type != pinocchio.FrameType.BODY:
                if frames[above].type == pinocchio.FrameType.JOINT:
                    joint = frames[above].name
                above = frames[above].parentFrame
            if above > 0:
                edges.append(_Edge(above, index, joint))
        return edges
