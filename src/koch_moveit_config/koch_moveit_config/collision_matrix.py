# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Samples which links can touch, for the SRDF's list of pairs that need no check.

python -m koch_moveit_config.collision_matrix < robot.urdf

The classes are those of MoveIt's Setup Assistant: links joined by a joint (Adjacent), links that
touch in every sample (Always) and links that touch in none (Never).
"""

from __future__ import annotations

import enum
import itertools
import sys

import numpy as np
import pinocchio

SAMPLES = 20_000
SEED = 0
#: More than this share of touching samples means: they always touch.
ALWAYS_FRACTION = 0.95


class Reason(enum.Enum):
    """Why a pair of links is not checked."""

    ADJACENT = "Adjacent"
    ALWAYS = "Always"
    NEVER = "Never"


def sample(
    urdf: str, *, samples: int = SAMPLES, seed: int = SEED
) -> dict[tuple[str, str], Reason]:
    """Find the pairs of links that need no self-collision check.

    Args:
        urdf: Robot description.
        samples: Random joint vectors within the limits.
        seed: Of the random numbers; the same seed gives the same matrix.

    Returns:
        Reason by pair of link names, each pair in the robot's link order.
    """
    model = pinocchio.buildModelFromXML(urdf)
    geometry = pinocchio.buildGeomFromUrdfString(model, urdf, pinocchio.GeometryType.COLLISION)
    links = [model.frames[shape.parentFrame].name for shape in geometry.geometryObjects]
    pairs = []
    for first, second in itertools.combinations(range(len(links)), 2):
        if links[first] != links[second]:
            geometry.addCollisionPair(pinocchio.CollisionPair(first, second))
            pairs.append((links[first], links[second]))
    data, geometry_data = model.createData(), geometry.createData()
    touching = dict.fromkeys(pairs, 0)
    rng = np.random.default_rng(seed)
    lower, upper = model.lowerPositionLimit, model.upperPositionLimit
    for q in rng.uniform(lower, upper, (samples, model.nq)):
        pinocchio.computeCollisions(model, data, geometry, geometry_data, q, False)
        hit = {
            pair
            for pair, result in zip(pairs, geometry_data.collisionResults, strict=True)
            if result.isCollision()
        }
        for pair in hit:
            touching[pair] += 1
    adjacent = _adjacent(model)
    reasons: dict[tuple[str, str], Reason] = {}
    for pair, count in touching.items():
        if frozenset(pair) in adjacent:
            reasons[pair] = Reason.ADJACENT
        elif count > ALWAYS_FRACTION * samples:
            reasons[pair] = Reason.ALWAYS
        elif count == 0:
            reasons[pair] = Reason.NEVER
    return reasons


def _adjacent(model: pinocchio.Model) -> set[frozenset[str]]:
    """Return the pairs of links that a joint joins."""
    bodies = {
        joint: [f.name for f in model.frames if f.type == pinocchio.FrameType.BODY
                and f.parentJoint == joint]
        for joint in range(model.njoints)
    }  # fmt: skip
    pairs = set()
    for joint in range(1, model.njoints):
        for child, parent in itertools.product(bodies[joint], bodies[model.parents[joint]]):
            pairs.add(frozenset((child, parent)))
    return pairs


def to_srdf(reasons: dict[tuple[str, str], Reason]) -> str:
    """Return the SRDF lines of a matrix."""
    return "\n".join(
        f'  <disable_collisions link1="{first}" link2="{second}" reason="{reason.value}"/>'
        for (first, second), reason in reasons.items()
    )


if __name__ == "__main__":
    sys.stdout.write(to_srdf(sample(sys.stdin.read())) + "\n")
