# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Trajectories: interpolation as JTC's, and refusals with code and sentence."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koch_driver.trajectory.trajectory import (
    ResultCode,
    Trajectory,
    TrajectoryError,
    TrajectoryPoint,
    check_trajectory,
    interpolate,
)
from koch_rig.arm_model import KOCH_V1_1

START = TrajectoryPoint(0.0, (0.0,), (0.0,), (0.0,))


def test_positions_only_make_straight_lines() -> None:
    path = Trajectory(
        ("elbow_flex",), (TrajectoryPoint(1.0, (1.0,)), TrajectoryPoint(3.0, (0.0,)))
    )
    assert path.sample(0.25, START).positions == pytest.approx((0.25,))
    assert path.sample(2.0, START).positions == pytest.approx((0.5,))
    assert path.sample(2.0, START).velocities == pytest.approx((-0.5,))


def test_velocities_make_cubics() -> None:
    path = Trajectory(("elbow_flex",), (TrajectoryPoint(2.0, (1.0,), (0.0,)),))
    half = path.sample(1.0, START)
    assert half.positions == pytest.approx((0.5,))
    assert half.velocities == pytest.approx((0.75,))  # 1.5 times the mean of 0.5


def test_accelerations_make_quintics() -> None:
    path = Trajectory(("elbow_flex",), (TrajectoryPoint(2.0, (1.0,), (0.0,), (0.0,)),))
    half = path.sample(1.0, START)
    assert half.positions == pytest.approx((0.5,))
    assert half.velocities == pytest.approx((15.0 / 16.0,))  # 15/8 times the mean
    assert half.accelerations == pytest.approx((0.0,), abs=1e-12)


SIDE = st.floats(-2.0, 2.0)


@given(p=st.tuples(SIDE, SIDE), v=st.tuples(SIDE, SIDE), a=st.tuples(SIDE, SIDE),
       span=st.floats(0.1, 5.0), order=st.sampled_from([3, 5]))  # fmt: skip
def test_segments_meet_both_ends_and_are_smooth(p, v, a, span, order) -> None:
    extra = [((a[0],), (a[1],)), ((), ())][order == 3]
    begin = TrajectoryPoint(1.0, (p[0],), (v[0],), extra[0])
    end = TrajectoryPoint(1.0 + span, (p[1],), (v[1],), extra[1])
    for time_s, want in ((1.0, begin), (1.0 + span, end)):
        got = interpolate(begin, end, time_s)
        assert got.positions == pytest.approx(want.positions, abs=1e-7)
        assert got.velocities == pytest.approx(want.velocities, abs=1e-6)
        if order == 5:
            assert got.accelerations == pytest.approx(want.accelerations, abs=1e-5)
    middle, step = 1.0 + 0.4 * span, 1e-6
    slope = (
        interpolate(begin, end, middle + step).positions[0]
        - interpolate(begin, end, middle - step).positions[0]
    ) / (2 * step)
    assert interpolate(begin, end, middle).velocities[0] == pytest.approx(slope, abs=1e-3)


def test_after_the_end_the_last_point_is_held() -> None:
    path = Trajectory(("elbow_flex",), (TrajectoryPoint(1.0, (0.7,)),))
    last = path.sample(9.0, START)
    assert (last.positions, last.velocities) == ((0.7,), (0.0,))


def test_a_point_at_time_zero_is_taken_at_once() -> None:
    path = Trajectory(
        ("elbow_flex",), (TrajectoryPoint(0.0, (0.2,)), TrajectoryPoint(1.0, (0.4,)))
    )
    assert path.sample(0.0, START).positions == (0.2,)
    assert path.sample(0.5, START).positions == pytest.approx((0.3,))


def check(joints, points):
    return check_trajectory(
        joints, points, own_joints=KOCH_V1_1.joints, limits={"elbow_flex": (-1.0, 1.0)}
    )


@pytest.mark.parametrize(
    ("joints", "points", "code", "words"),
    [
        ([], [TrajectoryPoint(1.0, ())], ResultCode.INVALID_JOINTS, "names no joints"),
        (
            ["elbow"],
            [TrajectoryPoint(1.0, (0.0,))],
            ResultCode.INVALID_JOINTS,
            "unknown joint elbow",
        ),
        (
            ["elbow_flex"] * 2,
            [TrajectoryPoint(1.0, (0.0, 0.0))],
            ResultCode.INVALID_JOINTS,
            "twice",
        ),
        (["elbow_flex"], [], ResultCode.INVALID_GOAL, "no points"),
        (
            ["elbow_flex"],
            [TrajectoryPoint(1.0, ())],
            ResultCode.INVALID_GOAL,
            "0 positions, expected 1",
        ),
        (
            ["elbow_flex"],
            [TrajectoryPoint(1.0, (0.0,), (0.0, 0.0))],
            ResultCode.INVALID_GOAL,
            "2 velocities",
        ),
        (["elbow_flex"], [TrajectoryPoint(1.0, (math.nan,))], ResultCode.INVALID_GOAL, "nan"),
        (
            ["elbow_flex"],
            [TrajectoryPoint(1.0, (1.5,))],
            ResultCode.INVALID_GOAL,
            "1.5000 rad, expected",
        ),
        (
            ["elbow_flex"],
            [TrajectoryPoint(-0.1, (0.0,))],
            ResultCode.INVALID_GOAL,
            "expected 0 or more",
        ),
        (
            ["elbow_flex"],
            [TrajectoryPoint(1.0, (0.0,)), TrajectoryPoint(1.0, (0.1,))],
            ResultCode.INVALID_GOAL,
            "strictly increase",
        ),
        (
            ["elbow_flex"],
            [TrajectoryPoint(1.0, (0.0,), (0.4,))],
            ResultCode.INVALID_GOAL,
            "must end at rest",
        ),
    ],
)
def test_a_bad_trajectory_is_refused_with_code_and_reason(joints, points, code, words) -> None:
    with pytest.raises(TrajectoryError, match=words) as caught:
        check(joints, points)
    assert caught.value.code is code


def test_any_subset_of_the_joints_in_any_order_is_fine() -> None:
    path = check(["wrist_flex", "elbow_flex"], [TrajectoryPoint(0.5, (0.1, 0.2))])
    assert path.joints == ("wrist_flex", "elbow_flex")
