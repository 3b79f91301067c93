# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Speeds of the hand become joint angles: direction, speed, borders."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from koch_driver.arm.jog import Jog, JogLimits, JogSpeed
from koch_driver.guard import Guard, GuardLimits, workspace_from_rig
from koch_rig.arm_model import KOCH_V1_1
from koch_rig.kinematics import Kinematics
from koch_rig.load import load_rig

pytest.importorskip("pinocchio")

RIG = load_rig(Path(__file__).parents[3] / "config" / "rig.emulated.yaml")
ARM = RIG.arms["follower"]
LIMITS = GuardLimits.from_rig(RIG.limits)
PERIOD_S = 1.0 / 30.0
FAST = JogLimits()
#: Over the table, the hand down: what a person would begin with.
START = (0.0, -0.3, -0.5, -1.6, 0.0, -0.6)


@pytest.fixture
def kinematics() -> Kinematics:
    """Of the follower."""
    return Kinematics.for_arm()


@pytest.fixture
def jog(kinematics: Kinematics) -> Jog:
    """At rest at START, in the rig's room."""
    made = Jog(kinematics, LIMITS.lower, LIMITS.upper, FAST, workspace_from_rig(RIG.limits, ARM))
    made.start(START)
    return made


def drive(jog: Jog, wanted: JogSpeed, seconds: float) -> np.ndarray:
    """The joint angles of each period while it is asked for; the arm follows."""
    count = round(seconds / PERIOD_S)
    path = []
    for _ in range(count):
        path.append(jog.step(wanted, path[-1] if path else START, PERIOD_S))
    return np.array(path)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("sign", [-1, 1])
def test_the_tcp_goes_straight_where_it_is_asked_to(
    jog: Jog, kinematics: Kinematics, axis: int, sign: int
) -> None:
    linear = [0.0, 0.0, 0.0]
    linear[axis] = sign * 0.03
    path = drive(jog, JogSpeed((linear[0], linear[1], linear[2])), 0.6)
    places = np.array([kinematics.tcp(q)[:3, 3] for q in [START, *path]])
    assert jog.border == ""
    moved = places[-1] - places[0]
    assert sign * moved[axis] == pytest.approx(0.03 * 0.6, abs=0.003)
    moved[axis] = 0.0
    assert np.abs(moved).max() < 1e-3
    steps = np.linalg.norm(np.diff(places, axis=0), axis=1)
    assert steps.max() <= 0.03 * PERIOD_S * 1.01


def test_it_begins_where_the_arm_is_and_comes_to_rest(jog: Jog) -> None:
    path = drive(jog, JogSpeed((0.1, 0.0, 0.0)), 0.5)
    assert np.abs(path[0] - START).max() < 0.03
    rest = drive(jog, JogSpeed(), 0.3)
    assert not jog.is_moving
    assert np.array_equal(rest[-1], rest[-2])
    assert np.abs(rest[-1] - path[-1]).max() < 0.1


def test_speeds_are_limited_whatever_is_asked_for(jog: Jog, kinematics: Kinematics) -> None:
    path = drive(jog, JogSpeed((9.0, 9.0, 9.0), 9.0, 9.0, 9.0), 1.0)
    places = np.array([kinematics.tcp(q)[:3, 3] for q in [START, *path]])
    steps = np.linalg.norm(np.diff(places, axis=0), axis=1)
    assert steps.max() <= FAST.linear * PERIOD_S * 1.01
    turns = np.abs(np.diff(np.vstack([START, path]), axis=0))
    assert turns[:, :-1].max() <= FAST.joint * PERIOD_S * 1.001
    assert turns[:, -1].max() <= FAST.gripper * PERIOD_S * 1.001


def test_pitch_turns_the_hand_and_leaves_the_tcp_where_it_is(
    jog: Jog, kinematics: Kinematics
) -> None:
    def look_up(q: object) -> float:
        approach = kinematics.tcp(q)[:3, 2]
        return math.atan2(approach[0], -approach[2])

    path = drive(jog, JogSpeed(pitch=0.5), 0.6)
    assert look_up(path[-1]) - look_up(START) == pytest.approx(0.3, abs=0.05)
    places = np.array([kinematics.tcp(q)[:3, 3] for q in path])
    assert np.abs(places - kinematics.tcp(START)[:3, 3]).max() < 1e-3


def test_roll_and_gripper_move_their_joints_alone(jog: Jog, kinematics: Kinematics) -> None:
    path = drive(jog, JogSpeed(gripper=0.5), 0.4)
    assert np.allclose(path[-1][:-1], START[:-1])
    assert kinematics.opening(path[-1][-1]) > kinematics.opening(START[-1]) + 0.003
    before = path[-1][4]
    path = drive(jog, JogSpeed(roll=0.5), 0.4)
    assert abs(path[-1][4] - before) == pytest.approx(0.5 * 0.4, abs=0.05)


def test_out_of_reach_it_stops_at_the_border_and_comes_back_at_once(
    jog: Jog, kinematics: Kinematics
) -> None:
    path = drive(jog, JogSpeed((0.1, 0.0, 0.0)), 6.0)
    assert jog.border == "out of reach"
    assert np.array_equal(path[-1], path[-2])
    assert ((LIMITS.lower <= path) & (path <= LIMITS.upper)).all()
    far = kinematics.tcp(path[-1])[0, 3]
    back = drive(jog, JogSpeed((-0.1, 0.0, 0.0)), 1.0)
    assert jog.border == ""
    assert kinematics.tcp(back[-1])[0, 3] < far - 0.02


def test_it_stops_over_the_table(jog: Jog, kinematics: Kinematics) -> None:
    path = drive(jog, JogSpeed((0.0, 0.0, -0.1)), 4.0)
    assert jog.border == "the table, or the border of the workspace"
    assert RIG.limits.table_z is not None
    assert kinematics.tcp(path[-1])[2, 3] > RIG.limits.table_z
    drive(jog, JogSpeed((0.0, 0.0, 0.1)), 0.3)
    assert jog.border == ""


def test_it_does_not_run_away_from_an_arm_that_does_not_follow(
    jog: Jog, kinematics: Kinematics
) -> None:
    for _ in range(90):
        q = jog.step(JogSpeed((0.0, 0.1, 0.0)), START, PERIOD_S)
    assert jog.border == "the arm does not follow"
    ahead = np.linalg.norm(kinematics.tcp(q)[:3, 3] - kinematics.tcp(START)[:3, 3])
    assert 0.03 < ahead < 0.052


@pytest.mark.parametrize("home", [True, False])
def test_through_the_guard_the_tcp_is_hardly_faster_than_asked_for(
    jog: Jog, kinematics: Kinematics, home: bool
) -> None:
    """The soft start catches up with a hand that moves at once; the rest has its speed."""
    guard = Guard(LIMITS, period_s=0.01, workspace=workspace_from_rig(RIG.limits, ARM))
    pose = np.array(KOCH_V1_1.home_rad if home else START)
    jog.start(pose)
    ways = [(0, 0, 1), (0, 1, 0), (1, 0, 0), (0, -1, 0), (-1, 0, 0), (0, 0, -1)]
    places, next_s = [], 0.0
    for cycle in range(60 * len(ways)):
        now_s = 0.01 * cycle
        if now_s >= next_s - 1e-9:
            next_s += PERIOD_S
            x, y, z = (0.07 * way for way in ways[cycle // 60])
            goal = jog.step(JogSpeed((x, y, z)), pose, PERIOD_S)
            guard.submit("teleop", KOCH_V1_1.joints, goal, age_s=0.0, now_s=now_s)
        found = guard.step(now_s, pose).goal
        pose = pose if found is None else np.array(found)
        places.append(kinematics.tcp(pose)[:3, 3])
    tenths = np.linalg.norm(np.subtract(places[10:], places[:-10]), axis=1) / 0.1
    assert tenths.max() < 1.7 * 0.07


def test_a_joint_order_as_the_arm_has_it() -> None:
    assert KOCH_V1_1.joints[-2:] == ("wrist_roll", "gripper")
