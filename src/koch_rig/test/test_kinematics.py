# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Kinematics against poses worked out by hand, finite differences and itself."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from koch_core.errors import ShapeError
from koch_rig.arm_model import KOCH_V1_1
from koch_rig.errors import ModelError
from koch_rig.fingertips import TOOL_FRAMES, FingertipKinematics
from koch_rig.geometry import inverse, rotation_vector, rpy_to_matrix, transform_from
from koch_rig.kinematics import IkSettings, Kinematics, Orientation
from koch_rig.load import load_rig
from koch_rig.model import arm_urdf
from koch_rig.rig import Mount, Role

J = len(KOCH_V1_1.joints)

Array = NDArray[np.float64]
RIG = Path(__file__).resolve().parents[3] / "config" / "rig.sim.yaml"
HALF = math.pi / 2
DOWN = np.diag([1.0, -1.0, -1.0])
ARM = Kinematics.for_arm("follower/")

fractions = st.lists(st.floats(0.0, 1.0), min_size=6, max_size=6)


def angles(values: list[float]) -> Array:
    """Joint angles at these fractions of the limits."""
    result: Array = ARM.lower + np.array(values) * (ARM.upper - ARM.lower)
    return result


# Worked out on paper from spec/koch_arm.md. In the frame behind the pan joint, arm along -x:
# elbow (-0.0148, -0.0144, 0.1237), wrist_roll 0.14548 m further, TCP (-0.22528, 0.005897, 0.1269).
# base_link looks the other way: x and y change sign; the pan joint stands at (-0.012, 0, 0.0409).
HAND_WORKED = [
    # All zero: upper arm upright, forearm forward, approach forward, jaw to the left.
    ((0, 0, 0, 0, 0, 0), (0.21328, -0.005897, 0.1678), (1, 0, 0), (0, 1, 0)),
    # Pan +90 degrees about -z: everything turns to the right.
    ((HALF, 0, 0, 0, 0, 0), (-0.017897, -0.22528, 0.1678), (0, -1, 0), (1, 0, 0)),
    # Elbow -90 degrees about -y points up; wrist turned over: (0.0022, 0.005997, 0.21048) on top
    # of the elbow.
    ((0, 0, -HALF, 0, math.pi, -1.0), (0.0006, 0.008403, 0.37508), (0, 0, 1), (0, -1, 0)),
]


@pytest.mark.parametrize(("q", "position", "approach", "across"), HAND_WORKED)
def test_forward_kinematics_by_hand(
    q: tuple[float, ...],
    position: tuple[float, ...],
    approach: tuple[float, ...],
    across: tuple[float, ...],
) -> None:
    pose = ARM.tcp(q)
    np.testing.assert_allclose(pose[:3, 3], position, atol=1e-9)
    np.testing.assert_allclose(pose[:3, 2], approach, atol=1e-9)
    np.testing.assert_allclose(pose[:3, 0], across, atol=1e-9)
    np.testing.assert_allclose(ARM.tcp_position(q), position, atol=1e-9)


@given(values=fractions)
def test_fast_path_equals_pinocchio(values: list[float]) -> None:
    q = angles(values)
    frames = ARM.forward(q)
    tips = FingertipKinematics.for_role(Role.FOLLOWER)
    for name, point in zip(TOOL_FRAMES, tips.positions(q.tolist()), strict=True):
        np.testing.assert_allclose(point, frames[f"follower/{name}"][:3, 3], atol=1e-12)
    np.testing.assert_allclose(ARM.tcp(q), frames["follower/tcp"], atol=1e-12)


def test_fast_path_stands_where_the_rig_says() -> None:
    base = Mount(xyz=(0.1, -0.2, 0.3), rpy_rad=(0.1, 0.2, 0.3))
    moved = FingertipKinematics(arm_urdf(Role.FOLLOWER), base)
    q = (0.3, -0.5, 0.4, 0.2, 1.0, -0.7)
    world = transform_from(rpy_to_matrix(0.1, 0.2, 0.3), base.xyz) @ ARM.tcp(q)
    np.testing.assert_allclose(moved.tcp(q), world[:3, 3], atol=1e-12)
    follower = load_rig(RIG, {}).follower
    np.testing.assert_allclose(
        FingertipKinematics.for_arm(follower).tcp(q), ARM.tcp_position(q), atol=1e-12
    )


@given(values=fractions)
@settings(max_examples=30)
def test_jacobian_equals_finite_differences(values: list[float]) -> None:
    q = angles(values)
    jacobian = ARM.jacobian(q)
    step = 1e-6
    for joint in range(J):
        dq = np.eye(6)[joint] * step
        before, after = ARM.tcp(q - dq), ARM.tcp(q + dq)
        linear = (after[:3, 3] - before[:3, 3]) / (2 * step)
        angular = rotation_vector(after[:3, :3] @ before[:3, :3].T) / (2 * step)
        np.testing.assert_allclose(jacobian[:3, joint], linear, atol=1e-8)
        np.testing.assert_allclose(jacobian[3:, joint], angular, atol=1e-8)
    np.testing.assert_array_equal(jacobian[:, 5], 0.0)


@pytest.mark.parametrize("orientation", list(Orientation))
def test_inverse_finds_poses_that_the_arm_can_take(orientation: Orientation) -> None:
    rng = np.random.default_rng(7)
    for _ in range(25):
        # A tenth of the range from the limits: the wanted pose itself stays well inside.
        goal = ARM.lower + rng.uniform(0.1, 0.9, J) * (ARM.upper - ARM.lower)
        seed = ARM.lower + rng.uniform(0.0, 1.0, J) * (ARM.upper - ARM.lower)
        wanted = ARM.tcp(goal)
        found = ARM.inverse(wanted, seed, orientation=orientation)
        reached = ARM.tcp(found.q)
        assert found.converged
        assert np.linalg.norm(reached[:3, 3] - wanted[:3, 3]) < 1.1e-4
        if orientation is not Orientation.NONE:
            assert reached[:3, 2] @ wanted[:3, 2] > 1 - 1e-4
        if orientation is Orientation.FULL:
            assert np.linalg.norm(rotation_vector(reached[:3, :3].T @ wanted[:3, :3])) < 6e-3
        assert (found.q >= ARM.lower).all()
        assert (found.q <= ARM.upper).all()
        assert found.q[5] == seed[5]


def test_inverse_reaches_straight_down_grasps_with_any_turn_of_the_jaws() -> None:
    for yaw in (-1.2, 0.0, 0.8):
        pose = transform_from(rpy_to_matrix(0, 0, yaw) @ DOWN, (0.15, 0.05, 0.02))
        found = ARM.inverse(pose, np.zeros(J), orientation=Orientation.FULL)
        assert found.converged
        np.testing.assert_allclose(ARM.tcp(found.q), pose, atol=2e-3)


def test_inverse_stays_near_its_seed() -> None:
    seed = np.array([0.2, -0.6, 0.3, -0.5, 0.4, -0.8])
    pose = ARM.tcp(seed)
    pose[:3, 3] += (0.004, -0.003, 0.002)
    found = ARM.inverse(pose, seed, orientation=Orientation.NONE)
    assert found.converged
    assert np.abs(found.q - seed).max() < 0.1


def test_position_wins_where_the_orientation_is_out_of_reach() -> None:
    """Pointing sideways far in front: five joints cannot, so only the direction gives way."""
    pose = transform_from(rpy_to_matrix(0, 0, HALF) @ ARM.tcp(np.zeros(J))[:3, :3], (0.2, 0, 0.15))
    found = ARM.inverse(pose, np.zeros(J))
    assert not found.converged
    assert found.position_error_m < 1e-4
    assert found.rotation_error_rad > 0.1
    np.testing.assert_allclose(ARM.tcp(found.q)[:3, 3], (0.2, 0, 0.15), atol=1e-4)


def test_out_of_reach_is_said_and_not_hidden() -> None:
    pose = transform_from(DOWN, (1.0, 0.0, 0.1))
    found = ARM.inverse(pose, np.zeros(J), settings=IkSettings(starts=3))
    assert not found.converged
    assert found.position_error_m > 0.5
    assert np.isfinite(found.q).all()


def test_inverse_survives_an_opposite_approach() -> None:
    """The axis between opposite directions is undefined; the search must leave that point."""
    seed = np.array([0.0, -0.4, -0.3, 0.0, 0.0, 0.0])
    pose = ARM.tcp(seed)
    pose[:3, :3] = pose[:3, :3] @ np.diag([1.0, -1.0, -1.0])
    found = ARM.inverse(pose, seed, settings=IkSettings(starts=2))
    assert np.isfinite(found.q).all()


def test_inverse_gives_the_same_answer_twice() -> None:
    pose = transform_from(DOWN, (0.16, -0.04, 0.03))
    first, second = (ARM.inverse(pose, np.full(J, 0.1)) for _ in range(2))
    np.testing.assert_array_equal(first.q, second.q)


def test_gripper_opens_with_negative_angles() -> None:
    openings = [ARM.opening(angle) for angle in np.linspace(0.032, -1.6, 20)]
    assert openings[0] == pytest.approx(0.001, abs=5e-4)
    assert openings[-1] == pytest.approx(0.072, abs=1e-3)
    assert (np.diff(openings) > 0).all()
    assert ARM.opening(0.0) == pytest.approx(0.0027, abs=1e-12)  # 0.0085 - (0.0133 - 0.0075)


def test_tcp_lies_between_the_closed_finger_tips() -> None:
    frames = ARM.forward(np.zeros(J))
    tcp = inverse(frames["follower/tcp"])
    for name, side in (("finger_tip", -1), ("jaw_tip", 1)):
        x, y, z = (tcp @ frames[f"follower/{name}"])[:3, 3]
        assert x * side == pytest.approx(0.00135, abs=1e-9)
        assert y == pytest.approx(0.0, abs=1e-4)
        assert z == pytest.approx(0.004, abs=2e-4)


def test_guard_path_is_fast_enough() -> None:
    """The guard has 150 us for it at 100 Hz; measured 2 us and 8 us, the test leaves room."""
    model = FingertipKinematics.for_role(Role.FOLLOWER)
    q = (0.1, 0.2, 0.3, 0.4, 0.5, -0.6)
    durations = []
    for _ in range(300):
        start = time.perf_counter()
        model.positions(q)
        durations.append(time.perf_counter() - start)
    assert sorted(durations)[150] < 100e-6


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"joint angles: got an array of shape \(5,\)"):
        ARM.tcp(np.zeros(5))
    with pytest.raises(ShapeError, match="T_base_tcp"):
        ARM.inverse(np.zeros(3), np.zeros(J))


def test_without_pinocchio_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pinocchio", None)
    arm = Kinematics.for_arm()
    assert arm.tcp_position(np.zeros(J).tolist())[0] == pytest.approx(0.21328)
    with pytest.raises(ModelError, match=r"no Pinocchio .*koch setup"):
        arm.tcp(np.zeros(J))


def test_tip_model_refuses_what_it_cannot_compute() -> None:
    urdf = arm_urdf(Role.FOLLOWER)
    with pytest.raises(ModelError, match=r"joint shoulder_lift: got axis \(0\.0, 0\.6, 0\.8\)"):
        FingertipKinematics(urdf.replace('axis xyz="0 1 0"', 'axis xyz="0 0.6 0.8"', 1), Mount())
    with pytest.raises(ModelError, match="no joint above other/tcp"):
        FingertipKinematics(urdf, Mount(), "other/")
