# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The scripted hand shows the task, from any seed."""

import re

import numpy as np
import pytest

from koch_rig.kinematics import Kinematics
from koch_rig.rig import Mount
from koch_sim.draw import draw
from koch_sim.errors import UnreachableError
from koch_sim.expert import CORRECTING, HUMAN, SMOOTH, Expert, ExpertPhase, minimum_jerk
from koch_sim.grasp import HOME_RAD, GraspPlanner
from koch_sim.randomisation import Randomisation
from koch_sim.truth import Pose, TableTruth


def _plan(planner, block_xy, cup_xy, yaw=0.0):
    block = Pose(np.array([*block_xy, 0.0125]), yaw)
    return planner.into_cup(block, Pose(np.array([*cup_xy, 0.0])))


@pytest.fixture(scope="module")
def planner():
    return GraspPlanner(Kinematics.for_arm(), Mount())


def test_every_drawn_set_up_is_in_reach(planner):
    for seed in range(25):
        setup = draw(Randomisation(), seed, 0)
        block, cup = setup.places["block"], setup.places["cup"]
        path = _plan(planner, (block.x_m, block.y_m), (cup.x_m, cup.y_m), block.yaw_rad)
        np.testing.assert_array_equal(path[-1].q_rad, HOME_RAD)


def test_block_out_of_reach_is_named(planner):
    with pytest.raises(UnreachableError, match=r"The block at x=0\.4"):
        _plan(planner, (0.4, 0.0), (0.1, 0.14))


def test_base_pose_moves_the_plan_along(planner):
    turned = GraspPlanner(Kinematics.for_arm(), Mount("world", (0.5, 0.2, 0.0), (0.0, 0.0, 1.0)))
    c, s = np.cos(1.0), np.sin(1.0)

    def place(x, y):
        return (0.5 + c * x - s * y, 0.2 + s * x + c * y)

    here = _plan(planner, (0.15, 0.03), (0.1, 0.14), 0.2)
    there = _plan(turned, place(0.15, 0.03), place(0.1, 0.14), 1.2)
    for a, b in zip(here, there, strict=True):
        np.testing.assert_allclose(a.q_rad, b.q_rad, atol=0.02)


def test_minimum_jerk_starts_and_ends_at_rest():
    assert minimum_jerk(0.0) == 0.0
    assert minimum_jerk(1.0) == 1.0
    assert minimum_jerk(0.5) == pytest.approx(0.5)
    for end in (0.0, 1.0):
        slope = (minimum_jerk(end + 1e-4) - minimum_jerk(end - 1e-4)) / 2e-4
        assert abs(slope) < 1e-6


def _played(planner, style, lost=(), seed=4):
    """Play a demonstration against a block that is lifted except in the named attempts."""
    path = _plan(planner, (0.15, 0.03), (0.1, 0.14), 0.2)
    expert = Expert(style)
    expert.start(
        path, HOME_RAD, seed=seed, replan=lambda _: path if expert.attempts in lost else None
    )
    poses = [HOME_RAD]
    while expert.phase is ExpertPhase.MOVING:
        poses.append(expert.update(0.004, lambda: TableTruth({}), poses[-1]))
    return expert, np.array(poses)


@pytest.mark.parametrize("style", [SMOOTH, CORRECTING, HUMAN])
@pytest.mark.parametrize("lost", [(), (1,)])
def test_the_reference_never_jumps_and_ends_at_home(planner, style, lost):
    expert, poses = _played(planner, style, lost)
    assert expert.phase is ExpertPhase.DONE
    assert expert.attempts == 1 + len(lost)
    assert np.abs(np.diff(poses, axis=0)).max() < 0.004 * 3.0
    np.testing.assert_allclose(poses[-1][:-1], HOME_RAD[:-1], atol=0.2)  # it leans against sag


def test_a_correcting_hand_comes_turned_and_grips_all_the_same(planner):
    grasp = _plan(planner, (0.15, 0.03), (0.1, 0.14), 0.2)[1].q_rad
    turned = []
    for seed in range(20):
        poses = _played(planner, CORRECTING, seed=seed)[1]
        lowest = int(np.argmin(np.abs(poses[:, :4] - grasp[:4]).max(axis=1)))
        assert np.abs(poses[lowest, :5] - grasp[:5]).max() < 0.05
        # A smooth hand turns its wrist from home's roll to the grasp's, and never beyond.
        low, high = sorted((HOME_RAD[4], grasp[4]))
        before = poses[:lowest, 4]
        turned.append(max(low - before.min(), before.max() - high) > 0.1)
    assert 5 <= sum(turned) < 15


def test_a_block_that_slips_every_time_is_given_up(planner):
    expert, _ = _played(planner, SMOOTH, lost=(1, 2, 3))
    assert expert.phase is ExpertPhase.FAILED
    assert "slipped three times" in expert.reason


def test_a_block_that_slips_out_of_reach_ends_the_demonstration(planner):
    def replan(truth):
        return _plan(planner, (0.4, 0.0), (0.1, 0.14))

    expert = Expert()
    expert.start(_plan(planner, (0.15, 0.03), (0.1, 0.14)), HOME_RAD, 0, replan)
    for _ in range(4000):
        if expert.update(0.01, lambda: None, HOME_RAD) is None:
            break
    assert (expert.phase, expert.reason) == (ExpertPhase.FAILED, "the block slipped out of reach")


@pytest.mark.parametrize(("xy", "yaw"), [((0.4, 0.0), 0.0), ((0.287, 0.107), 1.2)])
def test_out_of_reach_says_what_is_missing(planner, xy, yaw):
    with pytest.raises(UnreachableError, match=r"\d mm away .*\d deg turned") as caught:
        [_plan(planner, xy, (0.1, 0.14), yaw + turn) for turn in np.linspace(0.0, np.pi, 12)]
    away, turned = re.findall(r"is ([\d.]+) mm|and (\d+) deg", str(caught.value))
    assert float(away[0]) >= 2.0 or float(turned[1]) >= 3.0


def test_smooth_demonstrations_are_shorter_and_alike(planner):
    smooth = len(_played(planner, SMOOTH)[1]) * 0.004
    human = len(_played(planner, HUMAN)[1]) * 0.004
    assert smooth < 0.8 * human
