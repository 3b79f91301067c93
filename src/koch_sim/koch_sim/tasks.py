# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The tasks on the simulated table: a registry, and everything that belongs to each.

A task is: which things lie where, which goals it can set, in which words, how the expert reaches
a goal, and when it is reached. To add one, write a `Task` and give it to `register_task`.

    task = find_task("colour_in_cup")
    goal = task.goal(seed)             # the red block, into the cup, in these words
    places = task.lay(rng, goal, ranges)
    waypoints = task.plan(planner, truth, goal)
    task.done(truth, goal)
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from koch_core.registry import Registry
from koch_sim.errors import SimulationError
from koch_sim.things import BLOCK_HALF_M, CUP_FLOOR_M, CUP_HEIGHT_M, CUP_RADIUS_M, Kind, Thing

if TYPE_CHECKING:
    from koch_sim.grasp import GraspPlanner, Waypoint
    from koch_sim.randomisation import Randomisation
    from koch_sim.truth import TableTruth

#: What moves slower than this rests, [m/s].
RESTING_SPEED = 0.02
#: A block that is higher than this is lifted, [m].
LIFTED_HEIGHT_M = 0.035
#: A block's centre lies within this of the middle of a marked square that it is pushed onto, [m].
ON_SQUARE_M = 0.015
#: Milestones, in order; a trial counts the furthest one.
MILESTONES = ("nothing", "touched", "lifted", "brought there", "done")

RED, GREEN, YELLOW = (0.85, 0.12, 0.10), (0.10, 0.60, 0.20), (0.92, 0.78, 0.10)
BLUE, WHITE = (0.15, 0.35, 0.85), (0.92, 0.92, 0.90)


class Wording(enum.Enum):
    """In which words a goal is given."""

    FIRST = "first"  # always the task's first sentence
    TRAIN = "train"  # drawn among the sentences for training
    HELD_OUT = "held-out"  # drawn among those that no demonstration uses


@dataclass(frozen=True)
class Goal:
    """What one episode asks for.

    Attributes:
        thing: Name of the thing to move.
        place: Name of the thing that it goes to (or, where it is taken out of it, comes from).
        sentence: The task text.
    """

    thing: str
    place: str
    sentence: str


@dataclass(frozen=True)
class Place:
    """Where a thing lies at the beginning: [m], [m], [rad], and the height of what it lies on."""

    x_m: float
    y_m: float
    yaw_rad: float = 0.0
    floor_m: float = 0.0


Lay = Callable[[np.random.Generator, Goal, "Randomisation"], Mapping[str, Place]]
Plan = Callable[["GraspPlanner", "TableTruth", Goal], "list[Waypoint]"]
Done = Callable[["TableTruth", Goal], bool]


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task.

    Attributes:
        name: In the registry and on command lines.
        things: What is on the table.
        goals: Pairs of thing and place, of which a seed draws one.
        sentences: Wordings for training; `{thing}` and `{place}` stand for their words.
        held_out: Wordings that training never uses.
        lay: Where everything lies; drawn by the seed.
        plan: How the expert does it.
        done: When the goal is reached; asked only while nothing moves and no finger touches.
        is_lifted: Whether the thing leaves the table on its way.
    """

    name: str
    things: tuple[Thing, ...]
    goals: tuple[tuple[str, str], ...]
    sentences: tuple[str, ...]
    held_out: tuple[str, ...]
    lay: Lay
    plan: Plan
    done: Done
    is_lifted: bool = True
    _words: Mapping[str, str] = field(default_factory=dict)

    def goal(self, seed: int, wording: Wording = Wording.FIRST) -> Goal:
        """Draw the goal of a seed; the wording changes the sentence only."""
        rng = np.random.default_rng([seed, 4])
        thing, place = self.goals[int(rng.integers(len(self.goals)))]
        sentence = self.sentences[0]
        if wording is Wording.TRAIN:
            sentence = self.sentences[int(rng.integers(len(self.sentences)))]
        elif wording is Wording.HELD_OUT:
            sentence = self.held_out[int(rng.integers(len(self.held_out)))]
        return Goal(thing, place, sentence.format(thing=self.word(thing), place=self.word(place)))

    def word(self, name: str) -> str:
        """Return how sentences call a thing."""
        return self._words.get(name, name.replace("_", " "))

    def succeeded(self, truth: TableTruth, goal: Goal) -> bool:
        """Say whether the goal is reached: let go, at rest, and where it belongs."""
        let_go = goal.thing not in truth.touched
        return let_go and truth.things[goal.thing].speed < RESTING_SPEED and self.done(truth, goal)

    def milestone(self, truth: TableTruth, goal: Goal) -> int:
        """Return the index in MILESTONES of what holds now."""
        if self.succeeded(truth, goal):
            return 4
        moved = truth.things[goal.thing]
        lifted = self.is_lifted and moved.xyz_m[2] > LIFTED_HEIGHT_M
        near = _apart_m(truth, goal.thing, goal.place) < CUP_RADIUS_M
        if near and (lifted or not self.is_lifted):
            return 3
        if lifted:
            return 2
        return int(goal.thing in truth.touched)


#: Tasks by name; packages outside this tree promise theirs as entry points of this group.
TASKS: Registry[Task] = Registry("task", "koch_vla.tasks")


def register_task(task: Task) -> Task:
    """Enter a task into the registry.

    Raises:
        SimulationError: Its name is taken.
    """
    if TASKS.is_taken(task.name):
        raise SimulationError(f"a task named {task.name!r} is registered already")
    TASKS.add(task, task.name)
    return task


def find_task(name: str) -> Task:
    """Return a task by name.

    Raises:
        SimulationError: There is no such task; those there are are named.
    """
    if name not in TASKS:
        raise SimulationError(f"there is no task {name!r}; there are {', '.join(TASKS)}.")
    return TASKS[name]


# -- where things lie -----------------------------------------------------------------------


def _polar(radius_m: float, bearing_rad: float, yaw_rad: float = 0.0) -> Place:
    x, y = radius_m * np.cos(bearing_rad), radius_m * np.sin(bearing_rad)
    return Place(float(x), float(y), float(yaw_rad))


def _block_and_cup(rng: np.random.Generator, _: Goal, ranges: Randomisation) -> dict[str, Place]:
    radius, bearing = rng.uniform(*ranges.block_radius_m), rng.uniform(*ranges.block_bearing_rad)
    yaw = rng.uniform(*ranges.block_yaw_rad)
    cup = rng.uniform(*ranges.cup_radius_m), rng.uniform(*ranges.cup_bearing_rad)
    return {"block": _polar(radius, bearing, yaw), "cup": _polar(*cup)}


def _in_a_row(
    rng: np.random.Generator, names: tuple[str, ...], ranges: Randomisation
) -> dict[str, Place]:
    """Blocks side by side with room for the fingers between them, in any order."""
    low, high = -0.38, 0.38  # 6 cm apart at three blocks, whatever the spread
    bearings = rng.permutation(np.linspace(low, high, len(names)))
    places = {}
    for name, bearing in zip(names, bearings, strict=True):
        yaw = 0.4 * rng.uniform(*ranges.block_yaw_rad)
        off = 0.1 * rng.uniform(*ranges.block_bearing_rad)
        places[name] = _polar(rng.uniform(*ranges.block_radius_m), bearing + off, bearing + yaw)
    return places


def _three_and_cup(rng: np.random.Generator, _: Goal, ranges: Randomisation) -> dict[str, Place]:
    places = _in_a_row(rng, ("red_block", "green_block", "yellow_block"), ranges)
    cup = rng.uniform(*ranges.cup_radius_m), rng.uniform(*ranges.cup_bearing_rad)
    return {**places, "cup": _polar(*cup)}


def _two_cups(rng: np.random.Generator, _: Goal, ranges: Randomisation) -> dict[str, Place]:
    places = _block_and_cup(rng, _, ranges)
    left, right = rng.permutation(["blue_cup", "white_cup"]).tolist()
    bearing = -rng.uniform(*ranges.cup_bearing_rad)
    other = _polar(rng.uniform(*ranges.cup_radius_m), bearing)
    return {"block": places["block"], left: places["cup"], right: other}


def _two_blocks(rng: np.random.Generator, _: Goal, ranges: Randomisation) -> dict[str, Place]:
    return _in_a_row(rng, ("red_block", "green_block"), ranges)


def _block_before_square(
    rng: np.random.Generator, _: Goal, ranges: Randomisation
) -> dict[str, Place]:
    """The square lies straight behind the block, seen from the arm; the block lies across."""
    radius = 0.125 + 0.5 * (rng.uniform(*ranges.block_radius_m) - 0.1535)
    bearing = rng.uniform(*ranges.block_bearing_rad)
    far = radius + 0.055 + 0.01 * rng.uniform(-1.0, 1.0)
    across = bearing + np.pi / 2.0
    return {"block": _polar(radius, bearing, across), "square": _polar(far, bearing, bearing)}


def _block_in_cup(rng: np.random.Generator, _: Goal, ranges: Randomisation) -> dict[str, Place]:
    bearing = 0.5 * rng.uniform(*ranges.block_bearing_rad)
    cup = _polar(rng.uniform(*ranges.block_radius_m), bearing)
    dx, dy = rng.uniform(-0.006, 0.006, 2)
    yaw = bearing + 0.4 * rng.uniform(*ranges.block_yaw_rad)
    return {"block": Place(cup.x_m + dx, cup.y_m + dy, yaw, CUP_FLOOR_M), "cup": cup}


# -- how the expert does it -----------------------------------------------------------------


def _put_into(planner: GraspPlanner, truth: TableTruth, goal: Goal) -> list[Waypoint]:
    return planner.into_cup(truth.things[goal.thing], truth.things[goal.place])


def _put_onto(planner: GraspPlanner, truth: TableTruth, goal: Goal) -> list[Waypoint]:
    return planner.onto(truth.things[goal.thing], truth.things[goal.place])


def _push_to(planner: GraspPlanner, truth: TableTruth, goal: Goal) -> list[Waypoint]:
    return planner.push(truth.things[goal.thing], truth.things[goal.place])


def _take_out(planner: GraspPlanner, truth: TableTruth, goal: Goal) -> list[Waypoint]:
    return planner.out_of_cup(truth.things[goal.thing], truth.things[goal.place])


# -- when it is done ------------------------------------------------------------------------


def _apart_m(truth: TableTruth, one: str, other: str) -> float:
    offset = truth.things[one].xyz_m - truth.things[other].xyz_m
    return float(np.hypot(offset[0], offset[1]))


def _is_in(truth: TableTruth, goal: Goal) -> bool:
    """Within the upright cup's walls."""
    cup = truth.things[goal.place]
    height = float(truth.things[goal.thing].xyz_m[2] - cup.xyz_m[2])
    inside = _apart_m(truth, goal.thing, goal.place) < CUP_RADIUS_M
    return inside and -0.005 < height < CUP_HEIGHT_M + BLOCK_HALF_M[1] and cup.up_z > 0.95


def _is_on(truth: TableTruth, goal: Goal) -> bool:
    """On top of the other block, which lies flat on the table."""
    upper, lower = truth.things[goal.thing], truth.things[goal.place]
    height = float(upper.xyz_m[2] - lower.xyz_m[2])
    flat = upper.up_z > 0.98 and lower.up_z > 0.98 and lower.xyz_m[2] < 1.5 * BLOCK_HALF_M[2]
    near = _apart_m(truth, goal.thing, goal.place) < BLOCK_HALF_M[0]
    return bool(flat and near and abs(height - 2.0 * BLOCK_HALF_M[2]) < 0.004)


def _is_on_square(truth: TableTruth, goal: Goal) -> bool:
    lies = float(truth.things[goal.thing].xyz_m[2]) < 1.5 * BLOCK_HALF_M[2]
    return lies and _apart_m(truth, goal.thing, goal.place) < ON_SQUARE_M


def _is_out(truth: TableTruth, goal: Goal) -> bool:
    """On the table beside the upright cup."""
    lies = float(truth.things[goal.thing].xyz_m[2]) < 1.5 * BLOCK_HALF_M[2]
    beside = _apart_m(truth, goal.thing, goal.place) > CUP_RADIUS_M + BLOCK_HALF_M[1]
    return lies and beside and truth.things[goal.place].up_z > 0.95


# -- the table of tasks ---------------------------------------------------------------------

_BLOCK, _CUP = Thing("block", Kind.BLOCK, RED), Thing("cup", Kind.CUP, BLUE)
_COLOURS = {"red_block": RED, "green_block": GREEN, "yellow_block": YELLOW}

BLOCK_IN_CUP = register_task(
    Task(
        name="block_in_cup",
        things=(_BLOCK, _CUP),
        goals=(("block", "cup"),),
        sentences=(
            "Pick up the rectangular block and put it into the cup.",
            "Put the block into the cup.",
            "Place the red block in the cup.",
            "Take the block and drop it into the cup.",
            "Move the block into the cup.",
        ),
        held_out=(
            "The block belongs in the cup.",
            "Fill the cup with the block.",
            "Could you get the block into the cup?",
            "I want the block in the cup.",
        ),
        lay=_block_and_cup,
        plan=_put_into,
        done=_is_in,
    )
)
COLOUR_IN_CUP = register_task(
    Task(
        name="colour_in_cup",
        things=(*(Thing(name, Kind.BLOCK, rgb) for name, rgb in _COLOURS.items()), _CUP),
        goals=tuple((name, "cup") for name in _COLOURS),
        sentences=(
            "Put the {thing} into the cup.",
            "Pick up the {thing} and place it in the cup.",
            "Move the {thing} to the cup.",
            "Take the {thing} and drop it into the cup.",
            "Of the three blocks, put the {thing} into the cup.",
        ),
        held_out=(
            "The cup should hold the {thing}.",
            "Choose the {thing} and put it in the cup.",
            "Could you get the {thing} into the cup?",
            "Not the others: the {thing} belongs in the cup.",
        ),
        lay=_three_and_cup,
        plan=_put_into,
        done=_is_in,
    )
)
BLOCK_IN_NAMED_CUP = register_task(
    Task(
        name="block_in_named_cup",
        things=(_BLOCK, Thing("blue_cup", Kind.CUP, BLUE), Thing("white_cup", Kind.CUP, WHITE)),
        goals=(("block", "blue_cup"), ("block", "white_cup")),
        sentences=(
            "Put the block into the {place}.",
            "Pick up the block and place it in the {place}.",
            "Move the block to the {place}.",
            "Take the block and drop it into the {place}.",
            "The block goes into the {place}.",
        ),
        held_out=(
            "Use the {place} for the block.",
            "Of both cups, fill the {place}.",
            "Could you get the block into the {place}?",
            "Not the other one: the {place} should hold the block.",
        ),
        lay=_two_cups,
        plan=_put_into,
        done=_is_in,
    )
)
PUSH_TO_SQUARE = register_task(
    Task(
        name="push_to_square",
        things=(_BLOCK, Thing("square", Kind.SQUARE, YELLOW)),
        goals=(("block", "square"),),
        sentences=(
            "Push the block onto the yellow square.",
            "Slide the block to the marked square.",
            "Push the red block to the square.",
            "Shove the block onto the mark.",
        ),
        held_out=(
            "The block should end on the square; do not lift it.",
            "Nudge it to the mark.",
            "Move the block over to the square without picking it up.",
        ),
        lay=_block_before_square,
        plan=_push_to,
        done=_is_on_square,
        is_lifted=False,
    )
)
STACK = register_task(
    Task(
        name="stack",
        things=(Thing("red_block", Kind.BLOCK, RED), Thing("green_block", Kind.BLOCK, GREEN)),
        goals=(("red_block", "green_block"), ("green_block", "red_block")),
        sentences=(
            "Stack the {thing} on the {place}.",
            "Put the {thing} on top of the {place}.",
            "Place the {thing} onto the {place}.",
            "Build a tower: the {thing} on the {place}.",
        ),
        held_out=(
            "The {thing} should sit on the {place}.",
            "I want to see the {thing} above the {place}.",
            "Could you get the {thing} onto the {place}?",
        ),
        lay=_two_blocks,
        plan=_put_onto,
        done=_is_on,
    )
)
EMPTY_CUP = register_task(
    Task(
        name="empty_cup",
        things=(_BLOCK, _CUP),
        goals=(("block", "cup"),),
        sentences=(
            "Empty the cup.",
            "Take the block out of the cup.",
            "Pick the block out of the cup and put it on the table.",
            "Remove the block from the cup.",
        ),
        held_out=(
            "The cup should be empty.",
            "Get the block out of there.",
            "Nothing should stay in the cup.",
        ),
        lay=_block_in_cup,
        plan=_take_out,
        done=_is_out,
    )
)
