# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Spaces of actions: what is encoded comes back, and what cannot be done is named."""

from __future__ import annotations

import numpy as np
import pytest

from koch_core.registry import UnknownKindError
from koch_rig.action_layout import ACTION_SPACES, ActionLayout
from koch_rig.action_space import ActionCodec, UnreachableTargetError, quaternions_along, rotations
from koch_rig.arm_model import KOCH_V1_1
from koch_rig.errors import GeometryError
from koch_rig.geometry import matrix_from_quaternion, matrix_from_sixd, rpy_to_matrix
from koch_rig.kinematics import Kinematics

JOINTS = KOCH_V1_1.joints
ONE = ActionLayout.of([("follower", JOINTS)])
TWO = ActionLayout.of([("left", JOINTS), ("right", JOINTS)])
ARM = Kinematics()
READY = np.array([0.2, -0.3, 0.2, 0.8, 0.3, -0.4])
SPACES = sorted(ACTION_SPACES)
TCP_SPACES = [name for name in SPACES if ACTION_SPACES[name].is_tcp]


def is_regular(q: np.ndarray) -> bool:
    """Away from where two postures meet: there a pose tells no posture."""
    jacobian = ARM.jacobian(q)[:, :5].copy()
    jacobian[3:] *= 0.1
    return bool(np.linalg.svd(jacobian, compute_uv=False)[-1] > 0.01)


def chunks(seed: int, count: int, steps: int = 16) -> list[tuple[np.ndarray, np.ndarray]]:
    """Straight chunks all over the joints' range, each with a pose that was observed before it."""
    rng = np.random.default_rng(seed)
    low, high = ARM.lower + 0.02, ARM.upper - 0.02
    found = []
    while len(found) < count:
        begin = rng.uniform(low, high)
        end = np.clip(begin + rng.uniform(-0.6, 0.6, 6), low, high)
        chunk = begin + (end - begin) * np.linspace(0, 1, steps)[:, None]
        if all(is_regular(row) for row in chunk):
            found.append((chunk, np.clip(begin + rng.uniform(-0.03, 0.03, 6), low, high)))
    return found


def codec(name: str, layout: ActionLayout = ONE) -> ActionCodec:
    return ActionCodec(ACTION_SPACES[name], layout)


@pytest.mark.parametrize("name", SPACES)
def test_what_is_encoded_comes_back(name: str) -> None:
    one = codec(name)
    for chunk, observed in chunks(1, 20):
        vectors = one.encode(chunk, observed)
        assert vectors.shape == (len(chunk), len(one.names))
        decoded = one.decode(vectors, observed)
        assert decoded.trouble is None
        np.testing.assert_allclose(decoded.rows, chunk, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", SPACES)
def test_each_of_two_arms_has_its_own_part(name: str) -> None:
    two = codec(name, TWO)
    (left, seen_left), (right, seen_right) = chunks(2, 2)
    both, seen = np.concatenate([left, right], 1), np.concatenate([seen_left, seen_right])
    vectors = two.encode(both, seen)
    assert len(two.names) == vectors.shape[1] == 2 * len(codec(name).names)
    assert two.names[0].startswith("left_")
    np.testing.assert_allclose(two.decode(vectors, seen).rows, both, rtol=0, atol=1e-6)


def test_a_relative_chunk_goes_along_with_the_observed_pose() -> None:
    chunk = READY + np.linspace(0, 0.2, 8)[:, None]
    for name in ("joint_relative", "tcp_relative", "tcp_relative_base"):
        one = codec(name)
        turned = READY + np.array([0.5, 0, 0, 0, 0, 0])  # about the base's own axis
        vectors = one.encode(chunk, READY)
        assert np.abs(vectors[0][:3]).max() < 1e-9  # it begins where the hand is
        moved = one.decode(vectors, turned)
        if name != "tcp_relative_base":  # in the base's axes, a push to the front stays one
            np.testing.assert_allclose(moved.rows[:, 1:], chunk[:, 1:], atol=1e-5)
            np.testing.assert_allclose(moved.rows[:, 0], chunk[:, 0] + 0.5, atol=1e-5)
        np.testing.assert_array_equal(vectors[:, -1], chunk[:, -1])  # the gripper is absolute


def test_a_rotation_that_five_joints_cannot_have_is_met_as_nearly_as_they_can() -> None:
    one, rng = codec("tcp"), np.random.default_rng(3)
    poses = one.poses(np.repeat(READY[None], 40, 0))
    for row in poses:
        turn = rpy_to_matrix(*rng.normal(0, 0.05, 3)) @ matrix_from_sixd(row[3:9])
        row[3:9] = turn[:, :2].T.reshape(-1)
    decoded = one.decode(poses, READY)
    assert decoded.trouble is None
    for joints, pose in zip(decoded.rows, poses, strict=True):
        assert np.linalg.norm(ARM.tcp(joints)[:3, 3] - pose[:3]) < 1e-5  # the position is exact
    assert np.abs(np.diff(decoded.rows, axis=0)).max() < 0.6


@pytest.mark.parametrize("name", TCP_SPACES)
def test_what_is_out_of_reach_is_named_and_ends_the_chunk(name: str) -> None:
    one = codec(name)
    chunk = READY + np.linspace(0, 0.1, 8)[:, None]
    vectors = one.encode(chunk, READY)
    vectors[5, :3] += 1.0
    decoded = one.decode(vectors, READY)
    np.testing.assert_allclose(decoded.rows, chunk[:5], atol=1e-6)
    assert decoded.trouble is not None
    assert decoded.trouble.row == 5
    assert "row 5 of the chunk asks the hand of follower" in str(decoded.trouble)
    assert "mm away" in str(decoded.trouble)
    with pytest.raises(UnreachableTargetError, match="row 0"):
        one.decode(vectors[5:], READY)


def test_a_hand_turned_over_is_refused_and_not_searched_for() -> None:
    one = codec("tcp")
    vectors = one.poses(READY + np.linspace(0, 0.05, 6)[:, None])
    up = vectors.copy()
    up[3, 6:9] *= -1.0  # half a turn about the hand's x axis: it would point back at the arm
    decoded = one.decode(up, READY)
    assert decoded.trouble is not None
    assert decoded.trouble.row == 3
    rolled = vectors.copy()
    rolled[3, 3:9] *= -1.0  # half a turn about the hand's own axis, within one step
    decoded = one.decode(rolled, READY)
    assert len(decoded.rows) == 3


@pytest.mark.parametrize("bad", [0.0, np.nan])
def test_numbers_that_are_no_rotation_are_refused(bad: float) -> None:
    one = codec("tcp")
    vectors = one.poses(READY[None].repeat(4, 0))
    vectors[2, 3:6] = bad
    with pytest.raises(UnreachableTargetError, match="6D rotation of row 2"):
        one.decode(vectors, READY)
    with pytest.raises(GeometryError, match="parallel"):
        rotations(np.array([1.0, 0, 0, 2.0, 0, 0]))


def test_positions_that_are_not_finite_are_refused() -> None:
    one = codec("tcp")
    vectors = one.poses(READY[None].repeat(4, 0))
    vectors[0, 1] = np.nan
    with pytest.raises(UnreachableTargetError, match="row 0"):
        one.decode(vectors, READY)


def test_quaternions_keep_one_sign_through_a_whole_turn() -> None:
    angles = np.linspace(0.0, 4.0 * np.pi, 200)
    turns = np.stack([rpy_to_matrix(0.3, 0.2, angle) for angle in angles])
    found = quaternions_along(turns)
    assert np.abs(np.diff(found, axis=0)).max() < 0.1
    assert found[:, 3].min() < -0.9  # w does change its sign, without a jump
    for quaternion, turn in zip(found, turns, strict=True):
        np.testing.assert_allclose(matrix_from_quaternion(quaternion), turn, atol=1e-9)


def test_a_decoder_is_told_where_the_arm_is() -> None:
    with pytest.raises(Exception, match="tcp: no observed joints"):
        codec("tcp").decode(np.zeros((1, 10)), None)
    with pytest.raises(UnknownKindError, match="known are joint, joint_relative, tcp"):
        ACTION_SPACES["polar"]
