# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What one simulated episode looks like, drawn from a seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from koch_sim.tasks import BLOCK_IN_CUP, Goal, Place, Task, Wording

if TYPE_CHECKING:
    from koch_sim.randomisation import Randomisation

Rgb = tuple[float, float, float]

# Bases of Halton's sequence. Beyond these its numbers follow each other too closely to be even.
_BASES = (2, 3, 5, 7, 11, 13)


@dataclass(frozen=True)
class WorldSetup:
    """One draw: where things lie and how they look.

    Attributes:
        goal: What is to be done.
        places: Where each thing lies.
        rgb: Colours of the things, 0..1.
        table_rgb: Colour of the table, 0..1.
        light_xyz_m: Position of the light, world frame, [m].
        light_diffuse: Strength of the light, 0..1.
        camera_offsets_m: Shift of each camera, shape (cameras, 3), [m].
        camera_turns_rad: Turn of each camera about its own axes, shape (cameras, 3), [rad].
        camera_zooms: Factor on each camera's field of view.
        friction_scale: Factor on sliding friction.
        mass_scale: Factor on the masses of all things.
        servo_scale: Factor on the servos' position stiffness.
        servo_delay_s: Delay of the follower's servos, [s].
    """

    seed: int
    goal: Goal
    places: Mapping[str, Place]
    rgb: Mapping[str, Rgb]
    table_rgb: tuple[float, float, float] = (0.62, 0.52, 0.40)
    light_xyz_m: tuple[float, float, float] = (0.2, 0.3, 1.0)
    light_diffuse: float = 0.7
    camera_offsets_m: tuple[tuple[float, float, float], ...] = ()
    camera_turns_rad: tuple[tuple[float, float, float], ...] = ()
    camera_zooms: tuple[float, ...] = ()
    friction_scale: float = 1.0
    mass_scale: float = 1.0
    servo_scale: float = 1.0
    servo_delay_s: float = 0.0


class EvenGenerator(np.random.Generator):
    """Draws single numbers so that those of consecutive seeds cover their ranges evenly.

    The first six of a seed are its point of Halton's sequence. All other draws are random.

    Source: J. H. Halton, On the efficiency of certain quasi-random sequences of points, 1960.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(np.random.PCG64([seed, 0]))
        self._fractions = [_reversed_digits(seed + 1, base) for base in reversed(_BASES)]

    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
        """Draw from low to high."""
        if size is not None or not self._fractions:
            return super().uniform(low, high, size)
        return low + (high - low) * self._fractions.pop()


def _reversed_digits(number: int, base: int) -> float:
    """Write a number in a base and read it backwards, behind the point: 0..1."""
    fraction, unit = 0.0, 1.0
    while number:
        unit /= base
        fraction += unit * (number % base)
        number //= base
    return fraction


def draw(
    randomisation: Randomisation,
    seed: int,
    cameras: int,
    task: Task = BLOCK_IN_CUP,
    wording: Wording = Wording.FIRST,
) -> WorldSetup:
    """Draw a world set-up; the same seed gives the same world.

    Goal, places and looks are drawn from generators of their own, so that switching looks on or
    off, or other words, do not move a block.
    """
    looks = np.random.default_rng([seed, 1])
    r = randomisation
    goal = task.goal(seed, wording)
    random = EvenGenerator(seed) if r.even_places else np.random.default_rng([seed, 0])
    places = task.lay(random, goal, r)
    jitter = looks.normal(0.0, 1.0, (cameras, 3)) * r.camera_jitter_m
    scale = looks.uniform(-1.0, 1.0, 2)
    shift = looks.uniform(-0.25, 0.25, (1 + len(task.things), 3)) * float(r.colours)
    light = looks.uniform(-0.3, 0.3, 3) * float(r.light)
    more = np.random.default_rng([seed, 5])
    turns = more.normal(0.0, 1.0, (cameras, 3)) * r.camera_turn_rad
    zooms = 1.0 + more.uniform(-1.0, 1.0, cameras) * r.camera_zoom_fraction
    mass, delay = more.uniform(-1.0, 1.0), more.uniform(0.0, 1.0)
    strength = float(looks.uniform(-0.25, 0.25)) * float(r.light)
    return WorldSetup(
        seed=seed,
        goal=goal,
        places=places,
        rgb={
            thing.name: _shifted(thing.rgb, row)
            for thing, row in zip(task.things, shift[1:], strict=True)
        },
        table_rgb=_shifted(WorldSetup.table_rgb, shift[0]),
        light_xyz_m=_triple(np.add(WorldSetup.light_xyz_m, light)),
        light_diffuse=WorldSetup.light_diffuse + strength,
        camera_offsets_m=tuple(_triple(row) for row in jitter),
        camera_turns_rad=tuple(_triple(row) for row in turns),
        camera_zooms=tuple(zooms.tolist()),
        mass_scale=1.0 + mass * r.mass_fraction,
        servo_delay_s=delay * r.servo_delay_s,
        friction_scale=1.0 + float(scale[0]) * r.friction_fraction,
        servo_scale=1.0 + float(scale[1]) * r.servo_lag_fraction,
    )


def _triple(values: np.ndarray) -> tuple[float, float, float]:
    return float(values[0]), float(values[1]), float(values[2])


def _shifted(rgb: tuple[float, float, float], shift: np.ndarray) -> tuple[float, float, float]:
    return _triple(np.clip(np.add(rgb, shift), 0.0, 1.0))
