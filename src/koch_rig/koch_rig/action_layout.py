# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Which part of a vector of numbers is whose: the joints of one arm after another.

    layout = ActionLayout.of_rig(rig)          # left and right follower
    layout.names                               # left_shoulder_pan, ... right_gripper
    layout.split(action)                       # {"left": (..., J), "right": (..., J)}
    layout.to_rad(units, Units.LEROBOT, chunk) # each arm by its own calibration

Converter, trainer, policy node, simulation and replay all ask this and count no joints themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from koch_core.errors import ShapeError
from koch_core.registry import Registry
from koch_rig.rig import Rig, Role
from koch_rig.stream import StreamKind
from koch_rig.units import JointUnits, Units

Array = NDArray[np.float64]
_ACTION = "action"
JOINT = "joint"  # the space of joints as they are
#: In which numbers actions are said. Most are said in joints, and import no kinematics;
#: the kinds are `koch_rig.action_space.ActionSpace`.
ACTION_SPACES: Registry[Any] = Registry(
    "action space",
    "koch_vla.action_spaces",
    dict.fromkeys(
        (JOINT, "joint_relative", "tcp", "tcp_quaternion", "tcp_relative", "tcp_relative_base"),
        "koch_rig.action_space",
    ),
)


@dataclass(frozen=True)
class LayoutPart:
    """Consecutive elements of a vector that belong together.

    Attributes:
        arm: The arm whose joints they are; empty for other numbers, which have no units of an arm.
        names: Of the elements, without the arm's name.
        start: First element.
    """

    arm: str
    names: tuple[str, ...]
    start: int

    @property
    def columns(self) -> slice:
        """Where they are in the vector."""
        return slice(self.start, self.start + len(self.names))


@dataclass(frozen=True)
class ActionLayout:
    """The parts of a vector, in order; actions, states and any other joined numbers."""

    parts: tuple[LayoutPart, ...]

    @classmethod
    def of(cls, parts: Iterable[tuple[str, Sequence[str]]]) -> ActionLayout:
        """Put parts side by side: pairs of an arm (or empty) and the names of its elements."""
        made: list[LayoutPart] = []
        start = 0
        for arm, names in parts:
            made.append(LayoutPart(arm, tuple(names), start))
            start += len(names)
        return cls(tuple(made))

    @classmethod
    def of_arms(cls, rig: Rig, arms: Iterable[str]) -> ActionLayout:
        """All joints of some arms of a rig.

        Raises:
            ArmChoiceError: There is no such arm.
        """
        return cls.of((arm, rig.arm(arm).model.joints) for arm in arms)

    @classmethod
    def of_streams(cls, rig: Rig, streams: Iterable[str]) -> ActionLayout:
        """The joints that these streams of a rig carry; other streams have no part."""
        contents = [rig.content_of(stream) for stream in streams]
        arms = [each.source for each in contents if each.kind is StreamKind.JOINTS]
        return cls.of_arms(rig, arms)

    @classmethod
    def of_rig(cls, rig: Rig, keys: Sequence[str] = (_ACTION,)) -> ActionLayout:
        """What a policy of this rig commands: the arms of its feature `action`.

        Args:
            rig: The rig.
            keys: Features that are joined to the action, `action.left` and `action.right`.

        Raises:
            ArmChoiceError: No feature says it, and the rig has not exactly one follower.
        """
        features = [rig.features[key] for key in keys if key in rig.features]
        arms = [commanded_arm(rig, name) for each in features for name in each.streams]
        return cls.of_arms(rig, [arm for arm in arms if arm] or [rig.follower.name])

    @property
    def width(self) -> int:
        """Length of the vector."""
        return sum(len(part.names) for part in self.parts)

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms, in order."""
        return tuple(part.arm for part in self.parts if part.arm)

    @property
    def prefixes(self) -> tuple[str, ...]:
        """What is put before each part's names: `left_` where there are several, as LeRobot."""
        several = len(self.parts) > 1
        return tuple(f"{part.arm}_" if several and part.arm else "" for part in self.parts)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all elements, as datasets have them but for LeRobot's ending `.pos`."""
        return tuple(
            f"{prefix}{name}"
            for prefix, part in zip(self.prefixes, self.parts, strict=True)
            for name in part.names
        )

    @property
    def grippers(self) -> tuple[int, ...]:
        """Columns of the grippers, which are an arm's last joint."""
        return tuple(part.columns.stop - 1 for part in self.parts if part.arm)

    def split(self, values: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Return each arm's columns of vectors (..., width).

        Raises:
            ShapeError: They have another length.
        """
        self._check(values)
        return {part.arm: values[..., part.columns] for part in self.parts if part.arm}

    def join(self, values: Mapping[str, Sequence[float] | NDArray[Any]]) -> Array:
        """Return one vector of each arm's values; the inverse of `split`."""
        return np.concatenate([np.asarray(values[part.arm], float) for part in self.parts], -1)

    def to_rad(self, units: Mapping[str, JointUnits], kind: Units, values: NDArray[Any]) -> Array:
        """Bring vectors (..., width) from dataset units to [rad]; other numbers stay."""
        return self._convert(values, lambda arm, part: units[arm].to_rad(kind, part))

    def rad_to(self, units: Mapping[str, JointUnits], kind: Units, values: NDArray[Any]) -> Array:
        """Bring vectors (..., width) from [rad] to dataset units; other numbers stay.

        An arm without units keeps its values as well: RADIANS needs no calibration.
        """
        return self._convert(
            values, lambda arm, part: units[arm].rad_to(kind, part) if arm in units else part
        )

    def _convert(
        self, values: NDArray[Any], convert: Callable[[str, NDArray[Any]], NDArray[Any]]
    ) -> Array:
        self._check(values)
        columns = [(part.arm, values[..., part.columns]) for part in self.parts]
        done = [convert(arm, part) if arm else part for arm, part in columns]
        return done[0] if len(done) == 1 else np.concatenate(done, axis=-1)

    def _check(self, values: NDArray[Any]) -> None:
        if values.shape[-1:] != (self.width,):
            raise ShapeError("vector", got=values.shape, expected=f"(..., {self.width})")


def commanded_arm(rig: Rig, stream: str) -> str:
    """The arm that follows a stream of joints: a leader's is its follower; empty: none."""
    content = rig.content_of(stream)
    if content.kind is not StreamKind.JOINTS:
        return ""
    arm = rig.arms[content.source]
    return arm.drives or "" if arm.role is Role.LEADER else arm.name
