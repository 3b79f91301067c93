# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Errors of the simulated rig."""

from koch_core.errors import KochError


class SimulationError(KochError):
    """The simulated world cannot do what was asked."""


class NoMountError(SimulationError):
    """A simulated camera stands nowhere."""

    def __init__(self, camera: str) -> None:
        super().__init__(
            f"camera {camera!r} of the rig has no mount, so its image cannot be simulated. Add "
            f"cameras.{camera}.mount: {{parent: ..., xyz: [m], rpy_deg: [...]}}, or leave the "
            "camera out of the simulated rig."
        )


class UnreachableError(SimulationError):
    """A pose that the expert needs is outside the arm's reach."""

    def __init__(self, what: str, xyz: tuple[float, float, float], nearest: str) -> None:
        super().__init__(
            f"{what} at x={xyz[0]:.3f} y={xyz[1]:.3f} z={xyz[2]:.3f} m is out of reach: "
            f"{nearest}. Put block and cup nearer to the arm, or narrow the randomisation's "
            "ranges."
        )
