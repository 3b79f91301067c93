# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Group laws, round trips and both sides of every numeric branch of the geometry."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from koch_core.errors import ShapeError
from koch_rig.errors import GeometryError
from koch_rig.geometry import (
    Array,
    camera_matrix_from_fovy,
    compose,
    inverse,
    matrix_from_quaternion,
    matrix_from_sixd,
    matrix_to_rpy,
    project_pinhole,
    quaternion_from_matrix,
    rotation_vector,
    rpy_to_matrix,
    sixd_from_matrix,
    transform_from,
    transform_points,
)

angle = st.floats(-math.pi, math.pi)
length = st.floats(-2.0, 2.0)
rotations = st.builds(rpy_to_matrix, angle, angle, angle)
transforms = st.builds(
    lambda rotation, x, y, z: transform_from(rotation, (x, y, z)),
    rotations,
    length,
    length,
    length,
)
# Turns by 0, tiny, nearly pi and pi about each axis: where quaternions and logarithms branch.
EDGES = [
    rpy_to_matrix(*(np.eye(3)[axis] * size))
    for axis in range(3)
    for size in (0.0, 1e-10, -1e-7, 1e-3, math.pi - 1e-7, math.pi - 1e-10, math.pi)
]


def assert_rotation(matrix: Array) -> None:
    """Orthonormal and right-handed."""
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(matrix) == pytest.approx(1.0)


@given(a=transforms, b=transforms, c=transforms)
def test_transforms_are_a_group(a: Array, b: Array, c: Array) -> None:
    np.testing.assert_allclose(compose(a, inverse(a)), np.eye(4), atol=1e-12)
    np.testing.assert_allclose(compose(inverse(a), a), np.eye(4), atol=1e-12)
    np.testing.assert_allclose(inverse(inverse(a)), a, atol=1e-12)
    np.testing.assert_allclose(compose(compose(a, b), c), compose(a, compose(b, c)), atol=1e-12)
    np.testing.assert_allclose(inverse(compose(a, b)), compose(inverse(b), inverse(a)), atol=1e-12)
    np.testing.assert_allclose(compose(a, np.eye(4)), a)


def test_nothing_composes_to_the_identity() -> None:
    np.testing.assert_array_equal(compose(), np.eye(4))


def test_arguments_are_not_changed() -> None:
    a = transform_from(rpy_to_matrix(0.1, 0.2, 0.3), (1, 2, 3))
    before = a.copy()
    compose(a)[0, 0] = 7
    inverse(a)
    np.testing.assert_array_equal(a, before)


def test_points_move_from_child_to_parent() -> None:
    quarter = transform_from(rpy_to_matrix(0, 0, math.pi / 2), (1, 0, 0))
    np.testing.assert_allclose(transform_points(quarter, [[1, 0, 0]]), [[1, 1, 0]], atol=1e-15)


@given(rotation=rotations)
def test_quaternions_cover_rotations_twice(rotation: Array) -> None:
    q = quaternion_from_matrix(rotation)
    assert np.linalg.norm(q) == pytest.approx(1.0)
    assert q[3] >= 0.0
    np.testing.assert_allclose(matrix_from_quaternion(q), rotation, atol=1e-12)
    np.testing.assert_allclose(matrix_from_quaternion(-q), rotation, atol=1e-12)
    np.testing.assert_allclose(matrix_from_quaternion(3.7 * q), rotation, atol=1e-12)


@pytest.mark.parametrize("rotation", EDGES)
def test_every_branch_of_quaternion_sixd_and_logarithm(rotation: Array) -> None:
    np.testing.assert_allclose(
        matrix_from_quaternion(quaternion_from_matrix(rotation)), rotation, atol=1e-12
    )
    np.testing.assert_allclose(matrix_from_sixd(sixd_from_matrix(rotation)), rotation, atol=1e-12)
    vector = rotation_vector(rotation)
    size = float(np.linalg.norm(vector))
    half = np.append(np.sin(size / 2) * vector / size if size else vector, np.cos(size / 2))
    np.testing.assert_allclose(matrix_from_quaternion(half), rotation, atol=1e-9)


def test_quaternion_by_hand() -> None:
    quarter_about_z = rpy_to_matrix(0, 0, math.pi / 2)
    half = math.sqrt(0.5)
    np.testing.assert_allclose(quaternion_from_matrix(quarter_about_z), [0, 0, half, half])
    np.testing.assert_allclose(rotation_vector(quarter_about_z), [0, 0, math.pi / 2])


@given(roll=angle, pitch=st.floats(-1.57, 1.57), yaw=angle)
def test_rpy_round_trip(roll: float, pitch: float, yaw: float) -> None:
    matrix = rpy_to_matrix(roll, pitch, yaw)
    assert_rotation(matrix)
    np.testing.assert_allclose(rpy_to_matrix(*matrix_to_rpy(matrix)), matrix, atol=1e-9)


@pytest.mark.parametrize("pitch", [math.pi / 2, -math.pi / 2])
@pytest.mark.parametrize("other", [-2.0, 0.0, 0.7])
def test_rpy_at_gimbal_lock_still_gives_the_rotation(pitch: float, other: float) -> None:
    matrix = rpy_to_matrix(other, pitch, 0.4)
    roll, _, _ = matrix_to_rpy(matrix)
    assert roll == 0.0
    np.testing.assert_allclose(rpy_to_matrix(*matrix_to_rpy(matrix)), matrix, atol=1e-9)


@given(rotation=rotations, noise=st.lists(st.floats(-0.3, 0.3), min_size=6, max_size=6))
def test_sixd_round_trip_and_gram_schmidt(rotation: Array, noise: list[float]) -> None:
    np.testing.assert_allclose(matrix_from_sixd(sixd_from_matrix(rotation)), rotation, atol=1e-12)
    assert_rotation(matrix_from_sixd(sixd_from_matrix(rotation) + np.array(noise)))


@given(rotation=rotations, direction=st.integers(0, 2), step=st.floats(1e-8, 1e-3))
def test_sixd_is_continuous_where_quaternions_jump(
    rotation: Array, direction: int, step: float
) -> None:
    turned = rotation @ rpy_to_matrix(*(np.eye(3)[direction] * step))
    assert np.linalg.norm(sixd_from_matrix(turned) - sixd_from_matrix(rotation)) <= 2 * step


def test_quaternion_with_positive_w_jumps_at_half_a_turn() -> None:
    """Negative control of the continuity test."""
    before = rpy_to_matrix(0, 0, math.pi - 1e-6)
    after = rpy_to_matrix(0, 0, math.pi + 1e-6)
    jump = quaternion_from_matrix(after) - quaternion_from_matrix(before)
    assert np.linalg.norm(jump) > 1.9
    assert np.linalg.norm(sixd_from_matrix(after) - sixd_from_matrix(before)) < 1e-5


@pytest.mark.parametrize(
    ("sixd", "message"),
    [
        ([0, 0, 0, 0, 1, 0], "zero first column"),
        ([1, 0, 0, -2, 0, 0], "parallel columns"),
        ([1, 0, 0, 0, 0, 0], "parallel columns"),
        ([1, 0, 0, 0, np.nan, 0], "NaN"),
    ],
)
def test_sixd_without_a_rotation_is_refused(sixd: list[float], message: str) -> None:
    with pytest.raises(GeometryError, match=message):
        matrix_from_sixd(sixd)


def test_zero_quaternion_and_wrong_shapes_are_refused() -> None:
    with pytest.raises(GeometryError, match="length 0"):
        matrix_from_quaternion([0, 0, 0, 0])
    with pytest.raises(GeometryError, match="no rotation"):
        quaternion_from_matrix(-np.eye(3))
    with pytest.raises(GeometryError, match="no rotation"):
        quaternion_from_matrix(1.01 * np.eye(3))
    with pytest.raises(ShapeError, match=r"\(4, 4\)"):
        inverse(np.eye(3))
    with pytest.raises(ShapeError, match="points"):
        transform_points(np.eye(4), [1, 2])


def test_projection_by_hand() -> None:
    k = [[500, 0, 320], [0, 400, 240], [0, 0, 1]]
    points = [[0, 0, 2], [1, 0, 2], [0, -1, 4]]
    np.testing.assert_allclose(project_pinhole(points, k), [[320, 240], [570, 240], [320, 140]])


@pytest.mark.parametrize("depth", [0.0, -1e-13, -1.0])
def test_points_that_are_not_in_front_have_no_pixel(depth: float) -> None:
    assert np.isnan(project_pinhole([0.1, 0.1, depth], np.eye(3))).all()


def test_camera_matrix_sees_the_field_of_view() -> None:
    k = camera_matrix_from_fovy(math.radians(60), 640, 480)
    top = project_pinhole([0, -math.tan(math.radians(30)), 1], k)
    np.testing.assert_allclose(top, [320, 0], atol=1e-9)
    with pytest.raises(GeometryError, match="between 0 and pi"):
        camera_matrix_from_fovy(0.0, 640, 480)


def test_rotations_are_those_of_pinocchio() -> None:
    """Same quaternions, angles and logarithms, also where they branch."""
    pin = pytest.importorskip("pinocchio")
    random = np.random.default_rng(0)
    for rpy in (*random.uniform(-1.5, 1.5, (200, 3)), *np.eye(3) * 1e-9, *np.eye(3) * 3.1415):
        matrix = rpy_to_matrix(*rpy)
        np.testing.assert_allclose(matrix, pin.rpy.rpyToMatrix(*rpy), atol=1e-12)
        quaternion = pin.Quaternion(matrix).coeffs()
        sign = 1.0 if quaternion[3] >= 0.0 else -1.0
        np.testing.assert_allclose(quaternion_from_matrix(matrix), sign * quaternion, atol=1e-9)
        np.testing.assert_allclose(rotation_vector(matrix), pin.log3(matrix), atol=1e-9)
        np.testing.assert_allclose(matrix_to_rpy(matrix), pin.rpy.matrixToRpy(matrix), atol=1e-9)
