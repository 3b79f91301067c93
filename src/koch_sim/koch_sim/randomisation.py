# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What differs from one simulated episode to the next, drawn from a seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from koch_sim.errors import SimulationError
from koch_sim.tasks import BLOCK_IN_CUP, Goal, Place, Task, Wording

Range = tuple[float, float]
Rgb = tuple[float, float, float]


@dataclass(frozen=True)
class Randomisation:
    """Switches of the domain randomisation; a switch that is off leaves the nominal value.

    Attributes:
        block_radius_m: Distance of the block from the arm's base axis, [m].
        block_bearing_rad: Direction of the block seen from the base, 0 = straight ahead, [rad].
        block_yaw_rad: Turn of the block's long side about the vertical, [rad].
        cup_radius_m: Distance of the cup from the base axis, [m].
        cup_bearing_rad: Direction of the cup seen from the base, [rad].
        colours: Vary the hues of table, block and cup.
        light: Vary position and strength of the light.
        camera_jitter_m: Standard deviation of each camera's position, [m]; 0 = off.
        camera_turn_rad: Standard deviation of its direction, about each axis, [rad]; 0 = off.
        camera_zoom_fraction: Its field of view varies by this fraction, 0..1; 0 = off.
        friction_fraction: Pads' and block's friction varies by this fraction, 0..1; 0 = off.
        mass_fraction: Masses of the things vary by this fraction, 0..1; 0 = off.
        servo_lag_fraction: Servo stiffness varies by this fraction, 0..1; 0 = off.
        servo_delay_s: Longest delay of the servos behind their goals, [s]; 0 = off.
    """

    block_radius_m: Range = (0.135, 0.172)
    block_bearing_rad: Range = (-0.45, 0.45)
    block_yaw_rad: Range = (-0.6, 0.6)
    cup_radius_m: Range = (0.15, 0.18)
    cup_bearing_rad: Range = (0.85, 1.1)
    colours: bool = False
    light: bool = False
    camera_jitter_m: float = 0.0
    camera_turn_rad: float = 0.0
    camera_zoom_fraction: float = 0.0
    friction_fraction: float = 0.0
    mass_fraction: float = 0.0
    servo_lag_fraction: float = 0.0
    servo_delay_s: float = 0.0

    def __post_init__(self) -> None:
        for name in (
            "camera_zoom_fraction",
            "friction_fraction",
            "mass_fraction",
            "servo_lag_fraction",
        ):
            value = getattr(self, name)
            if not 0.0 <= value < 1.0:
                raise ValueError(f"{name} is {value}, expected 0 <= {name} < 1")

    def narrowed(self, spread: float) -> Randomisation:
        """Return the same with each range of poses shrunk to a part of it, around its middle.

        Args:
            spread: 1 = the ranges as they are, 0 = always the middle.

        Raises:
            ValueError: The spread is no fraction.
        """
        if not 0.0 <= spread <= 1.0:
            raise ValueError(f"spread is {spread}, expected 0 <= spread <= 1")

        def shrunk(limits: Range) -> Range:
            middle, half = sum(limits) / 2.0, spread * (limits[1] - limits[0]) / 2.0
            return middle - half, middle + half

        return replace(
            self,
            block_radius_m=shrunk(self.block_radius_m),
            block_bearing_rad=shrunk(self.block_bearing_rad),
            block_yaw_rad=shrunk(self.block_yaw_rad),
            cup_radius_m=shrunk(self.cup_radius_m),
            cup_bearing_rad=shrunk(self.cup_bearing_rad),
        )


#: What can be varied by itself, and by how much.
SWITCHES: Mapping[str, Mapping[str, Any]] = {
    "colours": {"colours": True},
    "light": {"light": True},
    "cameras": {"camera_jitter_m": 0.004, "camera_turn_rad": 0.01, "camera_zoom_fraction": 0.03},
    "friction": {"friction_fraction": 0.3},
    "mass": {"mass_fraction": 0.3},
    "servos": {"servo_lag_fraction": 0.2},
    "delay": {"servo_delay_s": 0.03},
}


def randomised(switches: Iterable[str]) -> Randomisation:
    """Return the poses' randomisation with some switches on.

    Raises:
        SimulationError: There is no such switch; those there are are named.
    """
    values: dict[str, Any] = {}
    for name in switches:
        if name not in SWITCHES:
            raise SimulationError(
                f"--randomise {name}: no such switch; there are all, {', '.join(SWITCHES)}."
            )
        values.update(SWITCHES[name])
    return Randomisation(**values)


#: Everything varies: for policies that are to leave the simulation.
FULL = randomised(SWITCHES)


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
    places = task.lay(np.random.default_rng([seed, 0]), goal, r)
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
