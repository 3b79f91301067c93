# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Rigid transforms, rotations and the pinhole camera, as plain float64 arrays.

A transform T_parent_child is a 4x4 array: points of the child frame go to the parent frame.
Quaternions are (x, y, z, w), as in ROS messages; q and -q are the same rotation.
"""

from __future__ import annotations

import math
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from koch_core.errors import ShapeError
from koch_rig.errors import GeometryError

Array = NDArray[np.float64]
_TINY = 1e-12


def _array(value: ArrayLike, shape: tuple[int, ...], what: str) -> Array:
    """Copy into float64 and check the trailing shape."""
    array = np.array(value, dtype=np.float64)
    if array.shape != shape:
        raise ShapeError(what, got=array.shape, expected=str(shape))
    if not np.isfinite(array).all():
        raise GeometryError(what, got="NaN or infinity", expected="finite numbers")
    return array


def constant(values: ArrayLike) -> Array:
    """A float64 copy that no one can change."""
    array = np.array(values, dtype=np.float64)
    array.setflags(write=False)
    return array


def transform_from(
    rotation: ArrayLike | None = None, translation: ArrayLike = (0.0, 0.0, 0.0)
) -> Array:
    """Build a transform, float64 (4, 4), from a (3, 3) rotation and a translation [m]."""
    transform = np.eye(4)
    if rotation is not None:
        transform[:3, :3] = _array(rotation, (3, 3), "rotation")
    transform[:3, 3] = _array(translation, (3,), "translation")
    return transform


def inverse(transform: ArrayLike) -> Array:
    """Invert a rigid transform: T_parent_child -> T_child_parent, float64 (4, 4)."""
    source = _array(transform, (4, 4), "transform")
    result = np.eye(4)
    result[:3, :3] = source[:3, :3].T
    result[:3, 3] = -source[:3, :3].T @ source[:3, 3]
    return result


def compose(*transforms: ArrayLike) -> Array:
    """Chain transforms left to right: T_a_b, T_b_c, ... -> T_a_z; nothing gives the identity."""
    arrays = [_array(transform, (4, 4), "transform") for transform in transforms]
    return reduce(np.matmul, arrays, np.eye(4))


def transform_points(transform: ArrayLike, points: ArrayLike) -> Array:
    """Move points [m] of shape (..., 3) from the child into the parent frame."""
    matrix = _array(transform, (4, 4), "transform")
    array = np.asarray(points, dtype=np.float64)
    if array.shape[-1:] != (3,):
        raise ShapeError("points", got=array.shape, expected="(..., 3)")
    result: Array = array @ matrix[:3, :3].T + matrix[:3, 3]
    return result


def quaternion_from_matrix(rotation: ArrayLike) -> Array:
    """Rotation matrix (3, 3) -> unit quaternion (x, y, z, w) with w >= 0.

    Takes the largest of the four components first, so that no branch divides by a small number.

    Raises:
        GeometryError: The matrix is not orthonormal to 1e-3, or mirrors.

    Source: S. W. Shepperd, "Quaternion from Rotation Matrix", J. Guidance and Control 1 (1978).
    """
    m = _array(rotation, (3, 3), "rotation")
    if np.abs(m @ m.T - np.eye(3)).max() > 1e-3 or np.linalg.det(m) < 0.0:
        raise GeometryError(
            "rotation", got="a matrix that is no rotation", expected="orthonormal, right-handed"
        )
    trace = m[0, 0] + m[1, 1] + m[2, 2]
    squares = np.array([m[0, 0], m[1, 1], m[2, 2], trace])
    largest = int(np.argmax(squares))
    q = np.empty(4)
    if largest == 3:
        q[:] = (m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], 1.0 + trace)
    else:
        i, j, k = largest, (largest + 1) % 3, (largest + 2) % 3
        q[i] = 1.0 + m[i, i] - m[j, j] - m[k, k]
        q[j] = m[j, i] + m[i, j]
        q[k] = m[k, i] + m[i, k]
        q[3] = m[k, j] - m[j, k]
    norm = float(np.linalg.norm(q))
    return q / norm if q[3] >= 0.0 else -q / norm


def matrix_from_quaternion(quaternion: ArrayLike) -> Array:
    """Quaternion (x, y, z, w) of any length but zero -> rotation matrix (3, 3)."""
    q = _array(quaternion, (4,), "quaternion")
    norm = float(np.linalg.norm(q))
    if norm < _TINY:
        raise GeometryError("quaternion", got=f"length {norm:g}", expected="a length above zero")
    x, y, z, w = q / norm
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def rpy_to_matrix(roll: float, pitch: float, yaw: float) -> Array:
    """Fixed-axis roll, pitch, yaw [rad] -> (3, 3): Rz(yaw) Ry(pitch) Rx(roll), as URDF has it."""
    cr, sr = math.cos(roll), math.sin(roll)
    cp, sp = math.cos(pitch), math.sin(pitch)
    cy, sy = math.cos(yaw), math.sin(yaw)
    return np.array(
        [
            [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
            [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
            [-sp, cp * sr, cp * cr],
        ]
    )


def matrix_to_rpy(rotation: ArrayLike) -> tuple[float, float, float]:
    """Rotation matrix (3, 3) -> roll, pitch, yaw [rad], pitch in [-pi/2, pi/2].

    Where the pitch is +-90 degrees only roll -+ yaw is defined; roll is then 0.
    """
    m = _array(rotation, (3, 3), "rotation")
    cos_pitch = math.hypot(m[0, 0], m[1, 0])
    pitch = math.atan2(-m[2, 0], cos_pitch)
    if cos_pitch < 1e-9:
        return 0.0, pitch, math.atan2(-m[0, 1], m[1, 1])
    return math.atan2(m[2, 1], m[2, 2]), pitch, math.atan2(m[1, 0], m[0, 0])


def sixd_from_matrix(rotation: ArrayLike) -> Array:
    """Rotation matrix (3, 3) -> its first two columns one after the other, float64 (6,).

    Continuous over all rotations, which quaternions and angles are not.

    Source: Zhou et al., "On the Continuity of Rotation Representations", CVPR 2019.
    """
    m = _array(rotation, (3, 3), "rotation")
    return np.concatenate([m[:, 0], m[:, 1]])


def matrix_from_sixd(sixd: ArrayLike) -> Array:
    """Six numbers -> rotation matrix (3, 3) by Gram-Schmidt.

    Raises:
        GeometryError: The two columns are zero or parallel, so no rotation is near.
    """
    values = _array(sixd, (6,), "6D rotation")
    first, second = values[:3], values[3:]
    length = float(np.linalg.norm(first))
    if length < 1e-9:
        raise GeometryError("6D rotation", got="a zero first column", expected="two directions")
    x = first / length
    rest = second - (x @ second) * x
    rest_length = float(np.linalg.norm(rest))
    if rest_length < 1e-9:
        raise GeometryError("6D rotation", got="parallel columns", expected="two directions")
    y = rest / rest_length
    return np.stack([x, y, np.cross(x, y)], axis=1)


def rotation_vector(rotation: ArrayLike) -> Array:
    """Rotation matrix (3, 3) -> axis times angle [rad], float64 (3,), angle in [0, pi]."""
    x, y, z, w = quaternion_from_matrix(rotation)
    vector = np.array([x, y, z])
    sine = float(np.linalg.norm(vector))
    if sine < 1e-9:
        return 2.0 * vector
    return vector * (2.0 * math.atan2(sine, w) / sine)


def project_pinhole(points: ArrayLike, camera_matrix: ArrayLike) -> NDArray[Any]:
    """Project points of the optical frame onto the image.

    Args:
        points: Shape (..., 3), optical frame (z forward, x right, y down) [m].
        camera_matrix: K, (3, 3) [px].

    Returns:
        Pixels (u, v), shape (..., 2); NaN where the point is not in front of the camera.
    """
    k = _array(camera_matrix, (3, 3), "camera matrix")
    array = np.asarray(points, dtype=np.float64)
    if array.shape[-1:] != (3,):
        raise ShapeError("points", got=array.shape, expected="(..., 3)")
    depth = array[..., 2]
    depth = np.where(depth > _TINY, depth, np.nan)
    u = (k[0, 0] * array[..., 0] + k[0, 1] * array[..., 1]) / depth + k[0, 2]
    v = k[1, 1] * array[..., 1] / depth + k[1, 2]
    return np.stack([u, v], axis=-1)


def camera_matrix_from_fovy(fovy_rad: float, width: int, height: int) -> Array:
    """K of an ideal camera with square pixels and this vertical field of view [rad]."""
    if not 0.0 < fovy_rad < math.pi:
        raise GeometryError("field of view", got=f"{fovy_rad:g} rad", expected="between 0 and pi")
    focal_px = 0.5 * height / math.tan(0.5 * fovy_rad)
    return np.array([[focal_px, 0, 0.5 * width], [0, focal_px, 0.5 * height], [0, 0, 1.0]])
