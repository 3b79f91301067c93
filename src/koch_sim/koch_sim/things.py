# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What can lie on the simulated table, and its size. Needs no MuJoCo: tasks speak of it."""

from __future__ import annotations

import enum
from dataclasses import dataclass

#: Half the edges of the rectangular block: long, short, height, [m].
BLOCK_HALF_M = (0.020, 0.010, 0.0125)
#: The cup: a ring of wall segments on a floor; a yoghurt cup's size.
CUP_RADIUS_M = 0.042
CUP_HEIGHT_M = 0.040
#: Thickness of its floor, on which things in the cup lie, [m].
CUP_FLOOR_M = 0.004
#: A marked square on the table, half an edge and thickness, [m]: paint, nothing touches it.
SQUARE_HALF_M, SQUARE_PAINT_M = 0.025, 0.0005


class Kind(enum.Enum):
    """What a thing on the table is."""

    BLOCK = "block"
    CUP = "cup"
    SQUARE = "square"


@dataclass(frozen=True)
class Thing:
    """A thing on the table; its name is its body's in the model."""

    name: str
    kind: Kind
    rgb: tuple[float, float, float]
