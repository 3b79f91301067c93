# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Messages as bytes, made without ROS."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from koch_core.stream import NS_PER_S
from koch_episodes.bag.storage import EVENTS_TYPE, Topic
from koch_rig.stream import COMPRESSED_IMAGE, JOINT_STATE, NAMED_VECTOR

CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
STRING = "std_msgs/msg/String"
TRANSFORMS = "tf2_msgs/msg/TFMessage"
_HEADER = "std_msgs/msg/Header"
# Of koch_interfaces, so that bags can be written where that is not installed; a test compares.
_OURS = {
    NAMED_VECTOR: "std_msgs/Header header\nstring[] name\nfloat64[] value\n",
    EVENTS_TYPE: (
        "uint8 START=0\nuint8 STOP=1\nuint8 DISCARD=2\nuint8 INTERVENTION_BEGIN=3\n"
        "uint8 INTERVENTION_END=4\nuint8 LABEL=5\nuint8 UNDO=6\nstd_msgs/Header header\n"
        "uint8 kind\nuint32 episode_index\nstring task\nstring outcome\nstring detail\n"
    ),
}


@dataclass(frozen=True)
class CameraInfo:
    """What a CameraInfo says apart from its header; names as there.

    Attributes:
        roi: x_offset, y_offset, height, width.
    """

    height: int
    width: int
    distortion_model: str
    d: tuple[float, ...]
    k: tuple[float, ...]
    r: tuple[float, ...]
    p: tuple[float, ...]
    binning: tuple[int, ...] = (0, 0)
    roi: tuple[int, ...] = (0, 0, 0, 0)
    do_rectify: bool = False

    @property
    def is_calibrated(self) -> bool:
        """Whether it says anything: ROS writes a zero for an unknown focal length."""
        return all(map(math.isfinite, (*self.d, *self.k, *self.r, *self.p))) and self.k[0] > 0

    @classmethod
    def of_message(cls, message: Any) -> CameraInfo:
        """What a message says."""
        numbers = {key: tuple(map(float, getattr(message, key))) for key in ("d", "k", "r", "p")}
        roi = message.roi
        return cls(
            int(message.height),
            int(message.width),
            str(message.distortion_model),
            **numbers,
            binning=(int(message.binning_x), int(message.binning_y)),
            roi=(int(roi.x_offset), int(roi.y_offset), int(roi.height), int(roi.width)),
            do_rectify=bool(roi.do_rectify),
        )


class MessageMaker:
    """Serialises messages and describes their topics."""

    def __init__(self) -> None:
        self._store = get_typestore(Stores.ROS2_JAZZY)
        for kind, text in _OURS.items():
            self._store.register(get_types_from_msg(text, kind))

    def topic(self, name: str, kind: str) -> tuple[Topic, str]:
        """Describe a topic: name, type and definition; and the hash of its type."""
        text, _ = self._store.generate_msgdef(kind, ros_version=2)
        return Topic(name, kind, text, "ros2msg"), str(self._store.hash_rihs01(kind))

    def joint_state(
        self, stamp_ns: int, names: Sequence[str], **fields: npt.NDArray[np.float64]
    ) -> bytes:
        """A JointState; `fields` are any of position, velocity and effort."""
        none = np.zeros(0)
        values = [fields.get(field, none) for field in ("position", "velocity", "effort")]
        return self._bytes(JOINT_STATE, self._header(stamp_ns), list(names), *values)

    def named_vector(
        self, stamp_ns: int, names: Sequence[str], values: npt.NDArray[np.float64]
    ) -> bytes:
        """A NamedVector of koch_interfaces."""
        return self._bytes(NAMED_VECTOR, self._header(stamp_ns), list(names), values)

    def image(self, stamp_ns: int, data: bytes, form: str, frame: str = "") -> bytes:
        """A CompressedImage; `form` is ``jpeg`` or ``png``."""
        pixels = np.frombuffer(data, np.uint8)
        return self._bytes(COMPRESSED_IMAGE, self._header(stamp_ns, frame), form, pixels)

    def camera_info(self, stamp_ns: int, info: CameraInfo, frame: str = "") -> bytes:
        """A CameraInfo."""
        x, y, height, width = info.roi
        roi = self._store.types["sensor_msgs/msg/RegionOfInterest"](
            x, y, height, width, info.do_rectify
        )
        numbers = (np.array(values, np.float64) for values in (info.d, info.k, info.r, info.p))
        return self._bytes(
            CAMERA_INFO, self._header(stamp_ns, frame), info.height, info.width,
            info.distortion_model, *numbers, *info.binning, roi,
        )  # fmt: skip

    def text(self, text: str) -> bytes:
        """A String."""
        return self._bytes(STRING, text)

    def event(self, stamp_ns: int, kind: int, index: int, task: str, outcome: str) -> bytes:
        """An EpisodeEvent of koch_interfaces."""
        return self._bytes(EVENTS_TYPE, self._header(stamp_ns), kind, index, task, outcome, "")

    def fixed_frames(self, stamp_ns: int, urdfs: Iterable[str]) -> bytes:
        """The transforms of all joints that are fixed, as robot_state_publisher sends them."""
        joints = [
            joint
            for urdf in urdfs
            for joint in ElementTree.fromstring(urdf).iter("joint")
            if joint.get("type") == "fixed"
        ]
        return self._bytes(TRANSFORMS, [self._transform(stamp_ns, joint) for joint in joints])

    def moving_frames(
        self, stamp_ns: int, joints: Iterable[ElementTree.Element], angles: Mapping[str, float]
    ) -> bytes:
        """The transforms of revolute joints at some angles [rad], by the joints' names."""
        moved = [(joint, angles[str(joint.get("name"))]) for joint in joints]
        found = [self._transform(stamp_ns, joint, angle) for joint, angle in moved]
        return self._bytes(TRANSFORMS, found)

    def _transform(self, stamp_ns: int, joint: ElementTree.Element, angle: float = 0.0) -> Any:
        types = self._store.types
        origin, ends = joint.find("origin"), [joint.find(end) for end in ("parent", "child")]
        parent, child = ("" if end is None else str(end.get("link")) for end in ends)
        xyz, rpy = (
            [float(word) for word in ("" if origin is None else origin.get(key, "")).split()]
            or [0.0, 0.0, 0.0]
            for key in ("xyz", "rpy")
        )
        return types["geometry_msgs/msg/TransformStamped"](
            self._header(stamp_ns, parent),
            child,
            types["geometry_msgs/msg/Transform"](
                types["geometry_msgs/msg/Vector3"](*xyz),
                types["geometry_msgs/msg/Quaternion"](*_turned(_quaternion(*rpy), joint, angle)),
            ),
        )

    def _header(self, stamp_ns: int, frame: str = "") -> Any:
        types = self._store.types
        stamp = types["builtin_interfaces/msg/Time"](stamp_ns // NS_PER_S, stamp_ns % NS_PER_S)
        return types[_HEADER](stamp, frame)

    def _bytes(self, kind: str, *fields: Any) -> bytes:
        return bytes(self._store.serialize_cdr(self._store.types[kind](*fields), kind))


def revolute_joints(urdf: str) -> list[ElementTree.Element]:
    """The joints of a description that turn."""
    kinds = ("revolute", "continuous")
    return [j for j in ElementTree.fromstring(urdf).iter("joint") if j.get("type") in kinds]


Quaternion = tuple[float, float, float, float]


def _turned(fixed: Quaternion, joint: ElementTree.Element, angle: float) -> Quaternion:
    """The rotation of a joint's origin, followed by that about its axis."""
    if not angle:
        return fixed
    axis = joint.find("axis")  # URDF's default is x
    words = "1 0 0" if axis is None else axis.get("xyz", "1 0 0")
    x, y, z = (float(word) for word in words.split())
    scale = math.sin(angle / 2) / math.sqrt(x * x + y * y + z * z)
    bx, by, bz, bw = x * scale, y * scale, z * scale, math.cos(angle / 2)
    ax, ay, az, aw = fixed
    return (
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
        aw * bw - ax * bx - ay * by - az * bz,
    )


def _quaternion(roll: float, pitch: float, yaw: float) -> tuple[float, float, float, float]:
    """Return x, y, z, w of URDF's fixed-axis angles, [rad]."""
    (cr, sr), (cp, sp), (cy, sy) = (
        (math.cos(angle / 2), math.sin(angle / 2)) for angle in (roll, pitch, yaw)
    )
    return (
        sr * cp * cy - cr * sp * sy,
        cr * sp * cy + sr * cp * sy,
        cr * cp * sy - sr * sp * cy,
        cr * cp * cy + sr * sp * sy,
    )
