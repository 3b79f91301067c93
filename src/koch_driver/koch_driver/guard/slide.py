# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Take from a motion only the part that would cross a face: the rest slides along it."""

from __future__ import annotations

from collections.abc import Sequence
from operator import mul
from typing import NamedTuple

# Rounds over all faces at most. One face alone settles once no further joint meets its bound, so
# within one round per joint; an edge or a corner of the room takes some more.
_ROUNDS = 30


class Face(NamedTuple):
    """A half-space of displacements: slope . displacement >= bound.

    Attributes:
        slope: How much one radian of each joint moves the TCP inwards in [m/rad], length J.
        bound: In [m].
    """

    slope: Sequence[float]
    bound: float


def nearest_inside(
    wanted: Sequence[float], low: Sequence[float], high: Sequence[float], faces: Sequence[Face]
) -> list[float]:
    """Find the displacement nearest to the wanted one that crosses no face.

    The dual of this quadratic programme has one price per face, and the displacement for given
    prices is `wanted + sum(price * slope)`, clipped to its bounds; each round raises or lowers one
    price after the other until its face is just met (Hildreth's method). A joint that does not
    move the TCP towards a face has slope zero there and keeps what it wanted: the base of an arm
    above a table turns freely.

    Args:
        wanted: Displacement per joint in [rad], length J, inside its bounds.
        low: Smallest displacement in [rad], length J.
        high: Greatest displacement in [rad], length J.
        faces: What must not be crossed.

    Returns:
        Displacement in [rad], length J. Where the bounds leave no way to meet every face, as far
        inside as they allow.
    """
    found = list(wanted)
    prices = [0.0] * len(faces)
    for _ in range(_ROUNDS):
        settled = True
        for index, (slope, bound) in enumerate(faces):
            missing = bound - sum(map(mul, slope, found))
            # Only joints that can still move the way the price pushes them answer to it.
            free = sum(
                way * way
                for way, value, least, most in zip(slope, found, low, high, strict=True)
                if (value < most if way * missing > 0.0 else value > least)
            )
            if free < 1e-12:
                continue
            price = max(0.0, prices[index] + missing / free)
            if abs(price - prices[index]) * free < 1e-6:
                continue
            settled = False
            prices[index] = price
            found = [
                min(most, max(least, value))
                for value, least, most in zip(
                    _priced(wanted, prices, faces), low, high, strict=True
                )
            ]
        if settled:
            break
    return found


def _priced(
    wanted: Sequence[float], prices: Sequence[float], faces: Sequence[Face]
) -> list[float]:
    """The displacement that these prices ask for, before its bounds."""
    found = list(wanted)
    for price, face in zip(prices, faces, strict=True):
        if price > 0.0:
            found = [value + price * way for value, way in zip(found, face.slope, strict=True)]
    return found
