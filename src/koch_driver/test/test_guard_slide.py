# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""At a face of the workspace only what would cross it is taken away."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from koch_driver.guard import Guard, GuardLimits, Workspace, workspace_from_rig
from koch_driver.guard.slide import Face, nearest_inside
from koch_rig.arm_model import KOCH_V1_1

if TYPE_CHECKING:
    from koch_rig.rig import Rig

J = len(KOCH_V1_1.joints)
PERIOD = 0.01
SWING_RAD = 500 * 2 * math.pi / 4096
PAN, LIFT, ELBOW, FLEX, ROLL = range(5)


def test_a_wanted_way_that_crosses_nothing_is_kept() -> None:
    assert nearest_inside([0.1, -0.2], [-1, -1], [1, 1], [Face([1.0, 0.0], -0.5)]) == [0.1, -0.2]


def test_only_the_part_across_a_face_is_taken_away() -> None:
    # Slope (3, 4, 0) m/rad: 25 m per unit price; 5 m too far out.
    found = nearest_inside([-1.0, -0.5, 0.7], [-9] * 3, [9] * 3, [Face([3.0, 4.0, 0.0], 0.0)])
    assert found == pytest.approx([-1.0 + 5 * 3 / 25, -0.5 + 5 * 4 / 25, 0.7])


def test_a_joint_at_its_bound_leaves_the_rest_to_the_others() -> None:
    found = nearest_inside([-1.0, -1.0], [-1.0, -1.0], [-0.9, 1.0], [Face([1.0, 1.0], 0.0)])
    assert found == pytest.approx([-0.9, 0.9])


def test_bounds_that_leave_no_way_give_the_way_farthest_inside() -> None:
    found = nearest_inside([-1.0, 0.0], [-1.0, -0.1], [-0.8, 0.1], [Face([1.0, -1.0], 0.0)])
    assert found == pytest.approx([-0.8, -0.1])


def test_the_nearest_way_is_found_among_several_faces(rng: np.random.Generator) -> None:
    """No feasible point drawn at random is nearer than the one found."""
    for _ in range(60):
        low, high = -rng.uniform(0.1, 1.0, 5), rng.uniform(0.1, 1.0, 5)
        wanted = rng.uniform(low, high)
        slopes = rng.normal(0.0, 0.3, (2, 5)) * (rng.random((2, 5)) < 0.7)
        bounds = -rng.uniform(0.0, 0.1, 2)  # resting crosses nothing, as in the guard
        faces = [Face(slope.tolist(), bound) for slope, bound in zip(slopes, bounds, strict=True)]
        found = np.array(nearest_inside(wanted.tolist(), low.tolist(), high.tolist(), faces))
        assert np.all(found >= low)
        assert np.all(found <= high)
        assert np.all(slopes @ found >= bounds - 1e-3)
        others = np.vstack(
            [rng.uniform(low, high, (2000, 5)), found + rng.normal(0, 0.02, (500, 5))]
        )
        feasible = np.all(others @ slopes.T >= bounds, axis=1) & np.all(
            (others >= low) & (others <= high), axis=1
        )
        nearer = np.linalg.norm(others[feasible] - wanted, axis=1)
        assert np.linalg.norm(found - wanted) <= nearer.min(initial=math.inf) + 5e-3


@pytest.fixture
def limits(rig: Rig) -> GuardLimits:
    return GuardLimits.from_rig(rig.limits)


@pytest.fixture
def table(rig: Rig) -> Workspace:
    made = workspace_from_rig(rig.limits, rig.arms["follower"])
    assert made is not None
    return made


def low_pose(workspace: Workspace, limits: GuardLimits, room: float) -> list[float]:
    """The hand reaches forward with the TCP this far above the table."""
    lifts = np.linspace(limits.lower[LIFT], limits.upper[LIFT], 800)
    poses = [[0.0, float(lift), 0.9, 0.3, 0.0, -0.7] for lift in lifts]
    return min(poses, key=lambda pose: abs(workspace.room(pose) - room))


def swing(
    guard: Guard, center: list[float], phases: dict[int, float], hz: float, *, delay: int
) -> tuple[np.ndarray, np.ndarray]:
    """Commands and goals of a leader that swings by 500 ticks, the arm some cycles behind."""
    commands, goals = [], [list(center)]
    for cycle in range(int(2.5 / hz / PERIOD) + 200):
        now = cycle * PERIOD
        command = list(center)
        for joint, phase in phases.items():
            wave = math.sin(2 * math.pi * hz * now + phase)
            command[joint] += min(1.0, now / 2.0) * SWING_RAD * wave
        guard.submit("teleop", KOCH_V1_1.joints, command, age_s=0.0, now_s=now)
        result = guard.step(now, goals[max(0, len(goals) - delay)])
        assert result.goal is not None
        goals.append(list(result.goal))
        commands.append(command)
    return np.array(commands)[200:], np.array(goals)[201:]


@pytest.mark.parametrize("room", [0.004, 0.03])
@pytest.mark.parametrize("hz", [0.25, 0.55])
@pytest.mark.parametrize(
    "phases",
    [
        dict.fromkeys(range(5), 0.0),
        {PAN: 0.0, LIFT: 0.9, ELBOW: 1.8, FLEX: 2.7, ROLL: 3.6},
        {PAN: 2.0, ELBOW: 0.0, FLEX: 1.0},
        {LIFT: 0.0, ROLL: 1.5},
    ],
)
def test_pan_and_roll_follow_near_the_table_as_without_one(
    table: Workspace, limits: GuardLimits, room: float, hz: float, phases: dict[int, float]
) -> None:
    center = low_pose(table, limits, room)
    guarded = Guard(limits, period_s=PERIOD, workspace=table)
    commands, goals = swing(guarded, center, phases, hz, delay=3)
    assert min(table.room(goal) for goal in goals) >= 0.0
    off = np.abs(commands - goals).max(axis=0)
    assert off[PAN] < 0.01
    assert off[ROLL] < 0.04
    # The leader did go below the table, and the hand stayed near it: nothing was taken for ever.
    assert min(table.room(command) for command in commands) < -0.02
    assert max(table.room(goal) for goal in goals) > 0.02 or room < 0.01


def test_every_joint_keeps_up_when_the_leader_glides_just_above_the_table(
    table: Workspace, limits: GuardLimits
) -> None:
    center = low_pose(table, limits, 0.004)
    path = []
    for cycle in range(600):
        pose = list(center)
        pose[PAN] += 0.7 * math.sin(0.02 * cycle)
        pose[LIFT] += 0.3 * math.sin(0.03 * cycle)
        path.append(table.project(pose, 0.0015))
    guard = Guard(limits, period_s=PERIOD, workspace=table)
    goal, off = path[0], []
    for cycle, command in enumerate(path):
        guard.submit("teleop", KOCH_V1_1.joints, command, age_s=0.0, now_s=cycle * PERIOD)
        result = guard.step(cycle * PERIOD, goal)
        assert result.goal is not None
        goal = list(result.goal)
        off.append(max(abs(a - b) for a, b in zip(goal, command, strict=True)))
    assert max(off[100:]) < 0.02


def boxed(table: Workspace, side: float) -> Workspace:
    """The table and walls at y = +-side."""
    return Workspace(
        table.tcp_position, table.lever_arms, (-1.0, -side, -1.0), (1.0, side, 1.0), table.table_z
    )


@pytest.mark.parametrize("direction", [-1.0, 1.0])
def test_an_arm_in_the_edge_of_table_and_wall_slides_along_it(
    table: Workspace, limits: GuardLimits, direction: float
) -> None:
    """The command lies below the table and behind the wall, and travels outwards along both."""
    room = boxed(table, 0.08)
    guard = Guard(limits, period_s=PERIOD, workspace=room)
    goal = low_pose(room, limits, 0.01)
    begin = room.tcp_position(goal)[0]
    reached = []
    for cycle in range(500):
        bend = 0.9 - 0.003 * min(cycle, 250)
        command = [direction * 0.9, -0.9, bend, 0.3, 0.5, -0.7]
        guard.submit("teleop", KOCH_V1_1.joints, command, age_s=0.0, now_s=cycle * PERIOD)
        result = guard.step(cycle * PERIOD, goal)
        assert result.goal is not None
        goal = list(result.goal)
        assert room.room(goal) >= 0.0
        reached.append(room.tcp_position(goal))
    x, y, z = reached[-1]
    assert abs(y) > 0.07  # at the wall
    assert goal[ROLL] == pytest.approx(0.5, abs=0.05)
    assert max(abs(b[0] - a[0]) for a, b in zip(reached[-50:], reached[-49:], strict=False)) < 2e-4
    assert (x, z) != (begin, 0.0)


def test_an_arm_pressed_into_a_face_comes_back_at_once(
    table: Workspace, limits: GuardLimits, rng: np.random.Generator
) -> None:
    """From wherever commands below the table or behind a wall left it."""
    room = boxed(table, 0.12)
    for _ in range(25):
        guard = Guard(limits, period_s=PERIOD, workspace=room)
        home = low_pose(room, limits, rng.uniform(0.002, 0.05))
        goal = home
        pressed = np.clip(home + rng.uniform(-1.0, 1.0, J), limits.lower, limits.upper).tolist()
        for cycle in range(250):
            command = pressed if cycle < 130 else home
            guard.submit("teleop", KOCH_V1_1.joints, command, age_s=0.0, now_s=cycle * PERIOD)
            result = guard.step(cycle * PERIOD, goal)
            assert result.goal is not None
            goal = list(result.goal)
            assert room.room(goal) >= 0.0
        assert goal == pytest.approx(home, abs=0.02)
