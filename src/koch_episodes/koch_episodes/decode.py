# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""From message contents to named vectors, live and offline alike; quaternions get one sign."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from koch_core.errors import DecodeError
from koch_rig.arm_model import KOCH_V1_1
from koch_rig.joints import model_of, plain_joints
from koch_rig.stream import COMPRESSED_IMAGE, JOINT_STATE, NAMED_VECTOR

Vector = npt.NDArray[np.float64]
Table = npt.NDArray[np.float64]

_WEIGHTS = np.array([1.0, 2.0, 4.0, 8.0])  # of a quaternion's elements, see `continuous`


class NamedValues(NamedTuple):
    """A vector as a message has it: joint positions [rad], or another named vector.

    Attributes:
        names: Of the elements.
        values: The elements.
        speeds: Joint speeds [rad/s], where they are wanted and measured.
    """

    names: Sequence[str]
    values: Sequence[float]
    speeds: Sequence[float] = ()


def joint_vector(
    names: Sequence[str], values: Sequence[float], wanted: Sequence[str] | None = None
) -> Vector:
    """Pick joint values by name.

    Args:
        names: Joint names of the message, any order; an arm's with or without a prefix.
        values: Values in the order of `names` (position, velocity or effort), SI units.
        wanted: Names in the order of the result; None: the joints of the arm model that the
            message's are, a Koch's where they are of none.

    Returns:
        float64, shape (wanted,).

    Raises:
        DecodeError: A wanted joint is missing or there twice, the lengths differ, or a value is
            not finite.
    """
    if len(names) != len(values):
        raise DecodeError("joint state", f"{len(names)} names but {len(values)} values")
    if wanted is None:
        wanted = (model_of(names) or KOCH_V1_1).joints
    names = plain_joints(names, joints=wanted)
    if tuple(names) == tuple(wanted):
        vector = np.asarray(values, dtype=np.float64)
    else:
        place = {name: index for index, name in enumerate(names)}
        if twice := named_twice(names, wanted):
            raise DecodeError("joint state", f"{twice} named twice among {list(names)}")
        missing = [name for name in wanted if name not in place]
        if missing:
            raise DecodeError(
                "joint state", f"joint(s) {', '.join(missing)} missing among {list(names)}"
            )
        vector = np.array([values[place[name]] for name in wanted], dtype=np.float64)
    if not np.isfinite(vector).all():
        broken = [n for n, good in zip(wanted, np.isfinite(vector), strict=True) if not good]
        raise DecodeError("joint state", f"value not finite: {', '.join(broken)}")
    return vector


def named_twice(names: Sequence[str], wanted: Sequence[str] | None = None) -> str:
    """Return the first name that is there twice (and wanted), empty where there is none."""
    seen: set[str] = set()
    for name in names:
        if name in seen and (wanted is None or name in wanted):
            return name
        seen.add(name)
    return ""


def _xyz(message: Any) -> list[float]:
    return [message.x, message.y, message.z]


def _twist(message: Any) -> list[float]:
    return [*_xyz(message.linear), *_xyz(message.angular)]


def _pose(message: Any) -> list[float]:
    turn = message.orientation
    return [*_xyz(message.position), turn.x, turn.y, turn.z, turn.w]


_POSE = ("x", "y", "z", "qx", "qy", "qz", "qw")
_TWIST = ("vx", "vy", "vz", "wx", "wy", "wz")
_WRENCH = ("fx", "fy", "fz", "tx", "ty", "tz")

# Message type to (element names, reader); a number of names of 0 means: as many as come.
_VECTORS: dict[str, tuple[tuple[str, ...], Callable[[Any], Sequence[float]]]] = {
    "geometry_msgs/msg/Pose": (_POSE, _pose),
    "geometry_msgs/msg/PoseStamped": (_POSE, lambda m: _pose(m.pose)),
    "geometry_msgs/msg/Twist": (_TWIST, _twist),
    "geometry_msgs/msg/TwistStamped": (_TWIST, lambda m: _twist(m.twist)),
    "geometry_msgs/msg/Wrench": (_WRENCH, lambda m: [*_xyz(m.force), *_xyz(m.torque)]),
    "geometry_msgs/msg/WrenchStamped": (
        _WRENCH,
        lambda m: [*_xyz(m.wrench.force), *_xyz(m.wrench.torque)],
    ),
    "geometry_msgs/msg/PointStamped": (("x", "y", "z"), lambda m: _xyz(m.point)),
    "geometry_msgs/msg/Vector3Stamped": (("x", "y", "z"), lambda m: _xyz(m.vector)),
    "std_msgs/msg/Float64MultiArray": ((), lambda m: list(m.data)),
    "std_msgs/msg/Float32MultiArray": ((), lambda m: list(m.data)),
    "std_msgs/msg/Float64": (("value",), lambda m: [m.data]),
    "std_msgs/msg/Float32": (("value",), lambda m: [m.data]),
}
NAMED_TYPES = (JOINT_STATE, NAMED_VECTOR)
IMAGE_TYPES = ("sensor_msgs/msg/Image", COMPRESSED_IMAGE)
VECTOR_TYPES = (*NAMED_TYPES, *_VECTORS)


def given_names(names: Sequence[str], count: int) -> tuple[str, ...]:
    """Return the names of a message's elements: ``value_0`` and so on where it has none."""
    return tuple(str(name) for name in names) or tuple(f"value_{k}" for k in range(count))


def message_elements(
    message_type: str, message: Any, field: str = "position"
) -> tuple[tuple[str, ...], Vector]:
    """Return names and values of a message of one of VECTOR_TYPES; names empty where it has none.

    Args:
        message_type: ROS type name, ``pkg/msg/Name``.
        message: rclpy or rosbags message.
        field: For JointState: ``position``, ``velocity`` or ``effort``.
    """
    if message_type in NAMED_TYPES:
        values = message.value if hasattr(message, "value") else getattr(message, field)
        return tuple(map(str, message.name)), np.asarray(values, dtype=np.float64)
    names, read = _VECTORS[message_type]
    return names, np.asarray(read(message), dtype=np.float64)


def _joint_state(message: Any) -> NamedValues:
    return NamedValues(message.name, message.position)


def _named_vector(message: Any) -> NamedValues:
    return NamedValues(message.name, message.value)


_SAMPLES: dict[str, Callable[[Any], Any]] = {
    COMPRESSED_IMAGE: lambda message: message.data,
    JOINT_STATE: _joint_state,
    NAMED_VECTOR: _named_vector,
}


def sample_reader(message_type: str) -> Callable[[Any], Any]:
    """Return what takes a stream's sample out of its messages, from rclpy or rosbags.

    Images stay compressed: they are decoded where a frame needs them. Types are those of
    `koch_rig.stream.content_of`.
    """
    return _SAMPLES[message_type]


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
