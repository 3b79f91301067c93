# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The guard keeps the real arm's tool centre point above the table and inside its box."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from koch_driver.guard import Guard, GuardConfigError, GuardLimits, Workspace, workspace_from_rig
from koch_rig.arm_model import KOCH_V1_1
from koch_rig.fingertips import FingertipKinematics

if TYPE_CHECKING:
    from koch_rig.rig import Rig

J = len(KOCH_V1_1.joints)
PERIOD = 0.01


@pytest.fixture
def workspace(rig: Rig) -> Workspace:
    made = workspace_from_rig(rig.limits, rig.arms["follower"])
    assert made is not None
    return made


@pytest.fixture
def limits(rig: Rig) -> GuardLimits:
    return GuardLimits.from_rig(rig.limits)


def test_lever_arms_bound_the_way_of_the_tcp(
    workspace: Workspace, limits: GuardLimits, rng: np.random.Generator
) -> None:
    for _ in range(300):
        q = rng.uniform(limits.lower, limits.upper)
        turn = rng.uniform(-0.3, 0.3, J)
        a = np.array(workspace.tcp_position(q.tolist()))
        b = np.array(workspace.tcp_position((q + turn).tolist()))
        assert np.linalg.norm(b - a) <= workspace.travel(np.abs(turn).tolist()) + 1e-12


def test_room_is_the_height_above_the_table(rig: Rig, workspace: Workspace) -> None:
    z = FingertipKinematics.for_arm(rig.arms["follower"]).tcp([0.0] * J)[2]
    assert rig.limits.table_z is not None
    expected = z - rig.limits.table_z - workspace.clearance_m
    assert workspace.room([0.0] * J) == pytest.approx(expected)


def test_projection_moves_a_pose_onto_the_face_and_leaves_the_gripper(
    workspace: Workspace,
) -> None:
    below = [0.3, -1.2, 0.2, 0.1, 0.0, -0.7]
    assert workspace.room(below) < -0.05
    above = workspace.project(below, 0.001)
    assert workspace.room(above) == pytest.approx(0.001, abs=5e-4)
    assert above[5] == -0.7
    inside = [0.0] * J
    assert workspace.project(inside) == inside


def test_a_box_without_room_is_refused(workspace: Workspace) -> None:
    with pytest.raises(GuardConfigError, match="lower < upper"):
        Workspace(workspace.tcp_position, workspace.lever_arms, upper=(1.0, 1.0, 0.0), table_z=0.1)


def test_the_arm_slides_along_the_table_when_pressed_into_it(
    workspace: Workspace, limits: GuardLimits
) -> None:
    guard = Guard(limits, period_s=PERIOD, workspace=workspace)
    pose, heights, pans, times = [0.0] * J, [], [], []
    assert workspace.table_z is not None
    for cycle in range(900):
        now = 1.0 + cycle * PERIOD
        command = [0.8 * math.sin(1.5 * now), -1.3, 0.0, 0.2, 0.5, -0.5]
        guard.submit("teleop", KOCH_V1_1.joints, command, age_s=0.0, now_s=now)
        begin = time.perf_counter()
        result = guard.step(now, pose)
        times.append(time.perf_counter() - begin)
        assert result.goal is not None
        pose = list(result.goal)
        heights.append(workspace.tcp_position(pose)[2])
        pans.append(pose[0] - command[0])
    assert min(heights) > workspace.table_z
    assert max(heights[300:]) < workspace.table_z + 0.02
    assert max(map(abs, pans[300:])) < 0.1


def test_an_arm_that_wakes_up_below_the_table_only_rises(
    workspace: Workspace, limits: GuardLimits
) -> None:
    guard = Guard(limits, period_s=PERIOD, workspace=workspace)
    pose = [0.0, -1.1, 0.0, 0.0, 0.0, 0.0]
    depth = workspace.room(pose)
    assert depth < 0.0
    now = 1.0
    for _ in range(50):
        now += PERIOD
        assert guard.step(now, pose).goal == tuple(pose)  # nobody asked: it rests
    rooms = []
    for cycle in range(500):
        now += PERIOD
        lower = cycle > 300
        command = [0.0, -1.4 if lower else 0.0, 0.0, 0.0, 0.0, 0.0]
        guard.submit("teleop", KOCH_V1_1.joints, command, age_s=0.0, now_s=now)
        result = guard.step(now, pose)
        assert result.goal is not None
        pose = list(result.goal)
        rooms.append(workspace.room(pose))
    assert min(rooms) >= depth
    assert max(rooms[:300]) > 0.05
    assert min(rooms[300:]) >= 0.0  # once above it stays above


def test_a_cycle_costs_less_than_its_budget(workspace: Workspace, limits: GuardLimits) -> None:
    guard = Guard(limits, period_s=PERIOD, workspace=workspace)
    pose, times = [0.0] * J, []
    for cycle in range(1000):
        now = 1.0 + cycle * PERIOD
        swing = math.sin(2.0 * now)
        command = [swing, 0.3 * swing, 0.5 * swing, 0.5 * swing, swing, -0.5 + 0.4 * swing]
        guard.submit("teleop", KOCH_V1_1.joints, command, age_s=0.0, now_s=now)
        begin = time.perf_counter()
        result = guard.step(now, pose)
        times.append(time.perf_counter() - begin)
        assert result.goal is not None
        pose = list(result.goal)
    assert sorted(times)[len(times) // 2] < 150e-6
