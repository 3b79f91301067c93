# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Joint names of messages, which may carry an arm's prefix, and the names that we use."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

from koch_rig.arm_model import ARM_MODELS, KOCH_V1_1, ArmModel

JOINT_NAMES = KOCH_V1_1.joints  # scripts of users import it; here an arm's model knows its joints


def plain_joints(
    names: Sequence[str], prefix: str | None = None, joints: Sequence[str] | None = None
) -> tuple[str, ...]:
    """Joints of a message without the prefix that is before all of them.

    Args:
        names: As the message has them, in any order; some joints may be absent.
        prefix: The arm's `joint_prefix`; None takes whatever prefix the message has.
        joints: The arm's joints; None takes those of the first arm model that fits.

    Returns:
        The names in the same order. They stay as they are where not every one is the prefix and a
        joint of the arm.
    """
    given = tuple(names)
    arms = [model.joints for model in ARM_MODELS.loaded()] if joints is None else [tuple(joints)]
    for each in arms:
        plain = _plain_joints(given, prefix, each)
        if plain is not None:
            return plain
    return given


@functools.lru_cache(maxsize=64)  # every message of an arm has the same names
def _plain_joints(
    names: tuple[str, ...], prefix: str | None, joints: tuple[str, ...]
) -> tuple[str, ...] | None:
    if prefix is None:
        joint = next((joint for joint in joints if names and names[0].endswith(joint)), "")
        prefix = names[0].removesuffix(joint) if joint else ""
    known = {f"{prefix}{joint}" for joint in joints}
    return tuple(name.removeprefix(prefix) for name in names) if known >= set(names) else None


def joint_of(element: str) -> tuple[ArmModel, str] | None:
    """The joint that an element of a vector is named after, with or without an arm's name.

    Args:
        element: Such as "gripper", or "left_gripper" where two arms are joined.

    Returns:
        An arm model that has such a joint, and the joint; None: it is no one's.
    """
    found = [
        (model, joint)
        for model in ARM_MODELS.loaded()
        for joint in model.joints
        if element == joint or element.endswith(f"_{joint}")
    ]
    return max(found, key=lambda each: len(each[1]), default=None)


def model_of(names: Sequence[str]) -> ArmModel | None:
    """The arm model whose joints a message names, with or without a prefix; None: no one's.

    Models of other packages are imported only where none that is known fits.
    """
    for model in _models():
        if set(plain_joints(names, joints=model.joints)) == set(model.joints):
            return model
    return None


def _models() -> Iterator[ArmModel]:
    """All arm models, those that are imported already first."""
    yield from ARM_MODELS.loaded()
    yield from ARM_MODELS.values()
