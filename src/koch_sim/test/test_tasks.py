# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Every task: its words, its places, its expert, and what counts as done."""

from dataclasses import replace

import numpy as np
import pytest

from koch_rig.kinematics import Kinematics
from koch_rig.rig import Mount
from koch_sim.draw import draw
from koch_sim.errors import SimulationError
from koch_sim.grasp import HOME_RAD, GraspPlanner
from koch_sim.lockstep import Lockstep
from koch_sim.randomisation import Randomisation
from koch_sim.tasks import BLOCK_IN_CUP, MILESTONES, TASKS, Wording, find_task, register_task
from koch_sim.things import BLOCK_HALF_M, CUP_FLOOR_M, Kind
from koch_sim.truth import Pose, TableTruth

SEEDS = range(200)


@pytest.fixture(scope="module")
def planner():
    return GraspPlanner(Kinematics.for_arm(), Mount())


def laid(task, seed, ranges=None):
    """Goal and truth at the beginning of a seed."""
    setup = draw(ranges or Randomisation(), seed, 0, task)
    things = {}
    for thing in task.things:
        place = setup.places[thing.name]
        height = place.floor_m + (BLOCK_HALF_M[2] if thing.kind is Kind.BLOCK else 0.0)
        things[thing.name] = Pose(np.array([place.x_m, place.y_m, height]), place.yaw_rad)
    return setup.goal, TableTruth(things)


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_words_name_the_goal_and_never_meet_between_training_and_test(task):
    train = {task.goal(seed, Wording.TRAIN).sentence for seed in SEEDS}
    held_out = {task.goal(seed, Wording.HELD_OUT).sentence for seed in SEEDS}
    assert len(task.sentences) >= 4
    assert len(task.held_out) >= 3
    assert not train & held_out
    assert len(train) >= len(task.sentences)
    for seed in SEEDS:
        first, other = task.goal(seed), task.goal(seed, Wording.HELD_OUT)
        assert (first.thing, first.place) == (other.thing, other.place)
        assert "{" not in first.sentence + other.sentence
    named = {task.goal(seed).thing for seed in SEEDS}, {task.goal(seed).place for seed in SEEDS}
    assert named == ({t for t, _ in task.goals}, {p for _, p in task.goals})


def test_no_two_goals_of_different_tasks_share_a_sentence():
    owner = {}
    for task in TASKS.values():
        for seed in SEEDS:
            for wording in Wording:
                assert owner.setdefault(task.goal(seed, wording).sentence, task.name) == task.name


@pytest.mark.parametrize("spread", [0.5, 1.0])
@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_things_lie_apart_and_not_yet_where_they_belong(task, spread):
    blocks = [thing.name for thing in task.things if thing.kind is Kind.BLOCK]
    for seed in SEEDS:
        goal, truth = laid(task, seed, Randomisation().narrowed(spread))
        assert not task.succeeded(truth, goal)
        assert task.milestone(truth, goal) == 0
        for number, one in enumerate(blocks):
            for other in blocks[number + 1 :]:
                apart = truth.things[one].xyz_m - truth.things[other].xyz_m
                assert np.hypot(apart[0], apart[1]) > 0.04


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_every_goal_is_in_reach(task, planner):
    for seed in range(8):
        goal, truth = laid(task, seed)
        path = task.plan(planner, truth, goal)
        np.testing.assert_array_equal(path[-1].q_rad, HOME_RAD)


def moved(truth, name, xyz=None, **changes):
    """The same table with one thing somewhere else."""
    pose = truth.things[name]
    pose = replace(pose, xyz_m=pose.xyz_m if xyz is None else np.array(xyz), **changes)
    return TableTruth({**truth.things, name: pose}, truth.touched)


def reached(task):
    """A table on which the goal of seed 0 is reached."""
    goal, truth = laid(task, 0)
    x, y, _ = truth.things[goal.place].xyz_m
    half = BLOCK_HALF_M[2]
    there = {
        "block_in_cup": (x, y, CUP_FLOOR_M + half),
        "colour_in_cup": (x + 0.01, y, CUP_FLOOR_M + half),
        "block_in_named_cup": (x, y - 0.01, CUP_FLOOR_M + half),
        "push_to_square": (x + 0.005, y, half),
        "stack": (x, y + 0.004, 3.0 * half),
        "empty_cup": (x, y + 0.09, half),
    }[task.name]
    return goal, moved(truth, goal.thing, there)


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_success_needs_the_right_thing_let_go_at_rest_and_in_place(task):
    goal, truth = reached(task)
    assert task.succeeded(truth, goal)
    assert MILESTONES[task.milestone(truth, goal)] == "done"
    assert not task.succeeded(replace(truth, touched=frozenset({goal.thing})), goal)
    assert not task.succeeded(moved(truth, goal.thing, speed=0.1), goal)
    high = truth.things[goal.thing].xyz_m + np.array([0.0, 0.0, 0.08])
    assert not task.succeeded(moved(truth, goal.thing, high), goal)
    begin = laid(task, 0)[1].things[goal.thing].xyz_m
    assert not task.succeeded(moved(truth, goal.thing, begin), goal)
    for other in {thing for thing, _ in task.goals} - {goal.thing}:
        wrong = replace(goal, thing=other, place=goal.place if goal.place != other else goal.thing)
        assert not task.succeeded(truth, wrong)
    for other in {place for _, place in task.goals} - {goal.place, goal.thing}:
        assert not task.succeeded(truth, replace(goal, place=other))


@pytest.mark.parametrize("name", ["block_in_cup", "empty_cup"])
def test_a_cup_that_fell_over_is_no_success(name):
    goal, truth = reached(TASKS[name])
    assert not TASKS[name].succeeded(moved(truth, goal.place, up_z=0.1), goal)


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_the_expert_does_every_task(name, rig):
    lockstep = Lockstep(rig, task=TASKS[name])
    done = 0
    for seed in range(300, 304):
        lockstep.restart(seed)
        done += lockstep.demonstrate()
    lockstep.close()
    assert done >= 3


def test_registry_names_what_there_is():
    with pytest.raises(SimulationError, match="no task 'juggle'; there are block_in_cup"):
        find_task("juggle")
    with pytest.raises(SimulationError, match="registered already"):
        register_task(BLOCK_IN_CUP)
