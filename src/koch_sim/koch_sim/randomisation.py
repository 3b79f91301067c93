# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What may differ from one simulated episode to the next, and by how much."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from koch_sim.errors import SimulationError

Range = tuple[float, float]


@dataclass(frozen=True)
class Randomisation:
    """Switches of the domain randomisation; a switch that is off leaves the nominal value.

    Attributes:
        block_radius_m: Distance of the block from the arm's base axis, [m].
        block_bearing_rad: Direction of the block seen from the base, 0 = straight ahead, [rad].
        block_yaw_rad: Turn of the block's long side about the vertical, [rad].
        cup_radius_m: Distance of the cup from the base axis, [m].
        cup_bearing_rad: Direction of the cup seen from the base, [rad].
        even_places: Places of consecutive seeds cover these ranges evenly, see `EvenGenerator`.
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
    even_places: bool = False
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
