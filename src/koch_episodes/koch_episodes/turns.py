# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Quaternions among named values: found by name, given one sign, offline and live."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Table = npt.NDArray[np.float64]

_WEIGHTS = np.array([1.0, 2.0, 4.0, 8.0])


def quaternions(names: Sequence[str]) -> list[list[int]]:
    """Return where the elements of each quaternion stand: ``qx qy qz qw``, or ``tool.qx`` ...

    A quaternion and its negative are the same turn. Of a part of one, as ``qz qw`` of a robot in
    the plane, the same holds.
    """
    groups: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        if name[-2:] in ("qx", "qy", "qz", "qw"):
            groups.setdefault(name[:-2], []).append(place)
    return [places for places in groups.values() if len(places) > 1]


def continuous(table: Table, places: list[int], before: Table | None = None) -> Table:
    """Give the quaternions of an episode the signs that make them one motion.

    q and -q are the same turn, and drivers and filters flip between them; a policy, a mean and
    an interpolation take the flip for a turn of the whole arm. The first quaternion gets the sign
    that makes its sum with the weights 1, 2, 4, 8 positive, so that episodes that begin alike have
    the same sign. By one element, the last or the largest, noise would decide in usual poses: a
    tool that points down has a `qw` of zero, and turns by 90 degrees have elements of one size.
    The sum is far from zero in all of them.

    Args:
        table: A source's values, shape (T, N).
        places: Columns of the quaternion.
        before: The row that these go on from, shape (N,); None: an episode begins.

    Returns:
        The table with new signs in these columns.
    """
    turns = table[:, places]
    steps = np.sign(np.sum(turns[1:] * turns[:-1], axis=1))
    if before is None:
        first = np.sign(turns[0] @ _WEIGHTS[-len(places) :])
    else:
        first = np.sign(turns[0] @ before[places])
    signs = np.cumprod(np.where(np.concatenate([[first], steps]) < 0.0, -1.0, 1.0))
    result: Table = table.copy()
    result[:, places] = turns * signs[:, None]
    return result
