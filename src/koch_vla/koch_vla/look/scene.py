# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The rig as coloured polygons in the world frame, from the primitives of its URDF."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pinocchio

from koch_rig.model import robot_urdf
from koch_rig.rig import Rig

Array = npt.NDArray[np.float64]
ROUND_SIDES = 16
# The simulation's things, as `koch_sim.scene` builds them [m]; looking needs no physics.
BLOCK_HALF_M, BLOCK_COLOUR = (0.020, 0.010, 0.0125), (0.84, 0.26, 0.25, 1.0)
CUP_RADIUS_M, CUP_HEIGHT_M, CUP_COLOUR = 0.042, 0.040, (0.24, 0.49, 0.75, 1.0)


@dataclass(frozen=True, eq=False)
class ShadedFace:
    """One flat polygon.

    Attributes:
        corners: Corners in the world [m], float64 (N, 3).
        normal: Outward unit normal, float64 (3,).
        colour: Red, green, blue, opacity, each 0 to 1.
    """

    corners: Array
    normal: Array
    colour: tuple[float, float, float, float]


class ArmScene:
    """Shapes and frames of one arm with the cameras of its description.

    Args:
        rig: The rig.
        arm: Name of the arm.
    """

    def __init__(self, rig: Rig, arm: str) -> None:
        urdf = robot_urdf(rig, arm)
        self.arm = arm
        self._model = pinocchio.buildModelFromXML(urdf)
        self._data = self._model.createData()
        self._shapes = pinocchio.buildGeomFromUrdfString(
            self._model, urdf, pinocchio.GeometryType.VISUAL
        )
        self._tcp = self._model.getFrameId(f"{arm}/tcp")

    def place(self, positions: Mapping[str, float]) -> None:
        """Move the arm; joints that are not named stay at zero."""
        q = pinocchio.neutral(self._model)
        for index, name in enumerate(self._model.names):
            if index > 0 and name in positions:
                q[self._model.joints[index].idx_q] = positions[name]
        pinocchio.framesForwardKinematics(self._model, self._data, q)

    def faces(self, *, links_of: str = "") -> list[ShadedFace]:
        """Polygons at the place last chosen, of all links or of one arm's alone."""
        found = []
        for shape in self._shapes.geometryObjects:
            if links_of and not shape.name.startswith(f"{links_of}/"):
                continue
            T_world_shape = self._data.oMi[shape.parentJoint] * shape.placement
            red, green, blue, alpha = (float(value) for value in shape.meshColor)
            pose = np.array(T_world_shape.homogeneous)
            found += [
                _placed(corners, pose, (red, green, blue, alpha))
                for corners in _polygons(shape.geometry)
            ]
        return found

    def frames(self) -> dict[str, Array]:
        """Pose of every link in the world, 4x4."""
        return {
            frame.name: np.array(self._data.oMf[index].homogeneous)
            for index, frame in enumerate(self._model.frames)
            if frame.type == pinocchio.FrameType.BODY
        }

    def tcp(self) -> Array:
        """Position of the tool centre point in the world [m], float64 (3,)."""
        return np.array(self._data.oMf[self._tcp].translation)


def block_faces(pose: Array) -> list[ShadedFace]:
    """The simulation's block at its pose (4, 4)."""
    return [_placed(corners, pose, BLOCK_COLOUR) for corners in _box(np.array(BLOCK_HALF_M))]


def cup_faces(pose: Array) -> list[ShadedFace]:
    """The simulation's cup, open at the top; its pose (4, 4) is that of its foot."""
    outside = _prism(CUP_RADIUS_M, CUP_HEIGHT_M / 2.0)
    inside = [corners[::-1] for corners in _prism(0.92 * CUP_RADIUS_M, CUP_HEIGHT_M / 2.0)]
    rims = zip(outside[2:], inside[2:], strict=True)  # top edges of both walls make the rim
    rim = [np.array([out[3], out[2], within[1], within[0]]) for out, within in rims]
    walls = [*outside[2:], *inside[2:], inside[1], *rim]
    middle = np.array([0.0, 0.0, CUP_HEIGHT_M / 2.0])
    return [_placed(corners + middle, pose, CUP_COLOUR) for corners in walls]


def _placed(corners: Array, pose: Array, colour: tuple[float, float, float, float]) -> ShadedFace:
    """A polygon with its outward normal, moved from its own frame to the pose's."""
    world = corners @ pose[:3, :3].T + pose[:3, 3]
    normal = np.cross(world[1] - world[0], world[2] - world[1])
    return ShadedFace(world, normal / np.linalg.norm(normal), colour)


def _polygons(shape: object) -> list[Array]:
    """Outward polygons of a box, cylinder or sphere in its own frame."""
    if hasattr(shape, "halfSide"):
        return _box(np.asarray(shape.halfSide, dtype=np.float64))
    if hasattr(shape, "halfLength"):
        return _prism(float(shape.radius), float(shape.halfLength))  # type: ignore[attr-defined]
    if hasattr(shape, "radius"):
        return _prism(float(shape.radius), float(shape.radius))
    return []


def _box(half: Array) -> list[Array]:
    faces = []
    for axis in range(3):
        a, b = (axis + 1) % 3, (axis + 2) % 3
        for side in (-1.0, 1.0):
            corners = np.zeros((4, 3))
            corners[:, axis] = side * half[axis]
            corners[:, a] = np.array([-1, 1, 1, -1]) * half[a]
            corners[:, b] = np.array([-1, -1, 1, 1]) * half[b]
            faces.append(corners if side > 0 else corners[::-1])
    return faces


def _prism(radius: float, half_length: float) -> list[Array]:
    """A cylinder along z as a prism."""
    angles = np.linspace(0.0, 2.0 * np.pi, ROUND_SIDES, endpoint=False)
    ring = np.column_stack([radius * np.cos(angles), radius * np.sin(angles)])
    top = np.column_stack([ring, np.full(ROUND_SIDES, half_length)])
    bottom = np.column_stack([ring, np.full(ROUND_SIDES, -half_length)])
    sides = [np.array([bottom[i - 1], bottom[i], top[i], top[i - 1]]) for i in range(ROUND_SIDES)]
    return [top, bottom[::-1], *sides]
