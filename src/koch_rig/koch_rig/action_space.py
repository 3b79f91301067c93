# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""In which numbers an action is said: joints or the hand's pose, absolute or from where it is.

    codec = ActionCodec(ACTION_SPACES["tcp_relative"], layout, {"follower": units}, Units.LEROBOT)
    poses, here = codec.poses(commands), codec.poses(state)  # (T, P), (P,)
    vectors = codec.relate(poses, here)                      # what a policy learns, (T, W)
    decoded = codec.decode(vectors, state)                   # joints [rad], (T, J)

Joint vectors are in dataset units. A hand's pose is xyz [m], 6D rotation (or a quaternion) and the
gripper in dataset units, in the frame of its arm's base. The gripper is absolute in all spaces:
what it holds does not depend on where the hand is.

Five joints reach a plane of directions at each position. The position counts first; of the
rotation, the turn out of the arm's own plane is given up, and the rest is met.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from koch_core.errors import KochError
from koch_rig.action_layout import ACTION_SPACES, ActionLayout, LayoutPart
from koch_rig.arm_model import KOCH_V1_1
from koch_rig.errors import GeometryError
from koch_rig.geometry import matrix_from_quaternion, quaternion_from_matrix
from koch_rig.inverse_kinematics import IkSettings, Orientation
from koch_rig.joints import model_of
from koch_rig.kinematics import Kinematics
from koch_rig.units import JointUnits, Units

Array = NDArray[np.float64]

_SIXD = ("ee.x", "ee.y", "ee.z", "ee.r00", "ee.r10", "ee.r20", "ee.r01", "ee.r11", "ee.r21")
_QUATERNION = ("ee.x", "ee.y", "ee.z", "ee.qx", "ee.qy", "ee.qz", "ee.qw")
# From the last solution, and nothing else: another start could end in another posture.
_FOLLOW = IkSettings(
    position_tolerance_m=1e-6,
    rotation_tolerance_rad=1e-6,
    max_iterations=40,
    starts=1,
    rotation_weights=(0.001,),
    first_damping=1e-6,
)
_REACH_M, _REACH_RAD = 2e-3, 0.6  # a target is met this nearly, or it is out of reach
_LARGEST_STEP_RAD = 1.0  # of a joint, from one row of a chunk to the next


class UnreachableTargetError(KochError):
    """A pose of a chunk is out of the arm's reach, or none at all.

    Attributes:
        row: Which row of the chunk.
    """

    def __init__(self, row: int, arm: str, why: str, target: Array | None = None) -> None:
        at = "" if target is None else f" at ({', '.join(f'{v:.3f}' for v in target[:3])}) m"
        super().__init__(
            f"row {row} of the chunk asks the hand of {arm}{at} for what it cannot do: {why}. "
            "It is not commanded."
        )
        self.row = row


class Relation(enum.Enum):
    """What a vector is measured from."""

    ABSOLUTE = "absolute"
    IN_BASE = "in base"
    """From the observed pose, in the axes of the base; of joints: their difference."""
    IN_TCP = "in tcp"
    """In the frame of the observed hand."""


class RotationForm(enum.Enum):
    """How a hand's rotation is written."""

    SIXD = "6D"
    """The first two columns of its matrix: no jump anywhere."""
    QUATERNION = "quaternion"
    """x, y, z, w, with one sign along a chunk or an episode."""


@dataclass(frozen=True)
class ActionSpace:
    """A space of actions.

    Attributes:
        name: What recipes, datasets and checkpoints call it.
        is_tcp: Poses of the hand; else joints.
        relation: What they are measured from.
        rotation: How a hand's rotation is written.
    """

    name: str
    is_tcp: bool = False
    relation: Relation = Relation.ABSOLUTE
    rotation: RotationForm = RotationForm.SIXD

    @property
    def is_relative(self) -> bool:
        """Whether a vector says nothing without the observed pose."""
        return self.relation is not Relation.ABSOLUTE

    @property
    def needs_state(self) -> bool:
        """Whether the observed joints are needed: to measure from, or to begin a search at."""
        return self.is_tcp or self.is_relative

    def codec(
        self, layout: ActionLayout, units: Mapping[str, JointUnits], kind: Units
    ) -> ActionCodec:
        """What encodes and decodes the actions of some arms."""
        return ActionCodec(self, layout, units, kind)

    def names(self, joints: tuple[str, ...]) -> tuple[str, ...]:
        """Names of a vector's elements for an arm of these joints, the gripper last."""
        if self.is_tcp:
            return (*(_SIXD if self.rotation is RotationForm.SIXD else _QUATERNION), joints[-1])
        if self.is_relative:
            return (*(f"{_plain(name)}.delta" for name in joints[:-1]), joints[-1])
        return joints


for _space in (
    ActionSpace("joint"),
    ActionSpace("joint_relative", relation=Relation.IN_BASE),
    ActionSpace("tcp", is_tcp=True),
    ActionSpace("tcp_quaternion", is_tcp=True, rotation=RotationForm.QUATERNION),
    ActionSpace("tcp_relative", is_tcp=True, relation=Relation.IN_TCP),
    ActionSpace("tcp_relative_base", is_tcp=True, relation=Relation.IN_BASE),
):
    ACTION_SPACES.add(_space, _space.name)


@dataclass(frozen=True, eq=False)
class Decoded:
    """A chunk in joints.

    Attributes:
        rows: [rad], (T, J); it ends before the first row that cannot be done.
        trouble: Why it ends early; None: it is whole.
    """

    rows: Array
    trouble: UnreachableTargetError | None = None


@dataclass(frozen=True, eq=False)
class ActionCodec:
    """One space of actions for the arms of a layout; an instance belongs to one thread.

    Attributes:
        space: The space.
        layout: Whose joints.
        units: Converter per arm; RADIANS needs none.
        kind: Units of joints outside.
    """

    space: ActionSpace
    layout: ActionLayout
    units: Mapping[str, JointUnits] = field(default_factory=dict)
    kind: Units = Units.RADIANS
    _hands: dict[str, Kinematics] = field(default_factory=dict, init=False, repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of a vector's elements."""
        return self.names_of(self.layout.names)

    def names_of(self, joints: tuple[str, ...]) -> tuple[str, ...]:
        """Names of a vector's elements where the joints are called so."""
        found: list[str] = []
        for part, prefix in zip(self.layout.parts, self.layout.prefixes, strict=True):
            own = joints[part.columns]
            if not part.arm:
                found += own
            elif self.space.is_tcp:
                found += [f"{prefix}{name}" for name in self.space.names(own)[:-1]] + [own[-1]]
            else:
                found += self.space.names(own)
        return tuple(found)

    def poses(self, joints: NDArray[Any]) -> Array:
        """Bring joint vectors (..., A) in dataset units into the form that `relate` takes."""
        if not self.space.is_tcp:
            return np.asarray(joints, np.float64)
        return self._by_part(
            self.layout.parts, lambda part, values: self._hand_poses(part, values), joints
        )

    def relate(self, poses: NDArray[Any], reference: NDArray[Any]) -> Array:
        """Return the space's vectors (..., T, W) of poses (..., T, P) seen from one (..., P)."""
        relate = _related if self.space.is_tcp else _difference
        return self._by_part(
            self._posed,
            lambda part, values: relate(values, reference[..., None, part.columns], self.space),
            poses,
        )

    def encode(self, rows: Array, observed: NDArray[Any]) -> Array:
        """Joints [rad] (T, A) as the space's vectors (T, W); `observed` (A,) in dataset units."""
        joints = self.layout.rad_to(self.units, self.kind, rows)
        return self.relate(self.poses(joints), self.poses(observed))

    def decode(self, vectors: NDArray[Any], observed: NDArray[Any] | None) -> Decoded:
        """The space's vectors (T, W) as joints, each row from the solution of the one before.

        Args:
            vectors: A chunk, finite.
            observed: Joints at the chunk's observation (A,), in dataset units; of no account
                for the space `joint`.

        Raises:
            UnreachableTargetError: Its first row cannot be done.
        """
        if not self.space.needs_state:
            return Decoded(self._to_rad(np.asarray(vectors, np.float64)))
        if observed is None:
            raise KochError(f"action space {self.space.name}: no observed joints to begin at.")
        values = np.asarray(vectors, np.float64)
        if not self.space.is_tcp:
            start = np.asarray(observed, np.float64)
            is_absolute = np.isin(np.arange(self.layout.width), self.layout.grippers)
            for part in self.layout.parts:
                is_absolute[part.columns] |= not part.arm
            return Decoded(self._to_rad(np.where(is_absolute, values, values + start)))
        return self._solve(values, np.asarray(observed, np.float64))

    def _solve(self, vectors: Array, observed: Array) -> Decoded:
        rows = np.empty((len(vectors), self.layout.width))
        trouble: UnreachableTargetError | None = None
        reference = self.poses(observed)
        for part, vector, pose in zip(self.layout.parts, self._coded, self._posed, strict=True):
            if not part.arm:
                rows[:, part.columns] = vectors[:, vector.columns]
                continue
            mine = vectors[: len(rows), vector.columns]
            try:
                transforms = _transforms(mine, reference[pose.columns], self.space)
            except GeometryError as exc:
                raise UnreachableTargetError(0, part.arm, str(exc)) from exc
            joints = np.repeat(observed[None, part.columns], len(mine), axis=0)
            joints[:, -1] = mine[:, -1]
            done, reason = self._follow(part, transforms, self._part_rad(part, joints))
            if reason is not None:
                trouble, rows = reason, rows[: len(done)]
            rows[:, part.columns] = done[: len(rows)]
        if trouble is not None and not len(rows):
            raise trouble
        return Decoded(rows, trouble)

    def _follow(
        self, part: LayoutPart, targets: Array, joints: Array
    ) -> tuple[Array, UnreachableTargetError | None]:
        """Solve pose after pose; `joints` [rad] begins as the observed ones with the grippers."""
        hand, seed = self._hand(part), joints[0].copy()
        for row, target in enumerate(targets):
            if not np.isfinite(target).all():
                trouble = UnreachableTargetError(row, part.arm, "it is NaN or infinite")
                return joints[:row], trouble
            seed[-1] = joints[row, -1]
            found = hand.inverse(target, seed, orientation=Orientation.FULL, settings=_FOLLOW)
            why = _why_not(found.position_error_m, found.rotation_error_rad, found.q - seed)
            if why:
                return joints[:row], UnreachableTargetError(row, part.arm, why, target[:3, 3])
            joints[row] = found.q
            seed = found.q.copy()
        return joints, None

    def _hand_poses(self, part: LayoutPart, values: Array) -> Array:
        """Poses (..., 10) of joints (..., J) in dataset units."""
        rad = self._part_rad(part, values).reshape(-1, values.shape[-1])
        hand = self._hand(part)
        found = np.empty((len(rad), 10))
        for row, joints in enumerate(rad):
            pose = hand.tcp(joints)
            found[row, :9] = pose[:3, [3, 0, 1]].T.reshape(-1)
        found[:, 9] = values.reshape(-1, values.shape[-1])[:, -1]
        return found.reshape(*values.shape[:-1], 10)

    def _hand(self, part: LayoutPart) -> Kinematics:
        arm = part.arm
        if arm not in self._hands:
            known = self.units[arm].model if arm in self.units else model_of(part.names)
            self._hands[arm] = Kinematics.for_arm(model=known or KOCH_V1_1)
        return self._hands[arm]

    def _part_rad(self, part: LayoutPart, values: Array) -> Array:
        if self.kind is Units.RADIANS:
            return np.array(values, np.float64)
        return self.units[part.arm].to_rad(self.kind, values)

    def _to_rad(self, values: Array) -> Array:
        if self.kind is Units.RADIANS:
            return values
        return self.layout.to_rad(self.units, self.kind, values)

    @property
    def _posed(self) -> tuple[LayoutPart, ...]:
        """Where each arm's pose is."""
        return self._resized(10)

    @property
    def _coded(self) -> tuple[LayoutPart, ...]:
        """Where each arm's part of a vector is."""
        return self._resized(10 if self.space.rotation is RotationForm.SIXD else 8)

    def _resized(self, width: int) -> tuple[LayoutPart, ...]:
        if not self.space.is_tcp:
            return self.layout.parts
        named = ((p.arm, [""] * width if p.arm else p.names) for p in self.layout.parts)
        return ActionLayout.of(named).parts

    @staticmethod
    def _by_part(
        parts: tuple[LayoutPart, ...],
        convert: Callable[[LayoutPart, Array], Array],
        values: NDArray[Any],
    ) -> Array:
        """Convert each arm's columns; other numbers stay."""
        whole = np.asarray(values, np.float64)
        done = [
            convert(part, whole[..., part.columns]) if part.arm else whole[..., part.columns]
            for part in parts
        ]
        return done[0] if len(done) == 1 else np.concatenate(done, axis=-1)


def _plain(name: str) -> str:
    return name.removesuffix(".pos")


def _why_not(position_m: float, rotation_rad: float, step: Array) -> str:
    """Why a solution is none; empty when it is one."""
    if not position_m <= _REACH_M:
        return f"the nearest it gets is {1e3 * position_m:.1f} mm away"
    if not rotation_rad <= _REACH_RAD:
        return f"the nearest direction there is {np.degrees(rotation_rad):.0f} degrees off"
    largest = float(np.abs(step[:-1]).max())
    if largest > _LARGEST_STEP_RAD:
        return f"a joint would turn by {np.degrees(largest):.0f} degrees from one row to the next"
    return ""


def _difference(joints: Array, reference: Array, space: ActionSpace) -> Array:
    """Joints (..., T, J) from a pose (..., 1, J); the gripper, the last one, stays."""
    if not space.is_relative:
        return joints
    return np.concatenate([joints[..., :-1] - reference[..., :-1], joints[..., -1:]], axis=-1)


def _related(poses: Array, reference: Array, space: ActionSpace) -> Array:
    """Poses (..., T, 10) from one (..., 1, 10), as the space writes them."""
    position, turn = poses[..., :3], rotations(poses[..., 3:9])
    if space.is_relative:
        back = np.swapaxes(rotations(reference[..., 3:9]), -1, -2)
        position = position - reference[..., :3]
        if space.relation is Relation.IN_TCP:
            position = (back @ position[..., None])[..., 0]
            turn = back @ turn
        else:
            turn = turn @ back
    written = (
        np.concatenate([turn[..., 0], turn[..., 1]], axis=-1)
        if space.rotation is RotationForm.SIXD
        else quaternions_along(turn)
    )
    return np.concatenate([position, written, poses[..., 9:]], axis=-1)


def _transforms(vectors: Array, reference: Array, space: ActionSpace) -> Array:
    """The hand's poses (T, 4, 4) that vectors (T, W) mean; the inverse of `_related`."""
    position = vectors[:, :3]
    if space.rotation is RotationForm.SIXD:
        turn = rotations(vectors[:, 3:9])
    else:
        turn = np.stack([matrix_from_quaternion(each) for each in vectors[:, 3:7]])
    if space.is_relative:
        start = rotations(reference[3:9])
        if space.relation is Relation.IN_TCP:
            position = position @ start.T
            turn = start @ turn
        else:
            turn = turn @ start
        position = position + reference[:3]
    found = np.zeros((len(vectors), 4, 4))
    found[:, :3, :3], found[:, :3, 3], found[:, 3, 3] = turn, position, 1.0
    return found


def rotations(sixd: NDArray[Any]) -> Array:
    """6D rotations (..., 6) -> matrices (..., 3, 3) by Gram-Schmidt.

    Raises:
        GeometryError: Two columns are zero or parallel, so that no rotation is near.
    """
    first, second = sixd[..., :3], sixd[..., 3:6]
    length = np.linalg.norm(first, axis=-1, keepdims=True)
    x = first / np.where(length < 1e-9, 1.0, length)
    rest = second - (x * second).sum(-1, keepdims=True) * x
    rest_length = np.linalg.norm(rest, axis=-1, keepdims=True)
    bad = np.argwhere(~((length >= 1e-9) & (rest_length >= 1e-9)).reshape(-1))
    if len(bad):
        what = f"6D rotation of row {int(bad[0, 0])}"
        raise GeometryError(what, got="zero or parallel columns", expected="two directions")
    y = rest / rest_length
    return np.stack([x, y, np.cross(x, y)], axis=-1)


def quaternions_along(turns: Array) -> Array:
    """Matrices (..., T, 3, 3) -> quaternions (x, y, z, w) (..., T, 4) of one sign along T.

    The first one has w >= 0.
    """
    flat = turns.reshape(-1, 3, 3)
    found = np.array([quaternion_from_matrix(each) for each in flat])
    found = found.reshape(*turns.shape[:-2], 4)
    agree = np.where((found[..., 1:, :] * found[..., :-1, :]).sum(-1) < 0.0, -1.0, 1.0)
    found[..., 1:, :] *= np.cumprod(agree, axis=-1)[..., None]
    return found
