# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Angles that fold, as sine and cosine: no jump where the range ends.

A yaw of 179 degrees and one of -179 are neighbours, and far apart as numbers. A policy sees such
an element as two. What feeds it gives the angle; the checkpoint says which elements are angles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Angles = Mapping[str, float]
"""{element: period}, in the element's own unit: 6.2832 for radians, half for a block that looks
the same turned by half a turn, 360 for degrees."""


def expanded_width(names: Sequence[str], angles: Angles) -> int:
    """Return the number of elements that a policy sees of a vector."""
    return len(names) + sum(name in angles for name in names)


def expand(
    values: NDArray[np.float32], names: Sequence[str], angles: Angles
) -> NDArray[np.float32]:
    """Replace each angle by its sine and cosine.

    Args:
        values: float32 (..., D), one element per name.
        names: Names of the elements.
        angles: Which of them are angles.

    Returns:
        float32 (..., D + number of angles), in the same order.
    """
    parts: list[NDArray[np.float32]] = []
    for index, name in enumerate(names):
        value = values[..., index : index + 1]
        if name in angles:
            turned = value.astype(np.float64) * (2.0 * np.pi / angles[name])
            parts += [np.sin(turned).astype(np.float32), np.cos(turned).astype(np.float32)]
        else:
            parts.append(value)
    return np.concatenate(parts, axis=-1)
